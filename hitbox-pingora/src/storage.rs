//! The storage, and how it is made.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use hitbox_backend::internal::{TryOpen, open_tried, patience_with, took_nothing, try_open_reader};
use hitbox_backend::operation::{
    Batch, Maintenance, ReadOptions, Removal, Renewal, TimeChange, Write, WriteOptions,
};
use hitbox_backend::{Backend, Body, CacheBackend, DeleteStatus, IntoBackend, OffloadPool, Receipt};
use hitbox_core::{BackendResult, CacheKey, Offload, Task, TaskKind};
use pingora_cache::eviction::{CacheEntryId, CacheEntryKey};
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::streaming_write::U64WriteId;
use pingora_cache::storage::{HitHandler, MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey as PingoraKey, CacheMeta};
use pingora_error::Result;
use tokio::sync::oneshot;

use crate::entry::{Asked, Metas, Stored, Tags, entry_of, key_of, lifetime_of, metadata_of};
use crate::hit::{BodyHit, failed};
use crate::miss::{BodyMiss, Writers};
use crate::purges::Purges;

/// A client waits so long for the metadata of a response that was validated; the offload goes on.
const LONGEST_UPDATE: Duration = Duration::from_millis(100);

/// Pingora's [`Storage`] over a backend.
///
/// | Pingora asks for | what happens |
/// |---|---|
/// | lookup | the response that is on its way, or the layers by their policy of reads; a layer that fails has nothing |
/// | miss handler | a body that goes to all layers, and to its readers whatever becomes of it in a layer |
/// | purge, invalidation | it goes from every layer, and what is on its way is not stored |
/// | purge, eviction | it goes from the upper layer and stays in the lower one; a single layer drops it |
/// | expire | it is stale in every layer from now on; its body and its windows of serving stale stay |
/// | update of metadata | in place where it is stored, its body untouched; nothing is created |
pub struct BackendStorage {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) name: String,
    keep_stale: Duration,
    offload: Arc<dyn Offload>,
    writers: Arc<Writers>,
    purges: Purges,
    pub(crate) metas: Metas,
}

impl fmt::Debug for BackendStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendStorage").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Makes a [`BackendStorage`].
pub struct BackendStorageBuilder {
    backend: Arc<dyn Backend>,
    name: String,
    keep_stale: Duration,
    offload: Option<Arc<dyn Offload>>,
}

impl fmt::Debug for BackendStorageBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendStorageBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl BackendStorageBuilder {
    /// The name with which its keys begin, `pingora` by default. Storages that share a store and are not to share responses need names
    /// of their own.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long a response is kept when it is no longer fresh and its windows of serving stale are over. Default: a day. So long
    /// it can be validated. A layer that has no room evicts it earlier.
    #[must_use]
    pub fn keep_stale(mut self, keep: Duration) -> Self {
        self.keep_stale = keep;
        self
    }

    /// Where responses are stored that have come to their end; the pool of the composition, as a rule. By default a pool of its own.
    #[must_use]
    pub fn offload(mut self, offload: Arc<dyn Offload>) -> Self {
        self.offload = Some(offload);
        self
    }

    /// The storage.
    pub fn build(self) -> BackendStorage {
        let Self { backend, name, keep_stale, offload } = self;
        let clock = backend.layout().clock().clone();
        let offload = offload.unwrap_or_else(|| OffloadPool::builder().clock(clock).build().shared());
        BackendStorage {
            backend,
            name,
            keep_stale,
            offload,
            writers: Arc::default(),
            purges: Purges::default(),
            metas: Metas::default(),
        }
    }
}

impl BackendStorage {
    /// A storage over this backend.
    pub fn new<Kind>(backend: impl IntoBackend<Kind>) -> Self {
        Self::builder(backend).build()
    }

    /// To say more.
    pub fn builder<Kind>(backend: impl IntoBackend<Kind>) -> BackendStorageBuilder {
        let backend: Arc<dyn Backend> = Arc::new(backend.into_backend());
        let keep_stale = Duration::from_secs(24 * 60 * 60);
        BackendStorageBuilder { backend, name: "pingora".to_owned(), keep_stale, offload: None }
    }

