//! One load under way: how far it is, and who waits for it.

use std::any::Any;
use std::borrow::Borrow;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hitbox_backend::internal::LoadPermit;
use hitbox_core::{BoxFuture, Clock};
use tokio::sync::Notify;

use super::{FlightEnd, lock};
use crate::cycle::LoadId;

/// A call that was woken and is not polled for so long has been left lying.
const STANDSTILL: Duration = Duration::from_secs(1);

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
pub(super) enum Phase {
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

impl<E: FlightEnd> Flight<E> {
    /// One that begins, and that its leader waits for.
    pub(super) fn new(permit: E::Permit, last_invalidation: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Loading as u8),
            changed: Notify::new(),
            within_call: WithinCall::default(),
            result: OnceLock::new(),
            id: LoadId::next(),
            permit,
            last_invalidation,
            interest: Mutex::new(Interest { waiting: 1, ..Interest::default() }),
            panic: Mutex::default(),
        }
    }

    /// The right to store what it brings.
    pub(crate) fn permit(&self) -> &LoadPermit {
        self.permit.borrow()
    }

    /// The same, with who else has it.
    pub(crate) fn shared_permit(&self) -> &E::Permit {
        &self.permit
    }

    pub(super) fn may_be_joined(&self) -> bool {
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

    pub(super) fn runs_within_call(&self) -> bool {
        self.within_call.is_set.load(Ordering::Acquire)
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

    /// There is one result at most.
    pub(super) fn bring(&self, result: E) {
        let _ = self.result.set(result);
    }

    pub(super) fn keep_panic(&self, panic: Box<dyn Any + Send>) {
        *lock(&self.panic) = Some(panic);
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

    pub(super) fn enter(&self, phase: Phase) {
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
    pub(super) fn of(flight: &Arc<Flight<E>>, last_invalidation: u64) -> Option<Self> {
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
