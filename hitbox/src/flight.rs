//! Loads under way: one per key, which all who want the key wait for.
//!
//! Invariants: a flight is in the table from the moment somebody leads it until it is complete or was replaced, and no
//! longer; it ends exactly once, by its leader's [`LoadCompletion`], however that ends; who starts to wait after a write
//! of the key has returned never waits for a load that began before it.

use std::any::Any;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hitbox_backend::internal::LoadPermit;
use hitbox_core::{BoxFuture, CacheKey, Clock, KeyHasher};
use tokio::sync::Notify;

use crate::cycle::LoadId;

const SHARDS: usize = 64;
/// A call that was woken and is not polled for so long has been left lying.
const STANDSTILL: Duration = Duration::from_secs(1);

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

/// A load under way.
pub(crate) struct Flight<E: FlightEnd> {
    /// A [`Phase`].
    phase: AtomicU8,
    /// Told when the phase changes, and when nobody waits any more.
    changed: Notify,
    /// The load, if it runs within the call that leads it.
    within_call: WithinCall,
    /// What it has brought. It is known before it is stored.
    result: OnceLock<E>,
    pub(crate) id: LoadId,
    permit: E::Permit,
    /// The last invalidation when it began.
    last_invalidation: u64,
    interest: Mutex<Interest>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A load that runs within a call. If nobody polls the call, the load stands still.
#[derive(Default)]
struct WithinCall {
    is_set: AtomicBool,
    /// How often it was polled; 0 for a load that runs by itself.
    polls: AtomicU64,
    waker: AtomicWaker,
}

impl WithinCall {
    fn polled(&self, cx: &Context<'_>) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.waker.register(cx.waker());
    }
}

/// How far a flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Loading,
    /// There is a result, which is being stored.
    Storing,
    Complete,
    Abandoned,
}

/// How a flight has ended.
#[derive(Clone)]
pub(crate) enum Ended<E> {
    Complete(E),
    /// Its leader went away: another may lead.
    Abandoned,
}

#[derive(Default)]
struct Interest {
    waiting: usize,
    /// It goes on when nobody waits.
    goes_on: bool,
    cancelled: bool,
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
        let flight = flights.get(key).filter(|flight| flight.within_call.is_set.load(Ordering::Acquire))?;
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
        let flight = Arc::new(Flight {
            phase: AtomicU8::new(Phase::Loading as u8),
            changed: Notify::new(),
            within_call: WithinCall::default(),
            result: OnceLock::new(),
            id: LoadId::next(),
            permit: permit().into(),
            last_invalidation,
            interest: Mutex::new(Interest { waiting: 1, ..Interest::default() }),
            panic: Mutex::default(),
        });
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

impl<E: FlightEnd> Flight<E> {
    /// The right to store what it brings.
    pub(crate) fn permit(&self) -> &LoadPermit {
        self.permit.borrow()
    }

    /// The same, with who else has it.
    pub(crate) fn shared_permit(&self) -> &E::Permit {
        &self.permit
    }

    fn may_be_joined(&self) -> bool {
        self.permit().is_current() && !lock(&self.interest).cancelled
    }

    /// It goes on when nobody waits any more.
    pub(crate) fn go_on(&self) {
        lock(&self.interest).goes_on = true;
    }

    /// Completes once nobody waits for a load that does not go on by itself.
    pub(crate) async fn cancelled(&self) {
        self.until(|| lock(&self.interest).cancelled.then_some(())).await;
    }

    /// Its load will run within its call.
    pub(crate) fn set_within_call(&self) {
        self.within_call.is_set.store(true, Ordering::Release);
    }

    /// The load of this flight, which its call runs by itself.
    pub(crate) fn run_within_call<'l>(self: &Arc<Self>, mut load: BoxFuture<'l, ()>) -> BoxFuture<'l, ()>
    where
        E: Send + Sync + 'l,
    {
        self.set_within_call();
        let flight = self.clone();
        Box::pin(poll_fn(move |cx| {
            flight.within_call.polled(cx);
            load.as_mut().poll(cx)
        }))
    }

