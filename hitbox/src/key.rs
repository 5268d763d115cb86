//! How keys are made of what applications have: numbers, texts, tuples, structs.

use std::borrow::Cow;

use hitbox_core::{CacheKey, CacheKeyBuilder};

/// Can be the key of an entry. Implemented for texts, integers, `bool`, `char`, options and tuples of these, for
/// [`CacheKey`] itself, and for structs by `#[derive(ToKey)]`.
///
/// Two keys of one cache are the same entry exactly if their parts render alike: `1_u8` and `1_u64` are one key,
/// `None` and `Some("")` are two.
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

impl<T: ToKey + ?Sized> ToKey for &T {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        (**self).add_to(key, name)
    }

    #[inline]
    fn to_key(&self, prefix: &str) -> Cow<'_, CacheKey> {
        (**self).to_key(prefix)
    }
}

impl<T: ToKey> ToKey for Option<T> {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        match self {
            Some(value) => value.add_to(key, name),
            None => key.flag(name),
        }
    }
}

impl ToKey for [u8] {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        key.part_bytes(name, self)
    }
}

impl ToKey for () {
    fn add_to(&self, key: CacheKeyBuilder, _: &str) -> CacheKeyBuilder {
        key
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
    str String Box<str> std::sync::Arc<str> Cow<'_, str> bool char
    i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize
    std::num::NonZeroU32 std::num::NonZeroU64
    std::net::IpAddr std::net::Ipv4Addr std::net::Ipv6Addr std::net::SocketAddr
}

/// The name of a part within a part.
#[doc(hidden)]
pub fn inner_name(outer: &str, inner: &str) -> String {
    if outer == "key" { inner.to_owned() } else { format!("{outer}.{inner}") }
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
