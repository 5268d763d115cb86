//! Reading what was written under [`Rules`].

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{I128, MAX_ELEMENTS, NestedOptions, Rules, SOME, TOO_DEEP, U128};

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
        Checked { in_some: self.in_some, ..Checked::<V>::around(self.rules, visitor) }
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
        deserialize_u8(), deserialize_u16(), deserialize_u32(), deserialize_u64(),
        deserialize_char(), deserialize_str(),
        deserialize_string(), deserialize_bytes(), deserialize_byte_buf(), deserialize_seq(),
        deserialize_tuple(len: usize), deserialize_map(),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]), deserialize_identifier(),
        deserialize_newtype_struct(name: &'static str),
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Checked { is_any: true, ..self.checked(visitor) };
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if self.rules.nested_options == NestedOptions::Extension {
            return self.deserialize_any(visitor);
        }
        let visitor = self.checked(visitor);
        self.inner.deserialize_i128(visitor)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if self.rules.nested_options == NestedOptions::Extension {
            return self.deserialize_any(visitor);
        }
        let visitor = self.checked(visitor);
        self.inner.deserialize_u128(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Checked { wanted: Wanted::F32, ..self.checked(visitor) };
        self.inner.deserialize_f32(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Checked { wanted: Wanted::F64, ..self.checked(visitor) };
        self.inner.deserialize_f64(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Checked { wanted: Wanted::Tuple(len), ..self.checked(visitor) };
        self.inner.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Checked { wanted: Wanted::Struct, ..self.checked(visitor) };
        self.inner.deserialize_struct(name, fields, visitor)
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
        self.rules.is_named() || self.inner.is_human_readable()
    }
}

/// What a type asks for, where formats give more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Anything,
    F32,
    F64,
    /// So many fields without names.
    Tuple(usize),
    /// Fields with names.
    Struct,
}

/// A visitor, seed or access under rules.
struct Checked<'r, V> {
    inner: V,
    rules: Rules<'r>,
    in_some: bool,
    /// Whether the format says what comes: an extension is an option with a value.
    is_any: bool,
    wanted: Wanted,
}

impl<'r, V> Checked<'r, V> {
    fn deeper<E: Error>(&self) -> Result<Rules<'r>, E> {
        self.rules.deeper().ok_or_else(|| E::custom(TOO_DEEP))
    }

    fn around<U>(rules: Rules<'r>, inner: U) -> Checked<'r, U> {
        Checked { inner, rules, in_some: false, is_any: false, wanted: Wanted::Anything }
    }

    /// A number that is read as one of less precision is another number.
    fn check_exact<E: Error>(&self, exact: impl Fn(Wanted) -> bool) -> Result<(), E> {
        match self.rules.is_named() && !exact(self.wanted) {
            true => Err(E::custom("a number has more digits than its type holds")),
            false => Ok(()),
        }
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
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i128: i128, visit_u8: u8, visit_u16: u16,
        visit_u128: u128, visit_f32: f32, visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    );

    fn visit_i32<E: Error>(self, value: i32) -> Result<V::Value, E> {
        self.check_exact(|wanted| wanted != Wanted::F32 || (value as f32) as i64 == i64::from(value))?;
        self.inner.visit_i32(value)
    }

    fn visit_u32<E: Error>(self, value: u32) -> Result<V::Value, E> {
        self.check_exact(|wanted| wanted != Wanted::F32 || (value as f32) as u64 == u64::from(value))?;
        self.inner.visit_u32(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.check_exact(|wanted| match wanted {
            Wanted::F32 => (value as f32) as i128 == i128::from(value),
            Wanted::F64 => (value as f64) as i128 == i128::from(value),
            _ => true,
        })?;
        self.inner.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.check_exact(|wanted| match wanted {
            Wanted::F32 => (value as f32) as u128 == u128::from(value),
            Wanted::F64 => (value as f64) as u128 == u128::from(value),
            _ => true,
        })?;
        self.inner.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        // JSON has the shortest digits of a float, which are those of another double.
        let is_exact = self.rules.finite || value.is_nan() || f64::from(value as f32) == value;
        self.check_exact(|wanted| wanted != Wanted::F32 || is_exact)?;
        self.inner.visit_f64(value)
    }

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
        let payload = match extension(inner)? {
            (SOME, payload) => payload,
            (I128, bytes) => return self.inner.visit_i128(i128::from_be_bytes(integer(bytes)?)),
            (U128, bytes) => return self.inner.visit_u128(u128::from_be_bytes(integer(bytes)?)),
            (number, _) => return Err(not_ours(number)),
        };
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
        let is_by_name = rules.is_named();
        match self.wanted {
            Wanted::Struct if is_by_name => return Err(A::Error::custom("fields have no names")),
            // Fields that were skipped are not those at the end.
            Wanted::Tuple(len) if is_by_name && access.size_hint().is_some_and(|hint| hint != len) => {
                return Err(A::Error::custom("there is another number of fields"));
            }
            _ => {}
        }
        self.inner.visit_seq(Elements { access: Self::around(rules, access), read: 0 })
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

/// The elements of a list, and how many were read.
struct Elements<'r, A> {
    access: Checked<'r, A>,
    read: u64,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.read += 1;
        if self.read > MAX_ELEMENTS {
            return Err(A::Error::custom("the list is too long"));
        }
        self.access.inner.next_element_seed(Checked::<A>::around(self.access.rules, seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.access.inner.size_hint()
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
        let visitor = Self::around(self.rules.shallower(), visitor);
        self.inner.tuple_variant(len, Checked { wanted: Wanted::Tuple(len), ..visitor })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = Self::around(self.rules.shallower(), visitor);
        self.inner.struct_variant(fields, Checked { wanted: Wanted::Struct, ..visitor })
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
        let payload = match extension(inner)? {
            (SOME, payload) => payload,
            (number, _) => return Err(not_ours(number)),
        };
        let mut within = rmp_serde::Deserializer::from_read_ref(payload);
        let within = Strict::new(&mut within, self.visitor.rules);
        match self.is_option {
            true => within.deserialize_option(self.visitor.inner),
            false => within.deserialize_unit(self.visitor.inner),
        }
        .map_err(D::Error::custom)
    }
}

/// The number and the bytes of an extension.
fn extension<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(i8, &'de [u8]), D::Error> {
    serde::Deserialize::deserialize(deserializer)
}

fn integer<E: Error>(bytes: &[u8]) -> Result<[u8; 16], E> {
    bytes.try_into().map_err(|_| E::custom("an integer has another length"))
}

fn not_ours<E: Error>(number: i8) -> E {
    E::custom(format!("the extension {number} of MessagePack is not ours"))
}
