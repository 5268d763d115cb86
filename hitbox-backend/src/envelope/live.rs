//! What an envelope points to: a live value, or bytes with the memory of their decoding.

use std::any::{Any, TypeId};
use std::sync::Arc;

use bytes::Bytes;
use hitbox_core::{BackendError, BackendResult, ErrorKind};

use super::encoded::EncodedCell;
use super::{Cacheable, deferred};
use crate::codec::{Format, TypeTag};

/// Behind the envelope's one pointer.
pub(super) trait Content: Any + Send + Sync {
    /// The live value, if there is one by now.
    fn value(&self) -> Option<&dyn Any>;

    /// The bytes, unless the value came live.
    fn encoded(&self) -> Option<&EncodedCell>;

    /// A stored record that nobody has looked into, or why there is nothing to look into.
    fn stored(&self) -> Option<Result<&Bytes, Unusable>> {
        None
    }

    /// Bytes of a live value, and the format that they are in: this one, or opaque for what is bytes already.
    fn encode(&self, format: Format) -> BackendResult<(Format, Bytes)>;

    /// The identity of the record that the value becomes, if that is given.
    fn identity(&self) -> Option<u64> {
        None
    }

    /// What type the value is of, in a format.
    fn type_tag(&self, format: Format) -> TypeTag;

    /// Bytes that it takes in memory, estimated.
    fn weight(&self) -> u64;

    /// Bytes of a live value whose size is known without counting: of texts and bytes.
    fn known_len(&self) -> Option<u64> {
        None
    }
}

/// A live value, which is there until the cell is dropped.
pub(super) struct LiveCell<T>(Option<T>);

impl<T> LiveCell<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(Some(value))
    }

    #[inline]
    pub(super) const fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Drop for LiveCell<T> {
    fn drop(&mut self) {
        deferred::contain(self.0.take());
    }
}

impl<T: Cacheable> Content for LiveCell<T> {
    fn value(&self) -> Option<&dyn Any> {
        self.get().map(|value| value as &dyn Any)
    }

    fn encoded(&self) -> Option<&EncodedCell> {
        None
    }

    fn encode(&self, format: Format) -> BackendResult<(Format, Bytes)> {
        let Some(value) = self.get() else { return Err(another_type::<T>()) };
        match (value as &dyn Any).downcast_ref::<Bytes>() {
            Some(bytes) => Ok((Format::Opaque, bytes.clone())),
            None => Ok((format, value.encode(format)?.into())),
        }
    }

    fn type_tag(&self, format: Format) -> TypeTag {
        T::type_tag(format)
    }

    fn weight(&self) -> u64 {
        self.get().map_or(0, T::size)
    }

    fn known_len(&self) -> Option<u64> {
        let value = self.value()?;
        let of_text = || value.downcast_ref::<String>().map(String::len);
        let of_vec = || value.downcast_ref::<Vec<u8>>().map(Vec::len);
        let of_shared = || value.downcast_ref::<Arc<str>>().map(|text| text.len());
        let of_bytes = value.downcast_ref::<Bytes>().map(Bytes::len);
        of_bytes.or_else(of_text).or_else(of_vec).or_else(of_shared).map(|len| len as u64)
    }
}

/// Opaque bytes as a `T`, if that is what a `T` is.
pub(super) fn decode_opaque<T: Cacheable>(bytes: &Bytes) -> BackendResult<T> {
    fn taken<T: 'static>(mut value: Option<impl Any>) -> Option<T> {
        (&mut value as &mut dyn Any).downcast_mut::<Option<T>>()?.take()
    }
    let is_list = TypeId::of::<T>() == TypeId::of::<Vec<u8>>();
    let value = if is_list { taken(Some(bytes.to_vec())) } else { taken(Some(bytes.clone())) };
    value.ok_or_else(another_type::<T>)
}

/// A value of another type than the one that is asked for.
pub(super) fn another_type<T>() -> BackendError {
    let message = format!("the stored value is no {}", std::any::type_name::<T>());
    BackendError::new(ErrorKind::Codec, message)
}

/// Why stored bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unusable {
    /// They are ours and have been changed. They may be removed.
    Damaged,
    /// They are not ours, or need a newer release, another schema or another build. They are left as they are.
    Foreign,
    /// A body that is larger than what the leaf hands out as a whole. It is left as it is, and can be read by chunks.
    TooLarge,
}

/// What a store of bytes has under a key.
pub(super) struct StoredCell(pub(super) Result<Bytes, Unusable>);

impl Content for StoredCell {
    fn value(&self) -> Option<&dyn Any> {
        None
    }

    fn encoded(&self) -> Option<&EncodedCell> {
        None
    }

    fn stored(&self) -> Option<Result<&Bytes, Unusable>> {
        Some(self.0.as_ref().map_err(|why| *why))
    }

    fn type_tag(&self, _: Format) -> TypeTag {
        TypeTag::UNSAID
    }

    fn encode(&self, _: Format) -> BackendResult<(Format, Bytes)> {
        Err(BackendError::new(ErrorKind::Codec, "a stored record has no value before its leaf has read it"))
    }

    fn weight(&self) -> u64 {
        self.0.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }
}
