//! Writing under [`Rules`].

use serde::ser::{
    Error, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{I128, MAX_HINT, NestedOptions, Rules, SOME, TOO_DEEP, U128};

/// A value that is written under rules.
pub(in super::super) struct StrictValue<'v, T: ?Sized> {
    value: &'v T,
    rules: Rules<'v>,
}

impl<'v, T: Serialize + ?Sized> StrictValue<'v, T> {
    pub(in super::super) fn new(value: &'v T, rules: Rules<'v>) -> Self {
        Self { value, rules }
    }
}

impl<T: Serialize + ?Sized> Serialize for StrictValue<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Strict { inner, rules: self.rules })
    }
}

/// A serializer, or one of its compounds, under rules.
struct Strict<'r, S> {
    inner: S,
    rules: Rules<'r>,
}

impl<'r, S> Strict<'r, S> {
    fn map<U, E>(rules: Rules<'r>, made: Result<U, E>) -> Result<Strict<'r, U>, E> {
        Ok(Strict { inner: made?, rules })
    }

    fn within<'v, T: Serialize + ?Sized, E: Error>(&self, value: &'v T) -> Result<StrictValue<'v, T>, E>
    where
        'r: 'v,
    {
        let rules = self.rules.deeper().ok_or_else(|| E::custom(TOO_DEEP))?;
        Ok(StrictValue { value, rules })
    }

    fn check_variant<E: Error>(&self, name: &str, index: u32, variant: &str) -> Result<(), E> {
        match self.rules.shape {
            Some(shape) if !shape.has_variant_at(name, index, variant) => Err(E::custom(format!(
                "the variant {variant} of {name} is read at another position than it is written, \
                 since variants before it are skipped; a format with names carries it"
            ))),
            _ => Ok(()),
        }
    }

    fn check_fields<E: Error>(&self, name: &str, len: usize) -> Result<(), E> {
        match self.rules.shape {
            Some(shape) if !shape.has_fields(name, len) => Err(E::custom(format!(
                "{name} is written with {len} fields and read with another number; a format with names carries it"
            ))),
            _ => Ok(()),
        }
    }

    fn check_unbuffered<E: Error>(&self) -> Result<(), E> {
        match (self.rules.is_buffered)() {
            true => Err(E::custom(
                "serde cannot read integers of 128 bits in flattened, untagged and tagged types",
            )),
            false => Ok(()),
        }
    }

    fn check_finite<E: Error>(&self, is_finite: bool) -> Result<(), E> {
        match self.rules.finite && !is_finite {
            true => Err(E::custom("the format has no numbers that are infinite or NaN")),
            false => Ok(()),
        }
    }
}

macro_rules! forward {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(
            #[inline]
            fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
                self.inner.$method(value)
            }
        )*
    };
}

