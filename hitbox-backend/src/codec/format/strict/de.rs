//! Reading what was written under [`Rules`].

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{NestedOptions, Rules, SOME, TOO_DEEP};

/// A deserializer under rules, or what it hands to visitors.
pub(in super::super) struct Strict<'r, D> {
    inner: D,
    rules: Rules<'r>,
    /// Whether the value stands directly within an option.
    in_some: bool,
}

impl<'r, D> Strict<'r, D> {
    pub(in super::super) fn new(inner: D, rules: Rules<'r>) -> Self {
        Self { inner, rules, in_some: false }
    }

    fn checked<V>(&self, visitor: V) -> Checked<'r, V> {
        Checked { inner: visitor, rules: self.rules, in_some: self.in_some, is_any: false }
    }

    /// Whether an option or unit that is read here was put into an extension.
    fn is_extension(&self) -> bool {
        self.in_some && self.rules.nested_options == NestedOptions::Extension
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*)),* $(,)?) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self $(, $argument: $type)*, visitor: V) -> Result<V::Value, D::Error> {
                let visitor = self.checked(visitor);
                self.inner.$method($($argument,)* visitor)
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    forward!(
        deserialize_bool(), deserialize_i8(), deserialize_i16(), deserialize_i32(), deserialize_i64(),
        deserialize_i128(), deserialize_u8(), deserialize_u16(), deserialize_u32(), deserialize_u64(),
        deserialize_u128(), deserialize_f32(), deserialize_f64(), deserialize_char(), deserialize_str(),
        deserialize_string(), deserialize_bytes(), deserialize_byte_buf(), deserialize_seq(),
        deserialize_tuple(len: usize), deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_map(), deserialize_struct(name: &'static str, fields: &'static [&'static str]),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]), deserialize_identifier(),
        deserialize_newtype_struct(name: &'static str),
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Checked { is_any: true, ..self.checked(visitor) };
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Checked { is_any: true, ..self.checked(visitor) };
        self.inner.deserialize_ignored_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let is_extension = self.is_extension();
        let visitor = self.checked(visitor);
        match is_extension {
            true => self.inner.deserialize_any(InExtension { visitor, is_option: true }),
            false => self.inner.deserialize_option(visitor),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let is_extension = self.is_extension();
        let visitor = self.checked(visitor);
        match is_extension {
            true => self.inner.deserialize_any(InExtension { visitor, is_option: false }),
            false => self.inner.deserialize_unit(visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        match self.is_extension() {
            true => self.deserialize_unit(visitor),
            false => {
                let visitor = self.checked(visitor);
                self.inner.deserialize_unit_struct(name, visitor)
            }
        }
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A visitor, seed or access under rules.
struct Checked<'r, V> {
    inner: V,
    rules: Rules<'r>,
    in_some: bool,
    /// Whether the format says what comes: an extension is an option with a value.
    is_any: bool,
}

impl<'r, V> Checked<'r, V> {
    fn deeper<E: Error>(&self) -> Result<Rules<'r>, E> {
        self.rules.deeper().ok_or_else(|| E::custom(TOO_DEEP))
    }

    fn around<U>(rules: Rules<'r>, inner: U) -> Checked<'r, U> {
        Checked { inner, rules, in_some: false, is_any: false }
    }
}

macro_rules! forward_visit {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(
            #[inline]
            fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
                self.inner.$method(value)
            }
        )*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Checked<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    forward_visit!(
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32,
        visit_f64: f64, visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    );

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let rules = self.deeper()?;
        self.inner.visit_some(Strict { inner, rules, in_some: true })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let rules = self.deeper()?;
        if !(self.is_any && rules.nested_options == NestedOptions::Extension) {
            return self.inner.visit_newtype_struct(Strict { inner, rules, in_some: self.in_some });
        }
        let payload = payload_of(inner)?;
        let mut within = rmp_serde::Deserializer::from_read_ref(payload);
        let within = Strict::new(&mut within, rules);
        match self.in_some {
            true => within.deserialize_any(self.inner),
            false => self.inner.visit_some(within),
        }
        .map_err(D::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let rules = self.deeper()?;
        self.inner.visit_seq(Self::around(rules, access))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let rules = self.deeper()?;
        self.inner.visit_map(Self::around(rules, access))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let rules = self.deeper()?;
        self.inner.visit_enum(Self::around(rules, access))
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Checked<'_, T> {
    type Value = T::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.inner.deserialize(Strict::new(deserializer, self.rules))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Checked<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.inner.next_element_seed(Self::around(self.rules, seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Checked<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(Self::around(self.rules, seed))
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.inner.next_value_seed(Self::around(self.rules, seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'r, A: EnumAccess<'de>> EnumAccess<'de> for Checked<'r, A> {
    type Error = A::Error;
    type Variant = Checked<'r, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(Self::around(self.rules, seed))?;
        Ok((value, Self::around(self.rules, variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Checked<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.inner.newtype_variant_seed(Self::around(self.rules, seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Self::around(self.rules, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Self::around(self.rules, visitor))
    }
}

/// Reads an option or a unit out of the extension that it was put into.
struct InExtension<'r, V> {
    visitor: Checked<'r, V>,
    is_option: bool,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for InExtension<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an option or unit within an option")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let rules = self.visitor.deeper()?;
        let payload = payload_of(inner)?;
        let mut within = rmp_serde::Deserializer::from_read_ref(payload);
        let within = Strict::new(&mut within, rules);
        match self.is_option {
            true => within.deserialize_option(self.visitor.inner),
            false => within.deserialize_unit(self.visitor.inner),
        }
        .map_err(D::Error::custom)
    }
}

/// The bytes of an extension of ours.
fn payload_of<'de, D: Deserializer<'de>>(extension: D) -> Result<&'de [u8], D::Error> {
    let (number, payload): (i8, &[u8]) = serde::Deserialize::deserialize(extension)?;
    match number {
        SOME => Ok(payload),
        _ => Err(D::Error::custom(format!("the extension {number} of MessagePack is not ours"))),
    }
}
