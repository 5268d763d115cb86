//! The trait to use: typed values over any backend. It cannot be overridden, so static, boxed and
//! nested backends behave alike.

use std::sync::Arc;

use hitbox_core::{
    BackendError, BackendResult, CacheContext, CacheKey, CacheStatus, CacheValue, KeyPattern, ReadMode,
    ResponseSource, Scope,
};

use crate::backend::{Backend, RemoveItem, WriteItem, WriteOptions};
use crate::envelope::{Cacheable, Raw};
use crate::leaf::Matched;
use crate::read::{Answer, Found, LeafPosition, LeafSet, ReadOptions, TryRead};
use crate::receipt::{DeleteStatus, Receipt};
use crate::stats::{Event, Statistics};

/// Typed reads, writes and deletes over any [`Backend`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> hitbox_core::BackendResult<()> {
/// use hitbox_backend::{CacheBackend, Compose, doc::Map};
/// use hitbox_core::{CacheContext, CacheKey, CacheValue};
///
/// let cache = Map::default();
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
            match at_once(self, key, &ReadOptions::NORMAL, context) {
                Ok(found) => Ok(found),
                Err(asked) => {
                    wait(self, key, ReadOptions { skip: asked, ..ReadOptions::NORMAL }, context).await
                }
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
            match at_once(self, key, &options, context) {
                Ok(found) => Ok(found),
                Err(asked) => {
                    let skip = options.skip.union(asked);
                    wait(self, key, ReadOptions { skip, ..options }, context).await
                }
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
        async move { self.write_with(key, value.map(Raw::live), &WriteOptions::default()).await.into_result() }
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
        async move {
            let receipt = self.remove_with(key, &WriteOptions::default()).await.into_result()?;
            Ok(DeleteStatus::of(receipt.removed()))
        }
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
            let answers = self.read_many(keys, &ReadOptions::default()).await;
            let mut values = Vec::with_capacity(keys.len());
            for (key, answer) in keys.iter().zip(answers) {
                let mut context = CacheContext::new();
                values.push(match settle(self, answer, &mut context) {
                    Ok(result) => result,
                    Err(skip) => {
                        self.get_with(key, ReadOptions { skip, ..ReadOptions::default() }, &mut context).await
                    }
                });
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
        let items =
            entries.into_iter().map(|(key, value)| WriteItem::new(key, value.map(Raw::live))).collect();
        async move {
            let receipts = self.write_many(items).await;
            receipts.into_iter().map(Receipt::into_result).collect()
        }
    }

    /// Removes several keys; results are in their order.
    ///
    /// # Errors
    /// Per key, as [`delete`](Self::delete).
    fn delete_many(
        &self,
        keys: &[CacheKey],
    ) -> impl Future<Output = Vec<BackendResult<DeleteStatus>>> + Send {
        let items = keys.iter().cloned().map(RemoveItem::new).collect();
        async move {
            let receipts = self.remove_many(items).await;
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
        invalidate(self, tags.iter().map(|name| Scope::tag(*name)).collect())
    }

    /// The same for entries that depend on one of these.
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    fn invalidate_dependencies(&self, names: &[&str]) -> impl Future<Output = BackendResult<Receipt>> + Send {
        invalidate(self, names.iter().map(|name| Scope::dependency(*name)).collect())
    }

    /// The same for all entries of a namespace and of those within it. Nested ones are joined with `/`, outermost
    /// first.
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    fn flush_namespace(&self, name: &str) -> impl Future<Output = BackendResult<Receipt>> + Send {
        invalidate(self, vec![Scope::namespace(name)])
    }

    /// The same for all entries; behind a [`Namespace`](crate::Namespace) those of the namespace.
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    fn clear(&self) -> impl Future<Output = BackendResult<Receipt>> + Send {
        invalidate(self, vec![Scope::everything()])
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
        remove_matching(self, KeyPattern::prefix(key))
    }

    /// The same for keys that match a pattern: see [`KeyPattern::glob`].
    ///
    /// # Errors
    /// As [`invalidate_prefix`](Self::invalidate_prefix).
    fn invalidate_matching(&self, pattern: KeyPattern) -> impl Future<Output = BackendResult<u64>> + Send {
        remove_matching(self, pattern)
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
        let value = value.with_details(details).map(Raw::live);
        async move { self.write_if_newer_with(key, value, &WriteOptions::default()).await.into_result() }
    }

    /// Takes a key out of the upper layer and leaves it in the lower one: says how many leaves held it. A leaf alone
    /// drops it.
    ///
    /// # Errors
    /// If the upper layer failed.
    fn evict(&self, key: &CacheKey) -> impl Future<Output = BackendResult<DeleteStatus>> + Send {
        async move { Ok(DeleteStatus::of(self.evict_with(key).await.into_result()?.removed())) }
    }

    /// Counts of every leaf and in total. Never fails: what a leaf cannot say is left out.
    fn snapshot(&self) -> Statistics {
        Statistics::of(self.statistics())
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

async fn remove_matching<B: Backend + ?Sized>(backend: &B, pattern: KeyPattern) -> BackendResult<u64> {
    let matched = Matched::default();
    backend.remove_matching(&pattern, &matched).await?;
    Ok(matched.len())
}

async fn invalidate<B: Backend + ?Sized>(backend: &B, scopes: Vec<Scope>) -> BackendResult<Receipt> {
    if scopes.is_empty() {
        return Ok(Receipt::default());
    }
    let under = Arc::default();
    backend.invalidate(&scopes, &under).await.into_result()
}

/// Answers without waiting; else names leaves that need not be asked again, since they have nothing or their
/// copy is no `T`.
#[inline(always)]
fn at_once<B: Backend + ?Sized, T: Cacheable>(
    backend: &B,
    key: &CacheKey,
    options: &ReadOptions,
    context: &mut CacheContext,
) -> Result<Option<CacheValue<T>>, LeafSet> {
    match backend.try_read(key, options) {
        TryRead::Hit(found) => deliver(backend, found, context).map(Some),
        TryRead::Miss => {
            context.record(CacheStatus::Miss, ResponseSource::Upstream, ReadMode::Direct);
            Ok(None)
        }
        TryRead::WouldWait(asked) => Err(asked),
    }
}

/// Asks until there is a copy that is a `T`, or no other copy.
async fn wait<B: Backend + ?Sized, T: Cacheable>(
    backend: &B,
    key: &CacheKey,
    mut options: ReadOptions,
    context: &mut CacheContext,
) -> BackendResult<Option<CacheValue<T>>> {
    loop {
        match settle(backend, backend.read_with(key, &options).await, context) {
            Ok(result) => return result,
            // A backend that answers with a leaf that was to be skipped would do so for ever.
            Err(useless) if options.skip.covers(useless) => return Ok(None),
            Err(useless) => options.skip = options.skip.union(useless),
        }
    }
}

/// Reports an answer and decodes its copy; an error names the leaf whose copy is no `T`.
fn settle<B: Backend + ?Sized, T: Cacheable>(
    backend: &B,
    answer: Answer,
    context: &mut CacheContext,
) -> Result<BackendResult<Option<CacheValue<T>>>, LeafSet> {
    match answer {
        Ok(Some(found)) => deliver(backend, found, context).map(|value| Ok(Some(value))),
        nothing => {
            context.record(CacheStatus::Miss, ResponseSource::Upstream, ReadMode::Direct);
            Ok(nothing.map(|_| None))
        }
    }
}

/// Decodes the copy that was found and reports it; an error names the leaf whose copy is no `T`.
#[inline(always)]
fn deliver<B: Backend + ?Sized, T: Cacheable>(
    backend: &B,
    found: Found,
    context: &mut CacheContext,
) -> Result<CacheValue<T>, LeafSet> {
    let Found { value, freshness, label, leaf, mode } = found;
    match value.try_map(Raw::into_value) {
        Ok(value) => {
            let status = crate::read::status_of(freshness);
            context.record(status, ResponseSource::Backend(label), mode);
            Ok(value)
        }
        Err(error) => Err(count_undecodable(backend, leaf, &error)),
    }
}

#[cold]
#[inline(never)]
fn count_undecodable<B: Backend + ?Sized>(
    backend: &B,
    position: LeafPosition,
    error: &BackendError,
) -> LeafSet {
    if let Some(leaf) = backend.leaves().get(usize::from(position)) {
        leaf.count(Event::Undecodable, 1);
        tracing::debug!(backend = %leaf.path(), %error, "a cached copy could not be decoded");
    }
    LeafSet::of(position)
}
