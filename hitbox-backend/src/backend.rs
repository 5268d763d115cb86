//! The contract. A backend is three methods; everything else has a default built on them.
//!
//! Compositions and wrappers override the second group, which speaks of layers, receipts and tickets.
//! A leaf overrides what it can do better than the defaults, and hands out its [`Leaf`], around which
//! the defaults time, count, encode and keep order.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use hitbox_core::{BackendError, BackendLabel, BackendResult, CacheKey, CacheValue, KeyPattern, Scope};

use crate::capability::Capabilities;
use crate::coherence::{Mutation, Ticket};
use crate::envelope::{Encodings, Raw};
use crate::leaf::{self, Invalidation, Leaf, Matched};
use crate::read::{Answer, LeafPosition, Peek, Presence, ReadOptions, TryRead};
use crate::receipt::{DeleteStatus, Receipt};
use crate::stats::{LeafLen, LeafStatistics, Occupancy};
use crate::stream::{BodyReader, BodyWriter, BufferedReader, BufferedWriter};

/// Stores values under keys: a leaf, a wrapper or a composition.
///
/// Implement [`read`](Self::read), [`write`](Self::write) and [`remove`](Self::remove), and the backend
/// composes with any other. Use it through [`CacheBackend`](crate::CacheBackend).
///
/// # Cancellation
/// A dropped future of a leaf may or may not have acted. Compositions finish writes and deletes in their
/// offload.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The stored entry, whatever its age, or nothing.
    ///
    /// # Errors
    /// Only if it cannot be known whether there is one. A record that cannot be understood is `None`.
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>>;

    /// Stores an entry and replaces all that was there. Unless the backend keeps live values, `value` is
    /// encoded.
    ///
    /// # Errors
    /// If it is not certain that the entry is stored.
    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()>;

    /// Removes an entry.
    ///
    /// # Errors
    /// If it is not certain that the entry is gone.
    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus>;

    /// What the stored entry says without its payload, whatever its age. Has no effect on it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    async fn peek(&self, _key: &CacheKey) -> BackendResult<Peek> {
        Ok(Peek::Unknown)
    }

    /// Entries that a normal read may see, as far as their times tell.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) from stores that cannot count them.
    async fn entry_count(&self) -> BackendResult<u64> {
        Err(BackendError::unsupported("counting entries"))
    }

    // What a leaf may do better than one call at a time.

    /// Reads several keys, in order.
    async fn read_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        join_all(keys.iter().map(|key| self.read(key))).await
    }

    /// Writes several entries, in order.
    async fn write_batch(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        join_all(entries.into_iter().map(|(key, value)| async move { self.write(&key, value).await })).await
    }

    /// Removes several keys, in order.
    async fn remove_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        join_all(keys.iter().map(|key| self.remove(key))).await
    }

    /// Removes every entry, one by one if need be. Entries written meanwhile may go too.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) unless the capability `erases` is there.
    async fn erase(&self) -> BackendResult<()> {
        Err(BackendError::unsupported("erasing all entries"))
    }

    /// Lists keys, a page at a time: at most about `limit` of them from `cursor` on (start with 0).
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) unless the capability `enumerates` is there.
    async fn enumerate(&self, _cursor: u64, _limit: usize) -> BackendResult<Page> {
        Err(BackendError::unsupported("enumerate"))
    }

    /// Stores the entry if its version is greater than that of the stored one, in one step, whoever else writes. For
    /// stores that others share; in a store of its own a leaf is looked at before it is written, in its turn.
    ///
    /// # Errors
    /// [`VersionMismatch`](hitbox_core::ErrorKind::VersionMismatch) if it is not;
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) unless the capability `writes_conditionally`
    /// is there.
    async fn write_if_newer(&self, _key: &CacheKey, _value: CacheValue<Raw>) -> BackendResult<()> {
        Err(BackendError::unsupported("conditional write"))
    }

    /// Drops entries whose time is over, at most about `limit` of them, and does pending maintenance.
    ///
    /// # Errors
    /// Those of the store.
    async fn sweep(&self, _limit: usize) -> BackendResult<Sweep> {
        Ok(Sweep::default())
    }

    /// What the store holds, if it can say without I/O.
    fn occupancy(&self) -> Option<Occupancy> {
        None
    }

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities {
        Capabilities::PLAIN
    }

    /// What belongs to this leaf: label, codec, clock, counters, order of writes. A leaf that brings none
    /// is not counted until it is adopted by a composition.
    fn leaf(&self) -> Option<&Leaf> {
        None
    }

    // What expressions of backends answer. The defaults treat `self` as a leaf.

    /// What can be said about a read without waiting. Counts what it answers; starts nothing.
    fn try_read(&self, _key: &CacheKey, _options: &ReadOptions) -> TryRead {
        TryRead::WouldWait(crate::read::LeafSet::EMPTY)
    }

    /// A usable copy for this read.
    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        leaf::read(self, key, options).await
    }

    /// Stores an entry in every leaf of this expression, as its policies say.
    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        leaf::write(self, key, value, options).await
    }

    /// Removes an entry from every leaf of this expression.
    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        leaf::remove(self, key, options).await
    }

    /// Usable copies for several keys, in order.
    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        leaf::read_many(self, keys, options).await
    }

    /// Stores several entries; receipts are in their order. Of two entries with one key the later stays.
    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        leaf::write_many(self, items).await
    }

    /// Removes several keys; receipts are in their order.
    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        leaf::remove_many(self, items).await
    }

    /// Visits the leaves of this expression, from left to right, each with `key` as it is known there.
    fn visit_leaves(&self, key: &CacheKey, visit: &mut dyn FnMut(&Leaf, &CacheKey)) {
        visit(leaf::of(self), key);
    }

    /// Stores an entry that was read from a lower layer, in the leaves for which the ticket still holds.
    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        leaf::install_if(self, key, value, ticket).await
    }

    /// Whether an entry is there, without any effect on it and without reading its payload. Agrees with a read, but
    /// that a damaged record is noticed only when it is read.
    ///
    /// # Errors
    /// As a read.
    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        leaf::contains(self, key).await
    }

    /// Removes every entry of every leaf, and keeps refills that began earlier from installing.
    ///
    /// # Errors
    /// That of the first leaf that failed; all are tried.
    async fn erase_with(&self) -> BackendResult<()> {
        leaf::erase(self).await
    }

    /// Gives these scopes new epochs in every leaf: no entry that carries one of them now, or whose load or write is
    /// under way, is served any more. Takes no time that grows with the entries. `under` has to be kept until all
    /// leaves have answered.
    ///
    /// The receipt has a line per leaf; all are tried. A leaf that did not record it serves nothing that is older as
    /// long as this process lives, and is asked again to record it.
    async fn invalidate(&self, scopes: &[Scope], under: &Arc<Invalidation>) -> Receipt {
        leaf::invalidate(self, scopes, under).await
    }

    /// Removes the keys that match from every leaf, and keeps loads and refills that began earlier from installing.
    /// Entries written meanwhile may go too. `matched` collects the distinct keys that some leaf held.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) from leaves that cannot list their keys. All are tried.
    async fn remove_matching(&self, pattern: &KeyPattern, matched: &Matched) -> BackendResult<()> {
        leaf::remove_matching(self, pattern, matched).await
    }

    /// Stores an entry with a version if one leaf, the authority, has no equal or newer one; then the others take it.
    ///
    /// The receipt's error is of kind [`VersionMismatch`](hitbox_core::ErrorKind::VersionMismatch) if it has; any
    /// failure of the authority is an error, and nothing is written elsewhere.
    async fn write_if_newer_with(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        options: &WriteOptions,
    ) -> Receipt {
        leaf::write_if_newer(self, key, value, options).await
    }

    /// Takes a key out of the upper layer of a composition and leaves it in the lower one; a leaf alone drops it. Ends
    /// no load: what is served may come back by a refill.
    async fn evict_with(&self, key: &CacheKey) -> Receipt {
        leaf::evict(self, key).await
    }

    /// Entries of each leaf that a normal read may see, from left to right: those whose time is over are left out. Takes
    /// time that grows with the entries.
    async fn lens(&self) -> Vec<LeafLen> {
        vec![LeafLen { label: leaf::of(self).path(), len: self.entry_count().await }]
    }

    /// The leaves of this expression, from left to right.
    fn leaves(&self) -> Vec<Leaf> {
        vec![leaf::of(self).clone()]
    }

    /// Statistics per leaf, from left to right.
    fn statistics(&self) -> Vec<LeafStatistics> {
        vec![leaf::of(self).statistics(self.occupancy())]
    }

    /// A view of the same store with its own path and counters; `None` if this backend cannot make one,
    /// in which case [`adopt`] does.
    fn adopted(&self, _adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        None
    }

    /// Opens the body of an entry for reading by chunks.
    ///
    /// # Errors
    /// As a read.
    async fn open_reader(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn BodyReader>>> {
        BufferedReader::open(self.read_with(key, options).await?)
    }

    /// Opens an entry for writing by chunks. `entry` holds everything but the body. Nothing is visible
    /// before the writer is finished; a writer that is dropped leaves nothing.
    fn open_writer(self: Arc<Self>, key: CacheKey, entry: CacheValue<()>) -> Box<dyn BodyWriter> {
        Box::new(BufferedWriter::new(self, key, entry))
    }
}

