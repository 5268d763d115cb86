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

use smallvec::SmallVec;

use super::load_permit::LoadPermit;
use super::logical_clock::StartedAt;
use super::stripe::{Permit, Slot, Stripe, WriteKind};
use super::sync::{Arc, Mutex, MutexGuard};

/// Keys that share a stripe end each other's refill permits, which costs a refill now and then.
const STRIPES: usize = 1024;

/// The write queue of one store.
pub struct WriteQueue {
    id: u64,
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

    fn stripe_of(&self, hash: u64) -> usize {
        hash as usize & (self.stripes.len() - 1)
    }

    fn stripe(&self, hash: u64) -> MutexGuard<'_, Stripe> {
        self.lock(self.stripe_of(hash))
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Stripe> {
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
    pub fn enter_refill(&self, hash: u64, generation: u64) -> Option<OwnSlot<'_>> {
        let mut stripe = self.stripe(hash);
        if stripe.drains > 0 || stripe.generation != generation || stripe.has_slot_of(hash) {
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

    fn is_first(&self, hash: u64, number: u64) -> bool {
        self.stripe(hash).is_first(hash, number)
    }

    /// Waits until a slot is the first that is not done.
    async fn first(&self, hash: u64, number: u64) {
        poll_fn(|cx| {
            let mut stripe = self.stripe(hash);
            if stripe.is_first(hash, number) {
                return Poll::Ready(());
            }
            if let Some(slot) = stripe.slots.iter_mut().find(|slot| slot.number == number) {
                slot.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    pub(super) fn take_permit(&self, hash: u64) -> u64 {
        let mut stripe = self.stripe(hash);
        let is_changing =
            |slot: &Slot| slot.hash == hash && slot.kind == WriteKind::Change && !slot.acknowledged;
        let late = stripe.drains > 0 || stripe.slots.iter().any(is_changing);
        let id = stripe.next;
        stripe.next += 1;
        stripe.permits.push(Permit { hash, id, late });
        id
    }

    pub(super) fn has_permit(&self, hash: u64, id: u64) -> bool {
        self.stripe(hash).permits.iter().any(|permit| permit.hash == hash && permit.id == id)
    }

    pub(super) fn return_permit(&self, hash: u64, id: u64) {
        self.stripe(hash).permits.retain(|permit| permit.hash != hash || permit.id != id);
    }

    fn acknowledge(&self, hash: u64, number: u64) {
        if let Some(slot) = self.stripe(hash).slots.iter_mut().find(|slot| slot.number == number) {
            slot.acknowledged = true;
        }
    }

    fn done(&self, hash: u64, number: u64) {
        let woken = {
            let mut stripe = self.stripe(hash);
            if let Some(slot) = stripe.slots.iter_mut().find(|slot| slot.number == number) {
                slot.done = true;
            }
            stripe.wake(hash)
        };
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    fn leave(&self, hash: u64, number: u64) {
        let woken = self.stripe(hash).leave(hash, number);
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    /// Ends every permit, lets no refill in until the guard is dropped, and waits until those have written who were
    /// writing or refilling.
    ///
    /// Dropping the future lets refills in again; the permits stay ended.
    pub async fn drain(self: &Arc<Self>) -> Drain {
        let mut drain = Drain { queue: self.clone(), before: Vec::with_capacity(self.stripes.len()) };
        for index in 0..self.stripes.len() {
            let mut stripe = self.lock(index);
            stripe.generation += 1;
            stripe.drains += 1;
            stripe.permits.clear();
            drain.before.push(stripe.next);
        }
        let mut index = 0;
        poll_fn(|cx| {
            while index < self.stripes.len() {
                let mut stripe = self.lock(index);
                if stripe.slots.iter().any(|slot| slot.number < drain.before[index] && !slot.done) {
                    stripe.draining.push(cx.waker().clone());
                    return Poll::Pending;
                }
                drop(stripe);
                index += 1;
            }
            Poll::Ready(())
        })
        .await;
        drain
    }
}

/// Keeps refills out of a store.
#[derive(Debug)]
pub struct Drain {
    queue: Arc<WriteQueue>,
    /// Per stripe, the number from which on writes came later.
    before: Vec<u64>,
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
            stripe.drains -= 1;
            stripe.permits.retain(|permit| !permit.late);
            stripe.generation += 1;
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

/// The queues that a write of some key concerns, each with the hash that the key has there.
#[derive(Clone, Debug, Default)]
pub struct QueueSet(pub(super) SmallVec<[(Arc<WriteQueue>, u64); 3]>);

impl QueueSet {
    /// Adds a queue.
    pub fn add(&mut self, queue: &Arc<WriteQueue>, hash: u64) {
        if !self.0.iter().any(|(known, other)| known.id == queue.id && *other == hash) {
            self.0.push((queue.clone(), hash));
        }
    }
}

/// A slot of a ticket.
struct TicketSlot {
    queue: Arc<WriteQueue>,
    hash: u64,
    number: u64,
    /// Nobody was before it when it was taken, and so nobody ever is.
    is_first: bool,
}

/// A write or delete under way: its slots in the queues of the stores that it concerns. It ends when the last handle is
/// dropped.
pub struct WriteTicket {
    slots: SmallVec<[TicketSlot; 3]>,
    started: StartedAt,
    /// All stores are written before anybody waits: their slots are given back together.
    ends_at_once: bool,
}

impl WriteTicket {
    fn starting(started: StartedAt) -> Self {
        Self { slots: SmallVec::new(), started, ends_at_once: false }
    }

    /// When it started, or the load whose value it brings.
    pub(crate) fn started(&self) -> StartedAt {
        self.started
    }

    /// Takes a slot in each queue, in all of them at once, for a write of this kind.
    pub fn begin(queues: QueueSet, kind: WriteKind) -> Arc<Self> {
        let started = match kind {
            WriteKind::Change => StartedAt::write(),
            WriteKind::Maintenance => StartedAt::read(),
        };
        let mut ticket = Self::starting(started);
        if let Err(queues) = ticket.enter_few(queues, kind) {
            Self::enter(std::slice::from_mut(&mut ticket), &[queues], kind, None);
        }
        Arc::new(ticket)
    }

    /// The same for a write that is expected to end before anybody waits. That a store has been written is not told to
    /// others before the whole write ends.
    pub(crate) fn begin_at_once(queues: QueueSet) -> Arc<Self> {
        let mut ticket = Self::starting(StartedAt::write());
        ticket.ends_at_once = true;
        if let Err(queues) = ticket.enter_few(queues, WriteKind::Change) {
            Self::enter(std::slice::from_mut(&mut ticket), &[queues], WriteKind::Change, None);
        }
        Arc::new(ticket)
    }

    /// What [`enter`](Self::enter) does, for one queue or two, which most writes concern.
    ///
    /// # Errors
    /// The queues, if they are more.
    fn enter_few(&mut self, mut queues: QueueSet, kind: WriteKind) -> Result<(), QueueSet> {
        let take = |stripe: &mut Stripe, hash: u64| {
            stripe.generation += 1;
            let is_first = !stripe.has_slot_of(hash);
            (stripe.enter(hash, kind), is_first)
        };
        let mut taken: [(u64, bool); 2] = Default::default();
        match &queues.0[..] {
            [(queue, hash)] => taken[0] = take(&mut queue.stripe(*hash), *hash),
            [first, second] if first.0.id != second.0.id => {
                let is_ordered = first.0.id < second.0.id;
                let (low, high) = if is_ordered { (first, second) } else { (second, first) };
                let (mut low_stripe, mut high_stripe) = (low.0.stripe(low.1), high.0.stripe(high.1));
                taken = [take(&mut low_stripe, low.1), take(&mut high_stripe, high.1)];
                if !is_ordered {
                    taken.swap(0, 1);
                }
            }
            _ => return Err(queues),
        }
        for ((queue, hash), (number, is_first)) in queues.0.drain(..).zip(taken) {
            self.slots.push(TicketSlot { queue, hash, number, is_first });
        }
        Ok(())
    }

    /// The same for the write of a load, unless its permit has ended.
    pub(super) fn begin_permitted(permit: &LoadPermit) -> Option<Arc<Self>> {
        let mut ticket = Self::starting(permit.started());
        let queues = [permit.queues()];
        Self::enter(std::slice::from_mut(&mut ticket), &queues, WriteKind::Change, Some(permit))
            .then(|| Arc::new(ticket))
    }

    /// The same for several keys, all at once, so that two batches never wait for each other. Keys are named by their
    /// own hash; equal ones share one ticket.
    pub fn begin_many(keys: Vec<(u64, QueueSet)>) -> Vec<Arc<Self>> {
        let mut index_of = Vec::with_capacity(keys.len());
        let mut known = std::collections::HashMap::new();
        let mut unique: Vec<Self> = Vec::with_capacity(keys.len());
        let mut queues_of: Vec<QueueSet> = Vec::with_capacity(keys.len());
        for (hash, queues) in keys {
            index_of.push(*known.entry(hash).or_insert_with(|| {
                unique.push(Self::starting(StartedAt::write()));
                queues_of.push(queues);
                unique.len() - 1
            }));
        }
        Self::enter(&mut unique, &queues_of, WriteKind::Change, None);
        let shared: Vec<Arc<Self>> = unique.into_iter().map(Arc::new).collect();
        index_of.into_iter().map(|index| shared[index].clone()).collect()
    }

    /// Locks every stripe concerned, in one order that all agree on, and takes the slots, which ends all load permits
    /// to their keys. With a permit it does so only if that has not ended.
    fn enter(
        tickets: &mut [Self],
        queues_of: &[QueueSet],
        kind: WriteKind,
        permit: Option<&LoadPermit>,
    ) -> bool {
        let all = queues_of.iter().flat_map(|queues| &queues.0);
        let mut needed: SmallVec<[(u64, usize, &WriteQueue); 3]> =
            all.map(|(queue, hash)| (queue.id, queue.stripe_of(*hash), &**queue)).collect();
        needed.sort_unstable_by_key(|(id, stripe, _)| (*id, *stripe));
        needed.dedup_by_key(|(id, stripe, _)| (*id, *stripe));
        let mut stripes: SmallVec<[MutexGuard<'_, Stripe>; 3]> =
            needed.iter().map(|(_, stripe, queue)| queue.lock(*stripe)).collect();
        let stripe_of = |queue: &WriteQueue, hash| {
            let at = (queue.id, queue.stripe_of(hash));
            needed
                .binary_search_by_key(&at, |(id, stripe, _)| (*id, *stripe))
                .unwrap_or_else(|missing| missing)
        };
        let may_begin = |(queue, hash, id): &(Arc<WriteQueue>, u64, u64)| {
            stripes[stripe_of(queue, *hash)].may_begin(*hash, *id)
        };
        if !permit.is_none_or(|permit| permit.stores().iter().all(may_begin)) {
            return false;
        }
        for (ticket, queues) in tickets.iter_mut().zip(queues_of) {
            for (queue, hash) in &queues.0 {
                let stripe = &mut stripes[stripe_of(queue, *hash)];
                stripe.generation += 1;
                let is_first = !stripe.has_slot_of(*hash);
                let number = stripe.enter(*hash, kind);
                if let Some(id) = permit.and_then(|permit| permit.id(queue, *hash)) {
                    // It stays current for as long as its own write takes.
                    stripe.permits.push(Permit { hash: *hash, id, late: true });
                }
                ticket.slots.push(TicketSlot { queue: queue.clone(), hash: *hash, number, is_first });
            }
        }
        true
    }

    /// The caller is about to be answered, though some stores have not been written yet: what is loaded from here on is
    /// stored after it.
    pub(crate) fn acknowledge(&self) {
        self.slots.iter().for_each(|slot| slot.queue.acknowledge(slot.hash, slot.number));
    }

    /// Waits until everybody who came earlier has written, in every store. What is read from then on is what this
    /// write replaces.
    ///
    /// Dropping the future keeps the slots until the ticket ends.
    pub async fn first(&self) {
        for slot in &self.slots {
            slot.first().await;
        }
    }

    /// Whether one of its stores is being drained. Ask this when it is [first](Self::first): a drain that begins later
    /// waits for this write. What is read from other stores during a drain may be what the drain is there to remove.
    pub fn meets_drain(&self) -> bool {
        self.slots.iter().any(|slot| slot.queue.stripe(slot.hash).drains > 0)
    }

    fn slot(&self, queue: &WriteQueue, hash: u64) -> Option<&TicketSlot> {
        self.slots.iter().find(|slot| slot.queue.id == queue.id && slot.hash == hash)
    }

    /// This store has what the write brought: what earlier writes of the key failed to do there does not matter any more.
    pub fn overtake(&self, queue: &WriteQueue, hash: u64) {
        if let Some(slot) = self.slot(queue, hash).filter(|slot| !slot.is_first) {
            queue.stripe(hash).overtake(hash, slot.number);
        }
    }

    /// Its number among the writes of this key in this store: later ones have greater numbers.
    pub fn number(&self, queue: &WriteQueue, hash: u64) -> Option<u64> {
        self.slot(queue, hash).map(|slot| slot.number)
    }

    /// The guard of its slot in this queue, if nobody has to be waited for. A ticket without a slot here has an empty
    /// guard: whoever took the ticket for other stores keeps no order in this one.
    pub fn guard_now(&self, queue: &WriteQueue, hash: u64) -> Option<SlotGuard<'_>> {
        let slot = self.slot(queue, hash);
        if slot.is_some_and(|slot| !slot.is_first && !slot.queue.is_first(slot.hash, slot.number)) {
            return None;
        }
        Some(SlotGuard(slot.filter(|_| !self.ends_at_once)))
    }

    /// The same, after everybody who came earlier has written this key to this store. The store is the caller's until
    /// the guard is dropped.
    ///
    /// Dropping the future keeps the slot until the ticket ends.
    pub async fn guard(&self, queue: &WriteQueue, hash: u64) -> SlotGuard<'_> {
        let slot = self.slot(queue, hash);
        if let Some(slot) = slot {
            slot.first().await;
        }
        SlotGuard(slot)
    }
}

impl TicketSlot {
    /// Waits until everybody who came earlier has written.
    async fn first(&self) {
        if !self.is_first {
            self.queue.first(self.hash, self.number).await;
        }
    }
}

impl Drop for WriteTicket {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.queue.leave(slot.hash, slot.number);
        }
    }
}

impl fmt::Debug for WriteTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteTicket").field("stores", &self.slots.len()).finish_non_exhaustive()
    }
}

/// The right to write one key of one store now. When it is dropped, whoever waits behind it goes on.
pub struct SlotGuard<'a>(Option<&'a TicketSlot>);

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            slot.queue.done(slot.hash, slot.number);
        }
    }
}