impl<'r, S: Serializer> Serializer for Strict<'r, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Strict<'r, S::SerializeSeq>;
    type SerializeTuple = Strict<'r, S::SerializeTuple>;
    type SerializeTupleStruct = Strict<'r, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Strict<'r, S::SerializeTupleVariant>;
    type SerializeMap = Strict<'r, S::SerializeMap>;
    type SerializeStruct = Strict<'r, S::SerializeStruct>;
    type SerializeStructVariant = Strict<'r, S::SerializeStructVariant>;

    forward!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
    );

    fn serialize_i128(self, value: i128) -> Result<S::Ok, S::Error> {
        self.check_unbuffered()?;
        if self.rules.nested_options != NestedOptions::Extension {
            return self.inner.serialize_i128(value);
        }
        match (u64::try_from(value), i64::try_from(value)) {
            (Ok(value), _) => self.inner.serialize_u64(value),
            (_, Ok(value)) => self.inner.serialize_i64(value),
            _ => extension(self.inner, I128, value.to_be_bytes().to_vec()),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<S::Ok, S::Error> {
        self.check_unbuffered()?;
        if self.rules.nested_options != NestedOptions::Extension {
            return self.inner.serialize_u128(value);
        }
        match u64::try_from(value) {
            Ok(value) => self.inner.serialize_u64(value),
            Err(_) => extension(self.inner, U128, value.to_be_bytes().to_vec()),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.check_finite(value.is_finite())?;
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        self.check_finite(value.is_finite())?;
        self.inner.serialize_f64(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let inside = self.within(value)?;
        if self.rules.nested_options == NestedOptions::Native || value.serialize(IsOption).is_err() {
            return self.inner.serialize_some(&inside);
        }
        match self.rules.nested_options {
            NestedOptions::Refused => {
                Err(S::Error::custom("the format cannot tell an option or unit within an option from none"))
            }
            _ => {
                let mut payload = Vec::new();
                super::super::message_pack_into(&mut payload, &inside).map_err(S::Error::custom)?;
                extension(self.inner, SOME, payload)
            }
        }
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        match self.rules.nested_options {
            // MessagePack has empty lists for them, which are no units for buffered values.
            NestedOptions::Extension => self.inner.serialize_unit(),
            _ => self.inner.serialize_unit_struct(name),
        }
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.check_variant(name, index, variant)?;
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let inside = self.within(value)?;
        self.inner.serialize_newtype_struct(name, &inside)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.check_variant(name, index, variant)?;
        let inside = self.within(value)?;
        self.inner.serialize_newtype_variant(name, index, variant, &inside)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let len = len.filter(|len| *len <= MAX_HINT || !self.rules.is_named());
        Self::map(self.rules, self.inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Self::map(self.rules, self.inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Self::map(self.rules, self.inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.check_variant(name, index, variant)?;
        Self::map(self.rules, self.inner.serialize_tuple_variant(name, index, variant, len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let len = len.filter(|len| *len <= MAX_HINT || !self.rules.is_named());
        Self::map(self.rules, self.inner.serialize_map(len))
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.check_fields(name, len)?;
        Self::map(self.rules, self.inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.check_variant(name, index, variant)?;
        self.check_fields(variant, len)?;
        Self::map(self.rules, self.inner.serialize_struct_variant(name, index, variant, len))
    }

    fn is_human_readable(&self) -> bool {
        self.rules.is_named() || self.inner.is_human_readable()
    }
}

macro_rules! compound {
    ($($compound:ident: $method:ident),* $(,)?) => {
        $(
            impl<S: $compound> $compound for Strict<'_, S> {
                type Ok = S::Ok;
                type Error = S::Error;

                #[inline]
                fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                    let inside = self.within(value)?;
                    self.inner.$method(&inside)
                }

                fn end(self) -> Result<S::Ok, S::Error> {
                    self.inner.end()
                }
            }
        )*
    };
}

macro_rules! compound_of_fields {
    ($($compound:ident),* $(,)?) => {
        $(
            impl<S: $compound> $compound for Strict<'_, S> {
                type Ok = S::Ok;
                type Error = S::Error;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    name: &'static str,
                    value: &T,
                ) -> Result<(), S::Error> {
                    let inside = self.within(value)?;
                    self.inner.serialize_field(name, &inside)
                }

                fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                    self.inner.skip_field(name)
                }

                fn end(self) -> Result<S::Ok, S::Error> {
                    self.inner.end()
                }
            }
        )*
    };
}

compound!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
);
compound_of_fields!(SerializeStruct, SerializeStructVariant);

impl<S: SerializeMap> SerializeMap for Strict<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        let inside = self.within(key)?;
        self.inner.serialize_key(&inside)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let inside = self.within(value)?;
        self.inner.serialize_value(&inside)
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), S::Error> {
        let (key, value) = (self.within(key)?, self.within(value)?);
        self.inner.serialize_entry(&key, &value)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

fn extension<S: Serializer>(serializer: S, number: i8, payload: Vec<u8>) -> Result<S::Ok, S::Error> {
    serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &(number, Bytes(payload)))
}

/// The payload of an extension.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// Answers by `Ok` that a value is an option or a unit, and by an error that it is not. It looks no further than that.
struct IsOption;

/// It is another kind of value.
#[derive(Debug)]
struct IsNot;

impl std::fmt::Display for IsNot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the value is no option")
    }
}

impl std::error::Error for IsNot {}

impl Error for IsNot {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

macro_rules! is_not {
    ($($method:ident($($argument:ty),*) -> $ok:ty),* $(,)?) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$ok, IsNot> {
            Err(IsNot)
        })*
    };
}

type No = Impossible<(), IsNot>;
type Name = &'static str;

impl Serializer for IsOption {
    type Ok = ();
    type Error = IsNot;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = No;
    type SerializeStructVariant = No;

    is_not!(
        serialize_bool(bool) -> (), serialize_i8(i8) -> (), serialize_i16(i16) -> (), serialize_i32(i32) -> (),
        serialize_i64(i64) -> (), serialize_i128(i128) -> (), serialize_u8(u8) -> (), serialize_u16(u16) -> (),
        serialize_u32(u32) -> (), serialize_u64(u64) -> (), serialize_u128(u128) -> (), serialize_f32(f32) -> (),
        serialize_f64(f64) -> (), serialize_char(char) -> (), serialize_str(&str) -> (),
        serialize_bytes(&[u8]) -> (), serialize_unit_variant(Name, u32, Name) -> (),
        serialize_seq(Option<usize>) -> No, serialize_tuple(usize) -> No,
        serialize_tuple_struct(Name, usize) -> No, serialize_tuple_variant(Name, u32, Name, usize) -> No,
        serialize_map(Option<usize>) -> No, serialize_struct(Name, usize) -> No,
        serialize_struct_variant(Name, u32, Name, usize) -> No,
    );

    fn serialize_none(self) -> Result<(), IsNot> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), IsNot> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), IsNot> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: Name) -> Result<(), IsNot> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: Name, value: &T) -> Result<(), IsNot> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: Name,
        _: u32,
        _: Name,
        _: &T,
    ) -> Result<(), IsNot> {
        Err(IsNot)
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, _: &T) -> Result<(), IsNot> {
        Err(IsNot)
    }
}
