//! The simplest in-memory leaf: what others are compared with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::memory::page_of;
use hitbox_backend::store::{Capabilities, DeleteStatus, Page, Peek, Raw, Store};
use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{Backend, Leaf};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Clock};

/// An unbounded map of live values. It answers at once.
#[derive(Debug)]
pub struct MemoryStore {
    entries: Mutex<HashMap<CacheKey, CacheValue<Raw>>>,
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// An empty map on this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { entries: Mutex::default(), clock }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, CacheValue<Raw>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored entry, whatever its age.
    pub fn get(&self, key: &CacheKey) -> Option<CacheValue<Raw>> {
        self.lock().get(key).cloned()
    }

    /// Stores an entry.
    pub fn insert(&self, key: &CacheKey, value: CacheValue<Raw>) {
        self.lock().insert(key.clone(), value);
    }

    /// Removes an entry, and says whether it was one that could still be used.
    pub fn take(&self, key: &CacheKey) -> DeleteStatus {
        let now = self.clock.now();
        let held = self.lock().remove(key);
        DeleteStatus::of_entry(held.as_ref(), now)
    }

    /// Entries that are stored, whatever their age.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.get(key))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.insert(key, value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(self.take(key))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::MEMORY
    }

    fn try_read(&self, key: &CacheKey) -> Poll<Option<CacheValue<Raw>>> {
        Poll::Ready(self.get(key))
    }

    fn try_write(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
    ) -> Result<BackendResult<()>, CacheValue<Raw>> {
        self.insert(key, value);
        Ok(Ok(()))
    }

    fn try_remove(&self, key: &CacheKey) -> Poll<BackendResult<DeleteStatus>> {
        Poll::Ready(Ok(self.take(key)))
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        Ok(self.get(key).map_or(Peek::Absent, |value| Peek::Entry(value.map(drop))))
    }

    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        Ok(page_of(self.lock().keys().cloned(), cursor, limit))
    }

    async fn count(&self) -> BackendResult<u64> {
        let now = self.clock.now();
        let entries = self.lock();
        let is_counted =
            |(key, value): &(&CacheKey, &CacheValue<Raw>)| !key.is_reserved() && value.is_readable(now);
        Ok(entries.iter().filter(is_counted).count() as u64)
    }

    async fn erase(&self) -> BackendResult<()> {
        self.lock().clear();
        Ok(())
    }
}

/// The leaf of a [`MemoryStore`]. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBackend(Leaf<MemoryStore>);

impl MemoryBackend {
    /// An empty map on this clock, labelled `memory`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::labelled("memory", clock)
    }

    /// The same with another label.
    pub fn labelled(label: &str, clock: Arc<dyn Clock>) -> Self {
        Self::with_options(LeafOptions::new(label).with_clock(clock))
    }

    /// An empty map with these options.
    pub fn with_options(options: LeafOptions) -> Self {
        Self(Leaf::new(MemoryStore::new(options.clock.clone()), options))
    }

    /// Entries that are stored, whatever their age.
    pub fn len(&self) -> usize {
        self.0.store().len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes a stored entry behind everybody's back.
    pub fn tamper(&self, key: &CacheKey, change: impl FnOnce(CacheValue<Raw>) -> CacheValue<Raw>) {
        let mut entries = self.0.store().lock();
        if let Some(value) = entries.remove(key) {
            entries.insert(key.clone(), change(value));
        }
    }
}

impl Wrapper for MemoryBackend {
    type Inner = Leaf<MemoryStore>;

    fn inner(&self) -> &Leaf<MemoryStore> {
        &self.0
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        inner
    }
}
