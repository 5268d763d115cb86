//! Feeding a writer of a body, within the calls of who has the body.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use hitbox_core::{BackendError, BackendResult, BoxFuture, Clock, ErrorKind};

use crate::layout::Layout;
use crate::store::WrittenPart;
use crate::stream::BodyWriter;
use crate::unpanicked::{unpanicked, unpanicked_later};

/// Bytes that a writer may be behind those who wait for it. Then it has to take as many in each [`patience_with`] in which they wait.
pub const QUEUE: usize = 1024 * 1024;
/// How long others wait for a leaf that is so far behind and takes too little.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Longer chunks are taken in parts, so that it shows how fast they are taken.
const PART: usize = 256 * 1024;
/// What a chunk takes in the queue beside its bytes.
const OVERHEAD: usize = 64;

/// Of what a panic is.
pub(crate) const LAYER: &str = "a layer that was given a body";

type Writer = Box<dyn BodyWriter>;

/// A layer that is given a body.
enum Feed {
    /// It is being opened.
    Opening(BoxFuture<'static, BackendResult<Writer>>),
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
    /// The same of what it has taken; that it was opened counts as a whole queue.
    taken: u64,
    /// For how long others have waited for it, and what it had taken when they began to.
    waited: Duration,
    taken_before: u64,
    written: Arc<FedPart>,
    has_changed: bool,
}

/// What has been written by a writer that may still be opened, and that may fail.
#[derive(Default)]
struct FedPart {
    /// Set when the writer has been opened; of one that cannot be read while it is written there is none.
    part: OnceLock<Option<Arc<dyn WrittenPart>>>,
    has_failed: AtomicBool,
}

impl FedPart {
    fn opened(&self) -> Option<&Arc<dyn WrittenPart>> {
        self.part.get().and_then(Option::as_ref)
    }
}

#[async_trait]
impl WrittenPart for FedPart {
    fn readable(&self) -> u64 {
        self.opened().map_or(0, |part| part.readable())
    }

    fn has_ended(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
            || self.part.get().is_some_and(|part| part.as_ref().is_none_or(|part| part.has_ended()))
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        self.opened().ok_or_else(given_up)?.read_at(at, limit).await
    }
}

impl BodyFeed {
    fn of(layout: &Layout, feed: Feed) -> Self {
        Self {
            behind: if let Feed::Opening(_) = feed { OVERHEAD } else { 0 },
            feed,
            patience: patience_with(layout),
            queue: VecDeque::new(),
            taken: 0,
            waited: Duration::ZERO,
            taken_before: 0,
            written: Arc::default(),
            has_changed: false,
        }
    }

    /// Feeds this writer of a backend with this layout, if it could be opened.
    pub fn new(layout: &Layout, opened: BackendResult<Writer>) -> Self {
        let mut fed = Self::of(layout, Feed::Failed(given_up()));
        fed.opened(opened);
        fed
    }

    /// Feeds a writer of a backend with this layout when it has been opened. Until then it is behind by what has come, and nobody waits
    /// for it before that is too much.
    pub fn opening(layout: &Layout, opening: BoxFuture<'static, BackendResult<Writer>>) -> Self {
        Self::of(layout, Feed::Opening(opening))
    }

    fn opened(&mut self, opened: BackendResult<Writer>) {
        self.has_changed = true;
        match opened {
            Ok(writer) => {
                // It is opened once.
                self.written.part.get_or_init(|| writer.written());
                self.feed = Feed::Idle(writer);
            }
            Err(error) => self.fail(error),
        }
    }

