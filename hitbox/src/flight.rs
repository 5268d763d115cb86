//! Loads under way: one per key, which all who want the key wait for.
//!
//! Invariants: a flight is in the table from the moment somebody leads it until it is complete or was replaced, and no
//! longer; it ends exactly once, by its leader's [`LoadCompletion`], however that ends; who starts to wait after a write
//! of the key has returned never waits for a load that began before it.

mod progress;

use std::any::Any;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hitbox_backend::internal::LoadPermit;
use hitbox_core::{CacheKey, KeyHasher};
use tokio::sync::Notify;

use progress::Phase;
pub(crate) use progress::{Ended, Flight, Waiting};

const SHARDS: usize = 64;

type Table<E> = HashMap<CacheKey, Arc<Flight<E>>, BuildHasherDefault<KeyHasher>>;

/// The flights of one cache. `E` is how they end.
pub(crate) struct Flights<E: FlightEnd> {
    shards: Box<[Shard<E>]>,
    /// Told when a flight has ended.
    ended: Notify,
}

struct Shard<E: FlightEnd> {
    flights: Mutex<Table<E>>,
    /// How many are complete or given up.
    completions: AtomicU64,
}

/// How flights of one kind end.
pub(crate) trait FlightEnd: Clone {
    /// What has the permit of their loads.
    type Permit: Borrow<LoadPermit> + From<LoadPermit> + Send + Sync;
}

/// Which flights a call joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joins {
    /// Any that still brings something current. The call loads by itself if that turns out to be of no use to it.
    Any,
    /// Those since whose beginning nothing was invalidated: the call cannot wait twice.
    InTime,
}

/// The part of a call in a flight.
pub(crate) enum Role<E: FlightEnd> {
    Leader(LoadCompletion<E>, Waiting<E>),
    Waiter(Waiting<E>),
}

impl<E: FlightEnd> Default for Flights<E> {
    fn default() -> Self {
        let shard = |_| Shard { flights: Mutex::default(), completions: AtomicU64::new(0) };
        Self { shards: (0..SHARDS).map(shard).collect(), ended: Notify::new() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can leave them half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: FlightEnd> Flights<E> {
    fn shard(&self, key: &CacheKey) -> &Shard<E> {
        &self.shards[(key.process_hash() >> 40) as usize % SHARDS]
    }

    /// Flights that have ended so far where this key is. If the number is the same after a read and when a call leads,
    /// no load of the key was stored in between.
    pub(crate) fn completions(&self, key: &CacheKey) -> u64 {
        self.shard(key).completions.load(Ordering::Acquire)
    }

    /// Flights under way.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.flights).len()).sum()
    }

    /// Waits until no flight is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Joins the flight of this key if that runs within somebody's call, who may leave it.
    pub(crate) fn join_within_call(&self, key: &CacheKey, last_invalidation: u64) -> Option<Waiting<E>> {
        let flights = lock(&self.shard(key).flights);
        let flight = flights.get(key).filter(|flight| flight.runs_within_call())?;
        Waiting::of(flight, last_invalidation).filter(|waiting| !waiting.is_late)
    }

    /// Joins the flight of this key, or leads a new one.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &CacheKey,
        last_invalidation: u64,
        joins: Joins,
        permit: impl FnOnce() -> LoadPermit,
    ) -> Role<E> {
        let mut flights = lock(&self.shard(key).flights);
        let waiting = flights.get(key).and_then(|flight| Waiting::of(flight, last_invalidation));
        if let Some(waiting) = waiting.filter(|waiting| joins == Joins::Any || !waiting.is_late) {
            return Role::Waiter(waiting);
        }
        let (completion, waiting) = self.lead(&mut flights, key, last_invalidation, permit);
        Role::Leader(completion, waiting)
    }

    /// Leads a flight of this key, unless there is one that a call may join, or more flights have ended than `looked`, if that is said.
    pub(crate) fn lead_alone(
        self: &Arc<Self>,
        key: &CacheKey,
        looked: Option<u64>,
        last_invalidation: u64,
        permit: impl FnOnce() -> LoadPermit,
    ) -> Option<(LoadCompletion<E>, Waiting<E>)> {
        let shard = self.shard(key);
        let mut flights = lock(&shard.flights);
        let has_ended = looked.is_some_and(|looked| shard.completions.load(Ordering::Acquire) != looked);
        if has_ended || flights.get(key).is_some_and(|flight| flight.may_be_joined()) {
            return None;
        }
        Some(self.lead(&mut flights, key, last_invalidation, permit))
    }

    /// Takes a flight that stands still out of the table: who comes next leads. Its own call may still complete it.
    pub(crate) fn leave(&self, key: &CacheKey, flight: &Arc<Flight<E>>) {
        let mut flights = lock(&self.shard(key).flights);
        if flights.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            flights.remove(key);
        }
    }

    /// Leads a flight that nobody has to wait for, unless there is one already.
    pub(crate) fn lead_unless_under_way(
        self: &Arc<Self>,
        key: &CacheKey,
        last_invalidation: u64,
        permit: impl FnOnce() -> LoadPermit,
    ) -> Option<LoadCompletion<E>> {
        let (mut completion, waiting) = self.lead_alone(key, None, last_invalidation, permit)?;
        waiting.flight.go_on();
        completion.is_in_background = true;
        Some(completion)
    }

