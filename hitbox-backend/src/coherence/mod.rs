//! What all views of one store share, so that copies in it stay true: the order of its writes and the
//! right to refill it ([`fence`]), and the keys whose copy must not be served ([`shadow`]).

pub(crate) mod fence;
mod shadow;

/// The primitives that the fence is built on; schedule exploration puts others in their place.
pub(crate) mod sync {
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
}

use std::sync::{Arc, LazyLock};

use hitbox_core::CacheKey;
use smallvec::SmallVec;

pub(crate) use fence::Fence;
pub use fence::{Mutation, Places, Ticket};
use shadow::Shadow;

/// Shared by all handles, views and compositions over one store.
#[derive(Debug)]
pub struct Coherence {
    pub(crate) fence: Arc<Fence>,
    pub(crate) shadow: Shadow,
}

impl Default for Coherence {
    fn default() -> Self {
        Self { fence: Arc::new(Fence::new()), shadow: Shadow::default() }
    }
}

impl Coherence {
    /// What backends that bring none of their own share. One fence for all of them is safe: it orders
    /// more than it has to.
    pub(crate) fn of_anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Coherence>> = LazyLock::new(Arc::default);
        ANONYMOUS.clone()
    }

    /// Adds this store to those that a write of `key` concerns.
    pub(crate) fn place(&self, key: &CacheKey, places: &mut Places) {
        places.add(&self.fence, key.process_hash());
    }

    /// Keeps this store's copy of `key` from being served until it is overwritten or removed.
    pub fn hide(&self, key: &CacheKey) {
        self.shadow.hide(key);
    }

    /// Whether this store's copy of `key` must not be served.
    #[inline]
    pub fn is_hidden(&self, key: &CacheKey) -> bool {
        self.shadow.is_hidden(key)
    }

    /// Whether so many copies had to be hidden that the whole store is, until it has been cleared.
    pub fn is_hidden_entirely(&self) -> bool {
        self.shadow.is_hidden_entirely()
    }

    /// Keys that are hidden now.
    pub fn hidden(&self) -> usize {
        self.shadow.len()
    }

    /// The right to refill `key`, if nothing is written to it from now on.
    pub(crate) fn ticket(&self, key: &CacheKey) -> Ticket {
        Ticket(SmallVec::from_iter([(self.fence.id(), self.fence.generation(key.process_hash()))]))
    }
}
