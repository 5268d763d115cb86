//! A body on its way into both layers of a composition. The writer feeds them within the calls of who writes, and by no task: a task
//! that waits for tasks of the pool that it is in may wait for ever. When the body ends, the layers commit as the policy of writes says.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, join, select};
use hitbox_core::{BackendError, BackendResult, BoxFuture, CacheKey, CacheValue, ErrorKind};

use super::dirty::Progress;
use super::state::Composition;
use super::write::UnknownOutcome;
use super::{Layer, Pair, Requirement, WriteAttempts, receipts};
use crate::backend::Backend;
use crate::coherence::WriteTicket;
use crate::completion::{Batch, Completion};
use crate::envelope::DeferredDrops;
use crate::feed::{self, BodyFeed, PATIENCE, QUEUE};
use crate::operation::{BodyOrigin, Write, WriteOptions};
use crate::receipt::{LeafOutcome, Receipt};
use crate::store::WrittenPart;
use crate::stream::{self, BodyWriter};
use crate::unpanicked::unpanicked_later;

type Writer = Box<dyn BodyWriter>;

/// A body on its way into both layers.
pub(super) struct Tee {
    composition: Arc<Composition>,
    key: CacheKey,
    entry: CacheValue<()>,
    options: WriteOptions,
    origin: BodyOrigin,
    layers: Pair<BodyFeed>,
}

/// What has been written of a body into either layer.
struct WrittenParts(Mutex<Vec<Arc<dyn WrittenPart>>>);

impl WrittenParts {
    /// Those that are of use: one that grows no more is of none when another has all of it.
    fn parts(&self) -> Vec<Arc<dyn WrittenPart>> {
        // A part that goes gives its room back, and its store may drop what it has evicted.
        let _drops = DeferredDrops::begin();
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let [first, second] = &parts[..] {
            let is_covered = |one: &Arc<dyn WrittenPart>, other: &Arc<dyn WrittenPart>| {
                one.has_ended() && !other.has_ended() && other.readable() >= one.readable()
            };
            let (first, second) = (is_covered(first, second), is_covered(second, first));
            if first || second {
                parts.remove(usize::from(second));
            }
        }
        parts.clone()
    }
}

#[async_trait]
impl WrittenPart for WrittenParts {
    fn readable(&self) -> u64 {
        self.parts().iter().map(|part| part.readable()).max().unwrap_or(0)
    }

    fn has_ended(&self) -> bool {
        self.parts().iter().all(|part| part.has_ended())
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        let mut failed = None;
        for part in self.parts() {
            if part.readable() > at {
                match part.read_at(at, limit).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => failed = Some(error),
                }
            }
        }
        Err(failed.unwrap_or_else(feed::given_up))
    }
}

impl Composition {
    pub(super) async fn open_tee(
        self: &Arc<Self>,
        key: &CacheKey,
        mut entry: CacheValue<()>,
        mut options: WriteOptions,
    ) -> BackendResult<Writer> {
        if entry.created().is_none() {
            // All layers agree on when it was made.
            entry.set_created(self.layout.clock().now());
        }
        // Layers redeem the same permit.
        let origin = stream::claim(&self.layout, key, &mut options);
        let of_layer = || WriteOptions { origin: Some(origin.clone()), ..options.clone() };
        // One that panics is one that does not open.
        let open = |layer: Layer| {
            let (layer, entry, options) = (&self.layers[layer], entry.clone(), of_layer());
            let opening = async move { layer.open_writer(key, entry, options).await };
            Box::pin(unpanicked_later(ErrorKind::Io, feed::LAYER, opening))
        };
        let (l1, l2) = match select(open(Layer::L1), open(Layer::L2)).await {
            Either::Left((l1, l2)) => {
                let l2 = self.opened_after(l1.is_ok(), Layer::L2, l2).await;
                (l1, l2)
            }
            Either::Right((l2, l1)) => (self.opened_after(l2.is_ok(), Layer::L1, l1).await, l2),
        };
        let of = &self.layers;
        let layers = Pair { l1: BodyFeed::new(of.l1.layout(), l1), l2: BodyFeed::new(of.l2.layout(), l2) };
        let (composition, key) = (self.clone(), key.clone());
        let tee = Tee { composition, key, entry, options, origin, layers };
        tee.check()?;
        Ok(Box::new(tee))
    }
}

