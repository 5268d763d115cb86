//! Filling the upper layer from the lower one: when, and how not to resurrect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_core::{
    BackendResult, BoxFuture, CacheKey, CacheValue, Freshness, ReadMode, Refused, Task, TaskKind,
};

use crate::backend::Backend;

use super::state::Composition;
use crate::coherence::RefillPermit;
use crate::completion::Batch;
use crate::envelope::Raw;
use crate::key_frequency::KeyFrequency;
use crate::operation::{Condition, Found, Presence, ReadOptions, Write, WriteOptions};

/// When the upper layer is filled after a hit in the lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefillPolicy {
    /// Never.
    #[default]
    Never,
    /// After every hit, in the background: the reader does not wait.
    Always,
    /// After every hit, before the reader is answered.
    Awaited,
    /// In the background, on the n-th hit of a key in the lower layer; 2 keeps keys out that are read
    /// once. A write or delete starts the count anew.
    NthHit(u32),
}

#[derive(Debug, Default)]
pub(super) struct Refill {
    pub(super) policy: RefillPolicy,
    frequency: KeyFrequency,
    pub(super) registered: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Refill {
    pub(super) fn new(policy: RefillPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.policy != RefillPolicy::Never
    }

    /// A write or delete of the key: the count of its hits starts anew.
    pub(super) fn forget(&self, key: &CacheKey) {
        if matches!(self.policy, RefillPolicy::NthHit(_)) {
            self.frequency.forget(key);
        }
    }

    fn wants(&self, key: &CacheKey) -> bool {
        match self.policy {
            RefillPolicy::Never => false,
            RefillPolicy::Always | RefillPolicy::Awaited => true,
            RefillPolicy::NthHit(n) => self.frequency.count(key) >= n,
        }
    }
}

impl Composition {
    /// Fills L1 with a copy that L2 had. `l1_is_empty` is false if L1's answer was not waited for.
    pub(super) fn refill(
        self: &Arc<Self>,
        key: &CacheKey,
        found: &mut Found,
        permit: RefillPermit,
        l1_is_empty: bool,
    ) -> Option<BoxFuture<'static, ()>> {
        if found.freshness > Freshness::Stale || !self.refill.wants(key) {
            return None;
        }
        found.mode = ReadMode::Refill;
        let this = self.clone();
        let (filled, value) = (key.clone(), found.value.clone());
        self.have_filled(key, async move {
            if !l1_is_empty {
                let options = ReadOptions::NORMAL.without_reconcile();
                let l1 = this.layers.l1.read(std::slice::from_ref(&filled), &options).await;
                if !matches!(l1.into_one(), Some(Ok(None))) {
                    return;
                }
            }
            this.install(filled, value, permit).await;
        })
    }

    /// Fills L1 with a body that L2 had, chunk by chunk. `l1_is_empty` is false if L1's answer was not waited for.
    pub(super) async fn refill_body(
        self: &Arc<Self>,
        key: &CacheKey,
        freshness: Freshness,
        permit: RefillPermit,
        l1_is_empty: bool,
    ) {
        if freshness > Freshness::Stale || !self.refill.wants(key) {
            return;
        }
        let (this, filled) = (self.clone(), key.clone());
        let filling = self.have_filled(key, async move {
            if l1_is_empty || matches!(this.layers.l1.contains(&filled).await, Ok(Presence::Absent)) {
                this.filled(this.copy_body(&filled, permit).await);
            }
        });
        if let Some(filling) = filling {
            filling.await;
        }
    }

    /// Who reads has a reader of its own, and leaves when it likes.
    async fn copy_body(&self, key: &CacheKey, permit: RefillPermit) -> BackendResult<()> {
        let options = ReadOptions::NORMAL.without_reconcile().in_background();
        let Some(mut reader) = self.layers.l2.open_reader(key, &options).await? else { return Ok(()) };
        let options = WriteOptions::of_refill(Arc::new(permit), &*reader);
        let mut writer = self.layers.l1.open_writer(key, reader.entry().clone(), options).await?;
        loop {
            let copied = match reader.chunk().await {
                Ok(Some(chunk)) => writer.chunk(chunk).await,
                Ok(None) => break,
                Err(error) => Err(error),
            };
            if let Err(error) = copied {
                writer.abort().await;
                return Err(error);
            }
        }
        writer.finish().await.error().cloned().map_or(Ok(()), Err)
    }

    async fn install(&self, key: CacheKey, value: CacheValue<Raw>, permit: RefillPermit) {
        let write = Write::new(key, value).with_condition(Condition::Refill(Arc::new(permit)));
        let receipts = self.layers.l1.write(Batch::one(write)).await;
        let error = receipts.first().and_then(|receipt| receipt.error());
        self.filled(error.cloned().map_or(Ok(()), Err));
    }

    fn filled(&self, filled: BackendResult<()>) {
        if let Err(error) = filled {
            self.refill.failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(composition = %self.path, %error, "a refill failed");
        }
    }

    /// Has L1 filled in the background, unless the reader waits for it.
    fn have_filled(
        &self,
        key: &CacheKey,
        install: impl Future<Output = ()> + Send + 'static,
    ) -> Option<BoxFuture<'static, ()>> {
        self.refill.registered.fetch_add(1, Ordering::Relaxed);
        if self.refill.policy == RefillPolicy::Awaited {
            return Some(Box::pin(install));
        }
        if let Err(Refused { why, .. }) =
            self.offload.register(Task::unique(TaskKind::REFILL, self.subject(key), install))
        {
            self.refill.refused.fetch_add(1, Ordering::Relaxed);
            tracing::trace!(composition = %self.path, ?why, "a refill was not taken");
        }
        None
    }
}
