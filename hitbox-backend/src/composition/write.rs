//! Writes of a composition. One into two layers of memory is carried out at once; others complete when they are dropped.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join;
use hitbox_core::{BoxFuture, CacheKey};

use super::attempts::{WriteAttempts, Written};
use super::finish::CompletesWhenDropped;
use super::policy::BatchOrder;
use super::progress::Progress;
use super::state::Composition;
use super::{Layer, Pair, outcome};
use crate::completion::{Batch, Completion};
use crate::operation::{Condition, Content, Write, WriteOptions};
use crate::receipt::{LeafOutcome, LeafReceipt, Receipt, Receipts};

/// Whether a write goes to the layers as the policy says. Others have ways of their own.
fn is_by_policy(write: &Write) -> bool {
    !write.condition.depends_on_stored()
        && !write.condition.is_refill()
        && write.options.skip.is_empty()
        && matches!(write.content, Content::Entry(_) | Content::NotAdmitted { .. })
}

impl Composition {
    pub(super) fn write_entries(self: &Arc<Self>, writes: Batch<Write>) -> Completion<'_, Receipts> {
        if writes.len() == 1 {
            return match writes.into_one() {
                Some(write) => self.write_one(write).map(Batch::one),
                None => Completion::Done(Batch::default()),
            };
        }
        if self.layout.capabilities().answers_at_once || !writes.iter().all(is_by_policy) {
            return self.write_in_order(writes);
        }
        self.write_batch(writes.into_vec())
    }

    /// One after the other; nothing is left for later as long as nobody has to be waited for.
    fn write_in_order(self: &Arc<Self>, writes: Batch<Write>) -> Completion<'_, Receipts> {
        let mut receipts = Batch::with_capacity(writes.len());
        let mut writes = writes.into_iter();
        while let Some(write) = writes.next() {
            match self.write_one(write) {
                Completion::Done(receipt) => receipts.push(receipt),
                waits => {
                    return Completion::later(async move {
                        receipts.push(waits.await);
                        for write in writes {
                            receipts.push(self.write_one(write).await);
                        }
                        receipts
                    });
                }
            }
        }
        Completion::Done(receipts)
    }

    fn write_one(self: &Arc<Self>, mut write: Write) -> Completion<'_, Receipt> {
        if write.condition.is_refill() {
            return Completion::later(self.write_both(write));
        }
        self.begin(&mut write);
        if write.condition.depends_on_stored() {
            let (key, options) = (write.key.clone(), write.options.clone());
            return self.completing(vec![(key, options)], self.clone().write_by_authority(write));
        }
        // Who leaves leaves out waits for all others: there is no order among them, and no race to be won by a leaf that
        // is left out.
        if !write.options.skip.is_empty() || matches!(write.content, Content::Metadata(_)) {
            let (this, key, options) = (self.clone(), write.key.clone(), write.options.clone());
            return self.completing(vec![(key, options)], async move { this.write_both(write).await });
        }
        // A nest that has to wait has begun by itself, and must not be asked twice.
        let is_begun = self.layout.capabilities().answers_at_once && self.is_pair_of_leaves();
        let mut known = Pair::default();
        if is_begun {
            let progress = Progress::default();
            let run = WriteRun { composition: self, write, progress: Tracked::Here(&progress), known };
            if let Completion::Done(written) = self.blueprint.policy.write.write(&run, &*self.offload) {
                return Completion::Done(self.written(written, &progress, &run.write));
            }
            (write, known) = (run.write, run.known);
        }
        let this = self.clone();
        let (key, options) = (write.key.clone(), write.options.clone());
        let work = async move {
            let progress = Arc::new(Progress::default());
            let run = WriteRun { composition: &this, write, progress: Tracked::Shared(&progress), known };
            let written = this.blueprint.policy.write.write(&run, &*this.offload).await;
            this.written(written, &progress, &run.write)
        };
        // If somebody has to be waited for after all, one layer may have been written.
        let work = self.completing_from(vec![(key, options)], work);
        Completion::Later(Box::pin(if is_begun { work.after_start() } else { work }))
    }

    /// Gives a write what its layers share: a ticket, and what has been encoded.
    fn begin(&self, write: &mut Write) {
        self.refill.forget(&write.key);
        let Write { key, content, options, .. } = write;
        if let Content::Entry(value) = content
            && value.created().is_none()
        {
            // All layers agree on when it was made.
            value.set_created(self.layout.clock().now());
        }
        let at_once = self.layout.capabilities().answers_at_once;
        options.ticket.get_or_insert_with(|| {
            if at_once { self.layout.begin_write_at_once(key) } else { self.layout.begin_write(key) }
        });
        if self.shares_encodings {
            options.encodings.get_or_insert_default();
        }
    }

    /// The same write to both layers at once.
    async fn write_both(&self, write: Write) -> Receipt {
        let Pair { l1, l2 } = &self.layers;
        let (l1, l2) = join(l1.write(Batch::one(write.clone())), l2.write(Batch::one(write))).await;
        outcome::join_removes(l1.into_one().unwrap_or_default(), l2.into_one().unwrap_or_default())
    }

    /// The authority decides; then the other layer takes what it took. What its rule of admission keeps out the authority
    /// cannot compare with next time: then the other layer decides for itself.
    async fn write_by_authority(self: Arc<Self>, write: Write) -> Receipt {
        let progress = Progress::default();
        let (first, other) = (self.blueprint.authority, self.blueprint.authority.other());
        progress.begin(first);
        let decided =
            self.layers[first].write(Batch::one(write.clone())).await.into_one().unwrap_or_default();
        self.settle(&progress, first, &write.key, &write.options, &decided);
        let mut written = Pair::<Option<Receipt>>::default();
        if let Some(error) = decided.error().cloned() {
            written[first] = Some(decided);
            let written = self.with_open_layers(Written { l1: written.l1, l2: written.l2 }, &progress);
            return written.l1.unwrap_or_default().join(written.l2.unwrap_or_default(), Some(error));
        }
        progress.begin(other);
        let is_left_out = |line: &LeafReceipt| matches!(line.outcome, LeafOutcome::NotAdmitted);
        let is_taken = !decided.leaves().iter().any(is_left_out);
        let condition = if is_taken { Condition::Always } else { write.condition.clone() };
        let taken = write.clone().with_condition(condition);
        let taken = self.layers[other].write(Batch::one(taken)).await.into_one().unwrap_or_default();
        self.settle(&progress, other, &write.key, &write.options, &taken);
        (written[first], written[other]) = (Some(decided), Some(taken));
        self.written(Written { l1: written.l1, l2: written.l2 }, &progress, &write)
    }

    /// The receipt of a write. If it counts as done, the copies of layers that have not got it by now are dirty.
    fn written(&self, written: Written, progress: &Progress, write: &Write) -> Receipt {
        let written = self.with_open_layers(written, progress);
        let needs = self.blueprint.policy.write.needs();
        let receipt = outcome::join_writes(written, needs, &self.blueprint.required);
        if receipt.is_ok() {
            self.mark_unfinished(progress, &write.key, &write.options);
        }
        receipt
    }

    /// One batch for each layer, in the order that the policy says.
    fn write_batch(self: &Arc<Self>, mut writes: Vec<Write>) -> Completion<'_, Receipts> {
        let open: Vec<usize> = (0..writes.len()).filter(|at| writes[*at].options.ticket.is_none()).collect();
        let tickets = self.layout.begin_writes(open.iter().map(|at| &writes[*at].key));
        for (at, ticket) in open.into_iter().zip(tickets) {
            writes[at].options.ticket = Some(ticket);
        }
        writes.iter_mut().for_each(|write| self.begin(write));
        let keys = writes.iter().map(|write| (write.key.clone(), write.options.clone())).collect();
        self.completing(keys, self.clone().write_batch_to_layers(writes))
    }

    async fn write_batch_to_layers(self: Arc<Self>, writes: Vec<Write>) -> Receipts {
        let progress: Vec<Progress> = writes.iter().map(|_| Progress::default()).collect();
        let write = async |layer: Layer, which: Vec<usize>| {
            let part = which.iter().map(|index| writes[*index].clone()).collect();
            let written = self.layers[layer].write(part).await;
            let mut receipts: Vec<Option<Receipt>> = writes.iter().map(|_| None).collect();
            for (index, receipt) in which.into_iter().zip(written) {
                let Write { key, options, .. } = &writes[index];
                self.settle(&progress[index], layer, key, options, &receipt);
                receipts[index] = Some(receipt);
            }
            receipts
        };
        let all: Vec<usize> = (0..writes.len()).collect();
        let mut receipts = Pair::<Vec<Option<Receipt>>>::default();
        match self.blueprint.policy.write.batch_order() {
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
        let joined = writes.iter().zip(&progress).zip(pairs);
        joined.map(|((write, progress), written)| self.written(written, progress, write)).collect()
    }

    /// Work that is finished even if its caller goes away. If the offload refuses it, the copies of these keys are dirty
    /// everywhere.
    pub(super) fn completing<'a, T: Send + 'static>(
        self: &Arc<Self>,
        keys: Vec<(CacheKey, WriteOptions)>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Completion<'a, T> {
        Completion::Later(Box::pin(self.completing_from(keys, work)))
    }

    pub(super) fn completing_from<T: Send + 'static>(
        self: &Arc<Self>,
        keys: Vec<(CacheKey, WriteOptions)>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> CompletesWhenDropped<T> {
        let this = self.clone();
        let abandon = move || keys.iter().for_each(|(key, options)| this.mark_all_dirty(key, options));
        CompletesWhenDropped::new(work, self.offload.clone(), abandon)
    }
}

