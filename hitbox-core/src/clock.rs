//! Time as a dependency: wall time, monotonic time and sleep, injected wherever they are needed.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::{BoxFuture, Timestamp};

/// Where the framework gets the time from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall time, in milliseconds. May step when the machine's clock is set.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// Completes `duration` after the call. Dropping the future forgets the wake-up.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Whether [`now`](Self::now) is this instant or a later one. Every hit of an entry with an end asks.
    #[inline]
    fn has_come(&self, instant: Timestamp) -> bool {
        self.now() >= instant
    }

    /// Whether this clock runs with the machine's, so that a store's own expiry may be relied on.
    /// Under a clock that is driven by hand native expiry is off and a sweep does its work.
    fn is_real(&self) -> bool {
        true
    }
}

/// A clock that moves only when it is told to. Clones share the time.
///
/// ```
/// # use std::time::Duration;
/// use hitbox_core::{Clock, ManualClock};
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_millis(1500));
/// assert_eq!(clock.now().since(before), Duration::from_millis(1500));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Manual>>);

#[derive(Debug)]
struct Manual {
    wall: Timestamp,
    monotonic: Duration,
    sleepers: Vec<(u64, Duration, Option<Waker>)>,
    next: u64,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl ManualClock {
    /// A clock that stands at 2001-09-09T01:46:40Z.
    pub fn new() -> Self {
        Self::at(Timestamp::from_millis(1_000_000_000_000))
    }

    /// A clock that stands at `wall`.
    pub fn at(wall: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Manual { wall, monotonic: Duration::ZERO, sleepers: Vec::new(), next: 0 })))
    }

    /// Moves both wall and monotonic time and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        let woken: Vec<Waker> = {
            let mut manual = self.lock();
            manual.wall = manual.wall + by;
            manual.monotonic += by;
            let now = manual.monotonic;
            manual.sleepers.iter_mut().filter(|s| s.1 <= now).filter_map(|s| s.2.take()).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Sets wall time alone, as an operator who corrects the machine's clock does.
    pub fn set_wall(&self, wall: Timestamp) {
        self.lock().wall = wall;
    }

    /// How many sleeps are under way.
    pub fn sleepers(&self) -> usize {
        self.lock().sleepers.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Manual> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().wall
    }

    fn monotonic(&self) -> Duration {
        self.lock().monotonic
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut manual = self.lock();
        let (id, until) = (manual.next, manual.monotonic + duration);
        manual.next += 1;
        manual.sleepers.push((id, until, None));
        Box::pin(ManualSleep { clock: self.clone(), id })
    }

    fn is_real(&self) -> bool {
        false
    }
}

struct ManualSleep {
    clock: ManualClock,
    id: u64,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut manual = self.clock.lock();
        let now = manual.monotonic;
        match manual.sleepers.iter_mut().find(|s| s.0 == self.id) {
            Some(sleeper) if sleeper.1 > now => {
                sleeper.2 = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        self.clock.lock().sleepers.retain(|s| s.0 != self.id);
    }
}
