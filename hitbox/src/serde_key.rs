//! Keys of whatever serde can serialize.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_core::CacheKeyBuilder;
use serde::ser::{self, Serialize};

use crate::key::ToKey;

/// A key of whatever serde can serialize, as one part. Two values of one type are one key exactly if they are serialized by
/// the same calls: names, kinds and lengths count, so that what is skipped or untagged is told apart too. A map that is not
/// ordered is another key each time.
///
/// ```
/// use hitbox::{SerdeKey, ToKey};
/// #[derive(serde::Serialize)]
/// enum Page { Number(u32), Last }
/// assert_ne!(SerdeKey(Page::Number(0)).to_key("p"), SerdeKey(Page::Last).to_key("p"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SerdeKey<T>(pub T);

impl<T: Serialize + Send + Sync> ToKey for SerdeKey<T> {
    fn add_to(&self, key: CacheKeyBuilder, name: &str) -> CacheKeyBuilder {
        let mut writer = Writer(Vec::new());
        match self.0.serialize(&mut writer) {
            Ok(()) => key.part_bytes(name, &writer.0),
            Err(error) => {
                static NEXT: AtomicU64 = AtomicU64::new(0);
                // Nothing is shared with what cannot be told from others.
                tracing::warn!(%error, "a key cannot be serialized: nothing is found under it");
                let unique = format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
                key.flag(name).part("unserializable", unique)
            }
        }
    }
}

/// Writes what serde is told, each item with its kind before it and each text with its length, so that no two values are
/// the same bytes.
struct Writer(Vec<u8>);

/// Why a value cannot be a key.
#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Written = Result<(), Failed>;

/// Ends what has several items.
const END: u8 = 0;

impl Writer {
    fn kind(&mut self, kind: u8) -> &mut Self {
        self.0.push(kind);
        self
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) -> Written {
        self.kind(kind).0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn variant(&mut self, kind: u8, index: u32, name: &str) -> Written {
        self.kind(kind).0.extend_from_slice(&index.to_le_bytes());
        self.bytes(b'n', name.as_bytes())
    }

    fn ended(&mut self) -> Written {
        self.kind(END);
        Ok(())
    }
}

macro_rules! numbers {
    ($($method:ident $type:ty, $kind:literal;)*) => {$(
        fn $method(self, value: $type) -> Written {
            self.kind($kind).0.extend_from_slice(&value.to_le_bytes());
            Ok(())
        }
    )*};
}

impl<'w> ser::Serializer for &'w mut Writer {
    type Ok = ();
    type Error = Failed;
    type SerializeSeq = &'w mut Writer;
    type SerializeTuple = &'w mut Writer;
    type SerializeTupleStruct = &'w mut Writer;
    type SerializeTupleVariant = &'w mut Writer;
    type SerializeMap = &'w mut Writer;
    type SerializeStruct = &'w mut Writer;
    type SerializeStructVariant = &'w mut Writer;

    numbers! {
        serialize_i8 i8, 1; serialize_i16 i16, 2; serialize_i32 i32, 3; serialize_i64 i64, 4; serialize_i128 i128, 5;
        serialize_u8 u8, 6; serialize_u16 u16, 7; serialize_u32 u32, 8; serialize_u64 u64, 9; serialize_u128 u128, 10;
        serialize_f32 f32, 11; serialize_f64 f64, 12;
    }

    fn serialize_bool(self, value: bool) -> Written {
        self.kind(13).kind(u8::from(value));
        Ok(())
    }

    fn serialize_char(self, value: char) -> Written {
        self.kind(14).0.extend_from_slice(&u32::from(value).to_le_bytes());
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Written {
        self.bytes(15, value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Written {
        self.bytes(16, value)
    }

    fn serialize_none(self) -> Written {
        self.kind(17);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self.kind(18))
    }

    fn serialize_unit(self) -> Written {
        self.kind(19);
        Ok(())
    }

    fn serialize_unit_struct(self, name: &'static str) -> Written {
        self.bytes(20, name.as_bytes())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, name: &'static str) -> Written {
        self.variant(21, index, name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Written {
        self.bytes(22, name.as_bytes())?;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        value: &T,
    ) -> Written {
        self.variant(23, index, name)?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Failed> {
        Ok(self.kind(24))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Failed> {
        Ok(self.kind(25))
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Self, Failed> {
        self.bytes(26, name.as_bytes())?;
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Self, Failed> {
        self.variant(27, index, name)?;
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Failed> {
        Ok(self.kind(28))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Self, Failed> {
        self.bytes(29, name.as_bytes())?;
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Self, Failed> {
        self.variant(30, index, name)?;
        Ok(self)
    }
}

macro_rules! sequences {
    ($($of:ident $method:ident;)*) => {$(
        impl ser::$of for &mut Writer {
            type Ok = ();
            type Error = Failed;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
                value.serialize(&mut **self)
            }

            fn end(self) -> Written {
                self.ended()
            }
        }
    )*};
}

sequences! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! structs {
    ($($of:ident)*) => {$(
        impl ser::$of for &mut Writer {
            type Ok = ();
            type Error = Failed;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
                self.bytes(b'n', name.as_bytes())?;
                value.serialize(&mut **self)
            }

            fn end(self) -> Written {
                self.ended()
            }
        }
    )*};
}

structs! { SerializeStruct SerializeStructVariant }

impl ser::SerializeMap for &mut Writer {
    type Ok = ();
    type Error = Failed;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(&mut **self)
    }

    fn end(self) -> Written {
        self.ended()
    }
}