    /// The same for as long as the process lives, as Pingora wants it.
    pub fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    /// The name with which its keys begin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Makes every response invalid that carries one of these [`Tags`](crate::Tags), in all layers, also those that are on their way.
    ///
    /// # Errors
    /// As [`CacheBackend::invalidate_tags`].
    pub async fn invalidate_tags(&self, tags: &[&str]) -> BackendResult<Receipt> {
        tags.iter().for_each(|tag| self.purges.note_tag(tag));
        self.backend.invalidate_tags(tags).await
    }

    /// The same key, for a response that is asked for from now on: return it from `cache_key_callback`. Then a purge that comes before
    /// the origin has begun to answer keeps the answer from being stored: it may be what was purged; and a validation does not make fresh what
    /// was expired meanwhile. Without it the former holds from the moment when the header has come, the latter for what was fresh.
    pub fn asked(&self, mut key: PingoraKey) -> PingoraKey {
        key.extensions.insert(Asked(self.purges.now()));
        key
    }

    /// Makes all responses of this storage invalid, in all layers, also those that are on their way. What else is in the stores goes too.
    ///
    /// # Errors
    /// As [`CacheBackend::clear`].
    pub async fn clear(&self) -> BackendResult<Receipt> {
        self.purges.note_everything();
        self.backend.clear().await
    }

    /// Waits until what has come is stored, and closes the layers: a folder on disk can be opened again after that.
    ///
    /// # Errors
    /// That of a layer that could not finish.
    ///
    /// # Cancellation
    /// What was closed stays closed; the rest goes on.
    pub async fn close(&self) -> BackendResult<()> {
        self.offload.idle().await;
        let finished = self.backend.maintain(&Maintenance::Finish).await.map(drop);
        let closed = self.backend.maintain(&Maintenance::Close).await.map(drop);
        finished.and(closed)
    }

    fn key(&self, key: &impl CacheHashKey) -> CacheKey {
        key_of(&self.name, key)
    }

    /// What comes of a read, unless it takes longer than a request waits for a layer.
    async fn soon<T>(&self, read: impl Future<Output = BackendResult<T>> + Unpin) -> BackendResult<T> {
        let layout = self.backend.layout();
        let patience = patience_with(layout);
        let mut read = read;
        // What is at hand needs no timer.
        if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(read.poll_unpin(cx))).await {
            return answer;
        }
        match select(read, layout.clock().sleep(patience)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(took_nothing(patience)),
        }
    }

    /// What is stored under a key, for the storage itself.
    async fn peek(&self, key: &CacheKey) -> Option<Body> {
        let options = ReadOptions::NORMAL.without_reconcile().in_background();
        let opened = self.soon(self.backend.open_reader(key, &options)).await;
        // What cannot be read is removed and written all the same.
        opened.ok().flatten().map(Body::from)
    }

    async fn remove(&self, removal: Removal) -> Result<bool> {
        let receipts = self.backend.remove(Batch::one(removal)).await;
        let receipt = receipts.into_one().unwrap_or_default().into_result().map_err(failed)?;
        Ok(DeleteStatus::of(receipt.removed()) != DeleteStatus::Missing)
    }

    async fn write(&self, write: Write) -> Result<bool> {
        written(&*self.backend, write).await
    }

    /// Keeps the body that is on its way, if there is one, from being stored. Its readers read on.
    fn end_what_is_on_its_way(&self, key: &CacheKey) -> Option<Body> {
        let body = self.backend.follow_body(key)?;
        self.backend.layout().revoke(key, body.generation());
        Some(body)
    }

    /// Says anew what a body is. One that is meant keeps no other from being stored.
    fn renewal(&self, key: CacheKey, renewal: Renewal) -> Write {
        let ticket = renewal.generation.map(|_| self.backend.layout().begin_maintenance_write(&key));
        let write = Write::renewal(key, renewal);
        match ticket {
            Some(ticket) => write.with_options(WriteOptions::of(&ticket)),
            None => write,
        }
    }

    /// Whether a resource, or one of these tags, was purged since it was asked for, as far as that is known.
    fn was_purged(&self, key: &PingoraKey, tags: &[String]) -> bool {
        let asked = key.extensions.get::<Asked>();
        asked.is_some_and(|Asked(moment)| self.purges.came_since(*moment, &key.primary_bin(), tags))
    }

    /// A response with its metadata; nothing if it has none that can be read.
    fn found(&self, key: &CacheKey, hit: BodyHit) -> Option<(CacheMeta, HitHandler)> {
        match hit.ask(|body| self.metas.of(key, body, self.backend.layout())) {
            Ok(meta) => Some((meta?, Box::new(hit))),
            Err(error) => {
                tracing::debug!(%key, %error, "the metadata of a response cannot be read");
                None
            }
        }
    }
}

