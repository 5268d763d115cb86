//! Serialization formats. Each has an id that stands in the wire header, so that a record names the
//! format it was written in.

mod custom;
#[cfg(feature = "rkyv")]
mod rkyv;

use std::panic::{AssertUnwindSafe, catch_unwind};

use hitbox_core::{BackendError, BackendResult, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use custom::CustomFormat;

/// A serialization format for values.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Format {
    /// postcard: small, the cheapest for values of some fields, and specified byte by byte for readers in
    /// other languages. Positional, so a changed type needs a new schema version.
    #[default]
    Postcard,
    /// JSON: readable, and tolerant of added optional fields.
    Json,
    /// bitcode: the smallest for long lists of equal structs, at some 4,000 instructions per value.
    /// Positional too.
    #[cfg(feature = "bitcode")]
    Bitcode,
    /// An rkyv archive of the value's serde tree, validated before it is read.
    #[cfg(feature = "rkyv")]
    Rkyv,
    /// Bytes as they are. Values of type [`Bytes`](bytes::Bytes) are stored like this whatever the codec says:
    /// neither writing nor reading them copies them.
    Opaque,
    /// A format of the user's own.
    Custom(&'static dyn CustomFormat),
}

#[cfg(feature = "bitcode")]
const BITCODE: u16 = 1;
const JSON: u16 = 2;
const POSTCARD: u16 = 3;
#[cfg(feature = "rkyv")]
const RKYV: u16 = 4;
const OPAQUE: u16 = 5;

/// Set in the ids of formats that users bring.
const CUSTOM: u16 = 0x8000;

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Format {
    /// The id in the wire header: below 0x8000 for formats of this crate.
    pub fn id(self) -> u16 {
        match self {
            #[cfg(feature = "bitcode")]
            Self::Bitcode => BITCODE,
            Self::Json => JSON,
            Self::Postcard => POSTCARD,
            #[cfg(feature = "rkyv")]
            Self::Rkyv => RKYV,
            Self::Opaque => OPAQUE,
            Self::Custom(custom) => CUSTOM | custom.id(),
        }
    }

    /// The format with this id, if this build has it; `own` is what the leaf itself writes.
    pub(crate) fn with_id(id: u16, own: Self) -> Option<Self> {
        if own.id() == id {
            return Some(own);
        }
        match id {
            #[cfg(feature = "bitcode")]
            BITCODE => Some(Self::Bitcode),
            JSON => Some(Self::Json),
            OPAQUE => Some(Self::Opaque),
            POSTCARD => Some(Self::Postcard),
            #[cfg(feature = "rkyv")]
            RKYV => Some(Self::Rkyv),
            _ => custom::known(id & !CUSTOM).filter(|_| id & CUSTOM != 0).map(Self::Custom),
        }
    }

    /// Lets every leaf of the process read records in this format: refills carry them from leaf to leaf.
    pub(crate) fn make_known(self) {
        if let Self::Custom(format) = self {
            custom::make_known(format);
        }
    }

    /// The bytes of a value.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the value cannot be expressed in this format, or its `Serialize` panics.
    pub fn encode<T: Serialize>(self, value: &T) -> BackendResult<Vec<u8>> {
        unpanicked(|| self.encode_unguarded(value))
    }

    fn encode_unguarded<T: Serialize>(self, value: &T) -> BackendResult<Vec<u8>> {
        match self {
            #[cfg(feature = "bitcode")]
            Self::Bitcode => bitcode::serialize(value).map_err(failed),
            Self::Json => serde_json::to_vec(value).map_err(failed),
            Self::Postcard => postcard::to_stdvec(value).map_err(failed),
            #[cfg(feature = "rkyv")]
            Self::Rkyv => rkyv::encode(value).map_err(failed),
            Self::Opaque => Err(only_bytes()),
            Self::Custom(custom) => custom.encode(value).map_err(failed),
        }
    }

    /// The value of some bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the bytes are not a `T` in this format, or its `Deserialize` panics.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> BackendResult<T> {
        unpanicked(|| self.decode_unguarded(bytes))
    }

    fn decode_unguarded<T: DeserializeOwned>(self, bytes: &[u8]) -> BackendResult<T> {
        match self {
            #[cfg(feature = "bitcode")]
            Self::Bitcode => bitcode::deserialize(bytes).map_err(failed),
            Self::Json => serde_json::from_slice(bytes).map_err(failed),
            Self::Postcard => match postcard::take_from_bytes(bytes).map_err(failed)? {
                (value, []) => Ok(value),
                // A longer value is not the shorter one that it begins with.
                (_, rest) => Err(BackendError::new(
                    ErrorKind::Codec,
                    format!("the value ends {} bytes before its record", rest.len()),
                )),
            },
            #[cfg(feature = "rkyv")]
            Self::Rkyv => rkyv::decode(bytes).map_err(failed),
            Self::Opaque => Err(only_bytes()),
            Self::Custom(custom) => custom::decode(custom, bytes).map_err(failed),
        }
    }
}

/// What users' code does to a value. A panic of it harms nobody but this one value.
fn unpanicked<R>(work: impl FnOnce() -> BackendResult<R>) -> BackendResult<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message = format!("serde code of the value panicked: {}", text.unwrap_or("without a message"));
        Err(BackendError::new(ErrorKind::Codec, message))
    })
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
    BackendError::new(ErrorKind::Codec, "the value and its bytes do not fit").with_source(error)
}

fn only_bytes() -> BackendError {
    BackendError::new(ErrorKind::Codec, "only values of type Bytes are stored as they are")
}
