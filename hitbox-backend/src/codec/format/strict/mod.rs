//! What stands between serde's derives and a format: nothing that a format would change gets into it, and no
//! nesting exhausts the stack. A value is either read back as it was, or refused when it is written.

mod de;
mod ser;

use super::shape::Shape;

pub(super) use de::Strict as StrictDeserializer;
pub(super) use ser::StrictValue;

/// Values within values at most, also for formats that have no limit of their own. Each level takes some hundred
/// bytes of the stack; 256 levels fit into the 2 MiB that tokio gives its threads, without optimisation too.
const MAX_DEPTH: u16 = 256;

/// What becomes of an option or a unit that stands directly within an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NestedOptions {
    /// The format tells `Some(None)` from `None` by itself.
    Native,
    /// It is put into an extension of MessagePack.
    Extension,
    /// It is refused, since the format would make `None` of it.
    #[cfg_attr(
        not(any(feature = "json", feature = "rkyv")),
        expect(dead_code, reason = "no such format is here")
    )]
    Refused,
}

/// The number of the MessagePack extension that holds what stands within an option and is an option or unit.
const SOME: i8 = 83;
/// Those that hold integers of more than 64 bits, big-endian.
const I128: i8 = 84;
const U128: i8 = 85;

/// Longer lists are not announced: a list may say that it is longer than the memory.
const MAX_HINT: usize = 1 << 16;
/// Elements of a list in a positional format at most: those without a size take no bytes.
const MAX_ELEMENTS: u64 = 1 << 29;

/// What a format cannot do by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'r> {
    pub(super) nested_options: NestedOptions,
    /// Whether numbers have to be finite.
    pub(super) finite: bool,
    /// What the type consists of when it is read, for formats that write positions.
    pub(super) shape: Option<&'r Shape>,
    /// Whether serde may buffer parts of the type before it knows what they are: it cannot buffer integers of 128 bits.
    is_buffered: fn() -> bool,
    depth: u16,
}

impl<'r> Rules<'r> {
    pub(super) const fn new(nested_options: NestedOptions) -> Self {
        Self { nested_options, finite: false, shape: None, is_buffered: || false, depth: MAX_DEPTH }
    }

    pub(super) const fn buffered_if(self, is_buffered: fn() -> bool) -> Self {
        Self { is_buffered, ..self }
    }

    #[cfg(feature = "json")]
    pub(super) const fn finite(self) -> Self {
        Self { finite: true, ..self }
    }

    pub(super) const fn positional(self, shape: &'r Shape) -> Self {
        Self { shape: Some(shape), ..self }
    }

    /// Whether the format writes names. What is read in such a format may have been buffered by serde, which then says that
    /// it is readable by humans: so it is written like that too.
    pub(super) const fn is_named(self) -> bool {
        matches!(self.nested_options, NestedOptions::Extension | NestedOptions::Refused)
    }

    /// The rules for reading: the innermost empty list counts as a level there.
    pub(super) const fn reading(self) -> Self {
        Self { depth: MAX_DEPTH + 2, ..self }
    }

    /// The rules of the level above: a variant and its fields are one level.
    const fn shallower(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    /// The rules one level down; nothing if there may be none.
    fn deeper(self) -> Option<Self> {
        Some(Self { depth: self.depth.checked_sub(1)?, ..self })
    }
}

const TOO_DEEP: &str = "the value is nested more than 256 levels deep";
