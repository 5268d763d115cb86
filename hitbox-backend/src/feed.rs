//! Feeding a writer of a body, within the calls of who has the body.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use hitbox_core::{BackendError, BackendResult, BoxFuture, Clock, ErrorKind};

use crate::layout::Layout;
use crate::store::WrittenPart;
use crate::stream::BodyWriter;

/// Bytes that a writer may be behind those who wait for it. Then it has to take as many in each [`patience_with`] in which they wait.
pub const QUEUE: usize = 1024 * 1024;
/// How long others wait for a leaf that is so far behind and takes too little.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Longer chunks are taken in parts, so that it shows how fast they are taken.
const PART: usize = 256 * 1024;
/// What a chunk takes in the queue beside its bytes.
const OVERHEAD: usize = 64;

type Writer = Box<dyn BodyWriter>;

/// A layer that is given a body.
enum Feed {
    /// It waits for more.
    Idle(Writer),
    /// It takes a chunk of so many bytes.
    Busy(usize, BoxFuture<'static, (Writer, BackendResult<()>)>),
    /// It is given no more, and has nothing of the body.
    Failed(BackendError),
}

/// Has a writer take a body, a chunk at a time, while more come.
pub struct BodyFeed {
    feed: Feed,
    patience: Duration,
    queue: VecDeque<Bytes>,
    /// Bytes that it has not taken, and what their chunks take in the queue.
    behind: usize,
    /// The same of what it has taken.
    taken: u64,
    /// For how long others have waited for it, and what it had taken when they began to.
    waited: Duration,
    taken_before: u64,
    has_failed: Arc<AtomicBool>,
}

/// What has been written by a writer that may fail.
struct FedPart {
    part: Arc<dyn WrittenPart>,
    has_failed: Arc<AtomicBool>,
}

#[async_trait]
impl WrittenPart for FedPart {
    fn readable(&self) -> u64 {
        self.part.readable()
    }

    fn has_ended(&self) -> bool {
        self.has_failed.load(Ordering::Acquire) || self.part.has_ended()
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        self.part.read_at(at, limit).await
    }
}

impl BodyFeed {
    /// Feeds this writer of a backend with this layout, if it could be opened.
    pub fn new(layout: &Layout, opened: BackendResult<Writer>) -> Self {
        let feed = opened.map_or_else(Feed::Failed, Feed::Idle);
        let (waited, has_failed) = (Duration::ZERO, Arc::default());
        let patience = patience_with(layout);
        let queue = VecDeque::new();
        Self { feed, patience, queue, behind: 0, taken: 0, waited, taken_before: 0, has_failed }
    }

    /// What it failed with.
    pub const fn error(&self) -> Option<&BackendError> {
        match &self.feed {
            Feed::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Whether it is more behind than it may be while others wait.
    pub const fn is_behind(&self) -> bool {
        self.behind > QUEUE
    }

    /// Bytes that have come and that it has not taken.
    pub const fn behind(&self) -> usize {
        self.behind
    }

    /// Bytes that it has taken.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// What it has written, before its first chunk.
    pub fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        match &self.feed {
            Feed::Idle(writer) => {
                let (part, has_failed) = (writer.written()?, self.has_failed.clone());
                Some(Arc::new(FedPart { part, has_failed }))
            }
            Feed::Busy(..) | Feed::Failed(_) => None,
        }
    }

    /// Others have waited for so long for it to take `needed` bytes in each [`patience_with`] it. Says whether they may go on waiting.
    pub fn keeps_up(&mut self, waited: Duration, needed: u64) -> bool {
        self.waited += waited;
        if self.waited < self.patience {
            return true;
        }
        let taken = self.taken - self.taken_before;
        (self.waited, self.taken_before) = (Duration::ZERO, self.taken);
        taken >= needed
    }

    /// What it takes from here on counts.
    pub fn begin_wait(&mut self) {
        if self.waited.is_zero() {
            self.taken_before = self.taken;
        }
    }

    /// It takes nothing for too long.
    pub fn give_up(&mut self) {
        self.fail(took_nothing(self.patience));
    }

    fn fail(&mut self, error: BackendError) {
        self.feed = Feed::Failed(error);
        self.has_failed.store(true, Ordering::Release);
        self.queue = VecDeque::new();
        self.behind = 0;
    }

    /// The next chunk.
    pub fn push(&mut self, mut chunk: Bytes) {
        while self.error().is_none() && !chunk.is_empty() {
            let part = chunk.split_to(chunk.len().min(PART));
            self.behind += part.len() + OVERHEAD;
            self.queue.push_back(part);
        }
    }

    /// Feeds it until it is behind by no more than so many bytes, or has failed.
    pub fn poll_feed(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<()> {
        loop {
            match &mut self.feed {
                Feed::Failed(_) => return Poll::Ready(()),
                Feed::Busy(len, work) => match work.as_mut().poll(cx) {
                    Poll::Pending if self.behind <= limit => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready((writer, Ok(()))) => {
                        (self.behind, self.taken) = (self.behind - *len, self.taken + *len as u64);
                        self.feed = Feed::Idle(writer);
                    }
                    Poll::Ready((_, Err(error))) => self.fail(error),
                },
                Feed::Idle(_) => {
                    let Some(chunk) = self.queue.pop_front() else { return Poll::Ready(()) };
                    let idle = mem::replace(&mut self.feed, Feed::Failed(given_up()));
                    let Feed::Idle(mut writer) = idle else { return Poll::Ready(()) };
                    let len = chunk.len() + OVERHEAD;
                    self.feed = Feed::Busy(
                        len,
                        Box::pin(async move {
                            let taken = writer.chunk(chunk).await;
                            (writer, taken)
                        }),
                    );
                }
            }
        }
    }

    /// Gives the body up. A chunk that is being taken is waited for first, if that does not take too long.
    pub async fn abort(self, clock: &dyn Clock) {
        let writer = match self.feed {
            Feed::Idle(writer) => writer,
            Feed::Failed(_) => return,
            Feed::Busy(_, work) => match select(work, clock.sleep(self.patience)).await {
                Either::Left(((writer, _), _)) => writer,
                Either::Right(_) => return,
            },
        };
        writer.abort().await;
    }

    /// The writer, when it has taken all.
    ///
    /// # Errors
    /// What it failed with.
    pub fn into_end(self) -> Result<Writer, BackendError> {
        match self.feed {
            Feed::Idle(writer) => Ok(writer),
            Feed::Busy(..) => Err(given_up()),
            Feed::Failed(error) => Err(error),
        }
    }
}

/// How long others wait for a backend with this layout. A composition needs a leaf's time more than its layers: it has to have given
/// up a layer of its own before it is given up for that layer.
pub fn patience_with(layout: &Layout) -> Duration {
    PATIENCE * layout.height()
}

/// A layer took nothing for so long.
pub fn took_nothing(patience: Duration) -> BackendError {
    let message = format!("the layer took nothing of a body for {} ms", patience.as_millis());
    BackendError::new(ErrorKind::Timeout, message)
}

pub(crate) fn given_up() -> BackendError {
    BackendError::new(ErrorKind::Closed, "the body was given up")
}
