//! Removals of a composition: both layers at once, and a failure of either is reported.

use std::sync::Arc;

use futures_util::future::join;

use super::dirty::Progress;
use super::finish::CompletesWhenDropped;
use super::state::Composition;
use super::{Layer, Pair, receipts};
use crate::completion::{Batch, Completion};
use crate::operation::{Reach, Removal, Target, WriteOptions};
use crate::receipt::{Receipt, Receipts};
use crate::stream;

impl Composition {
    pub(super) fn remove_entries(self: &Arc<Self>, mut removals: Batch<Removal>) -> Completion<'_, Receipts> {
        if removals.len() > 1 && !removals.iter().all(Removal::is_plain) {
            return Completion::later(self.remove_each(removals.into_vec()));
        }
        if let [Removal { reach: Reach::Upper, .. }] = &removals[..] {
            return Completion::later(self.evict(removals));
        }
        let open: Vec<usize> =
            (0..removals.len()).filter(|at| removals[*at].options.ticket.is_none()).collect();
        let tickets = match &removals[..] {
            // It ends no load: what that brings is another generation.
            [Removal { key, target: Target::Generation(_), .. }] => {
                vec![self.layout.begin_maintenance_write(key)]
            }
            _ => self.layout.begin_writes(open.iter().map(|at| &removals[*at].key)),
        };
        for (at, ticket) in open.into_iter().zip(tickets) {
            removals[at].options.ticket = Some(ticket);
        }
        removals.iter().for_each(|removal| self.refill.forget(&removal.key));
        // A nest that has to wait has begun by itself, and must not be asked twice.
        let at_once = self.layout.capabilities().answers_at_once && self.is_pair_of_leaves();
        let is_begun = removals.len() == 1 && at_once;
        let mut known = Pair::default();
        if is_begun {
            match (self.remove_now(Layer::L1, &removals[0]), self.remove_now(Layer::L2, &removals[0])) {
                (Some(l1), Some(l2)) => {
                    let progress = Progress::default();
                    let Removal { key, options, .. } = &removals[0];
                    self.settle(&progress, Layer::L1, key, options, &l1);
                    self.settle(&progress, Layer::L2, key, options, &l2);
                    return Completion::Done(Batch::one(receipts::join_removes(l1, l2)));
                }
                (l1, l2) => known = Pair { l1: l1.map(Batch::one), l2: l2.map(Batch::one) },
            }
        }
        let keys = removals.iter().map(|removal| (removal.key.clone(), removal.options.clone())).collect();
        let work = self.clone().remove_from_layers(removals.into_vec(), known);
        let work = CompletesWhenDropped::new(self, keys, work);
        Completion::Later(Box::pin(if is_begun { work.after_start() } else { work }))
    }

    /// Removes without waiting; nothing if somebody has to be waited for.
    fn remove_now(&self, layer: Layer, removal: &Removal) -> Option<Receipt> {
        match self.layers[layer].remove(Batch::one(removal.clone())) {
            Completion::Done(receipts) => Some(receipts.into_one().unwrap_or_default()),
            _ => None,
        }
    }

    /// Layers that have answered are not asked again: somebody else may have written them since.
    async fn remove_from_layers(
        self: Arc<Self>,
        removals: Vec<Removal>,
        known: Pair<Option<Receipts>>,
    ) -> Receipts {
        let progress: Vec<Progress> = removals.iter().map(|_| Progress::default()).collect();
        let remove = async |layer: Layer, known: Option<Receipts>| {
            let receipts = match known {
                Some(known) => known,
                None => self.layers[layer].remove(removals.clone().into()).await,
            };
            // Who has one generation removed, and fails, has left the key as it was: a copy that was dirty before still is.
            for ((removal, progress), receipt) in removals.iter().zip(&progress).zip(&receipts) {
                if !matches!(removal.target, Target::Generation(_)) {
                    self.settle(progress, layer, &removal.key, &removal.options, receipt);
                }
            }
            receipts
        };
        // L2, which is as a rule further away, has its request while L1 is at it.
        let (l2, l1) = join(remove(Layer::L2, known.l2), remove(Layer::L1, known.l1)).await;
        l1.into_iter().zip(l2).map(|(l1, l2)| receipts::join_removes(l1, l2)).collect()
    }

    async fn remove_each(self: &Arc<Self>, removals: Vec<Removal>) -> Receipts {
        let mut receipts = Batch::with_capacity(removals.len());
        for removal in removals {
            receipts.push(self.remove_entries(Batch::one(removal)).await.into_one().unwrap_or_default());
        }
        receipts
    }

    /// Takes keys out of L1 alone. That brings no new state.
    async fn evict(&self, mut removals: Batch<Removal>) -> Receipts {
        let l1 = &self.layers[Layer::L1];
        let size = match &removals[..] {
            [removal] => stream::size_in(&**l1, &removal.key).await,
            _ => None,
        };
        for removal in removals.iter_mut() {
            let ticket = l1.layout().begin_maintenance_write(&removal.key);
            removal.reach = Reach::All;
            removal.options = WriteOptions::of(&ticket).skipping(removal.options.skip);
        }
        l1.remove(removals).await.into_iter().map(|receipt| receipt.of_size(size)).collect()
    }
}
