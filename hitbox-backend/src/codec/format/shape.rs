//! The shape of a type, as its `Deserialize` tells it: names of fields and variants in their order, and the kinds of
//! values. Formats that write positions instead of names read another shape as another value, so that their records
//! carry a number made of it.
//!
//! The type is read from a source that has whatever is asked for: each list and map has one element, each option a
//! value. That tells one variant of each enum, so that types with enums are read several times.

use std::hash::Hasher;

use serde::de::value::{Error as Stopped, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use twox_hash::XxHash3_64;

type Names = &'static [&'static str];

/// Questions that a type may ask, in all. Larger types have the shape of their beginning.
const MAX_QUESTIONS: usize = 4_096;
/// Variants of an enum whose contents are looked at; of further ones only the names count.
const MAX_VARIANTS: usize = 64;
/// Times that a type may stand within itself.
const MAX_RECURSION: usize = 1;

/// What a type is made of.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// A number that differs for types of other shapes.
    pub(super) fingerprint: u64,
    names: NamesByType,
}

/// What named types consist of, in the order in which it is read.
#[derive(Clone, Debug, Default)]
struct NamesByType {
    /// Variants of enums.
    variants: Vec<(&'static str, Names)>,
    /// Fields of structs, and of variants under their own names.
    fields: Vec<(&'static str, Names)>,
    /// Whether a part says by itself what it is: untagged and tagged enums, flattened fields, values of any kind.
    any: bool,
}

fn add(to: &mut Vec<(&'static str, Names)>, name: &'static str, names: Names) {
    if !to.contains(&(name, names)) {
        to.push((name, names));
    }
}

/// Whether one of the types of a name fulfils a condition. A type that the description has not reached is not judged.
fn fits(known: &[(&'static str, Names)], name: &str, condition: impl Fn(Names) -> bool) -> bool {
    let mut same_name = known.iter().filter(|(known, _)| *known == name).peekable();
    same_name.peek().is_none() || same_name.any(|(_, names)| condition(names))
}

impl Shape {
    /// Reads a type.
    pub(super) fn of<T: DeserializeOwned>() -> Self {
        let (mut hasher, mut names, mut variant) = (XxHash3_64::new(), NamesByType::default(), 0);
        loop {
            let mut probe =
                Probe { hasher, names, variant, widest: 0, left: MAX_QUESTIONS, within: Vec::new() };
            // A type that refuses what it is given ends its description there: the same for every process that has it.
            let _ = T::deserialize(&mut probe).is_ok();
            (hasher, names) = (probe.hasher, probe.names);
            variant += 1;
            if variant >= probe.widest.min(MAX_VARIANTS) {
                break;
            }
        }
        Self { fingerprint: hasher.finish(), names }
    }

    /// Whether a variant that is written at a position is read there.
    pub(super) fn has_variant_at(&self, name: &str, index: u32, variant: &str) -> bool {
        fits(&self.names.variants, name, |variants| variants.get(index as usize) == Some(&variant))
    }

    /// Whether so many fields are read.
    pub(super) fn has_fields(&self, name: &str, len: usize) -> bool {
        fits(&self.names.fields, name, |fields| fields.len() == len)
    }

    /// Whether a part can only be read from a format that says what it is.
    pub(super) fn needs_names(&self) -> bool {
        self.names.any
    }
}

struct Probe {
    hasher: XxHash3_64,
    names: NamesByType,
    /// The variant that enums have this time, if they have so many.
    variant: usize,
    /// The variants of the enum that has the most.
    widest: usize,
    left: usize,
    /// The named types that are being read.
    within: Vec<&'static str>,
}

impl Probe {
    fn note(&mut self, kind: &str) -> Result<(), Stopped> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Stopped::custom("the type is too large"))?;
        self.hasher.write(kind.as_bytes());
        self.hasher.write_u8(0xFF);
        Ok(())
    }

    fn note_names(&mut self, names: Names) -> Result<(), Stopped> {
        names.iter().try_for_each(|name| self.note(name))?;
        self.note("end")
    }

    fn is_recursive(&self) -> bool {
        let innermost = self.within.last();
        self.within.iter().filter(|name| Some(*name) == innermost).count() > MAX_RECURSION
    }

    fn named<R>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> Result<R, Stopped>,
    ) -> Result<R, Stopped> {
        // Options, lists and maps end a recursion; a type that stands in itself otherwise has no end.
        if self.within.iter().filter(|known| **known == name).count() > MAX_RECURSION + 1 {
            return Err(Stopped::custom("the type stands within itself"));
        }
        self.within.push(name);
        let result = read(self);
        self.within.pop();
        result
    }
}

macro_rules! scalars {
    ($($method:ident => $visit:ident($($value:expr)?)),* $(,)?) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
                self.note(stringify!($method))?;
                visitor.$visit($($value)?)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &mut Probe {
    type Error = Stopped;

    scalars!(
        deserialize_ignored_any => visit_unit(), deserialize_unit => visit_unit(),
        deserialize_bool => visit_bool(false), deserialize_i8 => visit_i8(0), deserialize_i16 => visit_i16(0),
        deserialize_i32 => visit_i32(0), deserialize_i64 => visit_i64(0), deserialize_i128 => visit_i128(0),
        deserialize_u8 => visit_u8(0), deserialize_u16 => visit_u16(0), deserialize_u32 => visit_u32(0),
        deserialize_u64 => visit_u64(0), deserialize_u128 => visit_u128(0), deserialize_f32 => visit_f32(0.0),
        deserialize_f64 => visit_f64(0.0), deserialize_char => visit_char('0'), deserialize_str => visit_str(""),
        deserialize_string => visit_str(""), deserialize_bytes => visit_bytes(&[]),
        deserialize_byte_buf => visit_bytes(&[]),
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note("any")?;
        self.names.any = true;
        visitor.visit_unit()
    }

    /// Names of fields and variants are not asked for here, but the tag of an enum that is tagged beside its content.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.deserialize_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note("unit struct")?;
        self.note(name)?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note("option")?;
        if self.is_recursive() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note("newtype struct")?;
        self.named(name, |probe| visitor.visit_newtype_struct(probe))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note("seq")?;
        let left = usize::from(!self.is_recursive());
        visitor.visit_seq(Elements { probe: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stopped> {
        self.note("tuple")?;
        self.hasher.write_u64(len as u64);
        visitor.visit_seq(Elements { probe: self, left: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note("tuple struct")?;
        self.named(name, |probe| probe.deserialize_tuple(len, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note("map")?;
        let left = usize::from(!self.is_recursive());
        visitor.visit_map(Elements { probe: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: Names,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note("struct")?;
        self.note_names(fields)?;
        add(&mut self.names.fields, name, fields);
        self.named(name, |probe| visitor.visit_seq(Elements { probe, left: fields.len() }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: Names,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note("enum")?;
        self.note_names(variants)?;
        add(&mut self.names.variants, name, variants);
        self.widest = self.widest.max(variants.len());
        let last = variants.len().checked_sub(1).ok_or_else(|| Stopped::custom("no variants"))?;
        let variant = variants[self.variant.min(last)];
        self.named(name, |probe| visitor.visit_enum(Variant { probe, variant }))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// As many elements as are asked for.
struct Elements<'p> {
    probe: &'p mut Probe,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Stopped;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stopped> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.probe).map(Some)
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Stopped;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stopped> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Stopped> {
        seed.deserialize(&mut *self.probe)
    }
}

struct Variant<'p> {
    probe: &'p mut Probe,
    variant: &'static str,
}

impl<'de, 'p> EnumAccess<'de> for Variant<'p> {
    type Error = Stopped;
    type Variant = Contents<'p>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Contents<'p>), Stopped> {
        let value = seed.deserialize(StrDeserializer::<Stopped>::new(self.variant))?;
        Ok((value, Contents(self.probe, self.variant)))
    }
}

/// What a variant holds.
struct Contents<'p>(&'p mut Probe, &'static str);

impl<'de> VariantAccess<'de> for Contents<'_> {
    type Error = Stopped;

    fn unit_variant(self) -> Result<(), Stopped> {
        self.0.note("unit variant")
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stopped> {
        self.0.note("newtype variant")?;
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stopped> {
        self.0.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: Names, visitor: V) -> Result<V::Value, Stopped> {
        self.0.note("struct variant")?;
        self.0.note_names(fields)?;
        add(&mut self.0.names.fields, self.1, fields);
        visitor.visit_seq(Elements { probe: self.0, left: fields.len() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::Shape;

    macro_rules! shape {
        ($($item:item)*) => {{
            #[derive(Deserialize)]
            #[allow(dead_code)]
            $($item)*
            Shape::of::<Value>().fingerprint
        }};
    }

    #[test]
    fn other_shapes_have_other_fingerprints() {
        let shapes = [
            shape!(
                struct Value {
                    a: u32,
                    b: u32,
                }
            ),
            shape!(
                struct Value {
                    b: u32,
                    a: u32,
                }
            ),
            shape!(
                struct Value {
                    a: u32,
                    b: i64,
                }
            ),
            shape!(
                struct Value {
                    a: u32,
                    b: Option<u32>,
                }
            ),
            shape!(
                struct Value {
                    a: u32,
                    b: Vec<u32>,
                }
            ),
            shape!(
                struct Value {
                    a: u32,
                    b: Vec<Option<u32>>,
                }
            ),
            shape!(
                struct Value {
                    a: u32,
                    b: u32,
                    c: u32,
                }
            ),
            shape!(
                struct Value {
                    a: u32,
                }
            ),
            shape!(
                struct Value(u32, u32);
            ),
            shape!(
                struct Value(u32);
            ),
            shape!(
                enum Value {
                    A,
                    B,
                }
            ),
            shape!(
                enum Value {
                    B,
                    A,
                }
            ),
            shape!(
                enum Value {
                    A,
                    B,
                    C,
                }
            ),
            shape!(
                enum Value {
                    A(u8),
                    B,
                }
            ),
            shape!(
                enum Value {
                    A(u8),
                    B(u8),
                }
            ),
            shape!(
                enum Value {
                    A(u8),
                    B(u16),
                }
            ),
            shape!(
                enum Value {
                    A(u8),
                    B { x: u16 },
                }
            ),
            shape!(
                struct Value {
                    of: BTreeMap<String, (u8, [u8; 3])>,
                }
            ),
            shape!(
                struct Value {
                    of: BTreeMap<String, (u8, [u8; 4])>,
                }
            ),
            shape!(
                struct Value {
                    of: BTreeMap<String, (u8, [i8; 3])>,
                }
            ),
            shape!(
                struct Value {
                    next: Option<Box<Value>>,
                    n: u8,
                }
            ),
            shape!(
                struct Value {
                    next: Option<Box<Value>>,
                    n: i8,
                }
            ),
            shape!(
                enum Value {
                    Add(Box<Value>, Box<Value>),
                    One(u8),
                }
            ),
            shape!(
                enum Value {
                    Add(Box<Value>, Box<Value>),
                    One(i8),
                }
            ),
            shape!(
                enum Value {
                    One(u8),
                    Add(Box<Value>, Box<Value>),
                }
            ),
            shape!(
                struct Value {
                    list: Vec<Value>,
                    n: u8,
                }
            ),
            shape!(
                struct Value {
                    list: Vec<Value>,
                    n: u16,
                }
            ),
        ];
        for (at, shape) in shapes.iter().enumerate() {
            assert!(!shapes[..at].contains(shape), "shape {at} is that of another");
        }
        assert_eq!(
            shapes[0],
            shape!(
                struct Value {
                    a: u32,
                    b: u32,
                }
            )
        );
    }
}
