//! A source that has whatever a type asks for, and takes note of what that is.
//!
//! Each list and map has one element, each option a value, and numbers are 1. Enums have another variant each time, so
//! that a type with enums is read often; which variant is taken depends on nothing but the type, so that every process
//! gets the same number. A type that refuses a value gets another one.

use std::hash::Hasher;

use serde::de::value::{Error as Stopped, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use twox_hash::XxHash3_64;

use super::{Names, NamesByType, add};

/// Questions that a type may ask in one reading.
const MAX_QUESTIONS: usize = 16_384;
/// From this level on an option, list or map has something in one case of four, so that types within themselves end.
const DEEP: usize = 6;
/// Levels below which nothing is read.
const MAX_DEPTH: usize = 64;
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

/// How a reading ended.
pub(super) enum Ending {
    /// The type had all that it asked for.
    Whole,
    /// It was given up, since the type stands within itself too often this time.
    Endless,
    /// The type takes none of the values, or panics.
    Refused,
}

pub(super) struct Probe {
    hasher: XxHash3_64,
    pub(super) names: NamesByType,
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
    /// Lets a type read, with other values until it takes them.
    pub(super) fn read(
        &mut self,
        reading: usize,
        read: impl Fn(&mut Self) -> std::thread::Result<bool>,
    ) -> Ending {
        self.choices.clear();
        loop {
            let before = (self.hasher.clone(), self.names.clone());
            self.begin(reading);
            match read(self) {
                Ok(true) => return Ending::Whole,
                Ok(false) if self.is_endless => return Ending::Endless,
                // The last value was not to its taste: again with another one in its place.
                Ok(false) if self.take_another() => (self.hasher, self.names) = before,
                _ => return Ending::Refused,
            }
        }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.hasher.finish()
    }

    fn note(&mut self, kind: &str) -> Result<(), Stopped> {
        self.hasher.write(kind.as_bytes());
        self.hasher.write_u8(0xFF);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 { Err(self.endless()) } else { Ok(()) }
    }

    fn begin(&mut self, reading: usize) {
        (self.left, self.depth, self.asked, self.is_endless) = (MAX_QUESTIONS, 0, 0, false);
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
        self.names.varies = true;
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
