//! One connection to the server, from the attempt to connect to its end, and what is known of its silence: a connection that
//! stays open and answers nothing does not end.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::driver::Driver;
use crate::socket::connect;

/// Calls in a row that came to nothing before it is found out whether the connection is deaf.
const SILENT_CALLS: u32 = 3;

/// After calls that met.
const CALLS_LEFT_TO_TASK: u32 = 32;

pub(crate) struct Line {
    connecting: Shared<oneshot::Receiver<RedisResult<MultiplexedConnection>>>,
    driver: Arc<Driver>,
    task: AbortHandle,
    /// Calls since the last answer that were cut, or given up by their callers.
    unanswered: AtomicU32,
    is_examined: AtomicBool,
    /// The client says that another connection is needed. Calls under way may have their answers all the same.
    is_retired: AtomicBool,
}

impl Drop for Line {
    fn drop(&mut self) {
        // Its runtime may not be driven: the socket is closed here.
        self.driver.end();
        self.task.abort();
    }
}

/// Ends the line with the runtime that it is on.
struct End(Arc<Driver>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Line {
    /// A line that connects now, once, and lives on this runtime.
    #[expect(clippy::disallowed_methods, reason = "it ends with the line")]
    pub(crate) fn new(client: Client, connect_timeout: Duration, runtime: &Handle) -> Arc<Self> {
        let (connected, connecting) = oneshot::channel();
        let driver = Arc::new(Driver::new(CALLS_LEFT_TO_TASK));
        let end = End(driver.clone());
        let task = runtime.spawn(async move {
            let driver = &*end.0;
            let (connection, io) = match connect(&client, connect_timeout).await {
                Ok(there) => there,
                Err(error) => {
                    // Who has waited for it is told; the next call tries again.
                    driver.end();
                    let _ = connected.send(Err(error));
                    return;
                }
            };
            let is_ours = io.is_some();
            if let Some(io) = io {
                driver.begin(io);
            }
            let _ = connected.send(Ok(connection));
            if is_ours { driver.drive().await } else { pending().await }
        });
        Arc::new(Self {
            connecting: connecting.shared(),
            driver,
            task: task.abort_handle(),
            unanswered: AtomicU32::new(0),
            is_examined: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
        })
    }

    /// Whether nothing comes of it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.driver.is_over() || self.is_retired.load(Ordering::Acquire)
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        match self.connecting.peek() {
            Some(connected) => connected.clone(),
            None => self.connecting.clone().await,
        }
        // The runtime has ended before it was there.
        .unwrap_or_else(|_| Err(closed()))
    }

    /// One round trip.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let mut connection = self.connection().await?;
        let answer = self.driver.run(Box::pin(connection.send_packed_command(command))).await;
        let answer = answer.unwrap_or_else(|| Err(closed()));
        Ok(redis::from_redis_value(self.heard(answer)?.extract_error()?)?)
    }

    /// Several commands in one round trip, each with its own answer.
    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> RedisResult<Vec<RedisResult<T>>> {
        let mut connection = self.connection().await?;
        let answers = self.driver.run(Box::pin(pipeline.query_async(&mut connection))).await;
        self.heard(answers.unwrap_or_else(|| Err(closed())))
    }

    /// Takes note of what came of a call, and says whether the server has answered. Any answer shows that the line works.
    fn heard<T>(&self, result: RedisResult<T>) -> RedisResult<T> {
        if result.as_ref().is_err_and(RedisError::is_unrecoverable_error) {
            self.is_retired.store(true, Ordering::Release);
        }
        if is_answer(&result) && self.unanswered.load(Ordering::Relaxed) != 0 {
            // A store would take the cache line from others with each answer.
            self.unanswered.store(0, Ordering::Relaxed);
        }
        result
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

fn closed() -> RedisError {
    io::Error::from(io::ErrorKind::NotConnected).into()
}

/// Whether the server has said this, and not the client.
pub(crate) fn is_answer<T>(result: &RedisResult<T>) -> bool {
    result.as_ref().err().is_none_or(|error| {
        !(error.is_timeout()
            || error.is_io_error()
            || error.is_connection_dropped()
            || error.is_connection_refusal()
            || error.is_unrecoverable_error())
    })
}
