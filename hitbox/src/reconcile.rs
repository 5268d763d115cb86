//! Layers that failed are brought up to date once they answer again. The work list is their own tables of dirty keys.

use std::sync::Arc;

use hitbox_backend::internal::{Reconciler, Reconciles, WriteTicket};
use hitbox_backend::{Backend, Cacheable, LeafOutcome, Receipt};
use hitbox_core::{BackendResult, CacheKey};

use crate::events::{CacheEvent, count};
use crate::shared::Shared;

impl<V: Cacheable, B: Backend + ?Sized> Reconciles for Shared<V, B> {
    type Expression = B;

    fn expression(&self) -> &B {
        &self.backend
    }

    fn reconciler(&self) -> &Reconciler {
        &self.reconciler
    }

    fn reconciled(&self, key: &CacheKey) {
        count(&self.events.counts.recovered);
        self.events.tell(|| CacheEvent::Recovered { key });
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Records which leaves the write or delete of this ticket has not reached. What they have is not served until they
    /// are up to date, which is seen to in the background.
    pub(crate) fn record_failures(self: &Arc<Self>, key: &CacheKey, receipt: &Receipt, ticket: &WriteTicket) {
        let mut has_failed = false;
        for line in receipt.leaves() {
            let (LeafOutcome::Failed(error) | LeafOutcome::Unknown(error)) = &line.outcome else { continue };
            has_failed = true;
            self.events.layer_failed(key, error);
            let leaves = self.backend.layout().leaves().iter();
            leaves.filter(|leaf| leaf.path() == line.label).for_each(|leaf| leaf.mark_dirty(key, ticket));
        }
        if has_failed {
            self.reconcile();
        }
    }

    /// Has leaves that failed earlier brought up to date, if there are any and nobody is at it.
    #[inline]
    pub(crate) fn reconcile_if_dirty(self: &Arc<Self>) {
        if self.backend.layout().has_dirty() {
            self.reconcile();
        }
    }

    /// Has layers record in the background what they have not taken of an invalidation.
    pub(crate) fn record_later<T>(self: &Arc<Self>, invalidated: BackendResult<T>) -> BackendResult<T> {
        if self.backend.layout().has_unrecorded() {
            self.reconcile();
        }
        invalidated
    }

    #[cold]
    fn reconcile(self: &Arc<Self>) {
        Reconciler::wake(self, &*self.offload, &self.clock);
    }

    /// Keys whose copy in some leaf is out of date.
    pub(crate) fn dirty_keys(&self) -> u64 {
        let leaves = self.backend.layout().leaves().iter();
        leaves.map(|leaf| leaf.handle().coherence().dirty_keys() as u64).sum()
    }
}
