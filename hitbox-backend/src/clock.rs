//! The machine's clock. Nothing else in this crate reads the time.

#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use hitbox_core::{BoxFuture, Clock, Timestamp};

/// The machine's clock; its sleeps need a tokio runtime with time enabled.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        START.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