/// Where a leaf stands within the expression that adopts it.
#[derive(Clone, Copy, Debug)]
pub struct Adoption {
    /// The path of the composition above.
    pub prefix: BackendLabel,
    /// The position of the first leaf of the adopted expression.
    pub first: LeafPosition,
    /// Put behind the leaf's own label, where two siblings would have one path.
    pub suffix: Option<BackendLabel>,
}

/// A view of `backend` with a path of its own, counted by itself, that shares the store.
pub fn adopt(backend: &Arc<dyn Backend>, adoption: &Adoption) -> Arc<dyn Backend> {
    backend.adopted(adoption).unwrap_or_else(|| Arc::new(leaf::View::new(backend.clone(), adoption)))
}

/// The backend; behind a view of its own if it brings no leaf, so that its entries can carry scopes.
pub fn with_identity(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    match &backend.leaves()[..] {
        [leaf] if backend.leaf().is_none() && leaf.is_nobodys() => Arc::new(leaf::View::alone(backend)),
        _ => backend,
    }
}

/// Options of one write or delete.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// The mutation that this is part of. Without one the backend begins its own.
    pub mutation: Option<Arc<Mutation>>,
    /// What has been encoded so far.
    pub encodings: Arc<Encodings>,
}

/// One entry of a batch of writes.
#[derive(Clone, Debug)]
pub struct WriteItem {
    /// Its key.
    pub key: CacheKey,
    /// The entry.
    pub value: CacheValue<Raw>,
    /// Its options.
    pub options: WriteOptions,
}

/// One key of a batch of deletes.
#[derive(Clone, Debug)]
pub struct RemoveItem {
    /// The key.
    pub key: CacheKey,
    /// Its options.
    pub options: WriteOptions,
}

impl WriteItem {
    /// An entry with default options.
    pub fn new(key: CacheKey, value: CacheValue<Raw>) -> Self {
        Self { key, value, options: WriteOptions::default() }
    }
}

impl RemoveItem {
    /// A key with default options.
    pub fn new(key: CacheKey) -> Self {
        Self { key, options: WriteOptions::default() }
    }
}

/// Some keys of a store.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The keys. A key may occur on two pages while the store changes.
    pub keys: Vec<CacheKey>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<u64>,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Entries dropped.
    pub dropped: u64,
    /// Whether it stopped at its limit.
    pub cut_short: bool,
}
