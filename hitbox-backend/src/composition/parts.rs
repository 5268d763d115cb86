//! What a composition consists of, and what its calls do once they have begun.

use std::sync::Arc;

use futures_util::future::join;
use hitbox_core::{BackendLabel, CacheKey, CacheValue, Freshness, Offload, Subject};

use super::attempts::{Answers, Written};
use super::builder::{CompositionPolicy, Plan};
use super::detached::Detached;
use super::outcome;
use super::policy::BatchOrder;
use super::refill::Refill;
use super::repair::{Progress, Repairs};
use super::runs::WriteRun;
use super::{Layer, Pair, Requirement};
use crate::backend::{Backend, RemoveItem, WriteItem, WriteOptions};
use crate::coherence::{self, Ticket};
use crate::envelope::Raw;
use crate::leaf::Leaf;
use crate::metrics::{Shown, Source, Value};
use crate::read::{Answer, LeafSet};
use crate::receipt::Receipt;
use crate::stats::Event;

pub(super) struct Composition {
    /// Distinguishes the compositions of a process.
    pub(super) id: u64,
    pub(super) plan: Plan,
    pub(super) path: BackendLabel,
    /// The layers as they stand here: with their full paths.
    pub(super) layers: Pair<Arc<dyn Backend>>,
    pub(super) leaves: Vec<Leaf>,
    /// A layer's leaf, if it has just one.
    pub(super) single: Pair<Option<Leaf>>,
    pub(super) sets: Pair<LeafSet>,
    pub(super) answers_at_once: Pair<bool>,
    /// Hits of L1 do not pass through the policy.
    pub(super) serves_l1_at_once: bool,
    pub(super) policy: CompositionPolicy,
    pub(super) required: Pair<Requirement>,
    pub(super) offload: Arc<dyn Offload>,
    pub(super) refill: Refill,
    pub(super) repairs: Repairs,
}

impl Composition {
    /// Background work on a key of one of this composition's layers.
    pub(super) fn subject(&self, layer: Layer, key: &CacheKey) -> Subject {
        Subject { owner: self.id * 2 + layer as u64, key: key.clone() }
    }

    /// Joins the answers and, after a hit in L2, fills L1.
    pub(super) async fn conclude(
        self: &Arc<Self>,
        key: &CacheKey,
        answers: Answers,
        ticket: Option<Ticket>,
    ) -> Answer {
        let l1_is_empty = matches!(answers.l1, Some(Ok(None)));
        let l1_is_open = l1_is_empty || answers.l1.is_none();
        match outcome::join(answers, &self.required, |spare| self.not_served(spare.label, spare.freshness))? {
            None => Ok(None),
            Some((layer, mut found)) => {
                if let (Layer::L2, true, Some(ticket)) = (layer, l1_is_open, ticket) {
                    self.refill(key, &mut found, ticket, l1_is_empty).await;
                }
                Ok(Some(found))
            }
        }
    }

    /// A leaf answered with a copy that is not served: another layer's is, and that alone is a hit.
    pub(super) fn not_served(&self, label: BackendLabel, freshness: Freshness) {
        let hit = if freshness == Freshness::Fresh { Event::Hit } else { Event::Stale };
        if let Some(leaf) = self.leaves.iter().find(|leaf| leaf.path() == label) {
            leaf.take_back(hit);
            leaf.count(Event::Unserved, 1);
        }
    }

    pub(super) fn ticket(&self, key: &CacheKey) -> Option<Ticket> {
        self.refill.is_on().then(|| coherence::ticket(&*self.layers.l1, key))
    }

    pub(super) async fn write_all(
        self: Arc<Self>,
        key: CacheKey,
        value: CacheValue<Raw>,
        options: WriteOptions,
    ) -> Receipt {
        let run = WriteRun { composition: &self, key, value, options, progress: Arc::default() };
        let written = self.policy.write.write(&run, &*self.offload).await;
        self.written(written, &run.progress, &run.key, &run.options)
    }

    /// The authority decides; then the other layer takes what it took.
    pub(super) async fn write_newer_all(
        self: Arc<Self>,
        key: CacheKey,
        value: CacheValue<Raw>,
        options: WriteOptions,
    ) -> Receipt {
        let progress = Progress::default();
        let (first, other) = (self.plan.authority, self.plan.authority.other());
        progress.begin(first);
        let decided = self.layers[first].write_if_newer_with(&key, value.clone(), &options).await;
        self.settle(&progress, first, &key, &options, &decided);
        let mut written = Pair::<Option<Receipt>>::default();
        if let Some(error) = decided.error().cloned() {
            written[first] = Some(decided);
            let written = self.with_open_layers(Written { l1: written.l1, l2: written.l2 }, &progress);
            return written.l1.unwrap_or_default().join(written.l2.unwrap_or_default(), Some(error));
        }
        progress.begin(other);
        let taken = self.layers[other].write_with(&key, value, &options).await;
        self.settle(&progress, other, &key, &options, &taken);
        (written[first], written[other]) = (Some(decided), Some(taken));
        self.written(Written { l1: written.l1, l2: written.l2 }, &progress, &key, &options)
    }

