//! What follows from a layer that failed while the other succeeded: its older copy is hidden, and
//! removed once the layer answers again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hitbox_core::{BackendLabel, CacheKey, Task, TaskKind};

use super::parts::Composition;
use super::{Layer, outcome};
use crate::backend::WriteOptions;
use crate::receipt::{Outcome, Receipt};

/// After a repair that failed, no other is tried for so long.
const PAUSE: Duration = Duration::from_millis(200);

/// What the attempts of one write or delete have come to so far.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Some leaf has what the write brought.
    done: bool,
    /// Leaves that may still have what was there before.
    behind: Vec<BackendLabel>,
}

impl Composition {
    /// Takes account of one layer's receipt. Once a leaf has the new state, leaves that failed or refused
    /// are hidden, and those whose state cannot be known always are.
    pub(super) fn settle(&self, progress: &Progress, key: &CacheKey, receipt: &Receipt) {
        let mut state = progress.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in &receipt.leaves {
            match &line.outcome {
                Outcome::Unknown(_) => self.hide(key, line.label),
                outcome if outcome.error().is_some() => state.behind.push(line.label),
                outcome => state.done |= outcome::is_done(outcome),
            }
        }
        if state.done {
            for label in std::mem::take(&mut state.behind) {
                self.hide(key, label);
            }
        }
    }

    fn hide(&self, key: &CacheKey, label: BackendLabel) {
        for leaf in self.leaves.iter().filter(|leaf| leaf.path() == label) {
            leaf.coherence().hide(key);
        }
    }

    /// Hides the key everywhere: nobody knows what the layers have.
    pub(super) fn hide_everywhere(&self, key: &CacheKey) {
        self.leaves.iter().for_each(|leaf| leaf.coherence().hide(key));
    }

    /// Whether a layer of this composition has a hidden copy of the key.
    #[inline]
    pub(super) fn has_hidden(&self, key: &CacheKey) -> bool {
        Layer::BOTH
            .into_iter()
            .any(|layer| self.single[layer].as_ref().is_some_and(|leaf| leaf.coherence().is_hidden(key)))
    }

    /// Has hidden copies of the key removed in the background.
    pub(super) fn repair(self: &Arc<Self>, key: &CacheKey) {
        for layer in Layer::BOTH {
            let Some(leaf) = &self.single[layer] else { continue };
            if !leaf.coherence().is_hidden(key) || self.repairs.is_pausing(leaf.clock().monotonic()) {
                continue;
            }
            let entirely = leaf.coherence().is_hidden_entirely();
            let (this, target) = (self.clone(), key.clone());
            let work = async move {
                let done = if entirely {
                    this.layers[layer].clear_with().await.is_ok()
                } else {
                    this.layers[layer].remove_with(&target, &WriteOptions::default()).await.is_ok()
                };
                if let (false, Some(leaf)) = (done, &this.single[layer]) {
                    this.repairs.failed(leaf.clock().monotonic());
                }
            };
            // One clearing of a store is enough, whichever key asks for it.
            let whole_store = CacheKey::builder("store").reserved().build();
            let subject = self.subject(layer, if entirely { &whole_store } else { key });
            if let Err(refused) = self.offload.register(Task::unique(TaskKind::REPAIR, subject, work)) {
                tracing::trace!(why = ?refused.why, "a repair was not taken; the copy stays hidden");
            }
        }
    }
}

/// Keeps repairs of a layer that is down from costing a call each.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Monotonic milliseconds before which no repair is tried.
    not_before: AtomicU64,
}

impl Repairs {
    fn is_pausing(&self, now: Duration) -> bool {
        (now.as_millis() as u64) < self.not_before.load(Ordering::Relaxed)
    }

    fn failed(&self, now: Duration) {
        self.not_before.store((now + PAUSE).as_millis() as u64, Ordering::Relaxed);
    }
}
