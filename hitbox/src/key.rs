//! How keys are made of what applications have: numbers, texts, tuples, structs.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_core::{CacheKey, CacheKeyBuilder};

/// Can be the key of an entry. Implemented for texts, numbers, `bool`, `char`, `Duration`, addresses, options, sequences and
/// tuples of these, for [`CacheKey`] itself, for structs and enums by `#[derive(ToKey)]`, and for whatever serde can
/// serialize by [`SerdeKey`](crate::SerdeKey).
///
/// Two values of one type that differ never have one key: `None`, `Some(None)` and `Some(Some(""))` are three. Values of
/// different types are one key if their parts render alike, as `1_u8` and `1_u64` do: one cache is for one kind of keys.
///
/// ```
/// use hitbox::ToKey;
/// assert_eq!(("user", 42).to_key("app").to_string(), "app:0:0=user:1=42");
/// assert_eq!("Ada".to_key("app").to_string(), "app:0:key=Ada");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key or a part of one",
    note = "derive it with `#[derive(ToKey)]`, or leave the argument out with `#[cached(…, skip(…))]`"
)]
pub trait ToKey: Send + Sync {
    /// Adds this as the part `name`, or as several whose names begin like that.
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder;

    /// The same for what an option holds, so that options of options differ.
    #[doc(hidden)]
    fn add_some_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        self.add_to(key, name)
    }

    /// The same for a sequence: how many there are, and each.
    #[doc(hidden)]
    fn add_all_to(all: &[Self], key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder
    where
        Self: Sized,
    {
        let key = key.part(&inner_name(name, "len"), all.len());
        all.iter()
            .enumerate()
            .fold(key, |key, (index, one)| one.add_to(key, &inner_name(name, &index.to_string())))
    }

    /// The key with this prefix, which is the name of the cache.
    fn to_key(&self, prefix: &str) -> Cow<'_, CacheKey> {
        Cow::Owned(self.add_to(CacheKey::builder(prefix), "key").build())
    }
}

/// A ready key is used as it is.
impl ToKey for CacheKey {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        key.part_bytes(name, self.as_encoded())
    }

    #[inline]
    fn to_key(&self, _: &str) -> Cow<'_, CacheKey> {
        Cow::Borrowed(self)
    }
}

macro_rules! pointers {
    ($($pointer:ty)*) => {$(
        impl<T: ToKey + ?Sized> ToKey for $pointer {
            fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
                (**self).add_to(key, name)
            }

            fn add_some_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
                (**self).add_some_to(key, name)
            }

            #[inline]
            fn to_key(&self, prefix: &str) -> Cow<'_, CacheKey> {
                (**self).to_key(prefix)
            }
        }
    )*};
}

pointers! { &T Box<T> Arc<T> }

impl<T: ToKey> ToKey for Option<T> {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        match self {
            Some(value) => value.add_some_to(key, name),
            None => key.flag(name),
        }
    }

    fn add_some_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        self.add_to(key, &inner_name(name, "some"))
    }
}

impl<T: ToKey> ToKey for [T] {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        T::add_all_to(self, key, name)
    }
}

impl<T: ToKey> ToKey for Vec<T> {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        T::add_all_to(self, key, name)
    }
}

impl<T: ToKey, const N: usize> ToKey for [T; N] {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        T::add_all_to(self, key, name)
    }
}

/// A sequence of bytes is one part.
impl ToKey for u8 {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        key.part(name, self)
    }

    fn add_all_to(all: &[Self], key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        key.part_bytes(name, all)
    }
}

/// Zeros of both signs are two keys; everything that is not a number is one.
macro_rules! floats {
    ($($type:ty)*) => {$(
        impl ToKey for $type {
            fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
                // The shortest text that reads back as the same number.
                key.part(name, format_args!("{self:?}"))
            }
        }
    )*};
}

floats! { f32 f64 }

/// In nanoseconds.
impl ToKey for Duration {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        key.part(name, self.as_nanos())
    }
}

/// A part without content. Every value adds a part at least: so no part of one value is taken for that of its neighbour.
impl ToKey for () {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        key.part(name, "")
    }
}

/// With the flow information, which its text leaves out.
impl ToKey for std::net::SocketAddr {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        match self {
            Self::V6(address) if address.flowinfo() != 0 => {
                key.part(name, format_args!("{self}+{}", address.flowinfo()))
            }
            _ => key.part(name, self),
        }
    }
}

macro_rules! by_display {
    ($($type:ty)*) => {$(
        impl ToKey for $type {
            fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
                key.part(name, self)
            }
        }
    )*};
}

by_display! {
    str String Cow<'_, str> bool char
    i8 i16 i32 i64 i128 isize u16 u32 u64 u128 usize
    std::num::NonZeroU8 std::num::NonZeroU16 std::num::NonZeroU32 std::num::NonZeroU64 std::num::NonZeroUsize
    std::num::NonZeroI32 std::num::NonZeroI64
    std::net::IpAddr std::net::Ipv4Addr std::net::Ipv6Addr
}

/// A type as a part of a key. All closures of a function have one name: they share nothing, and nothing is found again.
#[doc(hidden)]
pub fn type_part(name: &str) -> Cow<'_, str> {
    if !name.contains("{{closure}}") {
        return Cow::Borrowed(name);
    }
    static NEXT: AtomicU64 = AtomicU64::new(0);
    tracing::warn!(
        name,
        "a cached function is generic over a closure, which has no name: nothing is found again"
    );
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    Cow::Owned(format!("{name} {}.{unique}", std::process::id()))
}

/// The name of a part within a part.
#[doc(hidden)]
pub fn inner_name(outer: &str, inner: &str) -> String {
    // The parts of a whole key stand by themselves, but for one that is called as the whole is.
    if outer == "key" && inner != "key" { inner.to_owned() } else { format!("{outer}.{inner}") }
}

macro_rules! tuples {
    ($($($type:ident $index:tt)+;)+) => {$(
        impl<$($type: ToKey),+> ToKey for ($($type,)+) {
            fn add_to(&self, mut key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
                if name == "key" {
                    $(key = self.$index.add_to(key, stringify!($index));)+
                } else {
                    $(key = self.$index.add_to(key, &inner_name(name, stringify!($index)));)+
                }
                key
            }
        }
    )+};
}

tuples! {
    A 0;
    A 0 B 1;
    A 0 B 1 C 2;
    A 0 B 1 C 2 D 3;
    A 0 B 1 C 2 D 3 E 4;
    A 0 B 1 C 2 D 3 E 4 F 5;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7;
}
