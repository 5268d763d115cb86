//! Entries with an idle time: that they are read is noted in every layer.

use std::sync::Arc;

use hitbox_backend::internal::Decoded;
use hitbox_backend::operation::{Batch, TimeChange, Write, WriteOptions};
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{CacheKey, Task, TaskKind};

use crate::events::count;
use crate::shared::Shared;

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Notes that an entry with an idle time was read, at most eight times in that time.
    pub(crate) fn touch(self: &Arc<Self>, key: &CacheKey, copy: &Decoded<V>) {
        if !copy.entry.has_details() {
            return;
        }
        let Some(change) = TimeChange::of_read(&copy.entry, self.now()) else { return };
        let (shared, key) = (self.clone(), key.clone());
        let subject = self.subject(&key);
        let work = async move {
            // It brings no new state, and a layer that misses it is not outdated.
            let ticket = shared.backend.layout().begin_maintenance_write(&key);
            let write = Write::times(key, change).with_options(WriteOptions::of(&ticket));
            let receipt = shared.backend.write(Batch::one(write)).await.into_one().unwrap_or_default();
            count(&shared.events.counts.touched);
            if let Some(error) = receipt.first_error() {
                tracing::debug!(%error, "a layer has not noted a read of an idle entry");
            }
        };
        if let Err(refused) = self.offload.register(Task::unique(TaskKind::TOUCH, subject, work)) {
            tracing::trace!(why = ?refused.why, "a read of an idle entry was not noted");
        }
    }
}
