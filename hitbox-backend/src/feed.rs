//! Feeding a writer of a body, within the calls of who has the body.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use hitbox_core::{BackendError, BackendResult, BoxFuture, Clock, ErrorKind};

use crate::store::WrittenPart;
use crate::stream::BodyWriter;

/// Bytes that a writer may be behind those who wait for it.
pub const QUEUE: usize = 1024 * 1024;
/// How long others wait for one that is so far behind and takes nothing.
pub const PATIENCE: Duration = Duration::from_secs(1);

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
    queue: VecDeque<Bytes>,
    /// Bytes that it has not taken.
    behind: usize,
    /// Chunks that it has taken.
    taken: u64,
}

impl BodyFeed {
    /// Feeds this writer, if it could be opened.
    pub fn new(opened: BackendResult<Writer>) -> Self {
        let feed = opened.map_or_else(Feed::Failed, Feed::Idle);
        Self { feed, queue: VecDeque::new(), behind: 0, taken: 0 }
    }

    /// What it failed with.
    pub const fn error(&self) -> Option<&BackendError> {
        match &self.feed {
            Feed::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Bytes that have come and that it has not taken.
    pub const fn behind(&self) -> usize {
        self.behind
    }

    /// Chunks that it has taken.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// What it has written, before its first chunk.
    pub fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        match &self.feed {
            Feed::Idle(writer) => writer.written(),
            Feed::Busy(..) | Feed::Failed(_) => None,
        }
    }

    /// It takes nothing for too long.
    pub fn give_up(&mut self) {
        self.fail(took_nothing());
    }

    fn fail(&mut self, error: BackendError) {
        self.feed = Feed::Failed(error);
        self.queue = VecDeque::new();
        self.behind = 0;
    }

    /// The next chunk.
    pub fn push(&mut self, chunk: Bytes) {
        if self.error().is_none() {
            self.behind += chunk.len();
            self.queue.push_back(chunk);
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
                        (self.behind, self.taken) = (self.behind - *len, self.taken + 1);
                        self.feed = Feed::Idle(writer);
                    }
                    Poll::Ready((_, Err(error))) => self.fail(error),
                },
                Feed::Idle(_) => {
                    let Some(chunk) = self.queue.pop_front() else { return Poll::Ready(()) };
                    let idle = mem::replace(&mut self.feed, Feed::Failed(given_up()));
                    let Feed::Idle(mut writer) = idle else { return Poll::Ready(()) };
                    let len = chunk.len();
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
            Feed::Busy(_, work) => match select(work, clock.sleep(PATIENCE)).await {
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

/// A layer took nothing for too long.
pub fn took_nothing() -> BackendError {
    let message = format!("the layer took nothing of a body for {} ms", PATIENCE.as_millis());
    BackendError::new(ErrorKind::Timeout, message)
}

pub(crate) fn given_up() -> BackendError {
    BackendError::new(ErrorKind::Closed, "the body was given up")
}
