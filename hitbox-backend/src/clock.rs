//! The machine's clock. Nothing else in this crate reads the time.

#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hitbox_core::{BoxFuture, Clock, Timestamp};

/// The machine's clock; its sleeps need a tokio runtime with time enabled.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    /// Compared as the system tells the time: that costs half of what it takes to make milliseconds of it. An instant is a whole number of those, so
    /// that rounding the time down to one changes nothing.
    #[inline]
    fn has_come(&self, instant: Timestamp) -> bool {
        let instant = UNIX_EPOCH.checked_add(Duration::from_millis(instant.as_millis()));
        // A time before the epoch counts as the epoch.
        instant.is_some_and(|instant| instant == UNIX_EPOCH || SystemTime::now() >= instant)
    }

    fn monotonic(&self) -> Duration {
        START.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_come_as_the_time_says() {
        let clock = SystemClock;
        let now = clock.now();
        assert!(clock.has_come(now));
        assert!(clock.has_come(Timestamp::from_millis(0)));
        for later in [now + Duration::from_secs(3_600), Timestamp::MAX] {
            assert!(!clock.has_come(later), "{later:?}");
        }
        // It comes when the time reaches it, and not a millisecond before.
        let next = clock.now() + Duration::from_millis(5);
        while !clock.has_come(next) {
            std::hint::spin_loop();
        }
        assert!(clock.now() >= next);
    }
}
