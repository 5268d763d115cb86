//! Several caches in one store.

use std::sync::Arc;

use async_trait::async_trait;
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, KeyPattern, Scope, ScopeKind};

use crate::backend::{Adoption, Backend, Page, RemoveItem, Sweep, WriteItem, WriteOptions, adopt};
use crate::capability::Capabilities;
use crate::coherence::Ticket;
use crate::envelope::Raw;
use crate::leaf::{Invalidation, Leaf, Matched};
use crate::read::{Answer, Peek, Presence, ReadOptions, TryRead};
use crate::receipt::{DeleteStatus, Receipt};
use crate::stats::{LeafLen, LeafStatistics, Occupancy};
use crate::stream::BodyReader;

/// A backend whose keys are kept apart from those of other namespaces in the same store.
pub struct Namespace {
    inner: Arc<dyn Backend>,
    name: Arc<str>,
}

impl Namespace {
    /// The part of `inner` with this name.
    pub fn new(inner: impl Backend, name: &str) -> Self {
        Self { inner: Arc::new(inner), name: name.into() }
    }

    fn key(&self, key: &CacheKey) -> CacheKey {
        key.in_namespace(&self.name)
    }

    fn keys(&self, keys: &[CacheKey]) -> Vec<CacheKey> {
        keys.iter().map(|key| self.key(key)).collect()
    }
}

/// The path of a namespace within another, as keys have it.
fn within(outer: &str, inner: &str) -> String {
    let key = CacheKey::new("").in_namespace(outer);
    if inner.is_empty() { key.namespace().to_owned() } else { format!("{}/{inner}", key.namespace()) }
}

#[async_trait]
impl Backend for Namespace {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.inner.read(&self.key(key)).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.inner.write(&self.key(key), value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.inner.remove(&self.key(key)).await
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.inner.peek(&self.key(key)).await
    }

    async fn read_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        self.inner.read_batch(&self.keys(keys)).await
    }

    async fn write_if_newer(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.inner.write_if_newer(&self.key(key), value).await
    }

    /// The keys of this namespace; a page may hold fewer than it was asked for.
    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let mut page = self.inner.enumerate(cursor, limit).await?;
        page.keys = page.keys.iter().filter_map(|key| key.without_namespace(&self.name)).collect();
        Ok(page)
    }

    async fn evict_with(&self, key: &CacheKey) -> Receipt {
        self.inner.evict_with(&self.key(key)).await
    }

    /// Of the whole store.
    async fn lens(&self) -> Vec<LeafLen> {
        self.inner.lens().await
    }

    async fn remove_matching(&self, pattern: &KeyPattern, matched: &Matched) -> BackendResult<()> {
        self.inner.remove_matching(&pattern.clone().within(&self.name), matched).await
    }

    async fn write_if_newer_with(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        options: &WriteOptions,
    ) -> Receipt {
        self.inner.write_if_newer_with(&self.key(key), value, options).await
    }

    /// Would reach the other namespaces of the store.
    async fn erase_with(&self) -> BackendResult<()> {
        Err(BackendError::unsupported("erasing a part of a store"))
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.inner.try_read(&self.key(key), options)
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        self.inner.read_with(&self.key(key), options).await
    }

    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        self.inner.read_many(&self.keys(keys), options).await
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        self.inner.contains(&self.key(key)).await
    }

    async fn open_reader(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn BodyReader>>> {
        self.inner.open_reader(&self.key(key), options).await
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        self.inner.write_with(&self.key(key), value, options).await
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        self.inner.remove_with(&self.key(key), options).await
    }

    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        let inside = |item: WriteItem| WriteItem { key: self.key(&item.key), ..item };
        self.inner.write_many(items.into_iter().map(inside).collect()).await
    }

    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        let inside = |item: RemoveItem| RemoveItem { key: self.key(&item.key), ..item };
        self.inner.remove_many(items.into_iter().map(inside).collect()).await
    }

    /// Everything is this namespace, and namespaces are within it.
    async fn invalidate(&self, scopes: &[Scope], under: &Arc<Invalidation>) -> Receipt {
        let inside = |scope: &Scope| match scope.kind {
            ScopeKind::Everything => Scope::namespace(within(&self.name, "")),
            ScopeKind::Namespace => Scope::namespace(within(&self.name, &scope.name)),
            _ => scope.clone(),
        };
        let scopes: Vec<Scope> = scopes.iter().map(inside).collect();
        self.inner.invalidate(&scopes, under).await
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        self.inner.install_if(&self.key(key), value, ticket).await
    }

    fn visit_leaves(&self, key: &CacheKey, visit: &mut dyn FnMut(&Leaf, &CacheKey)) {
        self.inner.visit_leaves(&self.key(key), visit);
    }

    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        self.inner.sweep(limit).await
    }

    fn occupancy(&self) -> Option<Occupancy> {
        self.inner.occupancy()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { erases: false, ..self.inner.capabilities() }
    }

    fn leaf(&self) -> Option<&Leaf> {
        self.inner.leaf()
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.inner.leaves()
    }

    fn statistics(&self) -> Vec<LeafStatistics> {
        self.inner.statistics()
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { inner: adopt(&self.inner, adoption), name: self.name.clone() }))
    }
}