#[async_trait]
impl Storage for BackendStorage {
    async fn lookup(
        &'static self,
        key: &PingoraKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let key = self.key(key);
        // What is on its way is newer than what is stored.
        if let Some(body) = self.backend.follow_body(&key) {
            return Ok(self.found(&key, BodyHit::on_its_way(body)));
        }
        let options = ReadOptions::NORMAL;
        let opened = match try_open_reader(&*self.backend, &key, &options) {
            TryOpen::Answered(reader) => Ok(reader),
            opening => self.soon(pin!(open_tried(&*self.backend, &key, &options, opening))).await,
        };
        match opened {
            Ok(Some(reader)) => Ok(self.found(&key, BodyHit::stored(reader.into()))),
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::debug!(%key, %error, "no layer could be read");
                Ok(None)
            }
        }
    }

    async fn lookup_streaming_write(
        &'static self,
        key: &PingoraKey,
        streaming_write_tag: Option<&[u8]>,
        trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(tag) = streaming_write_tag else { return self.lookup(key, trace).await };
        let Ok(tag) = U64WriteId::try_from(tag) else { return Ok(None) };
        let reader = self.writers.reader(tag.into());
        Ok(reader.and_then(|reader| self.found(&self.key(key), BodyHit::on_its_way(reader.into()))))
    }

    async fn get_miss_handler(
        &'static self,
        key: &PingoraKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        let now = self.backend.layout().clock().now();
        let entry = entry_of(meta, key.user_tag(), self.keep_stale, now)?;
        let tags = meta.extensions().get::<Tags>().map_or(&[][..], |tags| &tags.0);
        let was_purged = || self.was_purged(key, tags);
        let key_here = self.key(key);
        let (backend, writers, offload) = (&self.backend, &self.writers, &self.offload);
        let miss = BodyMiss::begin(backend, writers, offload, &key_here, entry, was_purged);
        Ok(Box::new(miss))
    }

    async fn purge(
        &'static self,
        target: PurgeTarget<'_>,
        purge_type: PurgeType,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        let key = self.key(target.key());
        let removal = match purge_type {
            PurgeType::Eviction => Removal::evict(key.clone()),
            PurgeType::Invalidation => Removal::new(key.clone()),
        };
        if let (PurgeTarget::Active(resource), PurgeType::Invalidation) = (target, purge_type) {
            self.purges.note_resource(&resource.primary_bin());
        }
        match target {
            PurgeTarget::Exact(CacheEntryKey::KeyOnly(_)) => Ok(PurgeOutcome::NotFound),
            PurgeTarget::Exact(CacheEntryKey::Identified { id, .. }) => {
                let removed = match purge_type {
                    PurgeType::Eviction => self.remove(removal.of_generation(id.get())).await?,
                    PurgeType::Invalidation => {
                        let deleted = self.backend.delete_generation(&key, id.get()).await.map_err(failed)?;
                        deleted != DeleteStatus::Missing
                    }
                };
                Ok(if removed { PurgeOutcome::Purged(Some(*id)) } else { PurgeOutcome::NotFound })
            }
            PurgeTarget::Active(_) => {
                let on_its_way = match purge_type {
                    // It is not stored, however long it takes to look what there is.
                    PurgeType::Invalidation => self.end_what_is_on_its_way(&key),
                    PurgeType::Eviction => self.backend.follow_body(&key),
                };
                let stored = self.peek(&key).await;
                let removed = self.remove(removal).await?;
                let is_ended = on_its_way.is_some() && matches!(purge_type, PurgeType::Invalidation);
                let id = stored.or(on_its_way).map(|body| CacheEntryId::new(body.generation()));
                Ok(if removed || is_ended { PurgeOutcome::Purged(id) } else { PurgeOutcome::NotFound })
            }
        }
    }

    async fn expire(&'static self, target: PurgeTarget<'_>, _trace: &SpanHandle) -> Result<PurgeOutcome> {
        let key = self.key(target.key());
        let now = self.backend.layout().clock().now();
        if let PurgeTarget::Active(resource) = target {
            self.purges.note_resource(&resource.primary_bin());
        }
        let mut is_ended = false;
        let write = match target {
            PurgeTarget::Active(_) => {
                // What is on its way was asked for before. Stored later it would be fresh.
                is_ended = self.end_what_is_on_its_way(&key).is_some();
                Write::times(key, TimeChange::stale_from(now))
            }
            PurgeTarget::Exact(CacheEntryKey::KeyOnly(_)) => return Ok(PurgeOutcome::NotFound),
            PurgeTarget::Exact(CacheEntryKey::Identified { id, .. }) => {
                let is_meant = |body: &Body| body.generation() == id.get();
                if self.backend.follow_body(&key).as_ref().is_some_and(is_meant) {
                    self.backend.layout().revoke(&key, id.get());
                    is_ended = true;
                }
                let stored = self.peek(&key).await.filter(is_meant);
                if is_ended && stored.is_none() {
                    return Ok(PurgeOutcome::Expired);
                }
                let Some(body) = stored else { return Ok(PurgeOutcome::NotFound) };
                let lifetime = *body.entry().lifetime();
                if lifetime.fresh_until().is_some_and(|end| end <= now) {
                    return Ok(PurgeOutcome::Expired);
                }
                let renewal = Renewal {
                    lifetime: Some(lifetime.with_stale(now)),
                    generation: Some(id.get()),
                    ..Renewal::default()
                };
                self.renewal(key, renewal)
            }
        };
        Ok(if self.write(write).await? || is_ended { PurgeOutcome::Expired } else { PurgeOutcome::NotFound })
    }

    async fn update_meta(
        &'static self,
        key: &PingoraKey,
        meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<bool> {
        let metadata = metadata_of(meta, key.user_tag())?;
        // That of the response which was found; another may have been stored since, or it may have been expired.
        let stored = meta.extensions().get::<Stored>();
        let lifetime = (!self.was_purged(key, &[])).then(|| lifetime_of(meta, self.keep_stale));
        let renewal = Renewal {
            metadata: Some(Arc::new(metadata)),
            lifetime,
            generation: stored.map(|stored| stored.generation),
            seen_fresh_until: stored.and_then(|stored| stored.fresh_until),
        };
        let key = self.key(key);
        let write = self.renewal(key, renewal);
        let (done, is_done) = oneshot::channel();
        let backend = self.backend.clone();
        let task = Task::new(TaskKind::WRITE, async move {
            // Nobody may wait any more.
            drop(done.send(written(&*backend, write).await));
        });
        // A disk copies the body if the metadata do not fit where they were. Pingora has the client wait for this call.
        match self.offload.register(task.interactive()) {
            Err(refused) => {
                tracing::debug!(why = ?refused.why, "metadata are not updated: there is no room");
                Ok(false)
            }
            Ok(()) => match select(is_done, self.backend.layout().clock().sleep(LONGEST_UPDATE)).await {
                Either::Left((Ok(updated), _)) => updated,
                Either::Left((Err(_), _)) => Ok(false),
                Either::Right(_) => Ok(true),
            },
        }
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// Whether some layer has taken a write.
async fn written(backend: &dyn Backend, write: Write) -> Result<bool> {
    let receipts = backend.write(Batch::one(write)).await;
    let receipt = receipts.into_one().unwrap_or_default();
    match receipt.error() {
        Some(error) if receipt.stored() == 0 => Err(failed(error.clone())),
        _ => Ok(receipt.stored() > 0),
    }
}
