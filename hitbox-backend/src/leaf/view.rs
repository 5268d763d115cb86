//! Another view of a leaf that cannot make one itself.

use std::sync::Arc;

use async_trait::async_trait;
use hitbox_core::{BackendResult, CacheKey, CacheValue};

use super::{Leaf, of};
use crate::backend::{Adoption, Backend, Page, Sweep};
use crate::capability::Capabilities;
use crate::envelope::Raw;
use crate::read::Peek;
use crate::receipt::DeleteStatus;
use crate::stats::Occupancy;

/// A view of a backend that cannot make one itself.
pub(crate) struct View {
    store: Arc<dyn Backend>,
    leaf: Leaf,
}

impl View {
    /// A view of a backend without a leaf, which stands alone.
    pub(crate) fn alone(store: Arc<dyn Backend>) -> Self {
        let leaf = of(&*store).with_identity();
        Self { store, leaf }
    }

    pub(crate) fn new(store: Arc<dyn Backend>, adoption: &Adoption) -> Self {
        let leaf = of(&*store).adopted_alone(adoption);
        Self { store, leaf }
    }
}

#[async_trait]
impl Backend for View {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.store.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.store.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.remove(key).await
    }

    async fn entry_count(&self) -> BackendResult<u64> {
        self.store.entry_count().await
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.store.peek(key).await
    }

    async fn read_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        self.store.read_batch(keys).await
    }

    async fn write_batch(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        self.store.write_batch(entries).await
    }

    async fn remove_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        self.store.remove_batch(keys).await
    }

    async fn erase(&self) -> BackendResult<()> {
        self.store.erase().await
    }

    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        self.store.enumerate(cursor, limit).await
    }

    async fn write_if_newer(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.store.write_if_newer(key, value).await
    }

    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        self.store.sweep(limit).await
    }

    fn occupancy(&self) -> Option<Occupancy> {
        self.store.occupancy()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { answers_at_once: false, ..self.store.capabilities() }
    }

    fn leaf(&self) -> Option<&Leaf> {
        Some(&self.leaf)
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { store: self.store.clone(), leaf: self.leaf.adopted(adoption) }))
    }
}