/// The attempts of one write, as policies see them.
struct WriteRun<'a> {
    composition: &'a Arc<Composition>,
    write: Write,
    progress: Tracked<'a>,
    /// What layers have answered at once. They are not asked again if the other has to be waited for: somebody else may
    /// have written them since.
    known: Pair<Mutex<Option<LeafOutcome>>>,
}

/// What attempts report to.
#[derive(Clone, Copy)]
enum Tracked<'a> {
    /// The call itself, which ends before anybody waits. An attempt that goes on alone reports to nobody: its layer's
    /// copy is dirty until it has ended.
    Here(&'a Progress),
    /// The call, and attempts that outlive it.
    Shared(&'a Arc<Progress>),
}

impl<'a> Tracked<'a> {
    fn progress(self) -> &'a Progress {
        match self {
            Self::Here(progress) => progress,
            Self::Shared(progress) => progress,
        }
    }
}

impl WriteAttempts for WriteRun<'_> {
    fn write(&self, layer: Layer) -> Completion<'_, Receipt> {
        let Self { composition, write, progress, known } = self;
        let progress = progress.progress();
        progress.begin(layer);
        let outcome = known[layer].lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(outcome) = outcome
            && let Some(leaf) = composition.layers[layer].layout().leaves().first()
        {
            let receipt = Receipt::of(leaf.path(), outcome);
            composition.settle(progress, layer, &write.key, &write.options, &receipt);
            return Completion::Done(receipt);
        }
        match composition.layers[layer].write(Batch::one(write.clone())) {
            Completion::Done(receipts) => {
                let receipt = receipts.into_one().unwrap_or_default();
                composition.settle(progress, layer, &write.key, &write.options, &receipt);
                let outcome = receipt.leaves().first().map(|line| line.outcome.clone());
                *known[layer].lock().unwrap_or_else(PoisonError::into_inner) = outcome;
                Completion::Done(receipt)
            }
            waiting => Completion::later(async move {
                let unknown = UnknownOutcome { composition, key: &write.key, layer, options: &write.options };
                let receipt = waiting.await.into_one().unwrap_or_default();
                std::mem::forget(unknown);
                composition.settle(progress, layer, &write.key, &write.options, &receipt);
                receipt
            }),
        }
    }

    fn detach(&self, layer: Layer) -> BoxFuture<'static, Receipt> {
        let (composition, write) = (self.composition.clone(), self.write.clone());
        self.progress.progress().begin(layer);
        let progress = match self.progress {
            Tracked::Here(_) => Arc::default(),
            Tracked::Shared(progress) => progress.clone(),
        };
        Box::pin(async move {
            let Write { key, options, .. } = &write;
            let unknown = UnknownOutcome { composition: &composition, key, layer, options };
            let receipts = composition.layers[layer].write(Batch::one(write.clone())).await;
            std::mem::forget(unknown);
            let receipt = receipts.into_one().unwrap_or_default();
            composition.settle(&progress, layer, key, options, &receipt);
            receipt
        })
    }
}

/// A write that was begun and given up: nobody knows whether its layer has it.
struct UnknownOutcome<'a> {
    composition: &'a Composition,
    key: &'a CacheKey,
    layer: Layer,
    options: &'a WriteOptions,
}

impl Drop for UnknownOutcome<'_> {
    fn drop(&mut self) {
        self.composition.mark_layer_dirty(self.layer, self.key, self.options);
    }
}
