//! Reads that many tasks make at once travel together: one `MGET` costs the client, the server and the
//! network far less than a `GET` for each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hitbox_backend::core::{BackendError, BackendResult};
use redis::Cmd;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::connection::Connection;
use crate::error::{is_command_denied, is_denied, is_wrong_type};

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

/// Reads several keys in one round trip.
#[derive(Clone)]
pub(crate) struct Reads {
    connection: Connection,
    /// The user has no right to `MGET`.
    is_denied: Arc<AtomicBool>,
}

impl Reads {
    /// One `MGET`; or a `GET` for each key where the user may not use it, or not with one of the keys.
    pub(crate) async fn read(&self, keys: &[impl AsRef<[u8]>]) -> Vec<Found> {
        if !self.is_denied.load(Ordering::Relaxed) {
            let bytes = keys.iter().map(|key| key.as_ref().len()).sum::<usize>();
            let mut get = Cmd::with_capacity(1 + keys.len(), 4 + bytes);
            get.arg("MGET");
            for key in keys {
                get.arg(key.as_ref());
            }
            match self.connection.query::<Vec<Option<Vec<u8>>>>(&get).await {
                Ok(values) => return values.into_iter().map(Ok).collect(),
                Err(error) if is_denied(&error) => self.note_denied(&error),
                Err(error) => return vec![Err(error); keys.len()],
            }
        }
        let mut gets = redis::pipe();
        for key in keys {
            gets.cmd("GET").arg(key.as_ref());
        }
        match self.connection.pipeline::<Option<Vec<u8>>>(&mut gets).await {
            Ok(values) => values.into_iter().map(string_or_nothing).collect(),
            Err(error) => vec![Err(error); keys.len()],
        }
    }

    fn note_denied(&self, error: &BackendError) {
        // It may be one key that is out of reach.
        if is_command_denied(error, "MGET") && !self.is_denied.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "keys are read with GET");
        }
    }
}

/// What a `GET` has answered. Somebody may keep another type of value under this key.
pub(crate) fn string_or_nothing(found: Found) -> Found {
    match found {
        Err(error) if is_wrong_type(&error) => Ok(None),
        found => found,
    }
}

/// The task that sends batches.
#[derive(Default)]
struct Sending {
    /// Which one it is of all that there have been.
    task: u64,
    /// To the task, once there is one. It ends with the last clone of the backend, or with its runtime.
    queue: Option<mpsc::Sender<Waiting>>,
}

impl Sending {
    fn start(&mut self, reads: Reads) -> Option<()> {
        let runtime = Handle::try_current().ok()?;
        let (sender, queue) = mpsc::channel(MAX_WAITING);
        #[expect(clippy::disallowed_methods, reason = "it lives as long as the connection")]
        runtime.spawn(send_batches(reads, queue));
        *self = Self { task: self.task + 1, queue: Some(sender) };
        Some(())
    }

    fn take(&self, waiting: Waiting) -> Option<u64> {
        self.queue.as_ref()?.try_send(waiting).ok()?;
        Some(self.task)
    }
}

/// What all clones of a backend share.
#[derive(Clone)]
pub(crate) struct BatchedReads {
    pub(crate) reads: Reads,
    under_way: Arc<AtomicUsize>,
    sending: Arc<RwLock<Sending>>,
}

impl BatchedReads {
    pub(crate) fn new(connection: Connection) -> Self {
        let reads = Reads { connection, is_denied: Arc::default() };
        Self { reads, under_way: Arc::default(), sending: Arc::default() }
    }

    /// Has a key read with others, and says by which task; nothing if there is no room. The runtime of the task that sends
    /// batches may have ended: then there is another on that of the caller.
    fn queue(&self, waiting: Waiting) -> Option<u64> {
        let known = self.sending.read().unwrap_or_else(PoisonError::into_inner);
        if known.queue.as_ref().is_some_and(|queue| !queue.is_closed()) {
            return known.take(waiting);
        }
        drop(known);
        let mut known = self.sending.write().unwrap_or_else(PoisonError::into_inner);
        if known.queue.as_ref().is_none_or(mpsc::Sender::is_closed) {
            known.start(self.reads.clone())?;
        }
        known.take(waiting)
    }

    /// This task has not answered in time. Its runtime may be one that lives and is not driven: the next read that is batched
    /// starts another.
    fn give_up(&self, task: u64) {
        let mut known = self.sending.write().unwrap_or_else(PoisonError::into_inner);
        if known.task == task {
            known.queue = None;
        }
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
        let (answer, answered) = oneshot::channel();
        let task = self.reads.queue(Waiting { key: key(), answer })?;
        match self.reads.reads.connection.cut(answered).await {
            Ok(Ok(found)) => Some(found),
            Err(timeout) => {
                self.reads.give_up(task);
                Some(Err(timeout))
            }
            // No answer comes if the runtime of the task that sends batches has ended.
            Ok(Err(_)) => None,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.reads.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn send_batches(batches: Reads, mut queue: mpsc::Receiver<Waiting>) {
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
                    under_way.push(read_batch(&batches, reads));
                }
            },
        }
    }
}

async fn read_batch(batches: &Reads, reads: Vec<Waiting>) {
    // Who has given up is not asked for.
    let reads: Vec<Waiting> = reads.into_iter().filter(|read| !read.answer.is_closed()).collect();
    if reads.is_empty() {
        return;
    }
    let keys: Vec<&[u8]> = reads.iter().map(|read| &read.key[..]).collect();
    let found = batches.read(&keys).await;
    for (read, found) in reads.into_iter().zip(found) {
        // The reader may have gone.
        let _ = read.answer.send(found);
    }
}