    fn lead(
        self: &Arc<Self>,
        flights: &mut Table<E>,
        key: &CacheKey,
        last_invalidation: u64,
        permit: impl FnOnce() -> LoadPermit,
    ) -> (LoadCompletion<E>, Waiting<E>) {
        let flight = Arc::new(Flight::new(permit().into(), last_invalidation));
        flights.insert(key.clone(), flight.clone());
        let completion = LoadCompletion {
            flights: self.clone(),
            key: key.clone(),
            flight: flight.clone(),
            is_in_background: false,
            has_ended: false,
        };
        (completion, Waiting { flight, is_late: false })
    }
}

/// The duty to complete a flight. Dropped without having done so, it leaves the flight to another leader.
pub(crate) struct LoadCompletion<E: FlightEnd> {
    flights: Arc<Flights<E>>,
    key: CacheKey,
    pub(crate) flight: Arc<Flight<E>>,
    /// Nobody waited for it when it began.
    pub(crate) is_in_background: bool,
    has_ended: bool,
}

impl<E: FlightEnd> LoadCompletion<E> {
    /// Keeps the panic of the loader for the caller that ran it.
    pub(crate) fn keep_panic(&self, panic: Box<dyn Any + Send>) {
        self.flight.keep_panic(panic);
    }

    /// What the load has brought is known. Who has waited long enough takes it before it is stored.
    pub(crate) fn store(&self, result: E) {
        self.flight.bring(result);
        self.flight.enter(Phase::Storing);
    }

    /// What the load has brought is stored: the flight ends for all who wait. The `ticket` of the write is given back in between: until
    /// nobody joins the flight any more it keeps the permit current, and a load that somebody starts who has waited is not to be told that the
    /// key is being written.
    pub(crate) fn stored<T>(mut self, ticket: T) {
        self.end(Phase::Complete, ticket);
    }

    /// Ends the flight for all who wait. There is nothing to be stored.
    pub(crate) fn complete(self, result: E) {
        self.flight.bring(result);
        self.stored(());
    }

    fn end<T>(&mut self, phase: Phase, ticket: T) {
        self.has_ended = true;
        let shard = self.flights.shard(&self.key);
        {
            let mut flights = lock(&shard.flights);
            if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(&self.key);
            }
            shard.completions.fetch_add(1, Ordering::Release);
        }
        // They go on even if the ticket is given back with a panic: it wakes others.
        let _told = EndTold { flights: &self.flights, flight: &self.flight, phase };
        drop(ticket);
    }
}

/// Tells those who wait how a flight has ended, when it is dropped.
struct EndTold<'f, E: FlightEnd> {
    flights: &'f Flights<E>,
    flight: &'f Flight<E>,
    phase: Phase,
}

impl<E: FlightEnd> Drop for EndTold<'_, E> {
    fn drop(&mut self) {
        self.flight.enter(self.phase);
        self.flights.ended.notify_waiters();
    }
}

impl<E: FlightEnd> Drop for LoadCompletion<E> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(Phase::Abandoned, ());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use hitbox_backend::doc::Map;
    use hitbox_backend::{Backend, IntoBackend};

    use super::*;

    #[derive(Clone)]
    struct Loaded;

    impl FlightEnd for Loaded {
        type Permit = LoadPermit;
    }

    /// Says when it is given back whether somebody may join the flight, and whether those who wait have been told of its end.
    struct Ticket<'t> {
        flights: &'t Flights<Loaded>,
        flight: Arc<Flight<Loaded>>,
        key: &'t CacheKey,
        seen: &'t mut Option<(bool, bool)>,
    }

    impl Drop for Ticket<'_> {
        fn drop(&mut self) {
            let is_joined = lock(&self.flights.shard(self.key).flights).contains_key(self.key);
            *self.seen = Some((is_joined, self.flight.end().is_some()));
        }
    }

    #[test]
    fn the_ticket_of_a_load_is_given_back_before_those_who_wait_go_on() {
        let (key, mut seen) = (CacheKey::new("k"), None);
        let backend = Map::default().into_backend();
        let flights: Arc<Flights<Loaded>> = Arc::default();
        let led = flights.lead_alone(&key, None, 0, || backend.layout().load_permit(&key));
        let (completion, waiting) = led.expect("nobody else leads");
        completion.store(Loaded);
        let flight = waiting.flight.clone();
        completion.stored(Ticket { flights: &flights, flight, key: &key, seen: &mut seen });
        assert_eq!(seen, Some((false, false)));
        assert!(waiting.flight.end().is_some());
    }

    #[test]
    fn those_who_wait_go_on_even_if_the_ticket_panics() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("a waker of somebody else");
            }
        }
        let key = CacheKey::new("k");
        let backend = Map::default().into_backend();
        let flights: Arc<Flights<Loaded>> = Arc::default();
        let led = flights.lead_alone(&key, None, 0, || backend.layout().load_permit(&key));
        let (completion, waiting) = led.expect("nobody else leads");
        completion.store(Loaded);
        let ends = AssertUnwindSafe(|| completion.stored(Panics));
        assert!(catch_unwind(ends).is_err());
        assert!(waiting.flight.end().is_some());
    }
}
