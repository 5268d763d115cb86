//! Settings of the in-memory backend.

use hitbox_backend::core::BackendResult;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::memory::Bound;
use hitbox_backend::{Leaf, memory_setters};

use crate::QuickBackend;
use crate::store::QuickStore;

/// Builds a [`QuickBackend`]. Without a bound it holds 100,000 entries. Priorities of entries have no effect on who is
/// evicted.
#[derive(Clone, Debug)]
pub struct QuickBuilder {
    pub(crate) bound: Bound,
    pub(crate) options: LeafOptions,
}

impl QuickBuilder {
    pub(crate) fn new() -> Self {
        Self { bound: Bound::Entries(100_000), options: LeafOptions::new("quick") }
    }

    // The node with its links and the remembered ghosts.
    memory_setters!("quick", 256);

    /// The backend.
    ///
    /// # Errors
    /// [`Configuration`](hitbox_backend::core::ErrorKind::Configuration) if the bound is zero.
    pub fn build(self) -> BackendResult<QuickBackend> {
        self.bound.validate()?;
        let Self { bound, options } = self;
        let store = QuickStore::new(bound, options.clock.clone());
        Ok(QuickBackend(Leaf::new(store, options)))
    }
}
