//! The value in flight. [`Raw`] holds encoded bytes with the codec that made them, or a live value
//! that is encoded on demand; any layer can hand it to any other, and whoever wants a `T` decodes it.
//!
//! Invariants: a value is encoded at most once per codec per write ([`Encodings`]); bytes are decoded at
//! most once per envelope, and the result is remembered in it; a value of another type than the one asked for
//! is an error, which readers treat as a miss.

pub(crate) mod attributes;
mod cacheable;
mod chunks;
mod deferred;
mod encoded;
pub(crate) mod inspect;
mod live;
mod size;
pub mod wire;

use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::Arc;

use bytes::Bytes;
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};

use crate::codec::{Codec, Format};
use crate::leaf::LeafHandle;

pub use cacheable::{Cacheable, Live};
pub(crate) use chunks::{Chunks, GrowingChunks};
use chunks::{ChunksCell, SizeCell};
pub use deferred::DeferredDrops;
use encoded::EncodedCell;
pub use encoded::{Encoded, Encodings};
pub use inspect::{Inspection, Stored, Uninspectable};
pub use live::Unusable;
use live::{Content, LiveCell, StoredCell};

/// A value on its way through layers. Cloning shares it.
#[derive(Clone)]
pub struct Raw(Arc<dyn Content>);

impl Drop for Raw {
    #[inline]
    fn drop(&mut self) {
        deferred::dropping(&self.0);
    }
}

impl Raw {
    /// An envelope around a live value.
    pub fn live<T: Cacheable>(value: T) -> Self {
        Self(Arc::new(LiveCell::new(value)))
    }

    /// An envelope around bytes. `origin` is the leaf they were read from; it is told how long decoding
    /// takes.
    pub fn encoded(encoded: Encoded, origin: Option<LeafHandle>) -> Self {
        Self(Arc::new(EncodedCell::new(encoded, origin)))
    }

    /// An envelope around a body that came by chunks, of this generation. It is a value too, as bytes, which puts the chunks together.
    pub(crate) fn chunks(body: Chunks, generation: u64) -> Self {
        Self(Arc::new(ChunksCell(body, generation)))
    }

    /// What weighs as much as a body of this size, and has no value.
    pub(crate) fn size(bytes: u64) -> Self {
        Self(Arc::new(SizeCell(bytes)))
    }

    /// The chunks of a body that came by chunks.
    pub(crate) fn as_chunks(&self) -> Option<&Chunks> {
        let content: &dyn Any = &*self.0;
        content.downcast_ref::<ChunksCell>().map(|cell| &cell.0)
    }

    /// An entry that a store of bytes has: the bytes that [`to_record`](Self::to_record) made. The leaf finds out what
    /// they are.
    pub fn record(bytes: Bytes) -> CacheValue<Self> {
        CacheValue::new(Self(Arc::new(StoredCell(Ok(bytes)))))
    }

    /// What a store has under a key and knows to be no entry.
    pub fn unusable(why: Unusable) -> CacheValue<Self> {
        CacheValue::new(Self(Arc::new(StoredCell(Err(why)))))
    }

    /// The bytes under which a store of bytes stores an entry: see the [wire format](wire).
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the entry is not encoded, as those are that stores of bytes are given.
    pub fn to_record(key: &CacheKey, value: &CacheValue<Self>) -> BackendResult<Vec<u8>> {
        match value.data().as_encoded() {
            Some(encoded) => Ok(wire::encode(key, value, encoded)),
            None => Err(BackendError::new(ErrorKind::Codec, "a live value reached a store of bytes")),
        }
    }

    /// The bytes that [`record`](Self::record) was given; nothing for anything else.
    pub fn record_bytes(entry: &CacheValue<Self>) -> Option<Bytes> {
        entry.data().as_stored()?.ok().cloned()
    }

    /// What a store of bytes has answered and nobody has looked into.
    pub(crate) fn as_stored(&self) -> Option<Result<&Bytes, Unusable>> {
        self.0.stored()
    }

