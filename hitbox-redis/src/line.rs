//! One connection to the server, which heals itself when it breaks, and what is known of its silence: a connection that
//! stays open and answers nothing does not break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, RedisError, RedisResult};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Calls in a row that came to nothing before it is found out whether the connection is deaf.
const SILENT_CALLS: u32 = 3;

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
    /// Calls since the last answer that were cut, or given up by their callers.
    unanswered: AtomicU32,
    is_examined: AtomicBool,
    /// The runtime that drives it has ended.
    is_over: Arc<AtomicBool>,
    /// Ends the task that waits for the end of the runtime.
    _alive: oneshot::Sender<()>,
}

/// Is dropped with the runtime that it is on.
struct RuntimeEnd(Arc<AtomicBool>);

impl Drop for RuntimeEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Line {
    /// A line that connects when it is first used, and is driven by this runtime, which the caller is on.
    #[expect(clippy::disallowed_methods, reason = "it ends with the line")]
    pub(crate) fn new(client: Client, connect_timeout: Duration, runtime: &Handle) -> RedisResult<Arc<Self>> {
        // One attempt per call: the deadline of calls paces them, and the next call tries again. The
        // deadline is ours, so that it runs on the injected clock.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(connect_timeout))
            .set_response_timeout(None);
        let manager = ConnectionManager::new_lazy_with_config(client, config)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (alive, end_of_line) = oneshot::channel();
        let runtime_end = RuntimeEnd(is_over.clone());
        runtime.spawn(async move {
            let _runtime_end = runtime_end;
            let _ = end_of_line.await;
        });
        Ok(Arc::new(Self {
            manager,
            unanswered: AtomicU32::new(0),
            is_examined: AtomicBool::new(false),
            is_over,
            _alive: alive,
        }))
    }

    /// Whether nobody drives it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Takes note of what came of a call, and says whether the server has answered. Any answer shows that the line works.
    pub(crate) fn heard<T>(&self, result: &RedisResult<T>) -> bool {
        let is_answered = result.as_ref().err().is_none_or(is_answer);
        if is_answered {
            // A store would take the cache line from others with each answer.
            if self.unanswered.load(Ordering::Relaxed) != 0 {
                self.unanswered.store(0, Ordering::Relaxed);
            }
        }
        is_answered
    }

    /// A call was cut, or given up by its caller, who may have waited for long or not at all. Says whether it has to be
    /// found out if the line is deaf; whoever does says when that is [done](Self::examined).
    pub(crate) fn unanswered(&self) -> bool {
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        unanswered >= SILENT_CALLS && !self.is_examined.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn examined(&self) {
        self.is_examined.store(false, Ordering::Relaxed);
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
