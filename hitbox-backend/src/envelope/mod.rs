//! The value in flight. [`Raw`] holds encoded bytes with the codec that made them, or a live value
//! that is encoded on demand; any layer can hand it to any other, and whoever wants a `T` decodes it.
//!
//! Invariants: a value is encoded at most once per codec per write ([`Encodings`]); bytes are decoded at
//! most once per envelope, and the result is remembered in it; a value read as another type goes through
//! its encoded form, and what does not fit is an error, which readers treat as a miss.

pub(crate) mod attributes;
mod encoded;
mod live;
mod size;
pub mod wire;

use std::fmt::{self, Debug};
use std::sync::Arc;

use bytes::Bytes;
use hitbox_core::BackendResult;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, Format};
use crate::leaf::Leaf;

use encoded::EncodedCell;
pub use encoded::{Encoded, Encodings};
use live::{Content, LiveCell};

/// What a cached value may be.
pub trait Cacheable: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Cacheable for T {}

/// A value on its way through layers. Cloning shares it.
#[derive(Clone)]
pub struct Raw(Arc<dyn Content>);

impl Raw {
    /// An envelope around a live value.
    pub fn live<T: Cacheable>(value: T) -> Self {
        Self(Arc::new(LiveCell(value)))
    }

    /// An envelope around bytes. `origin` is the leaf they were read from; it is told how long decoding
    /// takes.
    pub fn encoded(encoded: Encoded, origin: Option<Leaf>) -> Self {
        Self(Arc::new(EncodedCell::new(encoded, origin)))
    }

    /// The value as a `T`, sharing what can be shared: a live `Arc` or `Bytes` is a pointer copy.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`](hitbox_core::ErrorKind::Codec) if it is not a `T`.
    #[inline]
    pub fn decode<T: Cacheable>(&self) -> BackendResult<T> {
        match self.0.value().and_then(|value| value.downcast_ref::<T>()) {
            Some(value) => Ok(value.clone()),
            None => self.decode_anew(EncodedCell::decode),
        }
    }

    /// The same for an envelope that is not needed any more: nothing is remembered if nobody else holds
    /// it.
    ///
    /// # Errors
    /// As [`Raw::decode`].
    #[inline(always)]
    pub fn into_value<T: Cacheable>(self) -> BackendResult<T> {
        match self.0.value().and_then(|value| value.downcast_ref::<T>()) {
            Some(value) => Ok(value.clone()),
            None if Arc::strong_count(&self.0) == 1 => self.decode_anew(EncodedCell::decode_once),
            None => self.decode_anew(EncodedCell::decode),
        }
    }

    /// From bytes, or, if the value is live and of another type, through its encoded form.
    #[cold]
    fn decode_anew<T: Cacheable>(
        &self,
        decode: impl Fn(&EncodedCell) -> BackendResult<T>,
    ) -> BackendResult<T> {
        match self.0.encoded() {
            Some(cell) => decode(cell),
            None => match self.0.encode(REREAD)? {
                (Format::Opaque, bytes) => live::decode_opaque(&bytes),
                (format, bytes) => format.decode(&bytes),
            },
        }
    }

    /// The bytes of the value: as they are if it is encoded already, else made with `codec`, once per
    /// codec in `encodings`.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`](hitbox_core::ErrorKind::Codec) if the codec cannot express the value.
    pub fn to_encoded(
        &self,
        codec: &Codec,
        content_type: Option<&str>,
        encodings: &Encodings,
        meter: Option<&Leaf>,
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

/// The format in which a live value is read as another type.
const REREAD: Format = Format::Json;
