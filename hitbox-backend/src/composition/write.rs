//! Writes of a composition. One into two layers of memory is carried out at once; others complete when they are dropped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use hitbox_core::{BackendLabel, BoxFuture, CacheKey, ErrorKind, Timestamp};

use super::attempts::{WriteAttempts, Written};
use super::dirty::Progress;
use super::finish::CompletesWhenDropped;
use super::policy::WriteOrder;
use super::state::Composition;
use super::{Layer, Pair, receipts};
use crate::completion::{Batch, Completion};
use crate::operation::{Condition, Content, LastWrites, LeafSet, Removal, Write, WriteOptions};
use crate::receipt::{LeafOutcome, LeafReceipt, Receipt, Receipts};

/// Whether a write goes to the layers as the policy says. Others have ways of their own.
fn is_by_policy(write: &Write) -> bool {
    !write.condition.depends_on_stored()
        && !write.condition.is_refill()
        && write.options.skip.is_empty()
        && matches!(write.content, Content::Entry(_) | Content::NotAdmitted { .. })
}

impl Composition {
    pub(super) fn write_entries(self: &Arc<Self>, mut writes: Batch<Write>) -> Completion<'_, Receipts> {
        if let [write] = &mut *writes {
            let begun = match self.write_at_once(write) {
                Ok(receipt) => return Completion::Done(Batch::one(receipt)),
                Err(begun) => begun,
            };
            return match writes.into_one() {
                Some(write) => self.write_rest(write, begun),
                None => Completion::Done(Batch::default()),
            };
        }
        if let Some(last) = LastWrites::of(&writes) {
            return self.write_entries(last.pick(writes)).map(move |receipts| last.for_all(&receipts));
        }
        let Some(order) = self.blueprint.policy.write.order() else { return self.write_one_by_one(writes) };
        if self.layout.capabilities().answers_at_once || !writes.iter().all(is_by_policy) {
            return self.write_in_order(writes);
        }
        self.write_batch(writes.into_vec(), order)
    }

    /// One after the other; nothing is left for later as long as nobody has to be waited for.
    fn write_in_order(self: &Arc<Self>, writes: Batch<Write>) -> Completion<'_, Receipts> {
        let mut receipts = Batch::with_capacity(writes.len());
        let mut writes = writes.into_iter();
        while let Some(write) = writes.next() {
            match self.write_one(write) {
                Completion::Done(receipt) => receipts.extend(receipt),
                waits => {
                    return Completion::later(async move {
                        receipts.extend(waits.await);
                        for write in writes {
                            receipts.extend(self.write_one(write).await);
                        }
                        receipts
                    });
                }
            }
        }
        Completion::Done(receipts)
    }

    /// Each as the policy says. All have begun, in their order, before one is waited for.
    fn write_one_by_one(self: &Arc<Self>, writes: Batch<Write>) -> Completion<'_, Receipts> {
        let begun: Vec<_> = writes.into_iter().map(|write| self.write_one(write)).collect();
        Completion::later(async move {
            let done = join_all(begun).await;
            done.into_iter().map(|receipts| receipts.into_one().unwrap_or_default()).collect()
        })
    }

    fn write_one(self: &Arc<Self>, mut write: Write) -> Completion<'_, Receipts> {
        match self.write_at_once(&mut write) {
            Ok(receipt) => Completion::Done(Batch::one(receipt)),
            Err(begun) => self.write_rest(write, begun),
        }
    }

    /// Begins a write, and carries it out if nobody has to be waited for.
    ///
    /// # Errors
    /// The receipt of the layer that is written already, if there is one.
    fn write_at_once(&self, write: &mut Write) -> Result<Receipt, Option<(Layer, Receipt)>> {
        if write.condition.is_refill() {
            return Err(None);
        }
        self.begin(write);
        match self.order_at_once {
            Some(order) if is_by_policy(write) => self.write_now(write, order),
            _ => Err(None),
        }
    }

    /// What is left of a write that has begun, of which one layer may have been written.
    fn write_rest(
        self: &Arc<Self>,
        write: Write,
        known: Option<(Layer, Receipt)>,
    ) -> Completion<'_, Receipts> {
        if write.condition.is_refill() {
            return Completion::later(async { Batch::one(self.write_both(write).await) });
        }
        if write.condition.depends_on_stored() {
            let (this, keys) = (self.clone(), keys_of(&write));
            return self.completing(keys, async { Batch::one(this.write_by_authority(write).await) });
        }
        // Who leaves leaves out waits for all others: there is no order among them, and no race to be won by a leaf that
        // is left out.
        if !is_by_policy(&write) {
            let (this, keys) = (self.clone(), keys_of(&write));
            return self.completing(keys, async move { Batch::one(this.write_both(write).await) });
        }
        let (this, keys) = (self.clone(), keys_of(&write));
        let is_begun = known.is_some();
        let work = async move {
            let progress = Arc::new(Progress::default());
            let run = WriteRun { composition: &this, write: &write, progress: &progress };
            let written = match known {
                // It is not asked again: somebody else may have written it since.
                Some((layer, receipt)) => run.write_other(layer, receipt).await,
                None => this.blueprint.policy.write.write(&run, &*this.offload).await,
            };
            let receipt = this.written(written, &progress, &write);
            this.remove_refused(&write.key, &write.options, &receipt).await;
            Batch::one(receipt)
        };
        // If the other layer has to be waited for, one has been written.
        let work = CompletesWhenDropped::new(self, keys, work);
        Completion::Later(Box::pin(if is_begun { work.after_start() } else { work }))
    }

    /// The same write to both leaves without waiting.
    ///
    /// # Errors
    /// The receipt of the leaf that is written already, if the other has to be waited for; nothing if the first has to
    /// be.
    fn write_now(&self, write: &Write, order: WriteOrder) -> Result<Receipt, Option<(Layer, Receipt)>> {
        let ask = |layer: Layer| match self.layers[layer].write(Batch::one(write.clone())) {
            Completion::Done(receipts) => Some(receipts.into_one().unwrap_or_default()),
            _ => None,
        };
        let first = order.first();
        let receipt = ask(first).ok_or(None)?;
        let mut written = Pair::<Option<Receipt>>::default();
        if receipt.is_ok() || order == WriteOrder::Together {
            match ask(first.other()) {
                Some(other) => written[first.other()] = Some(other),
                None => return Err(Some((first, receipt))),
            }
        }
        written[first] = Some(receipt);
        let is_stored = |receipt: &Option<Receipt>| receipt.as_ref().is_some_and(Receipt::is_stored);
        let written = Written { l1: written.l1, l2: written.l2 };
        if is_stored(&written.l1) && is_stored(&written.l2) && !self.layout.has_dirty() {
            return Ok(written.l1.unwrap_or_default().join(written.l2.unwrap_or_default(), None));
        }
        let progress = Progress::default();
        for (layer, receipt) in [(Layer::L1, &written.l1), (Layer::L2, &written.l2)] {
            if let Some(receipt) = receipt {
                progress.begin(layer);
                self.settle(&progress, layer, &write.key, &write.options, receipt);
            }
        }
        Ok(self.written(written, &progress, write))
    }

    /// Gives a write what its layers share: a ticket, and what has been encoded.
    fn begin(&self, write: &mut Write) {
        let Write { key, content, options, condition } = write;
        if !matches!(content, Content::Times(_)) {
            self.refill.forget(key);
        }
        if let Content::Entry(value) = content
            && value.created().is_none()
        {
            // All layers agree on when it was made.
            let now = self.layout.clock().now();
            let may_be_first = matches!(condition, Condition::IfNewer(_)) && self.layout.is_dirty(key);
            value.set_created(if may_be_first { self.made_after_dirty_copies(now) } else { now });
        }
        let at_once = self.layout.capabilities().answers_at_once;
        options.ticket.get_or_insert_with(|| {
            if at_once { self.layout.begin_write_at_once(key) } else { self.layout.begin_write(key) }
        });
        if self.shares_encodings {
            options.encodings.get_or_insert_default();
        }
    }

    /// When an entry is made whose version may be lower than that of a copy that has outlived its removal: later than that copy,
    /// even if it is of the same millisecond.
    #[cold]
    fn made_after_dirty_copies(&self, now: Timestamp) -> Timestamp {
        let ahead = now + Duration::from_millis(1);
        self.layout.leaves().iter().for_each(|leaf| leaf.handle().coherence().epochs.made_ahead(ahead));
        ahead
    }

    /// The same write to both layers at once.
    async fn write_both(&self, write: Write) -> Receipt {
        let Pair { l1, l2 } = &self.layers;
        let (l1, l2) = join(l1.write(Batch::one(write.clone())), l2.write(Batch::one(write))).await;
        receipts::join_removes(l1.into_one().unwrap_or_default(), l2.into_one().unwrap_or_default())
    }

    /// The authority decides; then the other layer takes what it took. What its rule of admission keeps out the authority
    /// cannot compare with next time: then the other layer decides for itself.
    async fn write_by_authority(self: Arc<Self>, write: Write) -> Receipt {
        let progress = Progress::default();
        let first = self.blueprint.authority();
        let other = first.other();
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
        let condition = match &write.condition {
            open if !is_taken => open.clone(),
            // Where other processes write too, one may have come between.
            Condition::IfNewer(version) => Condition::IfNotOlder(*version),
            _ => Condition::Repair,
        };
        let taken = write.clone().with_condition(condition);
        let taken = self.layers[other].write(Batch::one(taken)).await.into_one().unwrap_or_default();
        self.settle(&progress, other, &write.key, &write.options, &taken);
        (written[first], written[other]) = (Some(decided), Some(taken));
        let receipt = self.written(Written { l1: written.l1, l2: written.l2 }, &progress, &write);
        self.remove_refused(&write.key, &write.options, &receipt).await;
        receipt
    }

    /// The receipt of a write. If it counts as done, the copies of layers that have not got it by now are dirty.
    pub(super) fn written(&self, written: Written, progress: &Progress, write: &Write) -> Receipt {
        let written = self.with_open_layers(written, progress);
        let needs = self.blueprint.policy.write.needs();
        let receipt = receipts::join_writes(written, needs, &self.blueprint.required);
        if receipt.is_ok() {
            self.mark_unfinished(progress, &write.key, &write.options);
        }
        receipt
    }

    /// One batch for each layer, in the order that the policy says.
    fn write_batch(self: &Arc<Self>, mut writes: Vec<Write>, order: WriteOrder) -> Completion<'_, Receipts> {
        let open: Vec<usize> = (0..writes.len()).filter(|at| writes[*at].options.ticket.is_none()).collect();
        let tickets = self.layout.begin_writes(open.iter().map(|at| &writes[*at].key));
        for (at, ticket) in open.into_iter().zip(tickets) {
            writes[at].options.ticket = Some(ticket);
        }
        writes.iter_mut().for_each(|write| self.begin(write));
        let keys = writes.iter().map(|write| (write.key.clone(), write.options.clone())).collect();
        self.completing(keys, self.clone().write_batch_to_layers(writes, order))
    }

    async fn write_batch_to_layers(self: Arc<Self>, writes: Vec<Write>, order: WriteOrder) -> Receipts {
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
        match order {
            WriteOrder::Together => {
                let (l2, l1) = join(write(Layer::L2, all.clone()), write(Layer::L1, all)).await;
                receipts = Pair { l1, l2 };
            }
            WriteOrder::First(layer) => {
                let first = write(layer, all.clone()).await;
                let succeeded = |index: &usize| first[*index].as_ref().is_some_and(Receipt::is_ok);
                receipts[layer.other()] =
                    write(layer.other(), all.into_iter().filter(succeeded).collect()).await;
                receipts[layer] = first;
            }
        }
        let pairs = receipts.l1.into_iter().zip(receipts.l2).map(|(l1, l2)| Written { l1, l2 });
        let joined = writes.iter().zip(&progress).zip(pairs);
        let receipts: Receipts =
            joined.map(|((write, progress), written)| self.written(written, progress, write)).collect();
        for (write, receipt) in writes.iter().zip(&receipts) {
            self.remove_refused(&write.key, &write.options, receipt).await;
        }
        receipts
    }

    /// A leaf that does not take the new value, for good, loses the older one before the write is answered: other
    /// processes, and this one after a restart, know nothing of dirty keys. If it cannot, the key stays dirty there.
    pub(super) async fn remove_refused(&self, key: &CacheKey, options: &WriteOptions, receipt: &Receipt) {
        if receipt.stored() == 0 || receipt.stored() as usize == receipt.leaves().len() {
            return;
        }
        let refused = |label: BackendLabel| {
            let is_refusal = |line: &LeafReceipt| match &line.outcome {
                LeafOutcome::Refused(error) => {
                    !matches!(error.kind(), ErrorKind::VersionMismatch | ErrorKind::Conflict)
                }
                _ => false,
            };
            receipt.leaves().iter().any(|line| line.label == label && is_refusal(line))
        };
        let (mut taken, mut is_any) = (options.skip, false);
        for leaf in self.layout.leaves() {
            if refused(leaf.path()) {
                is_any = true;
            } else {
                taken = taken.union(LeafSet::of(leaf.position()));
            }
        }
        if is_any {
            let options = WriteOptions { skip: taken, ..options.clone() };
            let removal = Removal::new(key.clone()).with_options(options);
            let Pair { l1, l2 } = &self.layers;
            join(l1.remove(Batch::one(removal.clone())), l2.remove(Batch::one(removal))).await;
        }
    }

    /// Work that is finished even if its caller goes away. If the offload refuses it, the copies of these keys are dirty
    /// everywhere.
    pub(super) fn completing<'a, T: Send + 'static>(
        self: &Arc<Self>,
        keys: Batch<(CacheKey, WriteOptions)>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Completion<'a, T> {
        Completion::Later(Box::pin(CompletesWhenDropped::new(self, keys, work)))
    }
}