    /// The receipt of a write; layers that have not got it by now are hidden if it counts as done.
    fn written(
        &self,
        written: Written,
        progress: &Progress,
        key: &CacheKey,
        options: &WriteOptions,
    ) -> Receipt {
        let written = self.with_open_layers(written, progress);
        let receipt = outcome::join_writes(written, self.policy.write.needs(), &self.required);
        if receipt.is_ok() {
            self.hide_unfinished(progress, key, options);
        }
        receipt
    }

    pub(super) async fn remove_all(self: Arc<Self>, key: CacheKey, options: WriteOptions) -> Receipt {
        let progress = Progress::default();
        let remove = async |layer: Layer| {
            let receipt = self.layers[layer].remove_with(&key, &options).await;
            self.settle(&progress, layer, &key, &options, &receipt);
            receipt
        };
        let (l1, l2) = join(remove(Layer::L1), remove(Layer::L2)).await;
        outcome::join_removes(l1, l2)
    }

    pub(super) async fn write_batch_all(self: Arc<Self>, items: Vec<WriteItem>) -> Vec<Receipt> {
        let progress: Vec<Progress> = items.iter().map(|_| Progress::default()).collect();
        let write = async |layer: Layer, which: Vec<usize>| {
            let part = which.iter().map(|index| items[*index].clone()).collect();
            let written = self.layers[layer].write_many(part).await;
            let mut receipts: Vec<Option<Receipt>> = items.iter().map(|_| None).collect();
            for (index, receipt) in which.into_iter().zip(written) {
                self.settle(&progress[index], layer, &items[index].key, &items[index].options, &receipt);
                receipts[index] = Some(receipt);
            }
            receipts
        };
        let all: Vec<usize> = (0..items.len()).collect();
        let mut receipts = Pair::<Vec<Option<Receipt>>>::default();
        match self.policy.write.batch_order() {
            BatchOrder::Together => {
                let (l1, l2) = join(write(Layer::L1, all.clone()), write(Layer::L2, all)).await;
                receipts = Pair { l1, l2 };
            }
            BatchOrder::First(layer) => {
                let first = write(layer, all.clone()).await;
                let succeeded = |index: &usize| first[*index].as_ref().is_some_and(Receipt::is_ok);
                receipts[layer.other()] =
                    write(layer.other(), all.into_iter().filter(succeeded).collect()).await;
                receipts[layer] = first;
            }
        }
        let pairs = receipts.l1.into_iter().zip(receipts.l2).map(|(l1, l2)| Written { l1, l2 });
        let joined = items.iter().zip(&progress).zip(pairs);
        joined
            .map(|((item, progress), written)| self.written(written, progress, &item.key, &item.options))
            .collect()
    }

    pub(super) async fn remove_batch_all(self: Arc<Self>, items: Vec<RemoveItem>) -> Vec<Receipt> {
        let progress: Vec<Progress> = items.iter().map(|_| Progress::default()).collect();
        let remove = async |layer: Layer| {
            let receipts = self.layers[layer].remove_many(items.clone()).await;
            for ((item, progress), receipt) in items.iter().zip(&progress).zip(&receipts) {
                self.settle(progress, layer, &item.key, &item.options, receipt);
            }
            receipts
        };
        let (l1, l2) = join(remove(Layer::L1), remove(Layer::L2)).await;
        l1.into_iter().zip(l2).map(|(l1, l2)| outcome::join_removes(l1, l2)).collect()
    }

    /// Runs work that is finished even if its caller goes away.
    pub(super) fn detach<T: Send + 'static>(
        self: &Arc<Self>,
        keys: Vec<(CacheKey, WriteOptions)>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Detached<T> {
        let this = self.clone();
        let abandon = move || keys.iter().for_each(|(key, options)| this.hide_everywhere(key, options));
        Detached::new(work, self.offload.clone(), abandon)
    }
}

impl Source for Composition {
    fn each(&self, show: &mut dyn FnMut(Shown)) {
        use std::sync::atomic::Ordering::Relaxed;
        if !self.refill.is_on() {
            return;
        }
        for (name, count) in [
            ("hitbox_refill_registered_total", &self.refill.registered),
            ("hitbox_refill_refused_total", &self.refill.refused),
            ("hitbox_refill_failed_total", &self.refill.failed),
        ] {
            let labels = [("backend", self.path.as_str()), ("", "")];
            show(Shown { name, labels, value: Value::Counter(count.load(Relaxed)) });
        }
    }
}
