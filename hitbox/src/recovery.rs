//! Layers that failed are brought up to date once they answer again: each key is written anew with what the others
//! have, or removed where they have nothing.
//!
//! The queue holds keys, not values. So it is small, the last state wins by itself, and nothing that was written
//! meanwhile is overwritten: a retry takes its place among the writes of its key before it looks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hitbox_backend::{Backend, Cacheable, Outcome as LeafOutcome, WriteOptions, upkeep};
use hitbox_core::{CacheKey, Task, TaskKind};

use crate::events::{CacheEvent, count};
use crate::shared::Shared;

/// The pause before the first retry, and after one that succeeded.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Pauses double up to here.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Keys that some layer does not have as they are.
#[derive(Debug, Default)]
pub(crate) struct Recovery(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    keys: HashSet<CacheKey>,
    /// Somebody retries.
    is_served: bool,
}

impl Recovery {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().keys.len()
    }
}

/// Whoever retries; dropped, it makes room for another.
struct Serving<'a>(&'a Recovery);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.lock().is_served = false;
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Has the layers that failed brought up to date later.
    pub(crate) fn recover_later(self: &Arc<Self>, key: &CacheKey) {
        {
            let mut queue = self.recovery.lock();
            if queue.keys.len() >= self.settings.recovery && !queue.keys.contains(key) {
                // Its copy stays hidden until somebody writes it.
                count(&self.events.counts.recovery_overflows);
            } else {
                queue.keys.insert(key.clone());
            }
            if std::mem::replace(&mut queue.is_served, true) {
                return;
            }
        }
        let shared = self.clone();
        let task = Task::new(TaskKind::RECOVERY, async move {
            let _serving = Serving(&shared.recovery);
            shared.recover_all().await;
        })
        .standing();
        if let Err(refused) = self.offload.register(task) {
            // The next failure tries again.
            self.recovery.lock().is_served = false;
            tracing::debug!(cache = %self.settings.name, why = ?refused.why, "no recovery of layers that failed");
        }
    }

    /// Retries until the queue is empty or nobody has the cache any more.
    async fn recover_all(self: &Arc<Self>) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            self.clock.sleep(pause).await;
            if Arc::strong_count(self) == 1 {
                return;
            }
            let next = self.recovery.lock().keys.iter().next().cloned();
            let has_recovered = match next {
                Some(key) => self.recover(&key).await,
                None => self.recover_stores().await,
            };
            pause =
                if has_recovered { Duration::ZERO } else { (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE) };
            let mut queue = self.recovery.lock();
            if has_recovered && queue.keys.is_empty() && !self.is_hidden_entirely() {
                // Under the lock, so that whoever adds a key now starts another.
                queue.is_served = false;
                return;
            }
        }
    }

    /// Gives every layer the key's present state; whether that succeeded.
    async fn recover(self: &Arc<Self>, key: &CacheKey) -> bool {
        self.recovery.lock().keys.remove(key);
        let again = |shared: &Self| {
            shared.recovery.lock().keys.insert(key.clone());
            false
        };
        // From here on nobody else writes it.
        let mutation = upkeep(&*self.backend, key);
        mutation.first().await;
        let Ok(found) = self.longest_copy(key, true).await else { return again(self) };
        let options = WriteOptions { mutation: Some(mutation.clone()), ..WriteOptions::default() };
        let receipt = match found {
            Some(entry) => self.backend.write_with(key, entry, &options).await,
            None => self.backend.remove_with(key, &options).await,
        };
        let failed =
            |outcome: &LeafOutcome| matches!(outcome, LeafOutcome::Failed(_) | LeafOutcome::Unknown(_));
        if receipt.leaves.iter().any(|line| failed(&line.outcome)) {
            self.account(key, &receipt, &mutation);
            return again(self);
        }
        count(&self.events.counts.recovered);
        self.events.tell(|| CacheEvent::Recovered { key });
        true
    }

    fn is_hidden_entirely(&self) -> bool {
        self.backend.leaves().iter().any(|leaf| leaf.coherence().is_hidden_entirely())
    }

    /// So much could not be written that whole stores are hidden: they start anew.
    async fn recover_stores(&self) -> bool {
        !self.is_hidden_entirely() || self.backend.erase_with().await.is_ok()
    }
}
