//! Serialization formats. Each has an id that stands in the wire header, so that a record names the
//! format it was written in.

mod custom;
#[cfg(feature = "rkyv")]
mod rkyv;
mod shape;
mod strict;
mod types;

use std::any::Any;

use hitbox_core::{BackendError, BackendResult, ErrorKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

pub use custom::CustomFormat;
use strict::{NestedOptions, Rules, StrictDeserializer, StrictValue};
pub(crate) use types::TypeTag;

/// A serialization format for values.
///
/// Every record says which type it is of, and is a miss for any other. In a format with names a type may change: fields
/// may be added (with a default), removed and reordered. In a positional format a record says the shape of its type too,
/// and is a miss for every other shape.
///
/// Values are nested 256 levels at most. What is said here of formats is not checked for a format of the user's own.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Format {
    /// MessagePack with the names of fields and variants. It carries everything that serde's derives produce.
    ///
    /// An option or unit directly within an option is an extension of type 83, since MessagePack has one `nil` for all of
    /// them.
    #[default]
    MessagePack,
    /// postcard: small, the cheapest for values of some fields, and specified byte by byte for readers in
    /// other languages. Positional. It does not carry flattened, untagged and internally tagged types, nor fields that are
    /// skipped. With the feature `postcard`.
    #[cfg(feature = "postcard")]
    Postcard,
    /// JSON: readable, with names. It refuses what it would make `null` of: numbers that are not finite, and options and
    /// units directly within an option. With the feature `json`.
    #[cfg(feature = "json")]
    Json,
    /// bitcode: the smallest for long lists of equal structs, at some 4,000 instructions per value.
    /// Positional, with the limits of postcard.
    #[cfg(feature = "bitcode")]
    Bitcode,
    /// An rkyv archive of the value's serde tree, with names, validated before it is read. It refuses options and units
    /// directly within an option.
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
#[cfg(feature = "json")]
const JSON: u16 = 2;
#[cfg(feature = "postcard")]
const POSTCARD: u16 = 3;
#[cfg(feature = "rkyv")]
const RKYV: u16 = 4;
const OPAQUE: u16 = 5;
const MESSAGE_PACK: u16 = 6;

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
            #[cfg(feature = "json")]
            Self::Json => JSON,
            Self::MessagePack => MESSAGE_PACK,
            #[cfg(feature = "postcard")]
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
            #[cfg(feature = "json")]
            JSON => Some(Self::Json),
            MESSAGE_PACK => Some(Self::MessagePack),
            OPAQUE => Some(Self::Opaque),
            #[cfg(feature = "postcard")]
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
    /// [`ErrorKind::Codec`] if the value cannot be expressed in this format, would be read back as another value, or its
    /// `Serialize` panics.
    pub fn encode<T: Serialize + DeserializeOwned + 'static>(self, value: &T) -> BackendResult<Vec<u8>> {
        unpanicked(|| self.encode_unguarded(value))
    }

    fn encode_unguarded<T: Serialize + DeserializeOwned + 'static>(
        self,
        value: &T,
    ) -> BackendResult<Vec<u8>> {
        // MessagePack has something shorter for them than a list of numbers.
        let list_of_bytes = (value as &dyn Any).downcast_ref::<Vec<u8>>();
        let rules = self.rules::<T>();
        if rules.shape.is_some_and(|shape| !shape.is_whole()) {
            let message = format!(
                "{} does not say what it consists of, as a format without names needs to know; one with names carries it",
                std::any::type_name::<T>()
            );
            return Err(BackendError::new(ErrorKind::Codec, message));
        }
        if rules.shape.is_some_and(|shape| shape.needs_names()) {
            let message = format!(
                "{} has parts that only a format with names carries: flattened, untagged or tagged ones, or values of any kind",
                std::any::type_name::<T>()
            );
            return Err(BackendError::new(ErrorKind::Codec, message));
        }
        let value = &StrictValue::new(value, rules);
        match self {
            #[cfg(feature = "bitcode")]
            Self::Bitcode => bitcode::serialize(value).map_err(unwritten::<T>),
            #[cfg(feature = "json")]
            Self::Json => serde_json::to_vec(value).map_err(unwritten::<T>),
            Self::MessagePack => {
                let mut bytes = Vec::with_capacity(128);
                match list_of_bytes {
                    Some(list) => rmp_serde::Serializer::new(&mut bytes)
                        .serialize_bytes(list)
                        .map_err(unwritten::<T>)?,
                    None => message_pack_into(&mut bytes, value).map_err(unwritten::<T>)?,
                }
                Ok(bytes)
            }
            #[cfg(feature = "postcard")]
            Self::Postcard => postcard::to_stdvec(value).map_err(unwritten::<T>),
            #[cfg(feature = "rkyv")]
            Self::Rkyv => rkyv::encode(value).map_err(unwritten::<T>),
            Self::Opaque => Err(only_bytes()),
            Self::Custom(custom) => custom.encode(value).map_err(unwritten::<T>),
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
            Self::Bitcode => {
                bitcode::deserialize::<ReadStrictly<T>>(bytes).map(ReadStrictly::into).map_err(failed)
            }
            #[cfg(feature = "json")]
            Self::Json => {
                let mut deserializer = serde_json::Deserializer::from_slice(bytes);
                // Ours is the same for reading and writing.
                deserializer.disable_recursion_limit();
                let strict = Rules::new(NestedOptions::Refused).reading();
                let value =
                    T::deserialize(StrictDeserializer::new(&mut deserializer, strict)).map_err(failed)?;
                deserializer.end().map_err(|_| longer()).map(|()| value)
            }
            Self::MessagePack => {
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
                let strict = Rules::new(NestedOptions::Extension).reading();
                let value =
                    T::deserialize(StrictDeserializer::new(&mut deserializer, strict)).map_err(failed)?;
                // The deserializer does not say where it is; what follows is a value, or the end.
                match <()>::deserialize(&mut deserializer) {
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
                    _ => Err(longer()),
                }
            }
            #[cfg(feature = "postcard")]
            Self::Postcard => match postcard::take_from_bytes(bytes).map_err(failed)? {
                (ReadStrictly(value), []) => Ok(value),
                _ => Err(longer()),
            },
            #[cfg(feature = "rkyv")]
            Self::Rkyv => rkyv::decode(bytes).map_err(failed),
            Self::Opaque => Err(only_bytes()),
            Self::Custom(custom) => custom::decode(custom, bytes).map_err(failed),
        }
    }

    /// What the format cannot do by itself.
    fn rules<T: DeserializeOwned + 'static>(self) -> Rules<'static> {
        match self {
            #[cfg(feature = "json")]
            Self::Json => Rules::new(NestedOptions::Refused).finite().buffered_if(is_buffered::<T>),
            Self::MessagePack => Rules::new(NestedOptions::Extension).buffered_if(is_buffered::<T>),
            #[cfg(feature = "rkyv")]
            Self::Rkyv => Rules::new(NestedOptions::Refused).buffered_if(is_buffered::<T>),
            _ if self.is_positional() => Rules::new(NestedOptions::Native).positional(types::shape::<T>()),
            _ => Rules::new(NestedOptions::Native),
        }
    }

    /// Whether fields and variants are written by their positions.
    pub(crate) fn is_positional(self) -> bool {
        match self {
            #[cfg(feature = "bitcode")]
            Self::Bitcode => true,
            #[cfg(feature = "postcard")]
            Self::Postcard => true,
            _ => false,
        }
    }
}

