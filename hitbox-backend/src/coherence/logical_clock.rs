//! A clock that counts the invalidations of the process. It tells whether a write, load or refill started before a
//! scope was invalidated. It has nothing to do with time.

use std::sync::atomic::{AtomicU64, Ordering};

static TICKS: AtomicU64 = AtomicU64::new(1);

/// The number of the last invalidation of the process.
pub(crate) fn now() -> u64 {
    TICKS.load(Ordering::Acquire)
}

/// Counts one more invalidation: its number is greater than that of everything that has started.
pub(crate) fn tick() -> u64 {
    TICKS.fetch_add(1, Ordering::AcqRel) + 1
}

/// Greater than every number: the scope is being invalidated.
pub(crate) const UNDER_WAY: u64 = u64::MAX;

/// When a write started, on the logical clock, and what it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartedAt {
    pub(crate) tick: u64,
    /// It brings what was read or loaded before it. If nobody knows whether that was valid ever since, it is not
    /// stored.
    pub(crate) from_read: bool,
}

impl StartedAt {
    /// A write starts now and brings something new.
    pub(crate) fn write() -> Self {
        Self { tick: now(), from_read: false }
    }

    /// A load or refill starts now.
    pub(crate) fn load() -> Self {
        Self { tick: now(), from_read: true }
    }
}
