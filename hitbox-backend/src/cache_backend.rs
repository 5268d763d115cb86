//! The trait to use: typed values over any backend. It cannot be overridden, so static, boxed and
//! nested backends behave alike.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::join_all;
use hitbox_core::{
    BackendResult, CacheContext, CacheKey, CacheStatus, CacheValue, KeyPattern, ReadMode, ResponseSource,
    Scope,
};

use crate::backend::Backend;
use crate::body::{Body, BodySink};
use crate::completion::{Batch, Completion};
use crate::envelope::Cacheable;
use crate::layout::Notes;
use crate::operation::{
    Condition, Invalidation, InvalidationTarget, LeafSet, Maintenance, ReadOptions, Removal, TimeChange,
    Write, WriteOptions, status_of,
};
use crate::receipt::{DeleteStatus, Receipt, Receipts};
use crate::stats::{EntryCount, Statistics};
use crate::store::{Page, Sweep};
use crate::stream;
use crate::typed::{self, Decoded, envelope};

/// Typed reads, writes and deletes over any [`Backend`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> hitbox_core::BackendResult<()> {
/// use hitbox_backend::{CacheBackend, IntoBackend, doc::Map};
/// use hitbox_core::{CacheContext, CacheKey, CacheValue};
///
/// let cache = Map::default().into_backend();
/// let mut context = CacheContext::new();
/// let key = CacheKey::builder("user").part("id", 1).build();
/// cache.set(&key, CacheValue::new("Ada".to_owned()), &mut context).await?;
/// let user = cache.get::<String>(&key, &mut context).await?;
/// assert_eq!(user.map(CacheValue::into_data).as_deref(), Some("Ada"));
/// # Ok(()) }
/// ```
pub trait CacheBackend: Backend {
    /// The value under a key, or nothing. `context` reports status, source and read mode.
    ///
    /// A copy that is not a `T` is a miss of its layer; the others are asked.
    ///
    /// # Errors
    /// If every layer failed, or a required one did and no other had the value.
    ///
    /// # Cancellation
    /// A dropped future leaves nothing but, where the policy says so, work in the offload.
    fn get<T: Cacheable>(
        &self,
        key: &CacheKey,
        context: &mut CacheContext,
    ) -> impl Future<Output = BackendResult<Option<CacheValue<T>>>> + Send {
        async move {
            // Nothing that has to be dropped lives in this future unless somebody has to be waited for.
            let answer = self.try_read(key, &ReadOptions::NORMAL);
            if let Some((value, found)) = typed::live_hit::<T>(&answer)
                && !has_idle_time(&found.value)
            {
                context.record(status_of(found.freshness), ResponseSource::Backend(found.label), found.mode);
                return Ok(Some(found.value.around(value.clone())));
            }
            let copy = match typed::settle_try(self, answer, &ReadOptions::NORMAL) {
                Ok(None) => return Ok(report(None, context)),
                Ok(copy) => report(copy, context),
                Err(asked) => {
                    let options = ReadOptions { skip: asked, ..ReadOptions::NORMAL };
                    report(typed::read(self, key, options).await?, context)
                }
            };
            match copy {
                // The entry is no part of this future while it waits.
                Some(entry) if has_idle_time(&entry) => Ok(Some(Box::pin(noted(self, key, entry)).await)),
                copy => Ok(copy),
            }
        }
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn get_with<T: Cacheable>(
        &self,
        key: &CacheKey,
        options: ReadOptions,
        context: &mut CacheContext,
    ) -> impl Future<Output = BackendResult<Option<CacheValue<T>>>> + Send {
        async move {
            let copy = match typed::try_read(self, key, &options) {
                Ok(copy) => report(copy, context),
                Err(asked) => {
                    let skip = options.skip.union(asked);
                    report(typed::read(self, key, ReadOptions { skip, ..options }).await?, context)
                }
            };
            match copy {
                // The entry is no part of this future while it waits.
                Some(entry) if has_idle_time(&entry) => Ok(Some(Box::pin(noted(self, key, entry)).await)),
                copy => Ok(copy),
            }
        }
    }

    /// Stores a value in the layers, as their policies say. The receipt has a line per leaf.
    ///
    /// # Errors
    /// As the write policy decides; the layers that succeeded keep the value.
    ///
    /// # Cancellation
    /// Compositions finish the write in their offload; a leaf alone may or may not have stored it.
    fn set<T: Cacheable>(
        &self,
        key: &CacheKey,
        value: CacheValue<T>,
        context: &mut CacheContext,
    ) -> impl Future<Output = BackendResult<Receipt>> + Send {
        context.record(CacheStatus::Miss, ResponseSource::Upstream, ReadMode::Direct);
        self.set_one(key, value)
    }

    /// Removes a key from all layers. The status counts the leaves that held it.
    ///
    /// # Errors
    /// If any layer failed to remove it: its copy is not served by compositions, but it may be there.
    ///
    /// # Cancellation
    /// As [`set`](Self::set).
    fn delete(
        &self,
        key: &CacheKey,
        context: &mut CacheContext,
    ) -> impl Future<Output = BackendResult<DeleteStatus>> + Send {
        context.record(CacheStatus::Miss, ResponseSource::Upstream, ReadMode::Direct);
        self.delete_one(key)
    }

    /// [`get`](Self::get) for callers who do not ask where the value came from.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn get_one<T: Cacheable>(
        &self,
        key: &CacheKey,
    ) -> impl Future<Output = BackendResult<Option<CacheValue<T>>>> + Send {
        async move { self.get(key, &mut CacheContext::new()).await }
    }

