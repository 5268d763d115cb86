//! What follows from a layer that failed while the other succeeded: its older copy is hidden, and
//! removed once the layer answers again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hitbox_core::{BackendLabel, CacheKey, Task, TaskKind};

use super::parts::Composition;
use super::{Layer, Pair, Written, outcome};
use crate::backend::WriteOptions;
use crate::coherence::{self, Mutation};
use crate::leaf::Leaf;
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
    behind: Vec<(Layer, BackendLabel)>,
    /// Layers that the policy asked for.
    begun: Pair<bool>,
    /// Layers whose attempt has ended.
    ended: Pair<bool>,
}

impl Progress {
    /// The policy asks for a layer to be written.
    pub(super) fn begin(&self, layer: Layer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).begun[layer] = true;
    }
}

impl Composition {
    /// Takes account of one layer's receipt. Once a leaf has the new state, leaves that failed or refused
    /// are hidden, and those whose state cannot be known always are.
    pub(super) fn settle(
        &self,
        progress: &Progress,
        layer: Layer,
        key: &CacheKey,
        options: &WriteOptions,
        receipt: &Receipt,
    ) {
        let Some(mutation) = options.mutation.as_deref() else { return };
        let mut state = progress.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended[layer] = true;
        for line in &receipt.leaves {
            match &line.outcome {
                Outcome::Unknown(_) => self.hide(layer, key, mutation, line.label),
                // Whoever goes on with it has hidden it until then.
                Outcome::Pending => {}
                outcome if outcome::is_done(outcome) => {
                    // Only a leaf that has the new state makes others' copies old.
                    state.done |= !matches!(outcome, Outcome::NotAdmitted);
                    // It may have been hidden while it was not waited for.
                    self.visit(layer, key, line.label, |leaf, key| leaf.coherence().show(key, mutation));
                }
                _ => state.behind.push((layer, line.label)),
            }
        }
        if state.done {
            for (layer, label) in std::mem::take(&mut state.behind) {
                self.hide(layer, key, mutation, label);
            }
        }
    }

    /// Lines for the leaves of layers from which the policy has no receipt.
    pub(super) fn with_open_layers(&self, mut written: Written, progress: &Progress) -> Written {
        let begun = progress.0.lock().unwrap_or_else(PoisonError::into_inner).begun;
        for (layer, receipt) in [(Layer::L1, &mut written.l1), (Layer::L2, &mut written.l2)] {
            receipt.get_or_insert_with(|| {
                let outcome = if begun[layer] { Outcome::Pending } else { Outcome::Skipped };
                let lines = self.layers[layer].leaves().into_iter();
                lines
                    .map(|leaf| Receipt::of(leaf.path(), outcome.clone()))
                    .reduce(|a, b| a.join(b, None))
                    .unwrap_or_default()
            });
        }
        written
    }

    /// The write counts as done: layers that it did not wait for, or did not write, are hidden until they
    /// have what it brought.
    pub(super) fn hide_unfinished(&self, progress: &Progress, key: &CacheKey, options: &WriteOptions) {
        let state = progress.0.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in Layer::BOTH.into_iter().filter(|layer| !state.ended[*layer]) {
            self.hide_layer(layer, key, options);
        }
    }

    /// Nobody knows what the leaves of this layer have.
    pub(super) fn hide_layer(&self, layer: Layer, key: &CacheKey, options: &WriteOptions) {
        let Some(mutation) = options.mutation.as_deref() else { return };
        self.layers[layer].visit_leaves(key, &mut |leaf, key| leaf.coherence().hide(key, mutation));
    }

    fn visit(&self, layer: Layer, key: &CacheKey, label: BackendLabel, visit: impl Fn(&Leaf, &CacheKey)) {
        self.layers[layer].visit_leaves(key, &mut |leaf, key| {
            if leaf.path() == label {
                visit(leaf, key);
            }
        });
    }

    fn hide(&self, layer: Layer, key: &CacheKey, mutation: &Mutation, label: BackendLabel) {
        self.visit(layer, key, label, |leaf, key| leaf.coherence().hide(key, mutation));
    }

    /// Hides the key everywhere.
    pub(super) fn hide_everywhere(&self, key: &CacheKey, options: &WriteOptions) {
        Layer::BOTH.into_iter().for_each(|layer| self.hide_layer(layer, key, options));
    }

    /// Whether a layer of this composition has a hidden copy of the key.
    #[inline]
    pub(super) fn has_hidden(&self, key: &CacheKey) -> bool {
        Layer::BOTH.into_iter().any(|layer| self.is_hidden(layer, key))
    }

    /// The same for one layer, if it is one leaf: those of nested compositions are theirs to repair.
    fn is_hidden(&self, layer: Layer, key: &CacheKey) -> bool {
        let Some(leaf) = &self.single[layer] else { return false };
        if leaf.coherence().hidden_any() {
            let mut hidden = false;
            self.layers[layer].visit_leaves(key, &mut |leaf, key| hidden |= leaf.coherence().is_hidden(key));
            return hidden;
        }
        false
    }

    /// Has hidden copies of the key removed in the background.
    pub(super) fn repair(self: &Arc<Self>, key: &CacheKey) {
        for layer in Layer::BOTH {
            let Some(leaf) = &self.single[layer] else { continue };
            if !self.is_hidden(layer, key) || self.repairs.is_pausing(leaf.clock().monotonic()) {
                continue;
            }
            let entirely = leaf.coherence().is_hidden_entirely();
            let (this, target) = (self.clone(), key.clone());
            let work = async move {
                let done = if entirely {
                    this.layers[layer].erase_with().await.is_ok()
                } else {
                    this.remove_hidden(layer, &target).await
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

impl Composition {
    /// Removes a hidden copy, unless somebody has overwritten it meanwhile; whether it is not there any more.
    async fn remove_hidden(&self, layer: Layer, key: &CacheKey) -> bool {
        let mutation = coherence::upkeep(&*self.layers[layer], key);
        mutation.first().await;
        if !self.is_hidden(layer, key) {
            return true;
        }
        let options = WriteOptions { mutation: Some(mutation), ..WriteOptions::default() };
        self.layers[layer].remove_with(key, &options).await.is_ok()
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
