//! What all views of one store share, so that copies in it stay true: the order of its writes and the
//! right to refill it ([`fence`]), the keys whose copy must not be served ([`shadow`]), and what
//! has been invalidated by name ([`epochs`]).

mod claim;
pub(crate) mod epochs;
pub(crate) mod fence;
pub(crate) mod filter;
pub(crate) mod moment;
mod shadow;
mod stripe;
mod ticket;
mod tokens;

/// The primitives that the fence is built on; schedule exploration puts others in their place.
pub(crate) mod sync {
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
}

use std::sync::{Arc, LazyLock, OnceLock};

use hitbox_core::{CacheKey, Scope};

use crate::backend::Backend;
use crate::read::LeafPosition;
pub use claim::Claim;
use epochs::{Epochs, Keeping};
pub(crate) use fence::Fence;
pub use fence::Mutation;
pub(crate) use fence::Places;
use filter::{Filter, Noted};
use shadow::Shadow;
pub use ticket::Ticket;

/// Shared by all handles, views and compositions over one store.
#[derive(Debug)]
pub struct Coherence {
    pub(crate) fence: Arc<Fence>,
    pub(crate) shadow: Shadow,
    pub(crate) epochs: Arc<Epochs>,
    /// Which keys the store may have, if somebody wants to know.
    filter: OnceLock<Arc<Filter>>,
}

impl Default for Coherence {
    fn default() -> Self {
        Self {
            fence: Arc::new(Fence::new()),
            shadow: Shadow::default(),
            epochs: Arc::default(),
            filter: OnceLock::new(),
        }
    }
}

impl Coherence {
    /// What backends that bring none of their own share. One fence for all of them is safe: it orders
    /// more than it has to.
    pub(crate) fn of_anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Coherence>> = LazyLock::new(|| {
            let epochs = Arc::new(Epochs::kept(Keeping::Nowhere));
            Arc::new(Coherence { epochs, ..Coherence::default() })
        });
        ANONYMOUS.clone()
    }

    /// Keeps what this store had before `mutation` from being served, until it has been overwritten or
    /// removed by it or by a later one.
    pub fn hide(&self, key: &CacheKey, mutation: &Mutation) {
        if let Some(number) = mutation.number(&self.fence, key.process_hash()) {
            self.shadow.hide(key, number);
        }
    }

    /// The store has what `mutation` brought.
    pub(crate) fn show(&self, key: &CacheKey, mutation: &Mutation) {
        if let Some(number) = mutation.number(&self.fence, key.process_hash()) {
            self.shadow.repaired(key, number);
        }
    }

    /// Whether this store's copy of `key` must not be served.
    #[inline(always)]
    pub fn is_hidden(&self, key: &CacheKey) -> bool {
        self.shadow.is_hidden(key)
    }

    /// The filter of the store; made for so many keys if there is none.
    pub(crate) fn filter(&self, expected: u64) -> Arc<Filter> {
        self.filter.get_or_init(|| Arc::new(Filter::new(expected))).clone()
    }

    /// A write of this key is under way until the note is dropped.
    pub(crate) fn note<'c>(&'c self, key: &'c CacheKey) -> Option<Noted<'c>> {
        self.filter.get().map(|filter| filter.note(key))
    }

    /// Whether any copy of this store is hidden.
    #[inline]
    pub(crate) fn hidden_any(&self) -> bool {
        self.shadow.is_any()
    }

    /// Whether so many copies had to be hidden that the whole store is, until it has been cleared.
    pub fn is_hidden_entirely(&self) -> bool {
        self.shadow.is_hidden_entirely()
    }

    /// Keys that are hidden now.
    pub fn hidden(&self) -> usize {
        self.shadow.len()
    }
}

/// The stores of a backend that a write of `key` concerns.
pub(crate) fn places<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> Places {
    let mut places = Places::default();
    backend.visit_leaves(key, &mut |leaf, key| places.add(&leaf.coherence().fence, key.process_hash()));
    places
}

/// A claim to write `key` in all leaves of a backend: what a load takes before it asks the source.
pub fn claim<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> Claim {
    Claim::new(places(backend, key))
}

/// Whether something has been invalidated, in any leaf of a backend, since a load of `key` made its claim, so that an
/// entry with these scopes must not be stored.
pub fn is_superseded<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    scopes: &[Scope],
    claim: &Claim,
) -> bool {
    let mut superseded = false;
    backend.visit_leaves(key, &mut |leaf, key| {
        superseded |= leaf.epochs().is_superseded(key, scopes, claim.began());
    });
    superseded
}

/// Begins a write or delete of `key` in all leaves of a backend.
pub fn mutation<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> Arc<Mutation> {
    Mutation::begin(places(backend, key))
}

/// Begins a write of `key` that brings no new state, in all leaves of a backend: loads that are under way may still
/// be stored.
pub fn upkeep<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> Arc<Mutation> {
    Mutation::begin_upkeep(places(backend, key))
}

/// The right to fill one leaf of a backend, if nothing is written to `key` from now on.
pub fn ticket_of_leaf<B: Backend + ?Sized>(backend: &B, key: &CacheKey, position: LeafPosition) -> Ticket {
    let mut ticket = Ticket::default();
    backend.visit_leaves(key, &mut |leaf, key| {
        if leaf.position() == position {
            ticket.add(&leaf.coherence().fence, key.process_hash());
        }
    });
    ticket
}

/// The right to fill the leaves of a backend, if nothing is written to `key` from now on.
pub(crate) fn ticket<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> Ticket {
    let mut ticket = Ticket::default();
    backend.visit_leaves(key, &mut |leaf, key| ticket.add(&leaf.coherence().fence, key.process_hash()));
    ticket
}
