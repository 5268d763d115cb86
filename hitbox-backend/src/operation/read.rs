//! What a read asks for and what it is answered with.

use hitbox_core::{Accept, BackendLabel, BackendResult, CacheStatus, CacheValue, Freshness, ReadMode};

use crate::completion::Batch;
use crate::envelope::Raw;

/// Options of one read. `Default` is a normal read; cloning is cheap.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The oldest copy that is accepted.
    pub accept: Accept,
    /// Leaves that are not asked: they have answered already, or their copy turned out unusable.
    pub skip: LeafSet,
    /// Whether records that say "the source has nothing" are answers too.
    pub absent: bool,
    /// Whether a composition that finds a dirty key brings its layers up to date. Whoever does that by itself says no.
    pub reconcile: bool,
    /// Whether no user has asked, but the framework for itself: such a read is counted nowhere.
    pub background: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self::NORMAL
    }
}

impl ReadOptions {
    /// A normal read.
    pub const NORMAL: Self = Self {
        accept: Accept::Stale,
        skip: LeafSet::EMPTY,
        absent: false,
        reconcile: true,
        background: false,
    };

    /// The same, accepting copies of this age.
    #[must_use]
    pub fn accepting(self, accept: Accept) -> Self {
        Self { accept, ..self }
    }

    /// The same without these leaves.
    #[must_use]
    pub fn skipping(self, skip: LeafSet) -> Self {
        Self { skip, ..self }
    }

    /// The same; with `true` records that say "the source has nothing" are answers too.
    #[must_use]
    pub fn with_absent(self, absent: bool) -> Self {
        Self { absent, ..self }
    }

    /// The same by somebody who brings layers up to date by himself.
    #[must_use]
    pub const fn without_reconcile(self) -> Self {
        Self { reconcile: false, ..self }
    }

    /// The same for the framework itself, not counted.
    #[must_use]
    pub const fn in_background(self) -> Self {
        Self { background: true, ..self }
    }
}

/// The place of a leaf in an expression, counted from the left, from 0 on.
pub type LeafPosition = u8;

/// Leaves that a [`LeafSet`] tells apart; in a larger expression some share a bit, and an unusable copy in
/// one hides that in the other for the rest of the read.
pub const MAX_LEAVES: usize = 64;

/// A set of leaves of one expression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeafSet(u64);

impl LeafSet {
    /// No leaf.
    pub const EMPTY: Self = Self(0);

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One leaf.
    pub const fn of(leaf: LeafPosition) -> Self {
        Self(1 << (leaf & 63))
    }

    /// `count` leaves from `first` on.
    pub const fn range(first: LeafPosition, count: usize) -> Self {
        let mut set = Self::EMPTY;
        let mut i = 0;
        while i < count && i < MAX_LEAVES {
            set = set.union(Self::of(first.wrapping_add(i as u8)));
            i += 1;
        }
        set
    }

    /// Leaves of either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the leaf is in the set.
    pub const fn contains(self, leaf: LeafPosition) -> bool {
        self.0 & (1 << (leaf & 63)) != 0
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are in the set.
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A usable copy and where it was.
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry.
    pub value: CacheValue<Raw>,
    /// What it was when it was read: [`Freshness::Gone`] never occurs.
    pub freshness: Freshness,
    /// The leaf that had it.
    pub label: BackendLabel,
    /// Its position.
    pub leaf: LeafPosition,
    /// Whether an upper layer is being filled from it.
    pub mode: ReadMode,
}

/// How a call that is answered with a copy of this freshness reports itself.
pub(crate) const fn status_of(freshness: Freshness) -> CacheStatus {
    match freshness {
        Freshness::Fresh => CacheStatus::Hit,
        _ => CacheStatus::Stale,
    }
}

/// What one layer, or a whole expression, answers to a read of one key.
pub type Answer = BackendResult<Option<Found>>;

/// Answers in the order of their keys.
pub type Answers = Batch<Answer>;

/// What can be said without waiting.
#[derive(Debug)]
pub enum TryRead {
    /// A usable copy.
    Hit(Found),
    /// No usable copy anywhere.
    Miss,
    /// Somebody has to be waited for. The leaves named here have answered "no" and need not be asked
    /// again.
    WouldWait(LeafSet),
}

/// Whether an entry is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// A read would find it.
    Present,
    /// A read would not find it.
    Absent,
    /// It cannot be said without reading it.
    Maybe,
}
