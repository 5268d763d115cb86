//! The right to store what a load brings. It ends when its key is written, deleted or cleared meanwhile.
//!
//! A refill permit is worthless once anything in its stripe was written. A load takes far longer than a refill, so it
//! is told exactly whether its own key was written: a write ends all permits to its key when it takes its slot, under
//! the stripe's lock. A permit that is taken while its key is being written ends with that write. What it brings may be
//! shared until then, and is never stored.

use std::sync::PoisonError;

use hitbox_core::{CacheKey, Timestamp};
use smallvec::SmallVec;

use super::logical_clock::StartedAt;
use super::sync::{Arc, Mutex, Weak};
use super::write_queue::WriteQueue;
use super::write_ticket::{QueueOf, QueueSet, WriteTicket};

/// The right to write one key after a load, in all stores that the write concerns. Dropping it gives it up.
pub struct LoadPermit {
    /// Each with the permit's number there, and its key as it is known there.
    stores: SmallVec<[(QueueOf, u64, CacheKey); 3]>,
    started: StartedAt,
    /// Tells what is stored under it from what is stored under others.
    generation: u64,
    redeemed: Mutex<Redeemed>,
}

#[derive(Default)]
struct Redeemed {
    /// The write that it was redeemed for, as long as somebody carries it out.
    begun: Weak<WriteTicket>,
    /// It is worth nothing any more.
    is_revoked: bool,
}

impl LoadPermit {
    /// Takes a permit in each of these queues, at this time. The keys are those that the queues know it by.
    pub fn new(queues: QueueSet, keys: impl IntoIterator<Item = CacheKey>, now: Timestamp) -> Self {
        let permit = |(of, key): (QueueOf, CacheKey)| {
            let id = of.queue.take_permit(key.clone());
            (of, id, key)
        };
        let started = StartedAt::load(now);
        Self {
            stores: queues.0.into_iter().zip(keys).map(permit).collect(),
            started,
            // 0 is left for "none".
            generation: fastrand::u64(1..),
            redeemed: Mutex::default(),
        }
    }

    /// When it was taken.
    pub(crate) fn started(&self) -> StartedAt {
        self.started
    }

    /// Tells a body that is stored under it, in whichever layer, from others of the same key.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What it brings is not stored, unless that has begun.
    pub fn revoke(&self) {
        self.redeemed.lock().unwrap_or_else(PoisonError::into_inner).is_revoked = true;
    }

    /// Whether what is loaded under it may be shown to a read that starts now: no write of the key has started or
    /// ended since it was taken.
    pub fn is_current(&self) -> bool {
        let is_revoked = self.redeemed.lock().unwrap_or_else(PoisonError::into_inner).is_revoked;
        !is_revoked && self.stores.iter().all(|(of, id, _)| of.queue.has_permit(of.hash, *id))
    }

    /// Begins the write that the permit is for, unless another write came first. That ends all other permits to the
    /// key; this one stays current until the write ends. Whoever shares the permit is given the same ticket until then.
    pub fn begin(&self) -> Option<Arc<WriteTicket>> {
        let mut redeemed = self.redeemed.lock().unwrap_or_else(PoisonError::into_inner);
        if redeemed.is_revoked {
            return None;
        }
        let ticket = redeemed.begun.upgrade().or_else(|| WriteTicket::begin_permitted(self))?;
        redeemed.begun = Arc::downgrade(&ticket);
        Some(ticket)
    }

    pub(super) fn stores(&self) -> &[(QueueOf, u64, CacheKey)] {
        &self.stores
    }

    /// Its number in this queue, and its key there.
    pub(super) fn at(&self, queue: &WriteQueue, hash: u64) -> Option<(u64, &CacheKey)> {
        let is_mine = |(of, ..): &&(QueueOf, u64, CacheKey)| of.queue.id() == queue.id() && of.hash == hash;
        self.stores.iter().find(is_mine).map(|(_, id, key)| (*id, key))
    }

    pub(super) fn queues(&self) -> QueueSet {
        QueueSet(self.stores.iter().map(|(of, ..)| of.clone()).collect())
    }
}

impl Drop for LoadPermit {
    fn drop(&mut self) {
        self.stores.iter().for_each(|(of, id, _)| of.queue.return_permit(of.hash, *id));
    }
}

impl std::fmt::Debug for LoadPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadPermit").field("current", &self.is_current()).finish_non_exhaustive()
    }
}
