//! What a composition does to the whole of both layers: invalidations, changes made elsewhere, maintenance.

use std::sync::Arc;

use futures_util::future::join;
use hitbox_core::{BackendError, BackendResult, ErrorKind, Operation, Refused, Task, TaskKind};

use super::state::Composition;
use super::{CompositionBackend, Layer, Pair, receipts};
use crate::backend::Backend;
use crate::completion::{Batch, Completion};
use crate::leaf::drain;
use crate::operation::{Invalidation, InvalidationTarget, Maintained, Maintenance};
use crate::receipt::Receipt;
use crate::reconcile::{self, Running};
use crate::store::{Page, Sweep};

impl Composition {
    pub(super) fn in_both_layers<'a>(
        self: &Arc<Self>,
        what: &Invalidation,
        call: for<'b> fn(&'b dyn Backend, &'b Invalidation) -> Completion<'b, Receipt>,
    ) -> impl Future<Output = Receipt> + Send + use<'a> {
        let (this, what) = (self.clone(), what.clone());
        self.completing(Batch::default(), async move {
            // With a pattern no leaf is filled from another before all have lost what it means, whichever composition
            // does it.
            let _drains = match what.target() {
                InvalidationTarget::Matching(pattern) => drain(&this.layout, Some(pattern)).await,
                _ => Vec::new(),
            };
            let Pair { l1, l2 } = &this.layers;
            let (l1, l2) = join(call(&**l1, &what), call(&**l2, &what)).await;
            if this.layout.has_unrecorded() {
                this.record_later();
            }
            receipts::join_removes(l1, l2)
        })
    }

    /// Has the layers record in the background what they have not, until they have.
    fn record_later(self: &Arc<Self>) {
        let Some(running) = Running::start(&self.is_recording) else { return };
        let (weak, clock) = (Arc::downgrade(self), self.layout.clock().clone());
        let work = async move {
            let _running = running;
            let mut pause = reconcile::SHORTEST_PAUSE;
            loop {
                clock.sleep(pause).await;
                let Some(this) = weak.upgrade() else { return };
                let backend = CompositionBackend(this);
                if reconcile::record(&backend).await {
                    return;
                }
                pause = (pause * 2).min(reconcile::LONGEST_PAUSE);
            }
        };
        if let Err(Refused { why, .. }) = self.offload.register(Task::new(TaskKind::RECONCILE, work).daemon())
        {
            tracing::debug!(?why, "invalidations are recorded as reads and writes go on");
        }
    }

    pub(super) async fn maintain(&self, work: &Maintenance) -> BackendResult<Maintained> {
        let Pair { l1, l2 } = &self.layers;
        match *work {
            Maintenance::List { cursor, limit } => self.list(cursor, limit).await,
            Maintenance::Erase { .. } => {
                // No leaf is filled from another before all are empty, whichever composition does it.
                let _drains = drain(&self.layout, None).await;
                let (l1, l2) = join(l1.maintain(work), l2.maintain(work)).await;
                both(l1, l2)
            }
            Maintenance::Finish => {
                self.offload.idle().await;
                let (l1, l2) = join(l1.maintain(work), l2.maintain(work)).await;
                both(l1, l2)
            }
            Maintenance::Sweep { .. }
            | Maintenance::Count
            | Maintenance::Record { .. }
            | Maintenance::Close => {
                let (l1, l2) = join(l1.maintain(work), l2.maintain(work)).await;
                both(l1, l2)
            }
        }
    }

    /// The keys of L1, then those of L2. A cursor is that of a layer, and in its last bit the layer: each level of a nest
    /// takes a bit.
    async fn list(&self, cursor: u64, limit: usize) -> BackendResult<Maintained> {
        if !self.layout.capabilities().enumerates {
            return Err(
                BackendError::unsupported("listing the keys of all layers").during(Operation::Maintain)
            );
        }
        let layer = if cursor & 1 == 0 { Layer::L1 } else { Layer::L2 };
        let work = Maintenance::List { cursor: cursor >> 1, limit };
        let Page { keys, next } = self.layers[layer].maintain(&work).await?.into_listed()?;
        let next = match next {
            Some(next) if next >> 63 == 0 => Some(next << 1 | cursor & 1),
            Some(_) => return Err(BackendError::new(ErrorKind::Protocol, "a cursor is too large")),
            None => (layer == Layer::L1).then_some(1),
        };
        Ok(Maintained::Listed(Page { keys, next }))
    }
}

/// What both layers did together. If both failed the error has both causes.
fn both(l1: BackendResult<Maintained>, l2: BackendResult<Maintained>) -> BackendResult<Maintained> {
    match (l1, l2) {
        (Ok(Maintained::Swept(l1)), Ok(Maintained::Swept(l2))) => {
            let (dropped, cut_short) = (l1.dropped + l2.dropped, l1.cut_short || l2.cut_short);
            Ok(Maintained::Swept(Sweep { dropped, cut_short }))
        }
        (Ok(Maintained::Counted(l1)), Ok(Maintained::Counted(l2))) => {
            Ok(Maintained::Counted([l1, l2].concat()))
        }
        (Ok(Maintained::Recorded(l1)), Ok(Maintained::Recorded(l2))) => Ok(Maintained::Recorded(l1 + l2)),
        (Ok(done), Ok(_)) => Ok(done),
        (Err(l1), Err(l2)) => Err(BackendError::all_layers(vec![l1, l2])),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}