fn is_buffered<T: DeserializeOwned + 'static>() -> bool {
    types::shape::<T>().needs_names()
}

/// A value of a format that has no limit of its own for nesting.
#[cfg(any(feature = "bitcode", feature = "postcard"))]
struct ReadStrictly<T>(T);

#[cfg(any(feature = "bitcode", feature = "postcard"))]
impl<T> ReadStrictly<T> {
    #[cfg(feature = "bitcode")]
    fn into(self) -> T {
        self.0
    }
}

#[cfg(any(feature = "bitcode", feature = "postcard"))]
impl<'de, T: DeserializeOwned> Deserialize<'de> for ReadStrictly<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let strict = Rules::new(NestedOptions::Native).reading();
        T::deserialize(StrictDeserializer::new(deserializer, strict)).map(Self)
    }
}

fn message_pack_into<T: Serialize>(bytes: &mut Vec<u8>, value: &T) -> Result<(), rmp_serde::encode::Error> {
    value.serialize(&mut rmp_serde::Serializer::new(bytes).with_struct_map())
}

/// A longer value is not the shorter one that it begins with.
fn longer() -> BackendError {
    BackendError::new(ErrorKind::Codec, "the value ends before its record")
}

/// What users' code does to a value. A panic of it harms nobody but this one value.
fn unpanicked<R>(work: impl FnOnce() -> BackendResult<R>) -> BackendResult<R> {
    crate::unpanicked::unpanicked(ErrorKind::Codec, "serde code of the value", work)
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
    BackendError::new(ErrorKind::Codec, "the value and its bytes do not fit").with_source(error)
}

fn unwritten<T>(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
    let message = format!("a value of type {} cannot be written in this format", std::any::type_name::<T>());
    BackendError::new(ErrorKind::Codec, message).with_source(error)
}

fn only_bytes() -> BackendError {
    BackendError::new(ErrorKind::Codec, "only values of type Bytes are stored as they are")
}
