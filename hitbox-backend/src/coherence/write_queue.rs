//! The queue of a store's writes. It orders the writes of each key, and keeps refills from bringing back what was
//! written meanwhile.
//!
//! Every write and delete of a key has a *ticket*. It takes a *slot* in the queue of each store that it concerns, in
//! all of them at once, so that two writes reach every store in the same order. The *generation* of the key's stripe is
//! raised when a write starts and when it ends. A refill notes the generation before it reads the lower layer. It is
//! stored only if the generation is the same and no slot of its key is taken. While it is stored it has a slot itself,
//! so that writes wait for it. Readers never come here.
//!
//! Keys are told apart by their hash. Two keys with one hash wait for each other without need, and never without end.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use hitbox_core::{CacheKey, KeyPattern};

use super::stripe::{Permit, Slot, Stripe, Woken, WriteKind};
use super::sync::{Arc, Mutex, MutexGuard};

/// Keys that share a stripe end each other's refill permits, which costs a refill now and then.
const STRIPES: usize = 1024;

/// The write queue of one store.
pub struct WriteQueue {
    pub(super) id: u64,
    stripes: Box<[Mutex<Stripe>]>,
}

impl Default for WriteQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl WriteQueue {
    /// A queue without any write.
    pub fn new() -> Self {
        Self::with_stripes(STRIPES)
    }

