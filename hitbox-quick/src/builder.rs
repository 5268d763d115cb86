//! Settings of the in-memory backend.

use hitbox_backend::memory::Bound;
use hitbox_backend::{LeafOptions, memory_setters};
use hitbox_core::BackendResult;

use crate::QuickBackend;

/// Builds a [`QuickBackend`]. Without a bound it holds 100,000 entries.
#[derive(Clone, Debug)]
pub struct QuickBuilder {
    pub(crate) bound: Bound,
    pub(crate) options: LeafOptions,
}

impl QuickBuilder {
    pub(crate) fn new() -> Self {
        Self { bound: Bound::Entries(100_000), options: LeafOptions::new("quick") }
    }

    // The node with its links and the remembered ghosts, and the table of ends.
    memory_setters!("quick", 256);

    /// The backend.
    ///
    /// # Errors
    /// [`Configuration`](hitbox_core::ErrorKind::Configuration) if the bound is zero.
    pub fn build(self) -> BackendResult<QuickBackend> {
        self.bound.validate()?;
        Ok(QuickBackend::new(self))
    }
}
