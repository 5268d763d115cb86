//! A cache that keeps nothing.

use std::task::Poll;

use async_trait::async_trait;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::{Capabilities, Store};
use hitbox_backend::{Cacheable, DeleteStatus, Leaf, Raw};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Offload, Refusal, Refused, Task};

use crate::builder::CacheBuilder;
use crate::cache::Cache;

/// Takes everything and has nothing.
struct Nothing;

#[async_trait]
impl Store for Nothing {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(None)
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }

    fn try_read(&self, _: &CacheKey) -> Poll<Option<CacheValue<Raw>>> {
        Poll::Ready(None)
    }

    fn try_write(&self, _: &CacheKey, _: CacheValue<Raw>) -> Result<BackendResult<()>, CacheValue<Raw>> {
        Ok(Ok(()))
    }

    fn try_remove(&self, _: &CacheKey) -> Poll<BackendResult<DeleteStatus>> {
        Poll::Ready(Ok(DeleteStatus::Missing))
    }

    async fn count(&self) -> BackendResult<u64> {
        Ok(0)
    }

    async fn erase(&self) -> BackendResult<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::MEMORY;
        capabilities.enumerates = false;
        capabilities
    }
}

/// Hands every task back: callers run their loads themselves.
#[derive(Debug)]
struct NoOffload;

impl Offload for NoOffload {
    fn register(&self, task: Task) -> Result<(), Refused> {
        Err(Refused { task, why: Refusal::Closed })
    }
}

pub(crate) fn cache<V: Cacheable>() -> Cache<V> {
    let backend = Leaf::new(Nothing, LeafOptions::new("null"));
    let builder = CacheBuilder::new(backend).name("null").offload(std::sync::Arc::new(NoOffload));
    builder.build().unwrap_or_else(|error| unreachable!("the settings are the default ones: {error}"))
}
