//! Reads that many tasks make at once travel together: one `MGET` costs the client, the server and the
//! network far less than a `GET` for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hitbox_backend::core::BackendResult;
use tokio::sync::{mpsc, oneshot};

use crate::connection::Connection;

/// As many reads travel alone; when more are under way, further ones are batched. A lone reader never
/// waits for company.
const ALONE: usize = 8;

/// Keys of one `MGET` at most, so that no answer holds up others for long.
const MAX_KEYS: usize = 64;

/// `MGET`s under way at most; reads that come meanwhile form the next one.
const MAX_UNDER_WAY: usize = 4;

/// Reads waiting to be batched at most; further ones travel alone.
const MAX_WAITING: usize = 1024;

type Found = BackendResult<Option<Vec<u8>>>;

struct Waiting {
    key: Vec<u8>,
    answer: oneshot::Sender<Found>,
}

/// What all clones of a backend share.
#[derive(Clone)]
pub(crate) struct BatchedReads {
    connection: Connection,
    under_way: Arc<AtomicUsize>,
    waiting: mpsc::Sender<Waiting>,
}

impl BatchedReads {
    /// Starts the task that sends batches. It ends with the last clone.
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the connection")]
    pub(crate) fn new(connection: Connection) -> Self {
        let (waiting, queue) = mpsc::channel(MAX_WAITING);
        tokio::spawn(send_batches(connection.clone(), queue));
        Self { connection, under_way: Arc::default(), waiting }
    }

    /// Counts a read until the guard is dropped.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        let others = self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay { reads: self, is_batched: others >= ALONE }
    }
}

/// A read under way.
pub(crate) struct UnderWay<'a> {
    reads: &'a BatchedReads,
    is_batched: bool,
}

impl UnderWay<'_> {
    /// The answer of a batched read, or nothing if the read has to travel alone. Dropping the future gives
    /// up the answer and nothing else.
    pub(crate) async fn batched(&self, key: impl FnOnce() -> Vec<u8>) -> Option<Found> {
        if !self.is_batched {
            return None;
        }
        let place = self.reads.waiting.try_reserve().ok()?;
        let (answer, answered) = oneshot::channel();
        place.send(Waiting { key: key(), answer });
        match self.reads.connection.cut(answered).await {
            Ok(Ok(found)) => Some(found),
            Err(timeout) => Some(Err(timeout)),
            // No answer comes if the runtime that the backend was built in has ended.
            Ok(Err(_)) => None,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.reads.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn send_batches(connection: Connection, mut queue: mpsc::Receiver<Waiting>) {
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            first = queue.recv(), if open && under_way.len() < MAX_UNDER_WAY => match first {
                None => open = false,
                Some(first) => {
                    // Answers wake many tasks at once: let them ask again first.
                    tokio::task::yield_now().await;
                    let mut reads = Vec::with_capacity(MAX_KEYS);
                    reads.push(first);
                    while reads.len() < MAX_KEYS && let Ok(next) = queue.try_recv() {
                        reads.push(next);
                    }
                    under_way.push(read_batch(&connection, reads));
                }
            },
        }
    }
}

async fn read_batch(connection: &Connection, reads: Vec<Waiting>) {
    let mut get = redis::cmd("MGET");
    // Who has given up is not asked for.
    let reads: Vec<Waiting> = reads.into_iter().filter(|read| !read.answer.is_closed()).collect();
    if reads.is_empty() {
        return;
    }
    for read in &reads {
        get.arg(&read.key[..]);
    }
    match connection.query::<Vec<Option<Vec<u8>>>>(&get).await {
        Ok(values) => {
            for (read, value) in reads.into_iter().zip(values) {
                // The reader may have gone.
                let _ = read.answer.send(Ok(value));
            }
        }
        Err(error) => {
            for read in reads {
                let _ = read.answer.send(Err(error.clone()));
            }
        }
    }
}
