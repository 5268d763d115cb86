//! The tickets of writes: their slots in the queues of the stores that they concern.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Poll;

use hitbox_core::CacheKey;
use smallvec::SmallVec;

use super::load_permit::LoadPermit;
use super::logical_clock::StartedAt;
use super::stripe::{Passed, Permit, Stripe, WriteKind};
use super::sync::{Arc, MutexGuard};
use super::write_queue::WriteQueue;

/// The queues that a write of some key concerns.
#[derive(Clone, Debug, Default)]
pub struct QueueSet(pub(super) SmallVec<[QueueOf; 3]>);

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct QueueOf {
    pub(super) queue: Arc<WriteQueue>,
    /// The hash that the key has there.
    pub(super) hash: u64,
    /// The store stands in several places of the expression, which are written independently.
    pub(super) has_places: bool,
}

impl QueueSet {
    /// Adds a queue; says whether it was not there yet.
    pub fn add(&mut self, queue: &Arc<WriteQueue>, hash: u64) -> bool {
        match self.0.iter_mut().find(|known| known.queue.id == queue.id && known.hash == hash) {
            Some(known) => {
                known.has_places = true;
                false
            }
            None => {
                self.0.push(QueueOf { queue: queue.clone(), hash, has_places: false });
                true
            }
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
    has_places: bool,
    /// It has been written, and others may have had their turn.
    is_used: AtomicBool,
    /// The store has what the write brought. It may stand in several places of an expression, of which others go on.
    is_done: AtomicBool,
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
        // Made where it stays: its slots would be copied.
        let (slots, started) = (SmallVec::new(), StartedAt::write());
        let mut shared = Arc::new(Self { slots, started, ends_at_once: true });
        if let Some(ticket) = Arc::get_mut(&mut shared)
            && let Err(queues) = ticket.enter_few(queues, WriteKind::Change)
        {
            Self::enter(std::slice::from_mut(ticket), &[queues], WriteKind::Change, None);
        }
        shared
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
            [QueueOf { queue, hash, .. }] => taken[0] = take(&mut queue.stripe(*hash), *hash),
            [first, second] if first.queue.id != second.queue.id => {
                let is_ordered = first.queue.id < second.queue.id;
                let (low, high) = if is_ordered { (first, second) } else { (second, first) };
                let (mut low_stripe, mut high_stripe) =
                    (low.queue.stripe(low.hash), high.queue.stripe(high.hash));
                taken = [take(&mut low_stripe, low.hash), take(&mut high_stripe, high.hash)];
                if !is_ordered {
                    taken.swap(0, 1);
                }
            }
            _ => return Err(queues),
        }
        for (of, (number, is_first)) in queues.0.drain(..).zip(taken) {
            self.slots.push(TicketSlot::new(of, number, is_first));
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
            all.map(|of| (of.queue.id, of.queue.stripe_of(of.hash), &*of.queue)).collect();
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
        let may_begin = |(of, id, _): &(QueueOf, u64, CacheKey)| {
            stripes[stripe_of(&of.queue, of.hash)].may_begin(of.hash, *id)
        };
        if !permit.is_none_or(|permit| permit.stores().iter().all(may_begin)) {
            return false;
        }
        for (ticket, queues) in tickets.iter_mut().zip(queues_of) {
            for of in &queues.0 {
                let stripe = &mut stripes[stripe_of(&of.queue, of.hash)];
                stripe.generation += 1;
                let is_first = !stripe.has_slot_of(of.hash);
                let number = stripe.enter(of.hash, kind);
                if let Some((id, key)) = permit.and_then(|permit| permit.at(&of.queue, of.hash)) {
                    // It stays current for as long as its own write takes.
                    stripe.permits.push(Permit { hash: of.hash, id, key: key.clone(), late: true });
                }
                ticket.slots.push(TicketSlot::new(of.clone(), number, is_first));
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
        self.slots.iter().any(|slot| slot.queue.stripe(slot.hash).has_drains())
    }

    fn slot(&self, queue: &WriteQueue, hash: u64) -> Option<&TicketSlot> {
        self.slots.iter().find(|slot| slot.queue.id == queue.id && slot.hash == hash)
    }

    /// This store has what the write brought: what earlier writes of the key failed to do there does not matter any more.
    pub fn overtake(&self, queue: &WriteQueue, hash: u64) {
        let Some(slot) = self.slot(queue, hash) else { return };
        slot.is_done.store(true, Ordering::Relaxed);
        // Whoever marks the key dirty meanwhile sees this, or is seen by who cleans it after this.
        fence(Ordering::SeqCst);
        if !slot.is_first {
            queue.stripe(hash).overtake(hash, slot.number);
        }
    }

    /// Whether this store has what the write brought, in whichever place of the expression it was written.
    pub(crate) fn is_done(&self, queue: &WriteQueue, hash: u64) -> bool {
        fence(Ordering::SeqCst);
        self.slot(queue, hash).is_some_and(TicketSlot::is_stored)
    }

    /// Whether this store stands in several places of the expression, and has what the write brought in one of them.
    pub(crate) fn is_done_in_a_place(&self, queue: &WriteQueue, hash: u64) -> bool {
        fence(Ordering::SeqCst);
        self.slot(queue, hash).is_some_and(|slot| slot.has_places && slot.is_stored())
    }

    /// Its number among the writes of this key in this store: later ones have greater numbers.
    pub fn number(&self, queue: &WriteQueue, hash: u64) -> Option<u64> {
        self.slot(queue, hash).map(|slot| slot.number)
    }

    /// The guard of its slot in this queue, if nobody has to be waited for. A ticket without a slot here has an empty
    /// guard: whoever took the ticket for other stores keeps no order in this one.
    ///
    /// # Errors
    /// If there is nothing to write any more, or it would undo what came later.
    pub fn guard_now(&self, queue: &WriteQueue, hash: u64) -> Poll<Result<SlotGuard<'_>, Passed>> {
        let slot = self.slot(queue, hash);
        if let Some(slot) = slot.filter(|slot| slot.has_places) {
            return slot.place();
        }
        if slot.is_some_and(|slot| !slot.is_first && !slot.queue.is_first(slot.hash, slot.number)) {
            return Poll::Pending;
        }
        if let Some(slot) = slot.filter(|slot| slot.is_used.load(Ordering::Acquire)) {
            return Poll::Ready(slot.again());
        }
        Poll::Ready(Ok(SlotGuard { slot: slot.filter(|_| !self.ends_at_once) }))
    }

    /// The same, after everybody who came earlier has written this key to this store. The store is the caller's until
    /// the guard is dropped.
    ///
    /// Dropping the future keeps the slot until the ticket ends.
    ///
    /// # Errors
    /// If there is nothing to write any more, or it would undo what came later.
    pub async fn guard(&self, queue: &WriteQueue, hash: u64) -> Result<SlotGuard<'_>, Passed> {
        let slot = self.slot(queue, hash);
        if let Some(slot) = slot {
            loop {
                slot.first().await;
                if !slot.has_places {
                    break;
                }
                if let Poll::Ready(guard) = slot.place() {
                    return guard;
                }
            }
            if slot.is_used.load(Ordering::Acquire) {
                return slot.again();
            }
        }
        Ok(SlotGuard { slot })
    }
}

impl TicketSlot {
    fn new(QueueOf { queue, hash, has_places }: QueueOf, number: u64, is_first: bool) -> Self {
        let (is_used, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { queue, hash, number, is_first, has_places, is_used, is_done }
    }

    fn is_stored(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }

    /// The turn of one of several places, unless earlier writes come first.
    #[cold]
    fn place(&self) -> Poll<Result<SlotGuard<'_>, Passed>> {
        match self.queue.stripe(self.hash).enter_place(self.hash, self.number, self.is_stored()) {
            None => Poll::Pending,
            Some(entered) => Poll::Ready(entered.map(|()| SlotGuard { slot: Some(self) })),
        }
    }

    /// The turn of a write that has had one, and goes on in the same place.
    #[cold]
    fn again(&self) -> Result<SlotGuard<'_>, Passed> {
        self.queue.stripe(self.hash).enter_again(self.hash, self.number, self.is_stored())?;
        Ok(SlotGuard { slot: Some(self) })
    }

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
pub struct SlotGuard<'a> {
    slot: Option<&'a TicketSlot>,
}

impl fmt::Debug for SlotGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotGuard")
            .field("number", &self.slot.map(|slot| slot.number))
            .finish_non_exhaustive()
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        if slot.has_places {
            slot.queue.leave_place(slot.hash, slot.number, slot.is_stored());
        } else {
            slot.is_used.store(true, Ordering::Release);
            slot.queue.done(slot.hash, slot.number);
        }
    }
}
