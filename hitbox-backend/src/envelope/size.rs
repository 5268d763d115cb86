//! A serializer that counts: what a value would take in a plain binary form, without making it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::ser::{self, Serialize};

/// Bytes of `value`: its scalars, the bytes of its texts, and eight per sequence, map or text.
pub(super) fn of<T: Serialize>(value: &T) -> u64 {
    let mut counter = Counter(0);
    // A value that refuses to be serialized, or panics, is counted as far as it went: this runs under locks of stores.
    let _ = catch_unwind(AssertUnwindSafe(|| value.serialize(&mut counter)));
    counter.0
}

struct Counter(u64);

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value refused to be serialized")
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Counted = Result<(), Refused>;

impl Counter {
    fn add(&mut self, bytes: usize) -> Counted {
        self.0 += bytes as u64;
        Ok(())
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, _: $type) -> Counted {
            self.add(size_of::<$type>())
        })*
    };
}

impl ser::Serializer for &mut Counter {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    scalars! {
        serialize_bool: bool, serialize_char: char,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64,
    }

    fn serialize_str(self, text: &str) -> Counted {
        self.add(8 + text.len())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Counted {
        self.add(8 + bytes.len())
    }

    fn serialize_none(self) -> Counted {
        self.add(1)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Counted {
        self.add(1)?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Counted {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Counted {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Counted {
        self.add(4)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Counted {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Counted {
        self.add(4)?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Refused> {
        self.add(8)?;
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.add(4)?;
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Refused> {
        self.add(8)?;
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.add(4)?;
        Ok(self)
    }
}

macro_rules! compound {
    ($($role:ident: $method:ident),* $(,)?) => {
        $(impl ser::$role for &mut Counter {
            type Ok = ();
            type Error = Refused;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Counted {
                value.serialize(&mut **self)
            }

            fn end(self) -> Counted {
                Ok(())
            }
        })*
    };
}

compound! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field,
}

impl ser::SerializeMap for &mut Counter {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Counted {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Counted {
        value.serialize(&mut **self)
    }

    fn end(self) -> Counted {
        Ok(())
    }
}

macro_rules! fields {
    ($($role:ident),* $(,)?) => {
        $(impl ser::$role for &mut Counter {
            type Ok = ();
            type Error = Refused;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Counted {
                value.serialize(&mut **self)
            }

            fn end(self) -> Counted {
                Ok(())
            }
        })*
    };
}

fields! { SerializeStruct, SerializeStructVariant }
