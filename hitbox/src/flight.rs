//! Loads under way: one per key, which all who want the key wait for.
//!
//! Invariants: a flight is in the table from the moment somebody leads it until it has landed or was replaced, and
//! no longer; it lands exactly once, by its leader's [`Landing`], however that ends; who starts to wait after a
//! write of the key has returned never waits for a load that began before it.

use std::any::Any;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::AbortHandle;
use hitbox_backend::Claim;
use hitbox_core::{CacheKey, KeyHasher};
use tokio::sync::watch;

const SHARDS: usize = 64;

type Table<E> = HashMap<CacheKey, Arc<Flight<E>>, BuildHasherDefault<KeyHasher>>;

/// The flights of one cache. `E` is how they end.
pub(crate) struct Flights<E> {
    shards: Box<[Shard<E>]>,
}

struct Shard<E> {
    flights: Mutex<Table<E>>,
    /// How many have landed.
    landings: AtomicU64,
}

/// A load under way.
pub(crate) struct Flight<E> {
    end: watch::Sender<Option<Ended<E>>>,
    pub(crate) claim: Claim,
    /// The last invalidation when it began.
    pub(crate) moment: u64,
    interest: Mutex<Interest>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// How a flight has ended.
#[derive(Clone)]
pub(crate) enum Ended<E> {
    Landed(E),
    /// Its leader went away: another may lead.
    Abandoned,
}

#[derive(Default)]
struct Interest {
    waiting: usize,
    /// It goes on when nobody waits.
    goes_on: bool,
    cancelled: bool,
    abort: Option<AbortHandle>,
}

/// The part of a call in a flight.
pub(crate) enum Role<E: Clone> {
    Leads(Landing<E>, Waiting<E>),
    Follows(Waiting<E>),
}

impl<E: Clone> Default for Flights<E> {
    fn default() -> Self {
        let shard = |_| Shard { flights: Mutex::default(), landings: AtomicU64::new(0) };
        Self { shards: (0..SHARDS).map(shard).collect() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can leave them half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Clone> Flights<E> {
    fn shard(&self, key: &CacheKey) -> &Shard<E> {
        &self.shards[(key.process_hash() >> 40) as usize % SHARDS]
    }

    /// Landings so far where this key is. If the number is the same after a read and when a call leads, no load of
    /// the key was stored in between.
    pub(crate) fn landings(&self, key: &CacheKey) -> u64 {
        self.shard(key).landings.load(Ordering::Acquire)
    }

    /// Flights under way.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.flights).len()).sum()
    }

    /// Joins the flight of this key, or leads a new one.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &CacheKey,
        moment: u64,
        claim: impl FnOnce() -> Claim,
    ) -> Role<E> {
        let mut flights = lock(&self.shard(key).flights);
        // What it brings may carry a tag that was invalidated since it began.
        let known = flights.get(key).filter(|flight| flight.moment == moment);
        if let Some(waiting) = known.and_then(Waiting::of) {
            return Role::Follows(waiting);
        }
        self.lead(&mut flights, key, moment, claim)
    }

    /// Leads a flight that nobody has to wait for, unless there is one already.
    pub(crate) fn lead_unless_under_way(
        self: &Arc<Self>,
        key: &CacheKey,
        moment: u64,
        claim: impl FnOnce() -> Claim,
    ) -> Option<Landing<E>> {
        let mut flights = lock(&self.shard(key).flights);
        if flights.get(key).is_some_and(|flight| flight.moment == moment && flight.may_be_joined()) {
            return None;
        }
        let Role::Leads(mut landing, waiting) = self.lead(&mut flights, key, moment, claim) else {
            return None;
        };
        waiting.flight.go_on();
        landing.is_in_background = true;
        Some(landing)
    }

    fn lead(
        self: &Arc<Self>,
        flights: &mut Table<E>,
        key: &CacheKey,
        moment: u64,
        claim: impl FnOnce() -> Claim,
    ) -> Role<E> {
        let flight = Arc::new(Flight {
            end: watch::Sender::new(None),
            claim: claim(),
            moment,
            interest: Mutex::new(Interest { waiting: 1, ..Interest::default() }),
            panic: Mutex::default(),
        });
        flights.insert(key.clone(), flight.clone());
        let landing = Landing {
            flights: self.clone(),
            key: key.clone(),
            flight: flight.clone(),
            is_in_background: false,
            landed: false,
        };
        Role::Leads(landing, Waiting { flight })
    }
}

impl<E: Clone> Flight<E> {
    fn may_be_joined(&self) -> bool {
        self.claim.is_current() && !lock(&self.interest).cancelled
    }

    /// It goes on when nobody waits any more.
    pub(crate) fn go_on(&self) {
        lock(&self.interest).goes_on = true;
    }

    /// Cancels the load once nobody waits.
    pub(crate) fn abort_with(&self, abort: AbortHandle) {
        let mut interest = lock(&self.interest);
        if interest.cancelled {
            abort.abort();
        }
        interest.abort = Some(abort);
    }

    /// The panic of its loader, for the first who asks.
    pub(crate) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        lock(&self.panic).take()
    }
}

/// Somebody who waits for a flight. Dropping it ends the interest.
pub(crate) struct Waiting<E: Clone> {
    pub(crate) flight: Arc<Flight<E>>,
}

impl<E: Clone> Waiting<E> {
    fn of(flight: &Arc<Flight<E>>) -> Option<Self> {
        if !flight.claim.is_current() {
            return None;
        }
        let mut interest = lock(&flight.interest);
        if interest.cancelled {
            return None;
        }
        interest.waiting += 1;
        drop(interest);
        Some(Self { flight: flight.clone() })
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Ended<E> {
        let mut end = self.flight.end.subscribe();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        // The sender is in the flight, which lives as long as `self`.
        ended.unwrap_or(Ended::Abandoned)
    }
}

impl<E: Clone> Drop for Waiting<E> {
    fn drop(&mut self) {
        let mut interest = lock(&self.flight.interest);
        interest.waiting -= 1;
        if interest.waiting > 0 || interest.goes_on {
            return;
        }
        // Nobody joins it from here on.
        interest.cancelled = true;
        let abort = interest.abort.take();
        drop(interest);
        if let Some(abort) = abort {
            abort.abort();
        }
    }
}

/// The duty to land a flight. Dropped without having done so, it leaves the flight to another leader.
pub(crate) struct Landing<E: Clone> {
    flights: Arc<Flights<E>>,
    key: CacheKey,
    pub(crate) flight: Arc<Flight<E>>,
    /// Nobody waited for it when it began.
    pub(crate) is_in_background: bool,
    landed: bool,
}

impl<E: Clone> Landing<E> {
    /// Keeps the panic of the loader for the caller that ran it.
    pub(crate) fn keep_panic(&self, panic: Box<dyn Any + Send>) {
        *lock(&self.flight.panic) = Some(panic);
    }

    /// Ends the flight for all who wait.
    pub(crate) fn land(mut self, end: E) {
        self.end(Ended::Landed(end));
    }

    fn end(&mut self, end: Ended<E>) {
        self.landed = true;
        let shard = self.flights.shard(&self.key);
        {
            let mut flights = lock(&shard.flights);
            if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(&self.key);
            }
            shard.landings.fetch_add(1, Ordering::Release);
        }
        self.flight.end.send_replace(Some(end));
    }
}

impl<E: Clone> Drop for Landing<E> {
    fn drop(&mut self) {
        if !self.landed {
            self.end(Ended::Abandoned);
        }
    }
}