    /// [`set`](Self::set) without a context.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    ///
    /// # Cancellation
    /// As [`set`](Self::set).
    fn set_one<T: Cacheable>(
        &self,
        key: &CacheKey,
        value: CacheValue<T>,
    ) -> impl Future<Output = BackendResult<Receipt>> + Send {
        async move { write_one(self, Write::new(key.clone(), envelope(value))).await }
    }

    /// [`delete`](Self::delete) without a context.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    ///
    /// # Cancellation
    /// As [`set`](Self::set).
    fn delete_one(&self, key: &CacheKey) -> impl Future<Output = BackendResult<DeleteStatus>> + Send {
        remove_one(self, Removal::new(key.clone()))
    }

    /// Removes the body of one generation, as its [reader](crate::operation::BodyReader::generation) tells it, from all layers, and keeps it from being
    /// stored if it is still being written. What else is stored or being written under the key stays, and no load ends.
    ///
    /// # Errors
    /// If any layer failed: it may still be there. [`Unsupported`](hitbox_core::ErrorKind::Unsupported) if a layer that others share cannot
    /// compare.
    ///
    /// # Cancellation
    /// As [`set`](Self::set).
    fn delete_generation(
        &self,
        key: &CacheKey,
        generation: u64,
    ) -> impl Future<Output = BackendResult<DeleteStatus>> + Send {
        self.layout().revoke(key, generation);
        remove_one(self, Removal::new(key.clone()).of_generation(generation))
    }

    /// Values for several keys, in their order; one batch per layer.
    ///
    /// # Errors
    /// Per key, as [`get`](Self::get).
    fn get_many<T: Cacheable>(
        &self,
        keys: &[CacheKey],
    ) -> impl Future<Output = Vec<BackendResult<Option<CacheValue<T>>>>> + Send {
        async move {
            let mut values: Vec<BackendResult<Option<CacheValue<T>>>> = Vec::with_capacity(keys.len());
            let mut open = Vec::new();
            for key in keys {
                let answer = self.try_read(key, &ReadOptions::NORMAL);
                if let Some((value, found)) = typed::live_hit::<T>(&answer) {
                    values.push(Ok(Some(found.value.around(value.clone()))));
                    continue;
                }
                match typed::settle_try::<T, Self>(self, answer, &ReadOptions::NORMAL) {
                    Ok(copy) => values.push(Ok(copy.and_then(Decoded::into_entry))),
                    Err(asked) => {
                        open.push((values.len(), asked));
                        values.push(Ok(None));
                    }
                }
            }
            for (index, copy) in typed::read_batch::<T, Self>(self, keys, open, &ReadOptions::NORMAL).await {
                values[index] = copy.map(|copy| copy.and_then(Decoded::into_entry));
            }
            let mut notes = Vec::new();
            for (key, value) in keys.iter().zip(&values) {
                if let Ok(Some(entry)) = value
                    && let Some(change) = TimeChange::of_read(entry, || self.layout().clock().now())
                {
                    notes.extend(self.layout().note_read_later(key, change));
                }
            }
            if !notes.is_empty() {
                Box::pin(join_all(notes.into_iter().map(Notes::make))).await;
            }
            values
        }
    }

