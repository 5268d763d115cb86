//! Settings of the in-memory backend.

use hitbox_backend::core::BackendResult;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::memory::Bound;
use hitbox_backend::{Leaf, memory_setters};

use crate::MokaBackend;
use crate::store::MokaStore;

/// Builds a [`MokaBackend`]. Without a bound it holds 100,000 entries.
#[derive(Clone, Debug)]
pub struct MokaBuilder {
    pub(crate) bound: Bound,
    pub(crate) options: LeafOptions,
    pub(crate) priorities: bool,
}

impl MokaBuilder {
    pub(crate) fn new() -> Self {
        Self { bound: Bound::Entries(100_000), options: LeafOptions::new("moka"), priorities: false }
    }

    /// Puts entries of a low [priority](hitbox_backend::core::Priority) out before those of a higher one, and within a class the
    /// oldest first, but for those that were read since, instead of by moka's own choice, which looks at how often entries
    /// are read. A write that finds no room beside entries of higher classes is answered with
    /// [`NotAdmitted`](hitbox_backend::LeafOutcome::NotAdmitted). Writes take a lock for it. Default: moka's own
    /// choice.
    #[must_use]
    pub fn priorities(mut self) -> Self {
        self.priorities = true;
        self
    }

    // moka's node and queues.
    memory_setters!("moka", 352);

    /// The backend.
    ///
    /// # Errors
    /// [`Configuration`](hitbox_backend::core::ErrorKind::Configuration) if the bound is zero.
    pub fn build(self) -> BackendResult<MokaBackend> {
        self.bound.validate()?;
        let Self { bound, options, priorities } = self;
        let store = MokaStore::new(bound, options.clock.clone(), priorities);
        Ok(MokaBackend(Leaf::new(store, options)))
    }
}