    /// Whether it has been opened, has taken something or has failed since this was last asked.
    pub const fn has_changed(&mut self) -> bool {
        mem::replace(&mut self.has_changed, false)
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

    /// What it has written, unless it is known that nobody can read it.
    pub fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        let is_readable = self.error().is_none() && !matches!(self.written.part.get(), Some(None));
        is_readable.then(|| self.written.clone() as Arc<dyn WrittenPart>)
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

    /// Nothing of the body is going to be stored. What it takes, or is opened for, just now it still holds.
    pub fn let_go(&mut self) {
        self.queue = VecDeque::new();
        if let Feed::Idle(writer) = &mut self.feed {
            self.behind = 0;
            let let_go = || {
                writer.let_go();
                Ok(())
            };
            if let Err(error) = unpanicked(ErrorKind::Io, LAYER, let_go) {
                self.fail(error);
            }
        }
        self.hold_nothing_that_ended();
    }

    /// What has been written and grows no more is held by those alone who read it.
    fn hold_nothing_that_ended(&mut self) {
        if self.written.opened().is_some_and(|part| part.has_ended()) {
            self.written =
                Arc::new(FedPart { part: OnceLock::from(None), has_failed: AtomicBool::new(true) });
        }
    }

    fn fail(&mut self, error: BackendError) {
        self.feed = Feed::Failed(error);
        self.has_changed = true;
        // Nobody holds what it has taken but those who read it.
        mem::take(&mut self.written).has_failed.store(true, Ordering::Release);
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
                Feed::Opening(opening) => match polled(opening.as_mut(), cx) {
                    Poll::Pending if self.behind <= limit => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(opened) => {
                        let opened = opened.flatten();
                        // It has kept up: how fast it takes what comes shows from here on.
                        self.behind -= OVERHEAD;
                        self.taken += QUEUE as u64;
                        self.opened(opened);
                    }
                },
                Feed::Busy(len, work) => match polled(work.as_mut(), cx) {
                    Poll::Pending if self.behind <= limit => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok((writer, Ok(())))) => {
                        (self.behind, self.taken) = (self.behind - *len, self.taken + *len as u64);
                        (self.feed, self.has_changed) = (Feed::Idle(writer), true);
                        self.hold_nothing_that_ended();
                    }
                    Poll::Ready(Ok((_, Err(error))) | Err(error)) => self.fail(error),
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

    /// Waits until it is open or has failed.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = self.poll_feed(cx, usize::MAX);
        if let Feed::Opening(_) = self.feed { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Gives the body up. What it is about, a chunk as a rule, is waited for first, if that does not take too long.
    pub async fn abort(self, clock: &dyn Clock) {
        let Self { feed, patience, written, .. } = self;
        // A writer whose part nobody reads any more waits until nothing is left of it.
        drop(written);
        let given_up = async {
            let writer = match feed {
                Feed::Idle(writer) => writer,
                Feed::Failed(error) => return Err(error),
                Feed::Opening(opening) => match select(opening, clock.sleep(patience)).await {
                    Either::Left((opened, _)) => opened?,
                    Either::Right(_) => return Err(took_nothing(patience)),
                },
                Feed::Busy(_, work) => match select(work, clock.sleep(patience)).await {
                    Either::Left(((writer, _), _)) => writer,
                    Either::Right(_) => return Err(took_nothing(patience)),
                },
            };
            writer.abort().await;
            Ok(())
        };
        if let Err(error) = unpanicked_later(ErrorKind::Io, LAYER, given_up).await {
            tracing::debug!(%error, "a body was given up, and its layer may have something of it");
        }
    }

    /// The writer, when it has taken all.
    ///
    /// # Errors
    /// What it failed with.
    pub fn into_end(self) -> Result<Writer, BackendError> {
        match self.feed {
            Feed::Idle(writer) => Ok(writer),
            Feed::Opening(_) | Feed::Busy(..) => Err(given_up()),
            Feed::Failed(error) => Err(error),
        }
    }
}

/// Polls what a layer does. One that panics has failed, and is not polled again.
fn polled<R>(
    work: Pin<&mut (dyn Future<Output = R> + Send)>,
    cx: &mut Context<'_>,
) -> Poll<BackendResult<R>> {
    match unpanicked(ErrorKind::Io, LAYER, || Ok(work.poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panicked) => Poll::Ready(Err(panicked)),
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
