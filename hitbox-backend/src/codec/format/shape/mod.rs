//! The shape of a type, as its `Deserialize` tells it: names of fields and variants in their order, and the kinds of
//! values. Formats that write positions instead of names read another shape as another value, so that their records
//! carry a number made of it.

mod probe;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;

use probe::{Ending, Probe};

type Names = &'static [&'static str];

/// Variants of an enum.
const MAX_VARIANTS: usize = 1_024;
/// Readings of a type that has enums or is deep, and further ones for each variant of its largest enum.
const READINGS: usize = 256;
const READINGS_PER_VARIANT: usize = 4;

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
    /// Whether something was left out that another reading may have.
    varies: bool,
}

impl NamesByType {
    /// The variants of the enum that has the most.
    fn widest(&self) -> usize {
        self.variants.iter().map(|(_, variants)| variants.len()).max().unwrap_or(0)
    }

    fn wanted_readings(&self) -> usize {
        let varies = self.varies || !self.variants.is_empty();
        if varies { READINGS + READINGS_PER_VARIANT * self.widest().min(MAX_VARIANTS) } else { 1 }
    }

    fn are_all_seen(&self) -> bool {
        let mut seen = self.variants.iter().zip(&self.seen);
        self.widest() <= MAX_VARIANTS && seen.all(|((_, variants), seen)| *seen >= variants.len())
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
    /// Reads a type, as often as it takes to see all of it.
    pub(super) fn of<T: DeserializeOwned>() -> Self {
        let mut probe = Probe::default();
        let (mut readings, mut whole_readings) = (0, 0);
        loop {
            // What the type makes of what it is given is its own, a panic too.
            let read = |probe: &mut Probe| catch_unwind(AssertUnwindSafe(|| T::deserialize(probe).is_ok()));
            match probe.read(readings, read) {
                Ending::Whole => whole_readings += 1,
                Ending::Endless => {}
                Ending::Refused => return Self { fingerprint: 0, is_whole: false, names: probe.names },
            }
            readings += 1;
            if readings >= probe.names.wanted_readings() {
                let is_whole = whole_readings * 4 >= readings && probe.names.are_all_seen();
                return Self { fingerprint: probe.fingerprint(), is_whole, names: probe.names };
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

#[cfg(test)]
mod tests;
