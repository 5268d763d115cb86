//! A response that is being stored: it goes to the layers and to those who read it, and what becomes of it in a layer is nothing to
//! them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use hitbox_backend::Backend;
use hitbox_backend::internal::{BodyFeed, Follower, InFlightBody, LoadPermit, PATIENCE, QUEUE};
use hitbox_backend::operation::{BodyWriter, WriteOptions};
use hitbox_core::{
    BackendError, BackendResult, BoxFuture, CacheKey, CacheValue, Clock, Offload, Task, TaskKind,
};
use pingora_cache::eviction::CacheEntryId;
use pingora_cache::storage::streaming_write::U64WriteId;
use pingora_cache::storage::{HandleMiss, MissFinishType};
use pingora_error::Result;

/// The responses that are being stored, by the tag of their writers.
#[derive(Debug, Default)]
pub(crate) struct Writers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    last: u64,
    by_tag: HashMap<u64, Readers>,
}

/// Who reads the response of one writer.
#[derive(Debug)]
struct Readers {
    follower: Follower,
    /// The first has been handed out: the one for whom the response was asked for.
    is_led: bool,
}

impl Writers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, follower: Follower) -> u64 {
        let mut known = self.lock();
        known.last += 1;
        let tag = known.last;
        known.by_tag.insert(tag, Readers { follower, is_led: false });
        tag
    }

    fn leave(&self, tag: u64) {
        let readers = self.lock().by_tag.remove(&tag);
        drop(readers);
    }

    /// A reader of the response of this very writer, unless that has ended.
    pub(crate) fn reader(&self, tag: u64) -> Option<Follower> {
        let mut known = self.lock();
        let Readers { follower, is_led } = known.by_tag.get_mut(&tag)?;
        let leads = !std::mem::replace(is_led, true);
        Some(if leads { follower.lead() } else { follower.again() })
    }
}

/// Stores a response as it comes.
pub(crate) struct BodyMiss {
    writers: Arc<Writers>,
    tag: u64,
    tag_bytes: U64WriteId,
    clock: Arc<dyn Clock>,
    offload: Arc<dyn Offload>,
    permit: Arc<LoadPermit>,
    leader: LeadersPace,
    /// Bytes of the metadata.
    head: u64,
    written: u64,
    /// Taken when it is finished. Nobody waits for the lock: it is there since writers of layers cannot be shared by threads.
    parts: Mutex<Option<Parts>>,
}

/// Where the one is for whom the response was asked for, and since when.
#[derive(Default)]
struct LeadersPace {
    at: u64,
    since: Option<Duration>,
}

/// What is held for one who takes nothing; it has left by then, and Pingora has not said so.
const MOST_HELD: u64 = 8 * 1024 * 1024;
/// How long the end of a response waits for layers that are still being opened.
const OPENING: Duration = Duration::from_millis(20);

struct Parts {
    key: CacheKey,
    in_flight: InFlightBody,
    layers: BodyFeed,
}

impl Drop for BodyMiss {
    fn drop(&mut self) {
        self.writers.leave(self.tag);
    }
}

impl BodyMiss {
    fn parts(&mut self) -> &mut Option<Parts> {
        self.parts.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pingora keeps the reader of a client that has left for as long as the response is stored. Nothing is held for one that
    /// takes nothing for too long while more comes: one that is merely slow has Pingora wait with what comes.
    fn let_go_of_one_who_left(&mut self) {
        let now = self.clock.monotonic();
        let written = self.written;
        let Some(parts) = self.parts() else { return };
        let Some(at) = parts.in_flight.leader_at() else { return };
        let since = self.leader.since.filter(|_| self.leader.at == at);
        let is_gone = written.saturating_sub(at) > MOST_HELD
            && since.is_some_and(|since| now.saturating_sub(since) >= PATIENCE);
        self.leader = LeadersPace { at, since: since.or(Some(now)) };
        if is_gone && let Some(parts) = self.parts() {
            parts.in_flight.let_go_of_leader();
        }
    }

    /// Begins a response. If no layer takes it, or it was purged since it was asked for, it goes to the readers of this writer alone.
    pub(crate) fn begin(
        backend: &Arc<dyn Backend>,
        writers: &Arc<Writers>,
        offload: &Arc<dyn Offload>,
        key: &CacheKey,
        entry: CacheValue<()>,
        was_purged: impl FnOnce() -> bool,
    ) -> Self {
        let layout = backend.layout();
        let (clock, permit) = (layout.clock().clone(), Arc::new(layout.load_permit(key)));
        // Whoever purges from here on ends the permit. Before that the origin may have read what was purged.
        if was_purged() {
            permit.revoke();
        }
        let layers =
            BodyFeed::opening(layout, open(backend.clone(), key.clone(), entry.clone(), permit.clone()));
        let details = entry.details().into_iter().flat_map(|details| &details.metadata);
        let head = details.map(|(name, value)| (name.len() + value.len()) as u64).sum();
        let in_flight = InFlightBody::begin(layout, key, entry, permit.clone(), layers.written()).listed();
        let tag = writers.enter(in_flight.follow());
        Self {
            writers: writers.clone(),
            tag,
            tag_bytes: tag.into(),
            clock,
            offload: offload.clone(),
            permit,
            leader: LeadersPace::default(),
            head,
            written: 0,
            parts: Mutex::new(Some(Parts { key: key.clone(), in_flight, layers })),
        }
    }
}

/// Opens the layers. The header goes out meanwhile.
fn open(
    backend: Arc<dyn Backend>,
    key: CacheKey,
    entry: CacheValue<()>,
    permit: Arc<LoadPermit>,
) -> BoxFuture<'static, BackendResult<Box<dyn BodyWriter>>> {
    Box::pin(async move { backend.open_writer(&key, entry, WriteOptions::default().with_load(permit)).await })
}

