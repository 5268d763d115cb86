//! Counts at one moment, per leaf and in total, as a table and for serde.

use std::fmt;

use hitbox_core::{BackendLabel, BackendResult};
use serde::{Serialize, Serializer};

use super::{Counters, Event};

/// What a leaf holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Occupancy {
    /// Entries, expired ones that are still stored included.
    pub entries: u64,
    /// Bytes, in the leaf's own measure.
    pub bytes: u64,
    /// The bound on entries, if there is one.
    pub max_entries: Option<u64>,
    /// The bound on bytes, if there is one.
    pub max_bytes: Option<u64>,
    /// Entries put out for want of room.
    pub evictions: u64,
    /// Entries dropped since their time was over.
    pub expirations: u64,
}

impl Occupancy {
    /// So many entries of so many bytes.
    pub fn new(entries: u64, bytes: u64) -> Self {
        Self { entries, bytes, ..Self::default() }
    }

    /// The same with these bounds.
    pub fn with_bounds(self, max_entries: Option<u64>, max_bytes: Option<u64>) -> Self {
        Self { max_entries, max_bytes, ..self }
    }

    /// The same with these counts of dropped entries.
    pub fn with_dropped(self, evictions: u64, expirations: u64) -> Self {
        Self { evictions, expirations, ..self }
    }
}

impl Occupancy {
    fn and(self, other: Self) -> Self {
        let both = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
            max_entries: both(self.max_entries, other.max_entries),
            max_bytes: both(self.max_bytes, other.max_bytes),
            evictions: self.evictions + other.evictions,
            expirations: self.expirations + other.expirations,
        }
    }
}

fn as_text<S: Serializer>(label: &BackendLabel, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(label.as_str())
}

macro_rules! statistics {
    ($($(#[doc = $doc:literal])+ $name:ident = $($event:ident)+;)+) => {
        /// A leaf's statistics at one moment, or those of several together. Counts are since the view of the leaf was
        /// made; they are the same as the exported metrics.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct LeafStatistics {
            /// The leaf's dotted path, `total` for all together.
            #[serde(serialize_with = "as_text")]
            pub label: BackendLabel,
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Whether its store is out of order: calls failed, and none has been answered since. In total, whether any is.
            pub failing: bool,
            /// What it holds, if it can say without I/O. In total that of the leaves that can.
            pub occupancy: Option<Occupancy>,
        }

        impl Counters {
            pub(crate) fn snapshot(&self, label: BackendLabel, occupancy: Option<Occupancy>) -> LeafStatistics {
                LeafStatistics {
                    label,
                    $($name: [$(self.get(Event::$event)),+].into_iter().sum(),)+
                    failing: false,
                    occupancy,
                }
            }
        }

        impl LeafStatistics {
            fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                self.failing |= other.failing;
                self.occupancy = match (self.occupancy, other.occupancy) {
                    (Some(a), Some(b)) => Some(a.and(b)),
                    (one, other) => one.or(other),
                };
            }
        }
    };
}

statistics! {
    /// Reads answered with a fresh copy.
    hits = Hit;
    /// Reads answered with a stale copy.
    stale_hits = Stale;
    /// Reads answered with nothing.
    misses = Miss;
    /// Copies that were found and not served, since another layer's was.
    unserved = Unserved;
    /// Copies that were met and could not be served: past their time, invalidated, dirty, damaged, foreign or not
    /// decodable.
    unusable = Outdated Invalidated Damaged Foreign Undecodable Dirty;
    /// Copies that were met and could not be served, since something that they carry was invalidated.
    invalidated = Invalidated;
    /// Values stored by writes.
    writes = Write;
    /// Values stored by refills.
    refills = Refill;
    /// Refills given up since something was written or invalidated meanwhile.
    refills_superseded = RefillSuperseded;
    /// Values left out by the layer's rule of admission.
    not_admitted = NotAdmitted;
    /// Deletes carried out.
    removes = Remove;
    /// Scopes that were given a new epoch.
    invalidations = Invalidation;
    /// Conditional writes that met an equal or newer version.
    version_mismatches = VersionMismatch;
    /// Look-ups that found an entry which a read would find.
    present = Present;
    /// Look-ups that found none.
    absent = Absent;
    /// Look-ups that could not tell.
    maybe = Maybe;
    /// Reads that a filter answered, since the key cannot be there.
    filtered = Filtered;
    /// Reads that a filter let pass for a key that was not there.
    false_positives = FalsePositive;
    /// Calls that failed.
    errors = ReadError WriteError RemoveError;
    /// Bytes handed out (byte-storing leaves).
    bytes_read = BytesRead;
    /// Bytes taken in (byte-storing leaves).
    bytes_written = BytesWritten;
    /// Bytes that were compressed.
    compress_in = CompressIn;
    /// Bytes that came of it.
    compress_out = CompressOut;
    /// Values that were stored as they are, though the leaf has a compressor.
    compress_skipped = CompressSkipped;
}

/// Statistics of every leaf of an expression, from left to right, and in total. `Display` shows a line of each, or with the feature
/// `table` a table of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Per leaf.
    pub leaves: Vec<LeafStatistics>,
    /// All leaves together, but for misses: those are the calls that no leaf answered. So a call is counted once,
    /// whichever leaves it has met.
    pub total: LeafStatistics,
}

impl Default for Statistics {
    fn default() -> Self {
        Self::of(Vec::new(), 0)
    }
}

impl Statistics {
    pub(crate) fn of(leaves: Vec<LeafStatistics>, unanswered: u64) -> Self {
        let mut total = Counters::default().snapshot("total".into(), None);
        leaves.iter().for_each(|leaf| total.add(leaf));
        total.misses = unanswered;
        Self { leaves, total }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "table")]
        return f.write_str(&super::table::of(self.leaves.iter().chain([&self.total])));
        #[cfg(not(feature = "table"))]
        for leaf in self.leaves.iter().chain([&self.total]) {
            let LeafStatistics { label, hits, stale_hits, misses, errors, .. } = leaf;
            writeln!(f, "{label}: {hits} hits, {stale_hits} stale, {misses} misses, {errors} errors")?;
        }
        #[cfg(not(feature = "table"))]
        Ok(())
    }
}

/// How many entries of a leaf a normal read may see.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EntryCount {
    /// The leaf's dotted path.
    pub label: BackendLabel,
    /// Entries whose time is not over, or why they cannot be counted.
    pub entries: BackendResult<u64>,
}

impl EntryCount {
    /// The count of this leaf.
    pub fn new(label: BackendLabel, entries: BackendResult<u64>) -> Self {
        Self { label, entries }
    }

    /// Whether there is none, if that is known.
    ///
    /// # Errors
    /// As `entries`.
    pub fn is_empty(&self) -> BackendResult<bool> {
        self.entries.clone().map(|entries| entries == 0)
    }
}
