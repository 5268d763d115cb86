//! One connection to the server, which heals itself when it breaks, and what is known of its silence: a connection that
//! stays open and answers nothing does not break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hitbox_backend::core::Clock;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, RedisError, RedisResult};

/// Calls in a row that are cut before a connection is given up.
const CUT_IN_A_ROW: u32 = 3;

/// Calls in a row that their callers have given up before it is asked whether the server still answers.
const DROPPED_IN_A_ROW: u32 = 3;

/// The machine looks whether the other end is there when nothing has come for so long, and again after so long.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(3);

/// What the other end has not confirmed after so long breaks the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// How sockets are set.
pub(crate) fn tcp_settings() -> TcpSettings {
    // What a connection that is given up has not sent yet must not arrive after what is written on the next one.
    let settings = TcpSettings::default().set_linger_time(Duration::ZERO);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_AGAIN);
    let settings = settings.set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

pub(crate) struct Line {
    pub(crate) manager: ConnectionManager,
    /// When it was made, on the clock of the backend.
    made: Duration,
    /// Calls that were cut since the last answer.
    cut: AtomicU32,
    /// Calls that were given up since the last answer.
    dropped: AtomicU32,
    is_probed: AtomicBool,
}

impl Line {
    /// A line that connects when it is first used.
    pub(crate) fn new(client: Client, connect_timeout: Duration, now: Duration) -> RedisResult<Arc<Self>> {
        // One attempt per call: the deadline of calls paces them, and the next call tries again. The
        // deadline is ours, so that it runs on the injected clock.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(connect_timeout))
            .set_response_timeout(None);
        let manager = ConnectionManager::new_lazy_with_config(client, config)?;
        let (cut, dropped) = (AtomicU32::new(0), AtomicU32::new(0));
        Ok(Arc::new(Self { manager, made: now, cut, dropped, is_probed: AtomicBool::new(false) }))
    }

    /// For how long it has been there.
    pub(crate) fn age(&self, clock: &dyn Clock) -> Duration {
        clock.monotonic().saturating_sub(self.made)
    }

    /// Takes note of what came of a call. Any answer of the server shows that the line works.
    pub(crate) fn heard<T>(&self, result: &RedisResult<T>) {
        if result.as_ref().err().is_none_or(is_answer) {
            for count in [&self.cut, &self.dropped] {
                // A store would take the cache line from others with each answer.
                if count.load(Ordering::Relaxed) != 0 {
                    count.store(0, Ordering::Relaxed);
                }
            }
        }
    }

    /// A call was cut. Says whether there were so many that the line is deaf.
    pub(crate) fn cut(&self) -> bool {
        self.cut.fetch_add(1, Ordering::Relaxed) + 1 >= CUT_IN_A_ROW
    }

    /// A call was given up by its caller, who may have waited for long or not at all. Says whether somebody has to find
    /// out if the server answers; whoever does says so with [`probed`](Self::probed).
    pub(crate) fn dropped(&self) -> bool {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        dropped >= DROPPED_IN_A_ROW && !self.is_probed.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn probed(&self) {
        self.is_probed.store(false, Ordering::Relaxed);
    }
}

/// Whether the server has said this, and not the client.
fn is_answer(error: &RedisError) -> bool {
    !(error.is_timeout()
        || error.is_io_error()
        || error.is_connection_dropped()
        || error.is_connection_refusal()
        || error.is_unrecoverable_error())
}
