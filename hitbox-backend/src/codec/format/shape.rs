//! The shape of a type, as its `Deserialize` tells it: names of fields and variants in their order, and the kinds of
//! values. Formats that write positions instead of names read another shape as another value, so that their records
//! carry a number made of it.
//!
//! The type is read from a source that has whatever is asked for: each list and map has one element, each option a
//! value, and numbers are 1. Enums have another variant each time, so that a type with enums is read often; which
//! variant is taken depends on nothing but the type, so that every process gets the same number. A type that refuses all this,
//! or is too large, does not say what it consists of.

use std::panic::{AssertUnwindSafe, catch_unwind};

use std::hash::Hasher;

use serde::de::value::{Error as Stopped, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use twox_hash::XxHash3_64;

type Names = &'static [&'static str];

/// Questions that a type may ask in one reading.
const MAX_QUESTIONS: usize = 16_384;
/// Variants of an enum.
const MAX_VARIANTS: usize = 1_024;
/// From this level on an option, list or map has something in one case of four, so that types within themselves end.
const DEEP: usize = 6;
/// Levels below which nothing is read.
const MAX_DEPTH: usize = 64;
/// Readings of a type that has enums or is deep, and further ones for each variant of its largest enum.
const READINGS: usize = 256;
const READINGS_PER_VARIANT: usize = 4;

/// Values for types that do not take all.
const NUMBERS: [u8; 4] = [1, 0, 2, 100];
const TEXTS: [&str; 9] = [
    "1",
    "",
    "a",
    "2000-01-01T00:00:00Z",
    "2000-01-01",
    "00:00:00",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
    "https://example.org/",
];
const BYTES: [&[u8]; 5] = [b"1", b"", &[0; 16], &[0; 4], &[0; 32]];

/// What a type is made of.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// A number that differs for types of other shapes.
    pub(super) fingerprint: u64,
    is_whole: bool,
    names: NamesByType,
}

