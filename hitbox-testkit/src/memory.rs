//! The simplest in-memory leaf: what others are compared with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hitbox_backend::memory::page_of;
use hitbox_backend::{
    Adoption, Backend, Capabilities, DeleteStatus, Leaf, LeafOptions, Page, Peek, Raw, ReadOptions, TryRead,
};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Clock, Freshness};

/// An unbounded map that keeps live values. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBackend {
    entries: Arc<Mutex<HashMap<CacheKey, CacheValue<Raw>>>>,
    leaf: Leaf,
}

impl MemoryBackend {
    /// An empty map on this clock, labelled `memory`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::labelled("memory", clock)
    }

    /// The same with another label.
    pub fn labelled(label: &str, clock: Arc<dyn Clock>) -> Self {
        Self::with_options(LeafOptions { clock, ..LeafOptions::new(label) })
    }

    /// An empty map with these options.
    pub fn with_options(options: LeafOptions) -> Self {
        Self { entries: Arc::default(), leaf: Leaf::new(options) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, CacheValue<Raw>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries that are stored, whatever their age.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Another view of the same map.
    pub(crate) fn adopted_store(&self, adoption: &Adoption) -> Self {
        Self { entries: self.entries.clone(), leaf: self.leaf.adopted(adoption) }
    }

    /// Changes a stored entry behind everybody's back.
    pub fn tamper(&self, key: &CacheKey, change: impl FnOnce(CacheValue<Raw>) -> CacheValue<Raw>) {
        let mut entries = self.lock();
        if let Some(value) = entries.remove(key) {
            entries.insert(key.clone(), change(value));
        }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.lock().get(key).cloned())
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.lock().insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let now = self.leaf.clock().now();
        let held = self.lock().remove(key);
        let alive = held.is_some_and(|value| value.lifetime().freshness(now) != Freshness::Gone);
        Ok(DeleteStatus::of(u32::from(alive)))
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        Ok(self.lock().get(key).map_or(Peek::Absent, |value| Peek::Entry(value.clone().map(drop))))
    }

    async fn entry_count(&self) -> BackendResult<u64> {
        let now = self.leaf.clock().now();
        Ok(self.lock().values().filter(|value| value.is_readable(now)).count() as u64)
    }

    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        Ok(page_of(self.lock().keys().cloned(), cursor, limit))
    }

    async fn erase(&self) -> BackendResult<()> {
        self.lock().clear();
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.keeps_live_values = true;
        capabilities.answers_at_once = true;
        capabilities.erases = true;
        capabilities.enumerates = true;
        capabilities
    }

    fn leaf(&self) -> Option<&Leaf> {
        Some(&self.leaf)
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.leaf.try_read(key, options, || self.lock().get(key).cloned())
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(self.adopted_store(adoption)))
    }
}
