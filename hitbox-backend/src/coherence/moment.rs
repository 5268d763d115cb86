//! When something began, compared with when scopes were invalidated: a count of the process's invalidations, no time.

use std::sync::atomic::{AtomicU64, Ordering};

static MOMENT: AtomicU64 = AtomicU64::new(1);

/// The present moment: the number of the last invalidation of the process.
pub(crate) fn now() -> u64 {
    MOMENT.load(Ordering::Acquire)
}

/// A moment that is later than everything that has begun.
pub(crate) fn next() -> u64 {
    MOMENT.fetch_add(1, Ordering::AcqRel) + 1
}

/// Later than every moment: what is being invalidated.
pub(crate) const UNDER_WAY: u64 = u64::MAX;

/// When and by whom a write was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    pub(crate) moment: u64,
    /// It brings what was read or loaded before: what cannot be known to have been valid ever since is not stored.
    pub(crate) brings_older: bool,
}

impl Began {
    /// A write that brings something new begins now.
    pub(crate) fn write() -> Self {
        Self { moment: now(), brings_older: false }
    }

    /// A load or refill begins now.
    pub(crate) fn load() -> Self {
        Self { moment: now(), brings_older: true }
    }
}
