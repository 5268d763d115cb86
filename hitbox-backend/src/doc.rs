//! A store of three methods, for examples and tests: what a user would write first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use hitbox_core::{BackendResult, CacheKey, CacheValue};

use crate::envelope::Raw;
use crate::store::{DeleteStatus, Store};

/// An unbounded map behind a lock.
#[derive(Debug, Default)]
pub struct Map(Mutex<HashMap<CacheKey, CacheValue<Raw>>>);

impl Map {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CacheKey, CacheValue<Raw>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Map {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.lock().get(key).cloned())
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.lock().insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::of(u32::from(self.lock().remove(key).is_some())))
    }
}
