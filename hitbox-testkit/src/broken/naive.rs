//! The composition that one writes first: L1, else L2, and then what was found is written to L1.
//!
//! Its mistakes: errors of a layer or of the refill reach the caller; the refill is waited for, goes on
//! top of what was written meanwhile, starts a new life, and fills only the layer next to it; failed
//! layers keep their older copy; a delete stops at the first failure.

use std::sync::Arc;

use async_trait::async_trait;
use hitbox_backend::{
    Adoption, Answer, Backend, DeleteStatus, Leaf, Raw, ReadOptions, Receipt, WriteOptions, adopt,
};
use hitbox_core::{BackendLabel, BackendResult, CacheKey, CacheValue, Lifetime};

/// L1 over L2, wrongly.
pub struct Naive {
    l1: Arc<dyn Backend>,
    l2: Arc<dyn Backend>,
    label: BackendLabel,
}

impl Naive {
    /// Composes two layers.
    pub fn new(l1: Arc<dyn Backend>, l2: Arc<dyn Backend>, label: &str) -> Self {
        Self { l1, l2, label: label.into() }
    }
}

#[async_trait]
impl Backend for Naive {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.read_with(key, &ReadOptions::default()).await?.map(|found| found.value))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.write_with(key, value, &WriteOptions::default()).await.into_result().map(drop)
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let receipt = self.remove_with(key, &WriteOptions::default()).await.into_result()?;
        Ok(DeleteStatus::of(receipt.removed()))
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        if let Some(found) = self.l1.read_with(key, options).await? {
            return Ok(Some(found));
        }
        let Some(found) = self.l2.read_with(key, options).await? else { return Ok(None) };
        let refilled = found.value.clone().with_lifetime(Lifetime::FOREVER);
        self.l1.write_with(key, refilled, &WriteOptions::default()).await.into_result()?;
        Ok(Some(found))
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, _: &WriteOptions) -> Receipt {
        let options = WriteOptions::default();
        let l1 = self.l1.write_with(key, value.clone(), &options).await;
        let l2 = self.l2.write_with(key, value, &options).await;
        let error = l1.error().filter(|_| !l2.is_ok()).cloned();
        l1.join(l2, error)
    }

    async fn remove_with(&self, key: &CacheKey, _: &WriteOptions) -> Receipt {
        let options = WriteOptions::default();
        let l1 = self.l1.remove_with(key, &options).await;
        if !l1.is_ok() {
            return l1.with_error(None);
        }
        let l2 = self.l2.remove_with(key, &options).await;
        l1.join(l2, None)
    }

    fn leaves(&self) -> Vec<Leaf> {
        [self.l1.leaves(), self.l2.leaves()].concat()
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let l1 = adopt(&self.l1, adoption);
        Some(Arc::new(Self { l1, l2: self.l2.clone(), label: self.label }))
    }
}