    /// Tells this value from others that were stored under its key: a record or a body by a number that it carries, another live
    /// value by its address, as long as somebody holds it.
    pub fn identity(&self) -> u64 {
        match self.as_encoded() {
            Some(encoded) => encoded.identity,
            None => self.0.identity().unwrap_or_else(|| Arc::as_ptr(&self.0).cast::<()>().addr() as u64),
        }
    }

    /// The live value, if there is one by now and it is a `T`.
    #[inline(always)]
    pub(crate) fn as_live<T: Cacheable>(&self) -> Option<&T> {
        // The usual case with one call through the table of methods instead of two.
        let content: &dyn Any = &*self.0;
        match content.downcast_ref::<LiveCell<T>>() {
            Some(cell) => cell.get(),
            None => self.0.value()?.downcast_ref(),
        }
    }

    /// The value as a `T`, sharing what can be shared: a live `Arc` or `Bytes` is a pointer copy.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if it is not a `T`.
    #[inline]
    pub fn decode<T: Cacheable>(&self) -> BackendResult<T> {
        match self.0.value().and_then(|value| value.downcast_ref::<T>()) {
            Some(value) => Ok(value.clone()),
            // Nothing is remembered if nobody else holds it.
            None if Arc::strong_count(&self.0) == 1 => self.decode_anew(EncodedCell::decode_once),
            None => self.decode_anew(EncodedCell::decode),
        }
    }

    /// From bytes; or, if the value is live behind another pointer than the one that is asked for, through its encoded
    /// form.
    #[cold]
    fn decode_anew<T: Cacheable>(
        &self,
        decode: impl Fn(&EncodedCell) -> BackendResult<T>,
    ) -> BackendResult<T> {
        if let Some(cell) = self.0.encoded() {
            return decode(cell);
        }
        if let Some(bytes) = self.0.value().and_then(|value| value.downcast_ref::<Bytes>()) {
            return live::decode_opaque(bytes);
        }
        let format = Format::default();
        if !self.0.type_tag(format).fits(T::type_tag(format)) {
            return Err(live::another_type::<T>());
        }
        match self.0.encode(format)? {
            (Format::Opaque, bytes) => live::decode_opaque(&bytes),
            (format, bytes) => T::decode(format, &bytes),
        }
    }

    /// The bytes of the value: as they are if it is encoded already, else made with `codec`, once per
    /// codec in `encodings`.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the codec cannot express the value.
    pub fn to_encoded(
        &self,
        codec: &Codec,
        content_type: Option<&str>,
        encodings: &Encodings,
        meter: Option<&LeafHandle>,
    ) -> BackendResult<Encoded> {
        match self.0.encoded() {
            Some(cell) => Ok(cell.encoded().clone()),
            None => encodings.get_or_make(codec, || encoded::make(&*self.0, codec, content_type, meter)),
        }
    }

    /// The encoded form, if that is what this envelope holds.
    pub fn as_encoded(&self) -> Option<&Encoded> {
        self.0.encoded().map(EncodedCell::encoded)
    }

    /// Bytes that the value takes in memory, estimated: counted by a serializer for live values; for
    /// encoded ones what is stored and as much again as it decodes to.
    pub fn weight(&self) -> u64 {
        self.0.weight()
    }

    /// Bytes of a live text or byte string, which are known without counting.
    pub(crate) fn known_len(&self) -> Option<u64> {
        self.0.known_len()
    }

    /// Whether two envelopes share one allocation.
    pub fn same_allocation(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_encoded() {
            None => f.write_str("Raw::Live"),
            Some(encoded) => write!(f, "Raw::Encoded({encoded:?})"),
        }
    }
}

/// Opaque bytes as a value that is encoded as it stands.
impl From<Bytes> for Raw {
    fn from(bytes: Bytes) -> Self {
        Self::live(bytes)
    }
}