    /// Stores several values; receipts are in their order.
    ///
    /// # Errors
    /// Per entry, as [`set`](Self::set).
    fn set_many<T: Cacheable>(
        &self,
        entries: Vec<(CacheKey, CacheValue<T>)>,
    ) -> impl Future<Output = Vec<BackendResult<Receipt>>> + Send {
        let writes = entries.into_iter().map(|(key, value)| Write::new(key, envelope(value))).collect();
        async move { self.write(writes).await.into_iter().map(Receipt::into_result).collect() }
    }

    /// Removes several keys; results are in their order.
    ///
    /// # Errors
    /// Per key, as [`delete`](Self::delete).
    fn delete_many(
        &self,
        keys: &[CacheKey],
    ) -> impl Future<Output = Vec<BackendResult<DeleteStatus>>> + Send {
        let removals = keys.iter().cloned().map(Removal::new).collect();
        async move {
            let receipts = self.remove(removals).await;
            let status = |receipt: Receipt| Ok(DeleteStatus::of(receipt.into_result()?.removed()));
            receipts.into_iter().map(status).collect()
        }
    }

    /// Makes every entry invalid that carries one of these tags, in all layers, however many there are; also those
    /// whose load or write is under way. An unknown tag changes nothing.
    ///
    /// # Errors
    /// If a layer did not record it; the error names it. All layers are tried. This process serves none of these
    /// entries from that layer any more, but after a restart it may, unless the layer has recorded it by then.
    ///
    /// # Cancellation
    /// Compositions finish it in their offload; a leaf alone hides the entries, and may not have recorded it.
    fn invalidate_tags(&self, tags: &[&str]) -> impl Future<Output = BackendResult<Receipt>> + Send {
        invalidate(self, InvalidationTarget::Scopes(tags.iter().map(|name| Scope::tag(*name)).collect()))
    }

    /// The same for entries that depend on one of these.
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    fn invalidate_dependencies(&self, names: &[&str]) -> impl Future<Output = BackendResult<Receipt>> + Send {
        invalidate(
            self,
            InvalidationTarget::Scopes(names.iter().map(|name| Scope::dependency(*name)).collect()),
        )
    }

    /// The same for all entries of a namespace and of those within it. Nested ones are joined with `/`, outermost
    /// first; a `/` or `%` in a name is written `%2F` or `%25`.
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    fn flush_namespace(&self, name: &str) -> impl Future<Output = BackendResult<Receipt>> + Send {
        invalidate(self, InvalidationTarget::Scopes(vec![Scope::namespace(name)]))
    }

    /// The same for all entries; behind a [`Namespace`](crate::wrap::Namespace) those of the namespace.
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    fn clear(&self) -> impl Future<Output = BackendResult<Receipt>> + Send {
        invalidate(self, InvalidationTarget::Scopes(vec![Scope::everything()]))
    }

    /// Removes the entries of a key and of all keys that begin with its parts, from all layers; says how many distinct
    /// keys it removed. No load or refill that began before brings one of them back. Takes time that grows with the
    /// keys that are stored.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) from layers that cannot list their keys, and those of the
    /// layers. All are tried.
    ///
    /// # Cancellation
    /// Leaves a part of the entries; no older one comes back.
    fn invalidate_prefix(&self, key: &CacheKey) -> impl Future<Output = BackendResult<u64>> + Send {
        invalidate_matching(self, KeyPattern::prefix(key))
    }