impl Composition {
    /// The writer of the layer that opens later. If the other has opened, it is waited for as long as for one that takes nothing.
    async fn opened_after(
        &self,
        has_other: bool,
        layer: Layer,
        opening: impl Future<Output = BackendResult<Writer>> + Unpin,
    ) -> BackendResult<Writer> {
        if !has_other || self.blueprint.required[layer] == Requirement::Required {
            return opening.await;
        }
        let patience = feed::patience_with(self.layers[layer].layout());
        match select(opening, self.layout.clock().sleep(patience)).await {
            Either::Left((opened, _)) => opened,
            Either::Right(_) => Err(feed::took_nothing(patience)),
        }
    }

    /// What a layer says of the end of a body. One that panics harms no other; nobody knows whether it has the body.
    async fn finish_in(&self, layer: Layer, writer: Writer) -> Receipt {
        let finish = async { Ok(writer.finish().await) };
        unpanicked_later(ErrorKind::Io, feed::LAYER, finish).await.unwrap_or_else(|error| {
            Receipt::of_all(self.layers[layer].layout().paths(), &LeafOutcome::Unknown(error))
        })
    }

    /// The receipt of a layer that has done nothing, whatever its error says.
    fn not_stored(&self, layer: Layer, error: BackendError) -> Receipt {
        let outcome = match LeafOutcome::of_error(error) {
            LeafOutcome::Unknown(error) => LeafOutcome::Failed(error),
            outcome => outcome,
        };
        Receipt::of_all(self.layers[layer].layout().paths(), &outcome)
    }
}

impl Tee {
    /// Fails if the body can be stored nowhere, or a required layer has failed.
    fn check(&self) -> BackendResult<()> {
        let required = &self.composition.blueprint.required;
        for layer in Layer::BOTH {
            if let Some(error) = self.layers[layer].error()
                && required[layer] == Requirement::Required
            {
                return Err(BackendError::required_layer(error.clone()));
            }
        }
        match (self.layers.l1.error(), self.layers.l2.error()) {
            (Some(l1), Some(l2)) => Err(BackendError::all_layers(vec![l1.clone(), l2.clone()])),
            _ => Ok(()),
        }
    }

    /// Feeds both layers until each is behind by no more than so many bytes. One that takes too little while the other waits for it is
    /// given up, unless it is required: less than a queue in each second, or nothing of the last of the body.
    async fn feed(&mut self, limit: usize) -> BackendResult<()> {
        let clock = self.composition.layout.clock().clone();
        let needed = if limit == 0 { 1 } else { QUEUE as u64 };
        loop {
            Layer::BOTH.into_iter().for_each(|layer| self.layers[layer].begin_wait());
            let (layers, mut ready): (_, Pair<Option<Duration>>) = (&mut self.layers, Pair::default());
            let both = poll_fn(|cx| {
                for layer in Layer::BOTH {
                    if layers[layer].poll_feed(cx, limit).is_ready() && ready[layer].is_none() {
                        ready[layer] = Some(clock.monotonic());
                    }
                }
                if ready.l1.and(ready.l2).is_some() { Poll::Ready(()) } else { Poll::Pending }
            });
            let is_fed = matches!(select(both, clock.sleep(PATIENCE)).await, Either::Left(_));
            let now = clock.monotonic();
            for layer in Layer::BOTH {
                // For how long the other has waited for it.
                let [own, others] = [layer, layer.other()].map(|layer| ready[layer].unwrap_or(now));
                let is_needed = self.composition.blueprint.required[layer] == Requirement::Required
                    || self.layers[layer.other()].error().is_some();
                if !self.layers[layer].keeps_up(own.saturating_sub(others), needed) && !is_needed {
                    self.layers[layer].give_up();
                }
            }
            if is_fed {
                return self.check();
            }
        }
    }

    /// The ticket under which all layers commit; nothing if the body was overtaken, or is a copy.
    fn ticket(&self) -> Option<Arc<WriteTicket>> {
        let BodyOrigin::Load(load) = &self.origin else { return None };
        stream::ticket_of(&self.composition.layout, &self.key, &self.entry, &self.options, load)
    }

    /// A copy is stored where nothing was written meanwhile, whatever the policy of writes.
    async fn finish_refill(self) -> Receipt {
        let Self { composition, layers, .. } = self;
        let finish = |layer: Layer, feed: BodyFeed| {
            let composition = composition.clone();
            async move {
                match feed.into_end() {
                    Ok(writer) => composition.finish_in(layer, writer).await,
                    Err(error) => composition.not_stored(layer, error),
                }
            }
        };
        let (l1, l2) = join(finish(Layer::L1, layers.l1), finish(Layer::L2, layers.l2)).await;
        receipts::join_removes(l1, l2)
    }

