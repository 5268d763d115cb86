//! What a cached value may be, and what becomes of it where bytes are stored.

use std::any::type_name;
use std::ops::Deref;

use hitbox_core::{BackendError, BackendResult, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::size;
use crate::codec::{Format, TypeTag};

/// What a cached value may be: whatever serde writes and reads, and in caches in memory alone a [`Live`] value of any type.
///
/// It is implemented for all of them, and cannot be implemented otherwise.
pub trait Cacheable: SerdeOrLive + Clone + Send + Sync + 'static {}

impl<T: SerdeOrLive + Clone + Send + Sync + 'static> Cacheable for T {}

/// How values become bytes. Nobody outside names it, but the compiler does when a type is neither.
pub trait SerdeOrLive: Sized {
    /// Whether such values never become bytes.
    const IS_LIVE: bool;

    fn encode(&self, format: Format) -> BackendResult<Vec<u8>>;

    fn decode(format: Format, bytes: &[u8]) -> BackendResult<Self>;

    /// What records say that they hold.
    fn type_tag(format: Format) -> TypeTag;

    /// Bytes that a value takes in memory, estimated.
    fn size(&self) -> u64;
}

impl<T: Serialize + DeserializeOwned + 'static> SerdeOrLive for T {
    const IS_LIVE: bool = false;

    fn encode(&self, format: Format) -> BackendResult<Vec<u8>> {
        format.encode(self)
    }

    fn decode(format: Format, bytes: &[u8]) -> BackendResult<Self> {
        format.decode(bytes)
    }

    fn type_tag(format: Format) -> TypeTag {
        TypeTag::of::<T>(format)
    }

    fn size(&self) -> u64 {
        size::of(self)
    }
}

/// A value that lives in this process and never becomes bytes: a compiled pattern, a client, an `Arc<dyn Trait>`. Caches in
/// memory alone hold it, whatever its type; it need not be serializable.
///
/// A `Cache<Live<T>>` over a layer that stores bytes is refused when it is built. Where backends are used without a `Cache`,
/// such a layer refuses each write with [`ErrorKind::Codec`], and the layers in memory have it. A memory that is bounded by
/// bytes counts the size of `T` itself, and nothing that it points to.
///
/// ```
/// use hitbox_backend::Live;
///
/// trait Greeter: Send + Sync {
///     fn greet(&self) -> String;
/// }
/// # struct English;
/// # impl Greeter for English {
/// #     fn greet(&self) -> String {
/// #         "hello".to_owned()
/// #     }
/// # }
/// let greeter: Live<std::sync::Arc<dyn Greeter>> = Live(std::sync::Arc::new(English));
/// assert_eq!(greeter.greet(), "hello");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Live<T>(pub T);

impl<T> Live<T> {
    /// The value itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Live<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> SerdeOrLive for Live<T> {
    const IS_LIVE: bool = true;

    fn encode(&self, _: Format) -> BackendResult<Vec<u8>> {
        Err(stays::<T>())
    }

    fn decode(_: Format, _: &[u8]) -> BackendResult<Self> {
        Err(stays::<T>())
    }

    fn type_tag(_: Format) -> TypeTag {
        TypeTag::UNSAID
    }

    fn size(&self) -> u64 {
        size_of::<T>() as u64
    }
}

fn stays<T>() -> BackendError {
    let message = format!("a live {} stays in memory: it cannot be stored as bytes", type_name::<T>());
    BackendError::new(ErrorKind::Codec, message)
}