    /// The same for keys that match a pattern: see [`KeyPattern::glob`].
    ///
    /// # Errors
    /// As [`invalidate_prefix`](Self::invalidate_prefix).
    fn invalidate_matching(&self, pattern: KeyPattern) -> impl Future<Output = BackendResult<u64>> + Send {
        invalidate_matching(self, pattern)
    }

    /// Stores a value under a version, if the stored one has a lower version or none. One leaf decides, the lowest by
    /// default ([`with_authority`](crate::CompositionBackend::with_authority)); then the others take it. A write
    /// without a version always succeeds, and leaves none.
    ///
    /// # Errors
    /// [`VersionMismatch`](hitbox_core::ErrorKind::VersionMismatch), with
    /// [both versions](hitbox_core::BackendError::mismatch), if it has not: nothing has changed. Any failure of the leaf
    /// that decides.
    ///
    /// # Cancellation
    /// As [`set`](Self::set).
    fn set_if_newer<T: Cacheable>(
        &self,
        key: &CacheKey,
        value: CacheValue<T>,
        version: u64,
    ) -> impl Future<Output = BackendResult<Receipt>> + Send {
        let mut details = value.details().cloned().unwrap_or_default();
        details.version = Some(version);
        let value = envelope(value.with_details(details));
        async move {
            write_one(self, Write::new(key.clone(), value).with_condition(Condition::IfNewer(version))).await
        }
    }

    /// Takes a key out of the upper layer and leaves it in the lower one: says how many leaves held it. A leaf alone
    /// drops it.
    ///
    /// # Errors
    /// If the upper layer failed.
    fn evict(&self, key: &CacheKey) -> impl Future<Output = BackendResult<DeleteStatus>> + Send {
        remove_one(self, Removal::evict(key.clone()))
    }

    /// Replaces the metadata of an entry; its value and its times stay. The receipt says which leaves had it; where it
    /// is absent nothing is created.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    ///
    /// # Cancellation
    /// As [`set`](Self::set).
    fn set_metadata(
        &self,
        key: &CacheKey,
        metadata: BTreeMap<String, Bytes>,
    ) -> impl Future<Output = BackendResult<Receipt>> + Send {
        async move { write_one(self, Write::metadata(key.clone(), metadata)).await }
    }

    /// Opens the body under a key, if a layer has one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancellation
    /// As [`get`](Self::get).
    fn open_body(&self, key: &CacheKey) -> impl Future<Output = BackendResult<Option<Body>>> + Send {
        async move { Ok(stream::open_reader(self, key, &ReadOptions::NORMAL).await?.map(Body::from)) }
    }

    /// Begins a body that is stored under a key with this entry.
    ///
    /// # Errors
    /// If no layer, or not each required one, takes it.
    ///
    /// # Cancellation
    /// Leaves nothing.
    fn write_body(
        &self,
        key: &CacheKey,
        entry: CacheValue<()>,
    ) -> impl Future<Output = BackendResult<BodySink>> + Send {
        async move {
            let permit = Arc::new(self.layout().load_permit(key));
            let options = WriteOptions::default().with_load(permit.clone());
            let writer = self.open_writer(key, entry.clone(), options).await?;
            Ok(BodySink::new(self.layout(), key, entry, permit, writer))
        }
    }

    /// Follows the body that is being written under a key through this backend or a clone of it, from its beginning: the last that
    /// was begun. Nothing if there is none, or the key was written, or something that it carries was invalidated, since it began.
    ///
    /// See [`BodySink::follow`].
    fn follow_body(&self, key: &CacheKey) -> Option<Body> {
        self.layout().follow(key).map(Body::from)
    }

    /// Drops entries whose time is over, at most about `limit` of them in each leaf, and does pending maintenance.
    ///
    /// # Errors
    /// Those of the stores.
    fn sweep(&self, limit: usize) -> impl Future<Output = BackendResult<Sweep>> + Send {
        async move { self.maintain(&Maintenance::Sweep { limit }).await?.into_swept() }
    }