/// What named types consist of, in the order in which it is read.
#[derive(Clone, Debug, Default)]
struct NamesByType {
    /// Variants of enums.
    variants: Vec<(&'static str, Names)>,
    /// How many variants of each of these enums have been read.
    seen: Vec<usize>,
    /// Fields of structs, and of variants under their own names.
    fields: Vec<(&'static str, Names)>,
    /// Whether a part says by itself what it is: untagged and tagged enums, flattened fields, values of any kind.
    any: bool,
}

impl NamesByType {
    fn are_all_seen(&self) -> bool {
        self.variants.iter().zip(&self.seen).all(|((_, variants), seen)| *seen >= variants.len())
    }
}

fn add(to: &mut Vec<(&'static str, Names)>, name: &'static str, names: Names) {
    if !to.contains(&(name, names)) {
        to.push((name, names));
    }
}

/// Whether all types of a name fulfil a condition, and there is one.
fn fits(known: &[(&'static str, Names)], name: &str, condition: impl Fn(Names) -> bool) -> bool {
    let mut same_name = known.iter().filter(|(known, _)| *known == name).peekable();
    same_name.peek().is_some() && same_name.all(|(_, names)| condition(names))
}

impl Shape {
    /// Reads a type.
    pub(super) fn of<T: DeserializeOwned>() -> Self {
        let mut probe = Probe::default();
        let (mut reading, mut ended) = (0, 0);
        loop {
            let before = (probe.hasher.clone(), probe.names.clone());
            probe.begin(reading);
            // What the type makes of it is its own; that it panics too.
            match catch_unwind(AssertUnwindSafe(|| T::deserialize(&mut probe).map(drop))) {
                Ok(Ok(())) => ended += 1,
                // A type within itself may have no end this time.
                Ok(Err(_)) if probe.is_endless => probe.is_endless = false,
                // The last value was not to its taste: again with another one in its place.
                Ok(Err(_)) if probe.asked > 0 && probe.take_another() => {
                    (probe.hasher, probe.names) = before;
                    continue;
                }
                _ => return Self { fingerprint: 0, is_whole: false, names: probe.names },
            }
            reading += 1;
            probe.choices.clear();
            let wanted = if probe.varies { READINGS + READINGS_PER_VARIANT * probe.widest } else { 1 };
            if reading >= wanted {
                let is_whole =
                    ended * 4 >= reading && probe.widest <= MAX_VARIANTS && probe.names.are_all_seen();
                return Self { fingerprint: probe.hasher.finish(), is_whole, names: probe.names };
            }
        }
    }

    /// Whether all of the type is known.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
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
    /// The variants of the enum that has the most.
    widest: usize,
    /// Whether another reading may find more.
    varies: bool,
    left: usize,
    depth: usize,
    /// This reading was given up, since the type stands within itself too often.
    is_endless: bool,
    random: u64,
    /// Which value each question of this reading is answered with, where it is not the first.
    choices: Vec<usize>,
    asked: usize,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            hasher: XxHash3_64::new(),
            names: NamesByType::default(),
            widest: 0,
            varies: false,
            left: 0,
            depth: 0,
            is_endless: false,
            random: 0,
            choices: Vec::new(),
            asked: 0,
        }
    }
}

impl Probe {
    fn note(&mut self, kind: &str) -> Result<(), Stopped> {
        self.hasher.write(kind.as_bytes());
        self.hasher.write_u8(0xFF);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 { Err(self.endless()) } else { Ok(()) }
    }

    fn begin(&mut self, reading: usize) {
        (self.left, self.depth, self.asked) = (MAX_QUESTIONS, 0, 0);
        self.random = (reading as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// Which of the values is given.
    fn choice(&mut self) -> usize {
        self.asked += 1;
        if self.choices.len() < self.asked {
            self.choices.push(0);
        }
        self.choices[self.asked - 1]
    }

    /// Another answer to the last question, if there is one. Answers to later ones begin anew.
    fn take_another(&mut self) -> bool {
        self.choices.truncate(self.asked);
        self.choices.last_mut().is_some_and(|last| {
            *last += 1;
            *last < TEXTS.len()
        })
    }

    fn number(&mut self) -> u8 {
        NUMBERS[self.choice().min(NUMBERS.len() - 1)]
    }

    fn text(&mut self) -> &'static str {
        TEXTS[self.choice().min(TEXTS.len() - 1)]
    }

    fn note_names(&mut self, names: Names) -> Result<(), Stopped> {
        names.iter().try_for_each(|name| self.note(name))?;
        self.note("end")
    }

    fn endless(&mut self) -> Stopped {
        self.is_endless = true;
        Stopped::custom("the type is too large, or stands within itself")
    }

    /// The same numbers for every process (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Whether an option has a value, a list or map an element.
    fn has_some(&mut self) -> bool {
        if self.depth < DEEP {
            return true;
        }
        self.varies = true;
        self.random().is_multiple_of(4)
    }

    fn deeper<R>(&mut self, read: impl FnOnce(&mut Self) -> Result<R, Stopped>) -> Result<R, Stopped> {
        if self.depth >= MAX_DEPTH {
            return Err(self.endless());
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// A variant of an enum: one that has not been read yet, or any.
    fn variant(&mut self, name: &'static str, variants: Names) -> Result<&'static str, Stopped> {
        add(&mut self.names.variants, name, variants);
        self.names.seen.resize(self.names.variants.len(), 0);
        (self.widest, self.varies) = (self.widest.max(variants.len()), true);
        let random = self.random() as usize;
        let known = self.names.variants.iter().position(|known| *known == (name, variants));
        let seen = known.and_then(|known| self.names.seen.get_mut(known));
        let index = match seen {
            Some(seen) if *seen < variants.len() => {
                *seen += 1;
                *seen - 1
            }
            _ => random.checked_rem(variants.len()).unwrap_or(0),
        };
        variants.get(index).copied().ok_or_else(|| Stopped::custom("an enum without variants"))
    }
}

macro_rules! scalars {
    ($($method:ident => $visit:ident($probe:ident $(=> $value:expr)?)),* $(,)?) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
                self.note(stringify!($method))?;
                let $probe = self;
                let _ = &$probe;
                visitor.$visit($($value)?)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &mut Probe {
    type Error = Stopped;

    scalars!(
        deserialize_ignored_any => visit_unit(p),
        deserialize_unit => visit_unit(p),
        deserialize_bool => visit_bool(p => p.number() == 1),
        deserialize_i8 => visit_i8(p => p.number().cast_signed()),
        deserialize_i16 => visit_i16(p => p.number().into()),
        deserialize_i32 => visit_i32(p => p.number().into()),
        deserialize_i64 => visit_i64(p => p.number().into()),
        deserialize_i128 => visit_i128(p => p.number().into()),
        deserialize_u8 => visit_u8(p => p.number()),
        deserialize_u16 => visit_u16(p => p.number().into()),
        deserialize_u32 => visit_u32(p => p.number().into()),
        deserialize_u64 => visit_u64(p => p.number().into()),
        deserialize_u128 => visit_u128(p => p.number().into()),
        deserialize_f32 => visit_f32(p => p.number().into()),
        deserialize_f64 => visit_f64(p => p.number().into()),
        deserialize_char => visit_char(p => ['1', 'a'][p.choice().min(1)]),
        deserialize_str => visit_str(p => p.text()),
        deserialize_string => visit_str(p => p.text()),
        deserialize_bytes => visit_bytes(p => BYTES[p.choice().min(BYTES.len() - 1)]),
        deserialize_byte_buf => visit_bytes(p => BYTES[p.choice().min(BYTES.len() - 1)]),
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
        if self.has_some() { self.deeper(|probe| visitor.visit_some(probe)) } else { visitor.visit_none() }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note("newtype struct")?;
        self.note(name)?;
        self.deeper(|probe| visitor.visit_newtype_struct(probe))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note("seq")?;
        let left = usize::from(self.has_some());
        self.deeper(|probe| visitor.visit_seq(Elements { probe, left }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stopped> {
        self.note("tuple")?;
        self.hasher.write_u64(len as u64);
        self.deeper(|probe| visitor.visit_seq(Elements { probe, left: len }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note("tuple struct")?;
        self.note(name)?;
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note("map")?;
        let left = usize::from(self.has_some());
        self.deeper(|probe| visitor.visit_map(Elements { probe, left }))
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
        self.deeper(|probe| visitor.visit_seq(Elements { probe, left: fields.len() }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: Names,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note("enum")?;
        self.note_names(variants)?;
        let variant = self.variant(name, variants)?;
        self.deeper(|probe| visitor.visit_enum(Variant { probe, variant }))
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
        self.0.deeper(|probe| visitor.visit_seq(Elements { probe, left: fields.len() }))
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
