//! Cuts calls that take too long.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, Scope};

use crate::backend::{Adoption, Backend, Page, RemoveItem, WriteItem, WriteOptions, adopt};
use crate::clock::SystemClock;
use crate::coherence::Ticket;
use crate::envelope::Raw;
use crate::leaf::{Invalidation, Leaf};
use crate::read::{Answer, Peek, Presence, ReadOptions, TryRead};
use crate::receipt::{DeleteStatus, Outcome, Receipt};
use crate::stats::Event;
use crate::stream::BodyReader;

/// A backend whose calls are cut after a limit. A read that is cut is a failed read; a write or delete
/// that is cut has an unknown outcome in each leaf, so that compositions hide and repair its key.
pub struct Deadline {
    inner: Arc<dyn Backend>,
    limit: Duration,
    leaves: Vec<Leaf>,
    clock: Arc<dyn Clock>,
}

impl Deadline {
    /// Cuts the calls of `inner` after `limit`.
    pub fn new(inner: impl Backend, limit: Duration) -> Self {
        Self::around(Arc::new(inner), limit)
    }

    fn around(inner: Arc<dyn Backend>, limit: Duration) -> Self {
        let leaves = inner.leaves();
        let clock = leaves.first().map_or_else(|| Arc::new(SystemClock) as _, |leaf| leaf.clock().clone());
        Self { inner, limit, leaves, clock }
    }

    fn error(&self, what: &str) -> BackendError {
        let message = format!("{what} took longer than {} ms", self.limit.as_millis());
        BackendError::new(ErrorKind::Timeout, message)
    }

    /// `call`, or the error in which it is cut.
    async fn cut<T>(&self, what: &str, call: impl Future<Output = T> + Send) -> BackendResult<T> {
        match select(std::pin::pin!(call), self.clock.sleep(self.limit)).await {
            Either::Left((result, _)) => Ok(result),
            Either::Right(_) => Err(self.error(what)),
        }
    }

    /// The same, counted in the leaf that was asked.
    fn counted(&self, event: Event, error: BackendError) -> BackendError {
        match &self.leaves[..] {
            [leaf] => leaf.failed(event, error),
            several => {
                several.iter().for_each(|leaf| drop(leaf.failed(event, error.clone())));
                error
            }
        }
    }

    fn cut_answer(&self, result: BackendResult<Answer>) -> Answer {
        result.unwrap_or_else(|error| Err(self.counted(Event::ReadError, error)))
    }

    fn cut_receipt(&self, event: Event, result: BackendResult<Receipt>) -> Receipt {
        result.unwrap_or_else(|error| {
            let lines = self
                .leaves
                .iter()
                .map(|leaf| Receipt::of(leaf.path(), Outcome::Unknown(leaf.failed(event, error.clone()))));
            let whole = lines.reduce(|all, line| {
                let error = all.error().cloned();
                all.join(line, error)
            });
            whole.unwrap_or_default()
        })
    }
}

#[async_trait]
impl Backend for Deadline {
    crate::forward!(self => self.inner; facts, capabilities);

    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.cut("a read", self.inner.read(key)).await?
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.cut("a write", self.inner.write(key, value)).await?
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.cut("a delete", self.inner.remove(key)).await?
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.cut("a look-up", self.inner.peek(key)).await?
    }

    async fn entry_count(&self) -> BackendResult<u64> {
        self.cut("a count", self.inner.entry_count()).await?
    }

    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        self.cut("a page of keys", self.inner.enumerate(cursor, limit)).await?
    }

    async fn write_if_newer(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.cut("a conditional write", self.inner.write_if_newer(key, value)).await?
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.inner.try_read(key, options)
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        self.cut_answer(self.cut("a read", self.inner.read_with(key, options)).await)
    }

    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        match self.cut("a batch of reads", self.inner.read_many(keys, options)).await {
            Ok(answers) => answers,
            Err(error) => keys.iter().map(|_| self.cut_answer(Err(error.clone()))).collect(),
        }
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        self.cut("a look-up", self.inner.contains(key)).await?
    }

    async fn open_reader(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn BodyReader>>> {
        self.cut("opening a reader", self.inner.open_reader(key, options)).await?
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        let result = self.cut("a write", self.inner.write_with(key, value, options)).await;
        self.cut_receipt(Event::WriteError, result)
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        let result = self.cut("a delete", self.inner.remove_with(key, options)).await;
        self.cut_receipt(Event::RemoveError, result)
    }

    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        let count = items.len();
        match self.cut("a batch of writes", self.inner.write_many(items)).await {
            Ok(receipts) => receipts,
            Err(error) => {
                (0..count).map(|_| self.cut_receipt(Event::WriteError, Err(error.clone()))).collect()
            }
        }
    }

    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        let count = items.len();
        match self.cut("a batch of deletes", self.inner.remove_many(items)).await {
            Ok(receipts) => receipts,
            Err(error) => {
                (0..count).map(|_| self.cut_receipt(Event::RemoveError, Err(error.clone()))).collect()
            }
        }
    }

    async fn write_if_newer_with(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        options: &WriteOptions,
    ) -> Receipt {
        let work = self.inner.write_if_newer_with(key, value, options);
        self.cut_receipt(Event::WriteError, self.cut("a conditional write", work).await)
    }

    async fn evict_with(&self, key: &CacheKey) -> Receipt {
        let result = self.cut("a delete", self.inner.evict_with(key)).await;
        self.cut_receipt(Event::RemoveError, result)
    }

    async fn invalidate(&self, scopes: &[Scope], under: &Arc<Invalidation>) -> Receipt {
        let result = self.cut("an invalidation", self.inner.invalidate(scopes, under)).await;
        self.cut_receipt(Event::WriteError, result)
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        let result = self.cut("a refill", self.inner.install_if(key, value, ticket)).await;
        self.cut_receipt(Event::WriteError, result)
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self::around(adopt(&self.inner, adoption), self.limit)))
    }
}
