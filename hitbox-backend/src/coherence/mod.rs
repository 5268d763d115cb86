//! What all handles of one store share, so that its copies stay true: the order of its writes and the right to store
//! what loads and refills bring ([`write_queue`], [`write_ticket`], [`load_permit`], [`refill_permit`]), the keys whose copy must not be
//! served ([`dirty`]), and what has been invalidated ([`epochs`]).

mod dirty;
pub(crate) mod epochs;
pub(crate) mod filter;
pub(crate) mod load_permit;
pub(crate) mod logical_clock;
mod namespaces;
pub(crate) mod refill_permit;
mod slow_writes;
mod stripe;
mod tokens;
pub(crate) mod write_queue;
pub(crate) mod write_ticket;

/// The primitives that the queue is built on; schedule exploration puts others in their place.
pub(crate) mod sync {
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard, Weak};
}

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hitbox_core::{CacheKey, CacheValue, Clock, Timestamp};

use dirty::DirtyKeys;
use epochs::{EpochHome, Epochs};
use filter::{Filter, Noted};
pub use load_permit::LoadPermit;
pub use refill_permit::RefillPermit;
use slow_writes::SlowWrites;
pub(crate) use stripe::{Passed, WriteKind};
pub(crate) use write_queue::WriteQueue;
pub(crate) use write_ticket::QueueSet;
pub use write_ticket::WriteTicket;

/// Shared by all handles of one store.
#[derive(Debug)]
pub struct Coherence {
    pub(crate) queue: Arc<WriteQueue>,
    pub(crate) dirty: DirtyKeys,
    pub(crate) epochs: Epochs,
    pub(crate) slow_writes: SlowWrites,
    /// What the bodies weigh that are being collected for the store.
    collected: Mutex<u64>,
    /// Which keys the store may have, if somebody wants to know.
    filter: OnceLock<Arc<Filter>>,
}

impl Coherence {
    pub(crate) fn new(home: EpochHome) -> Self {
        Self {
            queue: Arc::new(WriteQueue::new()),
            dirty: DirtyKeys::new(home == EpochHome::Shared),
            epochs: Epochs::new(home),
            slow_writes: SlowWrites::default(),
            collected: Mutex::new(0),
            filter: OnceLock::new(),
        }
    }

    pub(crate) fn collected(&self) -> MutexGuard<'_, u64> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this store had before the write of this ticket is not served until it has been overwritten or removed.
    pub fn mark_dirty(&self, key: &CacheKey, ticket: &WriteTicket, clock: &dyn Clock) {
        let hash = key.process_hash();
        if let Some(number) = ticket.number(&self.queue, hash) {
            self.dirty.mark_dirty(key, number, || self.epochs.made_until(clock));
            // What has been written later, or in another place of the expression, is not taken for failed.
            if self.queue.is_overtaken(hash, number) || ticket.is_done_in_a_place(&self.queue, hash) {
                self.dirty.mark_clean(key, number);
            }
        }
    }

    /// The store has what the write of this ticket brought.
    pub(crate) fn mark_clean(&self, key: &CacheKey, ticket: &WriteTicket) {
        ticket.overtake(&self.queue, key.process_hash());
        if self.dirty.is_any()
            && let Some(number) = ticket.number(&self.queue, key.process_hash())
        {
            self.dirty.mark_clean(key, number);
        }
    }

    /// Whether this store's copy of the key must not be served.
    #[inline(always)]
    pub fn is_dirty(&self, key: &CacheKey) -> bool {
        self.dirty.has(key)
    }

    /// Until when entries of a dirty key are outdated; nothing if that is not known.
    pub(crate) fn dirty_since(&self, key: &CacheKey) -> Option<Timestamp> {
        self.dirty.since(key)
    }

    /// Whether this entry of the store must not be served, whatever its key.
    pub(crate) fn ignores<T>(&self, entry: &CacheValue<T>) -> bool {
        self.dirty.ignores(entry)
    }

    /// Whether any copy of this store must not be served.
    #[inline]
    pub(crate) fn has_dirty(&self) -> bool {
        self.dirty.is_any()
    }

    /// Whether so many keys were dirty that the whole store is, until it has been erased.
    pub fn is_all_dirty(&self) -> bool {
        self.dirty.is_all()
    }

    /// What the whole store has now is outdated, and what is written from now on is not.
    pub(crate) fn ignore_what_is_there(&self, clock: &dyn Clock) {
        self.dirty.ignore_before(self.epochs.made_until(clock));
    }

    /// How many keys are dirty now.
    pub fn dirty_keys(&self) -> usize {
        self.dirty.len()
    }

    /// Up to `limit` dirty keys that are wanted, in no order.
    pub(crate) fn some_dirty(&self, limit: usize, is_wanted: impl Fn(&CacheKey) -> bool) -> Vec<CacheKey> {
        self.dirty.some(limit, is_wanted)
    }

    /// The right to clean the store up, if nobody has it.
    pub(crate) fn begin_reconcile(self: &Arc<Self>) -> Option<Reconciling> {
        self.dirty.begin_reconcile().then(|| Reconciling(self.clone()))
    }

    /// The filter of the store; made for so many keys if there is none.
    pub(crate) fn filter(&self, expected: u64) -> Arc<Filter> {
        self.filter.get_or_init(|| Arc::new(Filter::new(expected))).clone()
    }

    /// A write of this key is under way until the note is dropped.
    pub(crate) fn note<'c>(&'c self, key: &'c CacheKey) -> Option<Noted<'c>> {
        self.filter.get().map(|filter| filter.note(key))
    }
}

/// The right to clean up a store's dirty keys, which one has at a time.
#[derive(Debug)]
pub(crate) struct Reconciling(Arc<Coherence>);

impl Drop for Reconciling {
    fn drop(&mut self) {
        self.0.dirty.end_reconcile();
    }
}
