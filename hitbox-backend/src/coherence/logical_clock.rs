//! A clock that counts the invalidations of the process. It tells whether a write, load or refill started before a
//! scope was invalidated. It has nothing to do with time.

use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_core::Timestamp;

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
    /// The time of a load's start: what was invalidated well before is no concern of it.
    pub(crate) at: Option<Timestamp>,
}

impl StartedAt {
    /// A write starts now and brings something new.
    pub(crate) fn write() -> Self {
        Self { tick: now(), from_read: false, at: None }
    }

    /// A refill starts now, or a write that brings what is stored elsewhere.
    pub(crate) fn read() -> Self {
        Self { tick: now(), from_read: true, at: None }
    }

    /// A load starts now.
    pub(crate) fn load(at: Timestamp) -> Self {
        Self { at: Some(at), ..Self::read() }
    }
}
