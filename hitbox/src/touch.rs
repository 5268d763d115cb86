//! Entries with an idle time: that they are read is noted in every layer.

use std::sync::Arc;

use hitbox_backend::internal::{Decoded, longest_copy};
use hitbox_backend::operation::Batch;
use hitbox_backend::operation::{Write, WriteOptions};
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{CacheKey, Task, TaskKind};

use crate::events::count;
use crate::shared::Shared;

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Notes that an entry with an idle time was read, at most eight times in that time.
    pub(crate) fn touch(self: &Arc<Self>, key: &CacheKey, copy: &Decoded<V>) {
        let Some(details) = copy.entry.details() else { return };
        let (Some(idle), Some(touched)) = (details.idle, details.touched.or(copy.entry.created())) else {
            return;
        };
        if self.now().since(touched) < idle / 8 {
            return;
        }
        let (shared, touched_key) = (self.clone(), key.clone());
        let work = async move { shared.touch_now(&touched_key).await };
        let task = Task::unique(TaskKind::TOUCH, self.subject(key), work);
        if let Err(refused) = self.offload.register(task) {
            tracing::trace!(why = ?refused.why, "a read of an idle entry was not noted");
        }
    }

    async fn touch_now(self: &Arc<Self>, key: &CacheKey) {
        let ticket = self.backend.layout().begin_maintenance_write(key);
        ticket.first().await;
        let Ok(Some(entry)) = longest_copy(&*self.backend, key, true).await else { return };
        let Some(mut details) = entry.details().cloned() else { return };
        details.touched = Some(self.now());
        let write =
            Write::new(key.clone(), entry.with_details(details)).with_options(WriteOptions::of(&ticket));
        let receipt = self.backend.write(Batch::one(write)).await.into_one().unwrap_or_default();
        count(&self.events.counts.touched);
        self.record_failures(key, &receipt, &ticket);
    }
}
