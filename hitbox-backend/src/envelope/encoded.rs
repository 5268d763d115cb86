//! Values as bytes, together with the codec that made them.

use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use hitbox_core::{BackendError, BackendResult, ErrorKind};
use smallvec::SmallVec;

use super::live::{self, Content};
use super::{Cacheable, deferred};
use crate::codec::{COMPRESSOR_NONE, Codec, Format, TypeTag, decompress};
use crate::leaf::LeafHandle;
use crate::stats::Event;

/// Bytes of a value and how they came to be.
#[derive(Clone)]
#[non_exhaustive]
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
    /// Tells the record from every other one, also under the same key.
    pub identity: u64,
    /// Says what the value is, so that it is not taken for another.
    pub(crate) type_tag: TypeTag,
}

impl Encoded {
    /// Bytes in this format, not compressed, of schema 0, as a record of their own. It does not say what type it is of: it
    /// is read as whatever fits.
    pub fn new(format: Format, bytes: Bytes) -> Self {
        let plain_len = bytes.len() as u64;
        // 0 is left for "none".
        let identity = fastrand::u64(1..);
        Self {
            format,
            compressor: COMPRESSOR_NONE,
            schema: 0,
            plain_len,
            bytes,
            identity,
            type_tag: TypeTag::UNSAID,
        }
    }

    /// The same of another schema version.
    #[must_use]
    pub fn with_schema(self, schema: u32) -> Self {
        Self { schema, ..self }
    }
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
    live: &dyn Content,
    codec: &Codec,
    content_type: Option<&str>,
    meter: Option<&LeafHandle>,
) -> BackendResult<Encoded> {
    let (format, plain) = LeafHandle::time(meter, |m| &m.serialize, || live.encode(codec.format))?;
    let plain_len = plain.len();
    let mut encoded = Encoded::new(format, plain).with_schema(codec.schema);
    encoded.type_tag = live.type_tag(format);
    encoded.identity = live.identity().unwrap_or(encoded.identity);
    if codec.compressor.id() == COMPRESSOR_NONE {
        return Ok(encoded);
    }
    let plain = &encoded.bytes;
    let count = |event, amount| {
        if let Some(leaf) = meter {
            leaf.count(event, amount);
        }
    };
    if codec.rules.wants(plain_len, content_type) {
        let packed = LeafHandle::time(meter, |m| &m.compress, || codec.compressor.compress(plain))?;
        if let Some(packed) = packed.filter(|packed| codec.rules.keeps(packed.len(), plain_len)) {
            encoded.compressor = codec.compressor.id();
            count(Event::CompressIn, plain_len as u64);
            count(Event::CompressOut, packed.len() as u64);
            encoded.bytes = packed.into();
            return Ok(encoded);
        }
    }
    count(Event::CompressSkipped, 1);
    Ok(encoded)
}

/// Bytes with the memory of their decoding.
pub(super) struct EncodedCell {
    encoded: Encoded,
    decoded: OnceLock<Box<dyn Any + Send + Sync>>,
    decoding: Mutex<()>,
    origin: Option<LeafHandle>,
}

impl EncodedCell {
    pub(super) fn new(encoded: Encoded, origin: Option<LeafHandle>) -> Self {
        Self { encoded, decoded: OnceLock::new(), decoding: Mutex::new(()), origin }
    }

    pub(super) fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    /// The value, which is remembered. One decode at a time: whoever waited finds the other's result.
    pub(super) fn decode<T: Cacheable>(&self) -> BackendResult<T> {
        let _decoding = self.decoding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.decoded.get().and_then(|value| value.downcast_ref::<T>()) {
            return Ok(value.clone());
        }
        let value: T = self.decode_once()?;
        // A cell that already remembers another type keeps it.
        let _ = self.decoded.set(Box::new(value.clone()));
        Ok(value)
    }

    /// The value, which is not remembered.
    pub(super) fn decode_once<T: Cacheable>(&self) -> BackendResult<T> {
        let meter = self.origin.as_ref();
        let Encoded { compressor, plain_len, bytes, format, type_tag, .. } = &self.encoded;
        if !type_tag.fits(T::type_tag(*format)) {
            return Err(live::another_type::<T>());
        }
        let decode = |plain: &Bytes| match format {
            Format::Opaque => live::decode_opaque(plain),
            format => T::decode(*format, plain),
        };
        if *compressor == COMPRESSOR_NONE {
            return LeafHandle::time(meter, |m| &m.deserialize, || decode(bytes));
        }
        let plain =
            LeafHandle::time(meter, |m| &m.decompress, || decompress(*compressor, bytes, *plain_len))?;
        LeafHandle::time(meter, |m| &m.deserialize, || decode(&plain))
    }
}

impl Drop for EncodedCell {
    fn drop(&mut self) {
        deferred::contain(self.decoded.take());
    }
}

impl Content for EncodedCell {
    fn value(&self) -> Option<&dyn Any> {
        self.decoded.get().map(|value| &**value as &dyn Any)
    }

    fn encoded(&self) -> Option<&EncodedCell> {
        Some(self)
    }

    fn type_tag(&self, _: Format) -> TypeTag {
        self.encoded.type_tag
    }

    /// Bytes are handed on as they are; this is never asked.
    fn encode(&self, format: Format) -> BackendResult<(Format, Bytes)> {
        let message = format!("a record in {:?} is not written again in {format:?}", self.encoded.format);
        Err(BackendError::new(ErrorKind::Codec, message))
    }

    /// What is stored, and as much again as it decodes to.
    fn weight(&self) -> u64 {
        self.encoded.bytes.len() as u64 + self.encoded.plain_len
    }
}
