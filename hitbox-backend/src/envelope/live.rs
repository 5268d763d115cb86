//! What an envelope points to: a live value, or bytes with the memory of their decoding.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use hitbox_core::{BackendError, BackendResult, ErrorKind};

use super::encoded::EncodedCell;
use super::{Cacheable, REREAD, size};
use crate::codec::Format;

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

    /// Bytes that it takes in memory, estimated.
    fn weight(&self) -> u64;

    /// Bytes of a live value whose size is known without counting: of texts and bytes.
    fn known_len(&self) -> Option<u64> {
        None
    }
}

pub(super) struct LiveCell<T>(pub(super) T);

impl<T: Cacheable> Content for LiveCell<T> {
    fn value(&self) -> Option<&dyn Any> {
        Some(&self.0)
    }

    fn encoded(&self) -> Option<&EncodedCell> {
        None
    }

    fn encode(&self, format: Format) -> BackendResult<(Format, Bytes)> {
        match (&self.0 as &dyn Any).downcast_ref::<Bytes>() {
            Some(bytes) => Ok((Format::Opaque, bytes.clone())),
            None => Ok((format, format.encode(&self.0)?.into())),
        }
    }

    fn weight(&self) -> u64 {
        size::of(&self.0)
    }

    fn known_len(&self) -> Option<u64> {
        let value: &dyn Any = &self.0;
        let of_text = || value.downcast_ref::<String>().map(String::len);
        let of_vec = || value.downcast_ref::<Vec<u8>>().map(Vec::len);
        let of_shared = || value.downcast_ref::<Arc<str>>().map(|text| text.len());
        let of_bytes = value.downcast_ref::<Bytes>().map(Bytes::len);
        of_bytes.or_else(of_text).or_else(of_vec).or_else(of_shared).map(|len| len as u64)
    }
}

/// Opaque bytes as a `T`: as they are if that is what a `T` is, else by way of a format that says what they are.
pub(super) fn decode_opaque<T: Cacheable>(bytes: &Bytes) -> BackendResult<T> {
    let mut same = Some(bytes.clone());
    match (&mut same as &mut dyn Any).downcast_mut::<Option<T>>().and_then(Option::take) {
        Some(value) => Ok(value),
        None => REREAD.decode(&REREAD.encode(bytes)?),
    }
}

/// Why stored bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unusable {
    /// They are ours and have been changed. They may be removed.
    Damaged,
    /// They are not ours, or need a newer release, another schema or another build. They are left as they are.
    Foreign,
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

    fn encode(&self, _: Format) -> BackendResult<(Format, Bytes)> {
        Err(BackendError::new(ErrorKind::Codec, "a stored record has no value before its leaf has read it"))
    }

    fn weight(&self) -> u64 {
        self.0.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }
}