    /// Ends what the layers have been given.
    async fn give_up(self) {
        let clock = self.composition.layout.clock();
        join(self.layers.l1.abort(&**clock), self.layers.l2.abort(&**clock)).await;
    }
}

#[async_trait]
impl BodyWriter for Tee {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        self.check()?;
        self.layers.l1.push(chunk.clone());
        self.layers.l2.push(chunk);
        self.feed(QUEUE).await
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        let parts: Vec<_> =
            Layer::BOTH.into_iter().filter_map(|layer| self.layers[layer].written()).collect();
        (!parts.is_empty()).then(|| Arc::new(WrittenParts(Mutex::new(parts))) as Arc<dyn WrittenPart>)
    }

    fn let_go(&mut self) {
        Layer::BOTH.into_iter().for_each(|layer| self.layers[layer].let_go());
    }

    async fn finish(mut self: Box<Self>) -> Receipt {
        let fed = self.feed(0).await;
        let paths = || self.composition.layout.paths();
        if let Err(error) = fed {
            let receipt = Receipt::of_all(paths(), &LeafOutcome::Failed(error));
            self.give_up().await;
            return receipt;
        }
        if let BodyOrigin::Refill(_) = self.origin {
            return self.finish_refill().await;
        }
        let Some(ticket) = self.ticket() else {
            let receipt = Receipt::of_all(paths(), &LeafOutcome::Superseded);
            self.give_up().await;
            return receipt;
        };
        let Self { composition, key, mut options, origin, layers, .. } = *self;
        options.ticket = Some(ticket);
        composition.refill.forget(&key);
        let ends = Pair { l1: end_of(layers.l1), l2: end_of(layers.l2) };
        let keys = Batch::one((key.clone(), options.clone()));
        let this = composition.clone();
        let work = async move {
            // Layers redeem the permit while they commit.
            let _origin = origin;
            let progress = Arc::new(Progress::default());
            let write = Write::not_admitted(key, options);
            let run = Run { composition: &this, write: &write, progress: &progress, ends: Arc::new(ends) };
            let written = this.blueprint.policy.write.write(&run, &*this.offload).await;
            let receipt = this.written(written, &progress, &write);
            this.remove_refused(&write.key, &write.options, &receipt).await;
            receipt
        };
        composition.completing(keys, work).await
    }

    async fn abort(self: Box<Self>) {
        self.give_up().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        let (ticket, is_refill) = (self.ticket(), matches!(self.origin, BodyOrigin::Refill(_)));
        let (composition, key) = (self.composition.clone(), self.key.clone());
        let mut options = self.options.clone();
        self.give_up().await;
        if ticket.is_none() {
            let outcome = if is_refill { LeafOutcome::NotAdmitted } else { LeafOutcome::Superseded };
            return Receipt::of_all(composition.layout.paths(), &outcome);
        }
        options.ticket = ticket;
        let write = Batch::one(Write::not_admitted(key, options));
        composition.write_entries(write).await.into_one().unwrap_or_default()
    }
}

/// A layer's part of the end of a body, which is asked for once.
type End = Mutex<Option<Result<Writer, BackendError>>>;

fn end_of(feed: BodyFeed) -> End {
    Mutex::new(Some(feed.into_end()))
}

/// The commits of one body, as policies see them.
struct Run<'a> {
    composition: &'a Arc<Composition>,
    write: &'a Write,
    progress: &'a Arc<Progress>,
    ends: Arc<Pair<End>>,
}

impl Run<'_> {
    fn commit(&self, layer: Layer) -> BoxFuture<'static, Receipt> {
        let (composition, progress, ends) =
            (self.composition.clone(), self.progress.clone(), self.ends.clone());
        let Write { key, options, .. } = self.write.clone();
        progress.begin(layer);
        Box::pin(async move {
            let end = ends[layer].lock().unwrap_or_else(PoisonError::into_inner).take();
            let receipt = match end.unwrap_or_else(|| Err(feed::given_up())) {
                Ok(writer) => {
                    let unknown =
                        UnknownOutcome { composition: &composition, key: &key, layer, options: &options };
                    let receipt = composition.finish_in(layer, writer).await;
                    mem::forget(unknown);
                    receipt
                }
                Err(error) => composition.not_stored(layer, error),
            };
            composition.settle(&progress, layer, &key, &options, &receipt);
            receipt
        })
    }
}

impl WriteAttempts for Run<'_> {
    fn write(&self, layer: Layer) -> Completion<'_, Receipt> {
        Completion::Later(self.commit(layer))
    }

    fn detach(&self, layer: Layer) -> BoxFuture<'static, Receipt> {
        self.commit(layer)
    }
}