fn not_stored(key: &CacheKey, error: &BackendError) {
    tracing::debug!(%key, %error, "a response is not stored");
}

impl Parts {
    /// Has the layers take what has come, but for so many bytes. One that takes less than `needed` of them while it is waited for is
    /// given up.
    async fn feed(&mut self, clock: &dyn Clock, limit: usize, needed: u64) {
        let Self { key, in_flight, layers } = self;
        if layers.error().is_some() {
            return;
        }
        loop {
            let began = clock.monotonic();
            layers.begin_wait();
            let mut feed = poll_fn(|cx| {
                let fed = layers.poll_feed(cx, limit);
                if layers.has_changed() {
                    in_flight.has_been_written();
                }
                fed
            });
            if poll_fn(|cx| Poll::Ready(feed.poll_unpin(cx))).await.is_ready() {
                break;
            }
            if let Either::Left(_) = select(feed, clock.sleep(PATIENCE)).await {
                break;
            }
            if !layers.keeps_up(clock.monotonic().saturating_sub(began), needed) {
                layers.give_up();
            }
        }
        if let Some(error) = layers.error() {
            not_stored(key, error);
        }
    }

    /// Waits a moment for layers that are still being opened: of what cannot be opened nothing is stored, and an eviction manager is
    /// told so.
    async fn open(&mut self, clock: &dyn Clock) {
        let Self { key, in_flight, layers } = self;
        let mut opened = poll_fn(|cx| layers.poll_open(cx));
        // What is open needs no timer.
        if poll_fn(|cx| Poll::Ready(opened.poll_unpin(cx))).await.is_pending() {
            select(opened, clock.sleep(OPENING)).await;
        }
        if layers.has_changed() {
            in_flight.has_been_written();
            if let Some(error) = layers.error() {
                not_stored(key, error);
            }
        }
    }

    /// Stores what has come. Says how many bytes some layer has of it, with its metadata.
    async fn end(mut self, clock: Arc<dyn Clock>) -> u64 {
        self.feed(&*clock, 0, 1).await;
        let Self { key, in_flight, layers } = self;
        let Ok(writer) = layers.into_end() else { return 0 };
        let receipt = writer.finish().await;
        if let Some(error) = receipt.error() {
            not_stored(&key, error);
        }
        // Who asks from here on finds it in a layer.
        drop(in_flight);
        receipt.size().unwrap_or(0)
    }
}

#[async_trait]
impl HandleMiss for BodyMiss {
    async fn write_body(&mut self, data: Bytes, eof: bool) -> Result<()> {
        let clock = self.clock.clone();
        self.written += data.len() as u64;
        let Some(parts) = self.parts() else { return Ok(()) };
        if !data.is_empty() {
            parts.layers.push(data.clone());
            parts.in_flight.push(data);
        }
        if eof {
            // What layers have not taken by now is for the end to see to, which waits for them beside its readers.
            parts.in_flight.complete();
            parts.feed(&*clock, usize::MAX, 0).await;
        } else {
            parts.feed(&*clock, QUEUE, QUEUE as u64).await;
            self.let_go_of_one_who_left();
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        let size = usize::try_from(self.head + self.written).unwrap_or(usize::MAX);
        let Some(mut parts) = self.parts().take() else { return Ok(MissFinishType::Created(0)) };
        // Whoever reads it need not wait until it is stored.
        parts.in_flight.complete();
        let is_superseded = !self.permit.is_current();
        if self.offload.runs_on_callers_runtime() {
            parts.open(&*self.clock).await;
        }
        let mut end = Box::pin(parts.end(self.clock.clone()));
        if self.offload.runs_on_callers_runtime()
            && let Poll::Ready(stored) = poll_fn(|cx| Poll::Ready(end.poll_unpin(cx))).await
        {
            return Ok(MissFinishType::Created(usize::try_from(stored).unwrap_or(usize::MAX)));
        }
        let task = Task::new(TaskKind::WRITE, end.map(drop)).begun();
        if let Err(refused) = self.offload.register(task) {
            // The one who asked for it reads no further before this call has ended.
            let patience = self.clock.sleep(PATIENCE);
            if let Either::Right(_) = select(refused.task.work, patience).await {
                tracing::debug!(why = ?refused.why, "a response is not stored: there is no room for its end");
                return Ok(MissFinishType::Created(0));
            }
        }
        Ok(MissFinishType::Created(if is_superseded { 0 } else { size }))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(self.tag_bytes.as_bytes())
    }

    fn entry_id(&self) -> Option<CacheEntryId> {
        Some(CacheEntryId::new(self.permit.generation()))
    }
}
