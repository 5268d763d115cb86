//! A cache that keeps nothing.

use async_trait::async_trait;
use hitbox_backend::{Backend, Cacheable, DeleteStatus, Leaf, LeafOptions, Raw, ReadOptions, TryRead};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Offload, Refusal, Refused, Task};

use crate::builder::CacheBuilder;
use crate::cache::Cache;

/// Takes everything and has nothing.
struct Nothing(Leaf);

#[async_trait]
impl Backend for Nothing {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(None)
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }

    async fn erase(&self) -> BackendResult<()> {
        Ok(())
    }

    fn try_read(&self, _: &CacheKey, _: &ReadOptions) -> TryRead {
        TryRead::Miss
    }

    fn leaf(&self) -> Option<&Leaf> {
        Some(&self.0)
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
    let backend = Nothing(Leaf::new(LeafOptions::new("null")));
    let builder = CacheBuilder::new(backend).name("null").offload(std::sync::Arc::new(NoOffload));
    builder.build().unwrap_or_else(|error| unreachable!("the settings are the default ones: {error}"))
}
