//! Entries with an idle time: that they are read is noted in every layer.

use std::sync::Arc;

use hitbox_backend::internal::{self, Decoded};
use hitbox_backend::operation::TimeChange;
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{CacheKey, Task, TaskKind};

use crate::events::count;
use crate::shared::Shared;

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Notes that an entry with an idle time was read, at most eight times in that time.
    pub(crate) fn touch(self: &Arc<Self>, key: &CacheKey, copy: &Decoded<V>) {
        let Some(change) = TimeChange::of_read(&copy.entry, || self.now()) else { return };
        let Some(notes) = internal::note_read(&*self.backend, key, change) else {
            count(&self.events.counts.touched);
            return;
        };
        let shared = self.clone();
        let work = async move {
            notes.make().await;
            count(&shared.events.counts.touched);
        };
        if let Err(refused) = self.offload.register(Task::unique(TaskKind::TOUCH, self.subject(key), work)) {
            tracing::trace!(why = ?refused.why, "a read of an idle entry was not noted");
        }
    }
}