    /// The same with another number of stripes, which is rounded up to a power of two.
    pub fn with_stripes(stripes: usize) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let stripes = (0..stripes.next_power_of_two()).map(|_| Mutex::default()).collect();
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), stripes }
    }

    /// Tells the queues of a process apart, and orders their locks.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn stripe_of(&self, hash: u64) -> usize {
        hash as usize & (self.stripes.len() - 1)
    }

    pub(super) fn stripe(&self, hash: u64) -> MutexGuard<'_, Stripe> {
        self.lock(self.stripe_of(hash))
    }

    pub(super) fn lock(&self, index: usize) -> MutexGuard<'_, Stripe> {
        // Nothing that runs under the lock can leave a stripe half-changed.
        self.stripes[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The generation of a key's stripe.
    pub fn generation(&self, hash: u64) -> u64 {
        self.stripe(hash).generation
    }

    /// A slot for a write that ends at once, if no other write of the key is under way.
    pub fn enter_now(&self, hash: u64, kind: WriteKind) -> Option<OwnSlot<'_>> {
        let mut stripe = self.stripe(hash);
        if stripe.has_slot_of(hash) {
            return None;
        }
        stripe.generation += 1;
        let number = stripe.enter(hash, kind);
        Some(OwnSlot { queue: self, hash, number })
    }

    /// A slot for a refill, if nothing was written since its permit was taken and nobody is writing.
    pub fn enter_refill(&self, key: &CacheKey, generation: u64) -> Option<OwnSlot<'_>> {
        let hash = key.process_hash();
        let mut stripe = self.stripe(hash);
        if stripe.generation != generation || stripe.has_slot_of(hash) || stripe.is_draining(key) {
            return None;
        }
        let number = stripe.enter(hash, WriteKind::Maintenance);
        Some(OwnSlot { queue: self, hash, number })
    }

    /// Ends all load and refill permits of a key: it was changed by somebody who has no slot here.
    pub fn end_permits(&self, hash: u64) {
        let mut stripe = self.stripe(hash);
        stripe.generation += 1;
        stripe.permits.retain(|permit| permit.hash != hash);
    }

    /// Whether a later write of the key is stored. The write with this number must not have ended.
    pub fn is_overtaken(&self, hash: u64, number: u64) -> bool {
        self.stripe(hash).slots.iter().any(|slot| slot.number == number && slot.overtaken)
    }

    /// Whether a write or refill of the key is under way, and its generation otherwise.
    pub fn generation_at_rest(&self, hash: u64) -> Option<u64> {
        let stripe = self.stripe(hash);
        (!stripe.has_slot_of(hash)).then_some(stripe.generation)
    }

    pub(super) fn is_first(&self, hash: u64, number: u64) -> bool {
        self.stripe(hash).is_first(hash, number)
    }

    /// Waits until a slot is the first that is not done.
    pub(super) async fn first(&self, hash: u64, number: u64) {
        poll_fn(|cx| {
            let mut stripe = self.stripe(hash);
            if stripe.is_first(hash, number) {
                return Poll::Ready(());
            }
            if let Some(slot) = stripe.slots.iter_mut().find(|slot| slot.number == number)
                && !slot.wakers.iter().any(|waker| waker.will_wake(cx.waker()))
            {
                slot.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    pub(super) fn take_permit(&self, key: CacheKey) -> u64 {
        let hash = key.process_hash();
        let mut stripe = self.stripe(hash);
        let is_changing =
            |slot: &Slot| slot.hash == hash && slot.kind == WriteKind::Change && !slot.acknowledged;
        let late = stripe.slots.iter().any(is_changing) || stripe.is_draining(&key);
        let id = stripe.next;
        stripe.next += 1;
        stripe.permits.push(Permit { hash, id, key, late });
        id
    }

    pub(super) fn has_permit(&self, hash: u64, id: u64) -> bool {
        self.stripe(hash).permits.iter().any(|permit| permit.hash == hash && permit.id == id)
    }

    pub(super) fn return_permit(&self, hash: u64, id: u64) {
        self.stripe(hash).permits.retain(|permit| permit.hash != hash || permit.id != id);
    }

    pub(super) fn acknowledge(&self, hash: u64, number: u64) {
        if let Some(slot) = self.stripe(hash).slots.iter_mut().find(|slot| slot.number == number) {
            slot.acknowledged = true;
        }
    }

    pub(super) fn done(&self, hash: u64, number: u64) {
        let woken = {
            let mut stripe = self.stripe(hash);
            if let Some(slot) = stripe.slots.iter_mut().find(|slot| slot.number == number) {
                slot.done = true;
            }
            stripe.wake(hash)
        };
        if let Some(woken) = woken {
            wake_all(woken);
        }
    }

    pub(super) fn leave_place(&self, hash: u64, number: u64, is_stored: bool) {
        let woken = self.stripe(hash).leave_place(hash, number, is_stored);
        if let Some(woken) = woken {
            wake_all(woken);
        }
    }

    pub(super) fn leave(&self, hash: u64, number: u64) {
        let woken = self.stripe(hash).leave(hash, number);
        if let Some(woken) = woken {
            wake_all(woken);
        }
    }

    /// Ends every permit, or those of the keys that match, lets no refill of these keys in until the guard is dropped, and
    /// waits until those have written who were writing or refilling.
    ///
    /// Dropping the future lets refills in again; the permits stay ended.
    pub async fn drain(self: &Arc<Self>, pattern: Option<KeyPattern>) -> Drain {
        let before = Vec::with_capacity(self.stripes.len());
        let mut drain = Drain { queue: self.clone(), before, pattern: pattern.map(Arc::new) };
        for index in 0..self.stripes.len() {
            let mut stripe = self.lock(index);
            stripe.generation += 1;
            match &drain.pattern {
                None => {
                    stripe.drains += 1;
                    stripe.permits.clear();
                }
                Some(pattern) => {
                    stripe.permits.retain(|permit| !pattern.matches(&permit.key));
                    stripe.patterns.push(pattern.clone());
                }
            }
            stripe.drained = stripe.next;
            drain.before.push(stripe.next);
        }
        self.until_done(&drain.before).await;
        drain
    }

    /// Waits until those have written who are writing or refilling.
    pub async fn settle(&self) {
        let before: Vec<u64> = (0..self.stripes.len()).map(|index| self.lock(index).next).collect();
        self.until_done(&before).await;
    }

    /// Waits until all slots with lower numbers than these are done.
    async fn until_done(&self, before: &[u64]) {
        let mut index = 0;
        poll_fn(|cx| {
            while index < self.stripes.len() {
                let mut stripe = self.lock(index);
                if stripe.slots.iter().any(|slot| slot.number < before[index] && !slot.done) {
                    stripe.draining.push(cx.waker().clone());
                    return Poll::Pending;
                }
                drop(stripe);
                index += 1;
            }
            Poll::Ready(())
        })
        .await;
    }
}

#[cold]
fn wake_all(woken: Woken) {
    woken.into_iter().for_each(Waker::wake);
}

/// Keeps refills out of a store.
#[derive(Debug)]
pub struct Drain {
    queue: Arc<WriteQueue>,
    /// Per stripe, the number from which on writes came later.
    before: Vec<u64>,
    /// Of these keys alone.
    pattern: Option<Arc<KeyPattern>>,
}

impl Drain {
    /// Whether the write of this key with this number came before the drain.
    pub fn is_before(&self, hash: u64, number: u64) -> bool {
        self.before.get(self.queue.stripe_of(hash)).is_some_and(|before| number < *before)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        for index in 0..self.before.len() {
            let mut stripe = self.queue.lock(index);
            stripe.generation += 1;
            match &self.pattern {
                None => {
                    stripe.drains -= 1;
                    stripe.permits.retain(|permit| !permit.late);
                }
                Some(pattern) => {
                    stripe.patterns.retain(|other| !Arc::ptr_eq(other, pattern));
                    stripe.permits.retain(|permit| !permit.late || !pattern.matches(&permit.key));
                }
            }
        }
    }
}

impl fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteQueue").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A slot in one queue that belongs to one call. Dropping it ends the write.
pub struct OwnSlot<'q> {
    queue: &'q WriteQueue,
    hash: u64,
    number: u64,
}

impl OwnSlot<'_> {
    /// Its number among the writes of this store: later ones have greater numbers.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for OwnSlot<'_> {
    fn drop(&mut self) {
        self.queue.leave(self.hash, self.number);
    }
}