    /// The loads of these flights, which one call runs by itself.
    pub(crate) fn run_all_within_call<'l>(
        flights: Vec<Arc<Self>>,
        mut loads: BoxFuture<'l, ()>,
    ) -> BoxFuture<'l, ()>
    where
        E: Send + Sync + 'l,
    {
        flights.iter().for_each(|flight| flight.set_within_call());
        Box::pin(poll_fn(move |cx| {
            flights.iter().for_each(|flight| flight.within_call.polled(cx));
            loads.as_mut().poll(cx)
        }))
    }

    /// Completes when the call that runs the load is not polled any more: it has been woken, and nothing has come of it.
    pub(crate) async fn stands_still(&self, clock: &dyn Clock) {
        loop {
            clock.sleep(STANDSTILL).await;
            let polls = self.within_call.polls.load(Ordering::Relaxed);
            if polls == 0 {
                continue;
            }
            self.within_call.waker.wake();
            clock.sleep(STANDSTILL).await;
            if self.phase() == Phase::Loading && self.within_call.polls.load(Ordering::Relaxed) == polls {
                return;
            }
        }
    }

    /// What it has brought, also while that is still being stored.
    pub(crate) fn result(&self) -> Option<E> {
        self.result.get().cloned()
    }

    /// How it has ended, once what it has brought is stored.
    pub(crate) fn end(&self) -> Option<E> {
        self.result().filter(|_| self.phase() == Phase::Complete)
    }

    /// The panic of its loader, for the first who asks.
    pub(crate) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        lock(&self.panic).take()
    }

    fn phase(&self) -> Phase {
        let phases = [Phase::Loading, Phase::Storing, Phase::Complete, Phase::Abandoned];
        phases[usize::from(self.phase.load(Ordering::Acquire)).min(phases.len() - 1)]
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    async fn reaches(&self, is_reached: impl Fn(Phase) -> bool) -> Phase {
        self.until(|| Some(self.phase()).filter(|phase| is_reached(*phase))).await
    }

    /// Waits until a look at the flight finds something.
    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Whatever changes after the look is heard of.
            changed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }
}

/// Somebody who waits for a flight. Dropping it ends the interest.
pub(crate) struct Waiting<E: FlightEnd> {
    pub(crate) flight: Arc<Flight<E>>,
    /// Something was invalidated after the load had begun, and before this call came: it must not be given what the load
    /// brings if that carries it.
    pub(crate) is_late: bool,
}

impl<E: FlightEnd> Waiting<E> {
    fn of(flight: &Arc<Flight<E>>, last_invalidation: u64) -> Option<Self> {
        if !flight.permit().is_current() {
            return None;
        }
        let mut interest = lock(&flight.interest);
        if interest.cancelled {
            return None;
        }
        interest.waiting += 1;
        drop(interest);
        // What it brings may carry a tag that was invalidated since it began: that is known when it has brought it.
        let is_late = flight.last_invalidation != last_invalidation;
        Some(Self { flight: flight.clone(), is_late })
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Ended<E> {
        let phase = self.flight.reaches(|phase| matches!(phase, Phase::Complete | Phase::Abandoned)).await;
        let result = self.flight.result().filter(|_| phase == Phase::Complete);
        result.map_or(Ended::Abandoned, Ended::Complete)
    }

    /// Waits for the result, whether or not it is stored already. A flight that is abandoned has none.
    pub(crate) async fn loaded(&self) -> E {
        self.flight.reaches(|phase| phase != Phase::Loading).await;
        match self.flight.result() {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }
}

impl<E: FlightEnd> Drop for Waiting<E> {
    fn drop(&mut self) {
        let mut interest = lock(&self.flight.interest);
        interest.waiting -= 1;
        if interest.waiting > 0 || interest.goes_on {
            return;
        }
        // Nobody joins it from here on.
        interest.cancelled = true;
        drop(interest);
        self.flight.changed.notify_waiters();
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
        *lock(&self.flight.panic) = Some(panic);
    }

    /// What the load has brought is known. Who has waited long enough takes it before it is stored.
    pub(crate) fn store(&self, result: E) {
        // There is one result at most.
        let _ = self.flight.result.set(result);
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
        let _ = self.flight.result.set(result);
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
