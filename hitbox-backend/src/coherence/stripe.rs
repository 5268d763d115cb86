//! The writes and claims of the keys that share a stripe of a store's queue.

use std::task::Waker;

use smallvec::SmallVec;

#[derive(Default)]
pub(super) struct Stripe {
    pub(super) generation: u64,
    /// How many keep refills out.
    pub(super) closed: usize,
    pub(super) next: u64,
    pub(super) places: Vec<Place>,
    pub(super) drains: Vec<Waker>,
    pub(super) claims: Vec<Pending>,
}

/// A claim that nothing has ended yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) hash: u64,
    pub(super) id: u64,
    /// It was made while its key was being written, ends with that write, and never becomes one.
    pub(super) late: bool,
}

pub(super) struct Place {
    pub(super) hash: u64,
    pub(super) number: u64,
    /// The store has been written; the mutation goes on elsewhere.
    pub(super) done: bool,
    pub(super) intent: Intent,
    pub(super) waker: Option<Waker>,
}

/// What a mutation brings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    /// A new state: what loads bring that began before is older.
    Change,
    /// The state that is there already, in another store or with another note: it ends no claim.
    Upkeep,
}

impl Stripe {
    pub(super) fn may_begin(&self, hash: u64, id: u64) -> bool {
        self.claims.contains(&Pending { hash, id, late: false })
    }

    pub(super) fn enter(&mut self, hash: u64, intent: Intent) -> u64 {
        let number = self.next;
        self.next += 1;
        if intent == Intent::Change {
            self.claims.retain(|claim| claim.hash != hash);
        }
        self.places.push(Place { hash, number, done: false, intent, waker: None });
        number
    }

    pub(super) fn is_first(&self, hash: u64, number: u64) -> bool {
        !self.places.iter().any(|p| p.hash == hash && p.number < number && !p.done)
    }

    /// Wakes whoever waits behind a place that is done or gone.
    pub(super) fn wake(&mut self, hash: u64) -> SmallVec<[Waker; 2]> {
        let waiting = self.places.iter_mut().filter(|p| p.hash == hash && !p.done);
        let next = waiting.min_by_key(|p| p.number).and_then(|p| p.waker.take());
        next.into_iter().chain(self.drains.drain(..)).collect()
    }
}
