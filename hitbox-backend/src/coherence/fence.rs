//! Orders the writes of each key, and keeps refills from resurrecting what was written meanwhile.
//!
//! Every write, delete or repair of a key takes a *place* in the queue of each store that it concerns, in
//! all of them at once, so that two writes reach every store in the same order. It raises the stripe's
//! *generation* when it starts and when it ends. A refill takes a ticket (the generation) before it reads
//! the lower layer, and installs only if the generation is unchanged and no place of its key is taken;
//! while it installs it holds a place itself, so that writes wait for it. Readers never come here.
//!
//! Keys are told apart by their hash: two keys with one hash wait for each other without need, and never
//! without end.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use smallvec::SmallVec;

use super::claim::Claim;
use super::moment::Began;
use super::stripe::{Intent, Pending, Place, Stripe};
use super::sync::{Arc, Mutex, MutexGuard};

/// Writes that share a stripe invalidate each other's tickets, which costs a refill now and then.
const STRIPES: usize = 1024;

/// The queue of writes of one store.
pub struct Fence {
    id: u64,
    stripes: Box<[Mutex<Stripe>]>,
}

impl Default for Fence {
    fn default() -> Self {
        Self::new()
    }
}

impl Fence {
    /// A fence without any write.
    pub fn new() -> Self {
        Self::with_stripes(STRIPES)
    }