    /// Removes every entry of every layer, one by one if need be. Entries that are written meanwhile may go too. To have
    /// them unserved at once is [`clear`](Self::clear).
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) unless all layers can; that of the first layer that failed.
    /// All are tried.
    fn erase(&self) -> impl Future<Output = BackendResult<()>> + Send {
        async move { self.maintain(&Maintenance::Erase { skip: LeafSet::EMPTY }).await.map(drop) }
    }

    /// Entries of each leaf that a normal read may see, from left to right: those whose time is over are left out. Takes
    /// time that grows with the entries.
    ///
    /// # Errors
    /// A leaf that cannot count has an error in its line.
    fn entry_counts(&self) -> impl Future<Output = BackendResult<Vec<EntryCount>>> + Send {
        async move { self.maintain(&Maintenance::Count).await?.into_counted() }
    }

    /// Some keys, about `limit` of them, from `cursor` on; the first page starts at 0.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) unless all layers can list their keys.
    fn list_keys(&self, cursor: u64, limit: usize) -> impl Future<Output = BackendResult<Page>> + Send {
        async move { self.maintain(&Maintenance::List { cursor, limit }).await?.into_listed() }
    }

    /// Counts of every leaf and in total. Never fails: what a leaf cannot say is left out.
    fn snapshot(&self) -> Statistics {
        Statistics::of(self.layout().statistics(), self.layout().unanswered())
    }

    /// This backend behind a pointer, as a trait object.
    fn shared(self) -> Arc<dyn Backend>
    where
        Self: Sized,
    {
        Arc::new(self)
    }
}

impl<B: Backend + ?Sized> CacheBackend for B {}

/// Reports how a read was answered.
#[inline(always)]
fn report<T>(copy: Option<Decoded<T>>, context: &mut CacheContext) -> Option<CacheValue<T>> {
    let Some(copy) = copy else {
        context.record(CacheStatus::Miss, ResponseSource::Upstream, ReadMode::Direct);
        return None;
    };
    context.record(status_of(copy.freshness), ResponseSource::Backend(copy.label), copy.mode);
    copy.into_entry()
}

#[inline(always)]
fn has_idle_time<T>(entry: &CacheValue<T>) -> bool {
    entry.has_details() && entry.details().is_some_and(|details| details.idle.is_some())
}

/// Notes that an entry with an idle time is read, if that is due, and hands it back. Only a leaf alone is waited for.
#[cold]
async fn noted<T, B: Backend + ?Sized>(backend: &B, key: &CacheKey, entry: CacheValue<T>) -> CacheValue<T> {
    if let Some(change) = TimeChange::of_read(&entry, || backend.layout().clock().now())
        && let Some(notes) = backend.layout().note_read_later(key, change)
    {
        notes.make().await;
    }
    entry
}

async fn invalidate<B: Backend + ?Sized>(backend: &B, target: InvalidationTarget) -> BackendResult<Receipt> {
    match &target {
        InvalidationTarget::Scopes(scopes) if scopes.is_empty() => return Ok(Receipt::default()),
        _ => {}
    }
    let invalidation = Invalidation::new(target);
    backend.invalidate(&invalidation).await.into_result()
}

async fn invalidate_matching<B: Backend + ?Sized>(backend: &B, pattern: KeyPattern) -> BackendResult<u64> {
    let invalidation = Invalidation::new(InvalidationTarget::Matching(pattern));
    backend.invalidate(&invalidation).await.into_result()?;
    Ok(invalidation.removed())
}

/// The future of the one receipt of a write.
struct Written<'a>(Completion<'a, Receipts>);

impl Future for Written<'_> {
    type Output = BackendResult<Receipt>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BackendResult<Receipt>> {
        Pin::new(&mut self.0).poll(cx).map(|receipts| receipts.into_one().unwrap_or_default().into_result())
    }
}

#[inline]
fn write_one<B: Backend + ?Sized>(backend: &B, write: Write) -> Written<'_> {
    Written(backend.write(Batch::one(write)))
}

async fn remove_one<B: Backend + ?Sized>(backend: &B, removal: Removal) -> BackendResult<DeleteStatus> {
    let receipt = backend.remove(Batch::one(removal)).await.into_one().unwrap_or_default();
    Ok(DeleteStatus::of(receipt.into_result()?.removed()))
}
