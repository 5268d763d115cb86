//! Which leaves' copies are dirty after a write or delete: those that failed, or are behind, once another leaf has what it
//! brought.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_core::{BackendLabel, CacheKey};
use smallvec::SmallVec;

use super::state::Composition;
use super::{Layer, Pair, Written, receipts};
use crate::coherence::WriteTicket;
use crate::operation::WriteOptions;
use crate::receipt::{LeafOutcome, Receipt};

/// What the attempts of one write or delete have come to so far.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Some leaf has what the write brought.
    done: bool,
    /// Leaves that may still have what was there before.
    behind: SmallVec<[(Layer, BackendLabel); 2]>,
    /// Layers that the policy asked for.
    begun: Pair<bool>,
    /// Layers whose attempt has ended.
    ended: Pair<bool>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy asks for a layer to be written.
    pub(super) fn begin(&self, layer: Layer) {
        self.lock().begun[layer] = true;
    }
}

impl Composition {
    /// Takes account of one layer's receipt. Once a leaf has the new state, the copies of leaves that failed or refused
    /// are dirty; those whose state cannot be known always are.
    pub(super) fn settle(
        &self,
        progress: &Progress,
        layer: Layer,
        key: &CacheKey,
        options: &WriteOptions,
        receipt: &Receipt,
    ) {
        let Some(ticket) = options.ticket.as_deref() else { return };
        let mut state = progress.lock();
        state.ended[layer] = true;
        if state.behind.is_empty() && receipt.is_stored() && !self.layout.has_dirty() {
            state.done = true;
            return;
        }
        for line in receipt.leaves() {
            match &line.outcome {
                LeafOutcome::Unknown(_) => self.mark_dirty(layer, key, ticket, line.label),
                // Whoever goes on with it has marked it until then.
                LeafOutcome::Pending => {}
                outcome if receipts::is_done(outcome) => {
                    // Only a leaf that has the new state makes others' copies old.
                    state.done |= !matches!(outcome, LeafOutcome::NotAdmitted);
                    // It may have been marked while it was not waited for.
                    self.mark_clean(layer, key, ticket, line.label);
                }
                LeafOutcome::Skipped if self.is_left_alone(layer, line.label, options) => {}
                _ => state.behind.push((layer, line.label)),
            }
        }
        if state.done {
            for (layer, label) in std::mem::take(&mut state.behind) {
                self.mark_dirty(layer, key, ticket, label);
            }
        }
    }

    /// Whether the caller has said that this leaf is to be left as it is.
    fn is_left_alone(&self, layer: Layer, label: BackendLabel, options: &WriteOptions) -> bool {
        let leaves = self.layers[layer].layout().leaves();
        leaves.iter().any(|leaf| leaf.path() == label && options.skip.contains(leaf.position()))
    }

    /// Lines for the leaves of layers from which the policy has no receipt.
    pub(super) fn with_open_layers(&self, mut written: Written, progress: &Progress) -> Written {
        if written.l1.is_some() && written.l2.is_some() {
            return written;
        }
        let begun = progress.lock().begun;
        for (layer, receipt) in [(Layer::L1, &mut written.l1), (Layer::L2, &mut written.l2)] {
            receipt.get_or_insert_with(|| {
                let outcome = if begun[layer] { LeafOutcome::Pending } else { LeafOutcome::Skipped };
                Receipt::of_all(self.layers[layer].layout().paths(), &outcome)
            });
        }
        written
    }

    /// The write counts as done: the copies of layers that it did not wait for, or did not write, are dirty until they
    /// have what it brought.
    pub(super) fn mark_unfinished(&self, progress: &Progress, key: &CacheKey, options: &WriteOptions) {
        let state = progress.lock();
        let mut open = Layer::BOTH.into_iter().filter(|layer| !state.ended[*layer]).peekable();
        if open.peek().is_some()
            && let Some(ticket) = &options.ticket
        {
            ticket.acknowledge();
        }
        open.for_each(|layer| self.mark_layer_dirty_unless_done(layer, key, options));
    }

    /// A store may stand in the other layer too, and have been written there.
    fn mark_layer_dirty_unless_done(&self, layer: Layer, key: &CacheKey, options: &WriteOptions) {
        let Some(ticket) = options.ticket.as_deref() else { return };
        let leaves = self.layers[layer].layout().leaves().iter();
        for leaf in leaves.filter(|leaf| !leaf.has_done(key, ticket)) {
            leaf.mark_dirty(key, ticket);
            // Looked at once more: it may be written just now.
            if leaf.has_done(key, ticket) {
                leaf.mark_clean(key, ticket);
            }
        }
    }

    /// Nobody knows what the leaves of this layer have.
    pub(super) fn mark_layer_dirty(&self, layer: Layer, key: &CacheKey, options: &WriteOptions) {
        let Some(ticket) = options.ticket.as_deref() else { return };
        self.layers[layer].layout().leaves().iter().for_each(|leaf| leaf.mark_dirty(key, ticket));
    }

    /// The same for both layers.
    pub(super) fn mark_all_dirty(&self, key: &CacheKey, options: &WriteOptions) {
        Layer::BOTH.into_iter().for_each(|layer| self.mark_layer_dirty(layer, key, options));
    }

    fn mark_dirty(&self, layer: Layer, key: &CacheKey, ticket: &WriteTicket, label: BackendLabel) {
        let leaves = self.layers[layer].layout().leaves();
        leaves.iter().filter(|leaf| leaf.path() == label).for_each(|leaf| leaf.mark_dirty(key, ticket));
    }

    fn mark_clean(&self, layer: Layer, key: &CacheKey, ticket: &WriteTicket, label: BackendLabel) {
        let layout = self.layers[layer].layout();
        if layout.has_dirty() {
            let leaves = layout.leaves().iter();
            leaves.filter(|leaf| leaf.path() == label).for_each(|leaf| leaf.mark_clean(key, ticket));
        }
    }
}