    /// The same with another number of stripes; a power of two.
    pub fn with_stripes(stripes: usize) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let stripes = (0..stripes.next_power_of_two()).map(|_| Mutex::default()).collect();
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), stripes }
    }

    /// Distinguishes the fences of a process, and orders their locks.
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

    /// A place for a refill, if nothing was written since its ticket and nobody is writing.
    pub fn enter_refill(self: &Arc<Self>, hash: u64, ticket: (u64, Began)) -> Option<Mutation> {
        let (generation, began) = ticket;
        let mut stripe = self.stripe(hash);
        let is_open = stripe.closed == 0 && stripe.generation == generation;
        if !is_open || stripe.places.iter().any(|p| p.hash == hash) {
            return None;
        }
        let number = stripe.enter(hash, Intent::Upkeep);
        drop(stripe);
        Some(Mutation { places: SmallVec::from_iter([(self.clone(), hash, number)]), began })
    }

    /// Waits until a place is the first that is not done.
    async fn first(&self, hash: u64, number: u64) {
        poll_fn(|cx| {
            let mut stripe = self.stripe(hash);
            if stripe.is_first(hash, number) {
                return Poll::Ready(());
            }
            if let Some(place) = stripe.places.iter_mut().find(|p| p.number == number) {
                place.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// A claim to a key.
    pub(super) fn claim(&self, hash: u64) -> u64 {
        let mut stripe = self.stripe(hash);
        let is_changing = |p: &Place| p.hash == hash && p.intent == Intent::Change;
        let late = stripe.closed > 0 || stripe.places.iter().any(is_changing);
        let id = stripe.next;
        stripe.next += 1;
        stripe.claims.push(Pending { hash, id, late });
        id
    }

    pub(super) fn is_pending(&self, hash: u64, id: u64) -> bool {
        self.stripe(hash).claims.iter().any(|claim| claim.hash == hash && claim.id == id)
    }

    pub(super) fn give_up(&self, hash: u64, id: u64) {
        self.stripe(hash).claims.retain(|claim| claim.hash != hash || claim.id != id);
    }

    fn done(&self, hash: u64, number: u64) {
        let woken = {
            let mut stripe = self.stripe(hash);
            if let Some(place) = stripe.places.iter_mut().find(|p| p.number == number) {
                place.done = true;
            }
            stripe.wake(hash)
        };
        woken.into_iter().for_each(Waker::wake);
    }

    fn leave(&self, hash: u64, number: u64) {
        let woken = {
            let mut stripe = self.stripe(hash);
            let changed = stripe.places.iter().any(|p| p.number == number && p.intent == Intent::Change);
            stripe.places.retain(|p| p.number != number);
            stripe.claims.retain(|claim| claim.hash != hash || !claim.late || !changed);
            stripe.generation += 1;
            stripe.wake(hash)
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Makes every ticket worthless and lets no refill in until the guard is dropped; then waits until
    /// whoever was writing or refilling has written.
    ///
    /// Dropping the future opens the fence again; the tickets stay worthless.
    pub async fn close(self: &Arc<Self>) -> Closed {
        let mut closed = Closed { fence: self.clone(), before: Vec::with_capacity(self.stripes.len()) };
        for index in 0..self.stripes.len() {
            let mut stripe = self.lock(index);
            stripe.generation += 1;
            stripe.closed += 1;
            stripe.claims.clear();
            closed.before.push(stripe.next);
        }
        let mut index = 0;
        poll_fn(|cx| {
            while index < self.stripes.len() {
                let mut stripe = self.lock(index);
                if stripe.places.iter().any(|p| p.number < closed.before[index] && !p.done) {
                    stripe.drains.push(cx.waker().clone());
                    return Poll::Pending;
                }
                drop(stripe);
                index += 1;
            }
            Poll::Ready(())
        })
        .await;
        closed
    }
}

/// Keeps refills out of a store while it is cleared.
#[derive(Debug)]
pub struct Closed {
    fence: Arc<Fence>,
    /// Per stripe, the number from which on mutations came later.
    before: Vec<u64>,
}

impl Closed {
    /// Whether the mutation of this key with this number came before the store was closed.
    pub fn is_before(&self, hash: u64, number: u64) -> bool {
        self.before.get(self.fence.stripe_of(hash)).is_some_and(|before| number < *before)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        for index in 0..self.before.len() {
            let mut stripe = self.fence.lock(index);
            stripe.closed -= 1;
            stripe.claims.retain(|claim| !claim.late);
            stripe.generation += 1;
        }
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The stores that a write of some key concerns, each with the hash that the key has there.
#[derive(Clone, Debug, Default)]
pub struct Places(pub(super) SmallVec<[(Arc<Fence>, u64); 2]>);

impl Places {
    /// Adds a store.
    pub fn add(&mut self, fence: &Arc<Fence>, hash: u64) {
        if !self.0.iter().any(|(known, other)| known.id == fence.id && *other == hash) {
            self.0.push((fence.clone(), hash));
        }
    }
}

/// A write, delete or refill under way: its places in the queues of the stores that it concerns. Ends
/// when the last handle is dropped.
pub struct Mutation {
    places: SmallVec<[(Arc<Fence>, u64, u64); 2]>,
    began: Began,
}

impl Mutation {
    fn begun(began: Began) -> Self {
        Self { places: SmallVec::new(), began }
    }

    /// When it began, or the load that it ends.
    pub(crate) fn began(&self) -> Began {
        self.began
    }

    /// Takes a place in each store, in all of them at once.
    pub fn begin(places: Places) -> Arc<Self> {
        let mut mutation = Self::begun(Began::write());
        Self::enter(std::iter::once((&mut mutation, places)), Intent::Change, None);
        Arc::new(mutation)
    }

    /// The same for a write that brings no new state: it ends no claim.
    pub fn begin_upkeep(places: Places) -> Arc<Self> {
        let mut mutation = Self::begun(Began::load());
        Self::enter(std::iter::once((&mut mutation, places)), Intent::Upkeep, None);
        Arc::new(mutation)
    }

    /// The same, unless a claim that was taken earlier does not hold any more.
    pub(super) fn begin_if(claim: &Claim) -> Option<Arc<Self>> {
        let mut mutation = Self::begun(claim.began());
        Self::enter(std::iter::once((&mut mutation, claim.places())), Intent::Change, Some(claim))
            .then(|| Arc::new(mutation))
    }

    /// The same for several keys, all at once, so that two batches never wait for each other. Keys are
    /// named by their own hash; equal ones share one mutation.
    pub fn begin_many(keys: Vec<(u64, Places)>) -> Vec<Arc<Self>> {
        let mut index_of = Vec::with_capacity(keys.len());
        let mut known = std::collections::HashMap::new();
        let mut unique: Vec<(Self, Places)> = Vec::with_capacity(keys.len());
        for (hash, places) in keys {
            index_of.push(*known.entry(hash).or_insert_with(|| {
                unique.push((Self::begun(Began::write()), places));
                unique.len() - 1
            }));
        }
        Self::enter(
            unique.iter_mut().map(|(mutation, places)| (mutation, std::mem::take(places))),
            Intent::Change,
            None,
        );
        let shared: Vec<Arc<Self>> = unique.into_iter().map(|(mutation, _)| Arc::new(mutation)).collect();
        index_of.into_iter().map(|index| shared[index].clone()).collect()
    }

    /// Locks every stripe concerned, in one order that all agree on, and enters the mutations, which ends all
    /// claims to their keys. With a claim it does so only if that still holds.
    fn enter<'a>(
        mutations: impl Iterator<Item = (&'a mut Self, Places)>,
        intent: Intent,
        claim: Option<&Claim>,
    ) -> bool {
        let mut entering: SmallVec<[(&'a mut Self, Places); 1]> = mutations.collect();
        let all = entering.iter().flat_map(|(_, places)| &places.0);
        let mut needed: SmallVec<[(u64, usize, Arc<Fence>); 2]> =
            all.map(|(fence, hash)| (fence.id, fence.stripe_of(*hash), fence.clone())).collect();
        needed.sort_unstable_by_key(|(id, stripe, _)| (*id, *stripe));
        needed.dedup_by_key(|(id, stripe, _)| (*id, *stripe));
        let mut stripes: SmallVec<[MutexGuard<'_, Stripe>; 2]> =
            needed.iter().map(|(_, stripe, fence)| fence.lock(*stripe)).collect();
        let stripe_of = |fence: &Fence, hash| {
            let at = (fence.id, fence.stripe_of(hash));
            needed
                .binary_search_by_key(&at, |(id, stripe, _)| (*id, *stripe))
                .unwrap_or_else(|missing| missing)
        };
        let may_begin = |(fence, hash, id): &(Arc<Fence>, u64, u64)| {
            stripes[stripe_of(fence, *hash)].may_begin(*hash, *id)
        };
        if !claim.is_none_or(|claim| claim.stores().iter().all(may_begin)) {
            return false;
        }
        for (mutation, places) in &mut entering {
            for (fence, hash) in places.0.drain(..) {
                let stripe = &mut stripes[stripe_of(&fence, hash)];
                stripe.generation += 1;
                let number = stripe.enter(hash, intent);
                if let Some(id) = claim.and_then(|claim| claim.id(&fence, hash)) {
                    // It stays pending, for as long as its own write takes.
                    stripe.claims.push(Pending { hash, id, late: true });
                }
                mutation.places.push((fence, hash, number));
            }
        }
        true
    }

    /// Waits until everybody who came earlier has written, in every store: what is read from then on is what this
    /// mutation overwrites.
    ///
    /// Dropping the future keeps the places until the mutation ends.
    pub async fn first(&self) {
        for (fence, hash, number) in &self.places {
            fence.first(*hash, *number).await;
        }
    }

    /// Its number among the mutations of this key in this store: later ones have greater numbers.
    pub fn number(&self, fence: &Fence, hash: u64) -> Option<u64> {
        let mine = |(known, other, _): &&(Arc<Fence>, u64, u64)| known.id == fence.id && *other == hash;
        self.places.iter().find(mine).map(|(.., number)| *number)
    }

    /// Waits until everybody who came earlier has written this key to this store. The store is the
    /// caller's until the turn is dropped.
    ///
    /// Dropping the future keeps the place until the mutation ends.
    pub async fn turn(&self, fence: &Fence, hash: u64) -> Turn<'_> {
        let mine = |(known, other, _): &&(Arc<Fence>, u64, u64)| known.id == fence.id && *other == hash;
        let place = self.places.iter().find(mine);
        if let Some((fence, hash, number)) = place {
            fence.first(*hash, *number).await;
        }
        Turn { place: place.map(|(fence, hash, number)| (&**fence, *hash, *number)) }
    }
}

impl Drop for Mutation {
    fn drop(&mut self) {
        for (fence, hash, number) in &self.places {
            fence.leave(*hash, *number);
        }
    }
}

impl fmt::Debug for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutation").field("stores", &self.places.len()).finish_non_exhaustive()
    }
}

/// The right to write one key of one store now.
pub struct Turn<'a> {
    place: Option<(&'a Fence, u64, u64)>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some((fence, hash, number)) = self.place {
            fence.done(hash, number);
        }
    }
}
