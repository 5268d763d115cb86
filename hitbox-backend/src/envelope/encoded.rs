//! Values as bytes, together with the codec that made them.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use hitbox_core::BackendResult;
use smallvec::SmallVec;

use super::live::{Live, LiveCell};
use super::{Cacheable, live};
use crate::codec::{COMPRESSOR_NONE, Codec, Format, decompress};
use crate::leaf::Leaf;

/// Bytes of a value and how they came to be.
#[derive(Clone)]
pub struct Encoded {
    /// The serialization format.
    pub format: Format,
    /// The id of the compressor; 0 is none.
    pub compressor: u16,
    /// The schema version of the leaf that wrote it.
    pub schema: u32,
    /// Bytes before compression.
    pub plain_len: u64,
    /// The bytes.
    pub bytes: Bytes,
}

impl Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{} {} bytes", self.format, self.compressor, self.bytes.len())
    }
}

/// What one write has encoded so far: layers with equal codecs share the result.
#[derive(Debug, Default)]
pub struct Encodings(Mutex<SmallVec<[(Codec, Encoded); 1]>>);

impl Encodings {
    pub(super) fn get_or_make(
        &self,
        codec: &Codec,
        make: impl FnOnce() -> BackendResult<Encoded>,
    ) -> BackendResult<Encoded> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, encoded)) = made.iter().find(|(known, _)| known == codec) {
            return Ok(encoded.clone());
        }
        let encoded = make()?;
        made.push((*codec, encoded.clone()));
        Ok(encoded)
    }
}

/// Serializes and, where the rules say so, compresses.
pub(super) fn make(
    live: &dyn Live,
    codec: &Codec,
    content_type: Option<&str>,
    meter: Option<&Leaf>,
) -> BackendResult<Encoded> {
    let plain = Leaf::time(meter, |m| &m.serialize, || live.encode(codec.format))?;
    let plain_len = plain.len();
    let mut encoded = Encoded {
        format: codec.format,
        compressor: COMPRESSOR_NONE,
        schema: codec.schema,
        plain_len: plain_len as u64,
        bytes: Bytes::new(),
    };
    if codec.compressor.id() != COMPRESSOR_NONE && codec.rules.wants(plain_len, content_type) {
        let packed = Leaf::time(meter, |m| &m.compress, || codec.compressor.compress(&plain))?;
        if let Some(packed) = packed.filter(|packed| codec.rules.keeps(packed.len(), plain_len)) {
            encoded.compressor = codec.compressor.id();
            encoded.bytes = packed.into();
            return Ok(encoded);
        }
    }
    encoded.bytes = plain.into();
    Ok(encoded)
}

/// Bytes with the memory of their decoding.
pub(super) struct EncodedCell {
    encoded: Encoded,
    decoded: OnceLock<Arc<dyn Live>>,
    decoding: Mutex<()>,
    origin: Option<Leaf>,
}

impl EncodedCell {
    pub(super) fn new(encoded: Encoded, origin: Option<Leaf>) -> Self {
        Self { encoded, decoded: OnceLock::new(), decoding: Mutex::new(()), origin }
    }

    pub(super) fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    pub(super) fn decode<T: Cacheable>(&self) -> BackendResult<T> {
        if let Some(value) = self.remembered() {
            return Ok(value);
        }
        // One decode at a time: whoever waited finds the other's result.
        let _decoding = self.decoding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.remembered() {
            return Ok(value);
        }
        let value: T = self.decode_bytes()?;
        // A cell that already remembers another type keeps it.
        let _ = self.decoded.set(Arc::new(LiveCell(value.clone())));
        Ok(value)
    }

    pub(super) fn into_value<T: Cacheable>(self) -> BackendResult<T> {
        match self.remembered() {
            Some(value) => Ok(value),
            None => self.decode_bytes(),
        }
    }

    fn remembered<T: Cacheable>(&self) -> Option<T> {
        let decoded: &dyn Live = &**self.decoded.get()?;
        decoded.as_any().is::<T>().then(|| live::read(decoded).ok()).flatten()
    }

    fn decode_bytes<T: Cacheable>(&self) -> BackendResult<T> {
        let meter = self.origin.as_ref();
        let Encoded { compressor, plain_len, bytes, format, .. } = &self.encoded;
        if *compressor == COMPRESSOR_NONE {
            return Leaf::time(meter, |m| &m.deserialize, || format.decode(bytes));
        }
        let plain = Leaf::time(meter, |m| &m.decompress, || decompress(*compressor, bytes, *plain_len))?;
        Leaf::time(meter, |m| &m.deserialize, || format.decode(&plain))
    }
}