fn keys_of(write: &Write) -> Batch<(CacheKey, WriteOptions)> {
    Batch::one((write.key.clone(), write.options.clone()))
}

/// The attempts of one write, as policies see them.
struct WriteRun<'a> {
    composition: &'a Arc<Composition>,
    write: &'a Write,
    progress: &'a Arc<Progress>,
}

impl WriteRun<'_> {
    /// The rest of a write that one layer has answered.
    async fn write_other(&self, layer: Layer, receipt: Receipt) -> Written {
        let Self { composition, write, progress } = self;
        progress.begin(layer);
        composition.settle(progress, layer, &write.key, &write.options, &receipt);
        let other = self.write(layer.other()).await;
        match layer {
            Layer::L1 => Written { l1: Some(receipt), l2: Some(other) },
            Layer::L2 => Written { l1: Some(other), l2: Some(receipt) },
        }
    }
}

impl WriteAttempts for WriteRun<'_> {
    fn write(&self, layer: Layer) -> Completion<'_, Receipt> {
        let Self { composition, write, progress } = self;
        progress.begin(layer);
        match composition.layers[layer].write(Batch::one((*write).clone())) {
            Completion::Done(receipts) => {
                let receipt = receipts.into_one().unwrap_or_default();
                composition.settle(progress, layer, &write.key, &write.options, &receipt);
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
        let progress = self.progress.clone();
        progress.begin(layer);
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
pub(super) struct UnknownOutcome<'a> {
    pub(super) composition: &'a Composition,
    pub(super) key: &'a CacheKey,
    pub(super) layer: Layer,
    pub(super) options: &'a WriteOptions,
}

impl Drop for UnknownOutcome<'_> {
    fn drop(&mut self) {
        self.composition.mark_layer_dirty(self.layer, self.key, self.options);
    }
}
