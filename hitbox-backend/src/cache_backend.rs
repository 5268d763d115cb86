//! The trait to use: typed values over any backend. It cannot be overridden, so static, boxed and
//! nested backends behave alike.

use std::sync::Arc;

use hitbox_core::{BackendResult, CacheContext, CacheKey, CacheStatus, CacheValue, ReadMode, ResponseSource};

use crate::backend::{Backend, RemoveItem, WriteItem, WriteOptions};
use crate::envelope::{Cacheable, Raw};
use crate::read::{Answer, Found, LeafSet, ReadOptions, TryRead};
use crate::receipt::{DeleteStatus, Receipt};
use crate::stats::Event;

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
        self.get_with(key, ReadOptions::default(), context)
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn get_with<T: Cacheable>(
        &self,
        key: &CacheKey,
        mut options: ReadOptions,
        context: &mut CacheContext,
    ) -> impl Future<Output = BackendResult<Option<CacheValue<T>>>> + Send {
        async move {
            loop {
                let answer = match self.try_read(key, &options) {
                    TryRead::Hit(found) => Ok(Some(found)),
                    TryRead::Miss => Ok(None),
                    TryRead::WouldWait(asked) => {
                        let options = ReadOptions { skip: options.skip.union(asked), ..options.clone() };
                        self.read_with(key, &options).await
                    }
                };
                match settle(self, answer, context) {
                    Settled::Done(result) => return result,
                    // A backend that answers with a leaf that was to be skipped would do so for ever.
                    Settled::Useless(leaf) if options.skip.covers(leaf) => return Ok(None),
                    Settled::Useless(leaf) => options.skip = options.skip.union(leaf),
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
                    Settled::Done(result) => result,
                    Settled::Useless(skip) => {
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

    /// This backend behind a pointer, as a trait object.
    fn shared(self) -> Arc<dyn Backend>
    where
        Self: Sized,
    {
        Arc::new(self)
    }
}

impl<B: Backend + ?Sized> CacheBackend for B {}

enum Settled<T> {
    Done(BackendResult<Option<CacheValue<T>>>),
    /// The copy of this leaf is no `T`.
    Useless(LeafSet),
}

/// Decodes the copy that was found and reports it.
#[inline]
fn settle<B: Backend + ?Sized, T: Cacheable>(
    backend: &B,
    answer: Answer,
    context: &mut CacheContext,
) -> Settled<T> {
    let miss = (CacheStatus::Miss, ResponseSource::Upstream, ReadMode::Direct);
    let Found { value, freshness, label, leaf, mode } = match answer {
        Ok(Some(found)) => found,
        nothing => {
            context.record(miss.0, miss.1, miss.2);
            return Settled::Done(nothing.map(|_| None));
        }
    };
    match value.try_map(Raw::into_value) {
        Ok(value) => {
            let status = crate::read::status_of(freshness);
            context.record(status, ResponseSource::Backend(label), mode);
            Settled::Done(Ok(Some(value)))
        }
        Err(error) => {
            let leaves = backend.leaves();
            if let Some(leaf) = leaves.get(usize::from(leaf)) {
                leaf.count(Event::Undecodable, 1);
            }
            tracing::debug!(%label, %error, "a cached copy could not be decoded");
            Settled::Useless(LeafSet::of(leaf))
        }
    }
}
