//! Refills: entries that were read from a lower layer, stored under a permit.

use hitbox_core::{CacheKey, CacheValue, ErrorKind};

use super::Leaf;
use super::prepare::bytes_of;
use super::turn::Turn;
use crate::coherence::RefillPermit;
use crate::envelope::Raw;
use crate::operation::Condition;
use crate::receipt::{LeafOutcome, Receipt};
use crate::stats::Event;
use crate::store::Store;

impl<S: Store> Leaf<S> {
    pub(super) fn refill_superseded(&self) -> Receipt {
        self.handle.count(Event::RefillSuperseded, 1);
        self.handle.line(LeafOutcome::Superseded)
    }

    /// Stores an entry of a lower layer, if nothing was written or invalidated since the permit was taken.
    pub(super) async fn refill(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        permit: &RefillPermit,
    ) -> Receipt {
        let handle = &self.handle;
        let queue = &handle.coherence().queue;
        let Some(generation) = permit.generation(queue, key.process_hash()) else {
            return handle.line(LeafOutcome::Skipped);
        };
        if handle.is_gone(&value) {
            return handle.line(LeafOutcome::Skipped);
        }
        let value = match self.prepare(key, value, None) {
            Ok(value) => value,
            Err(error) => return handle.refuse(error),
        };
        let Some(slot) = queue.enter_refill(key, generation) else {
            return self.refill_superseded();
        };
        let turn = Turn::Own(slot);
        let value = match self.store_now(key, value, permit.started(), &turn, Event::Refill) {
            Ok(receipt) => return receipt,
            Err(value) => value,
        };
        let value = match self.attach_epochs(key, value, permit.started()).await {
            Ok(Some(value)) => value,
            Ok(None) => return self.refill_superseded(),
            Err(error) => return handle.refuse(error),
        };
        let bytes = bytes_of(&value);
        let _noted = handle.coherence().note(key);
        let facts = handle.capabilities();
        let result = if facts.shared && facts.writes_conditionally {
            // The permit knows nothing of what other processes have written meanwhile.
            Box::pin(self.store_if(key, value, &Condition::Repair)).await
        } else {
            self.store.write(key, value).await
        };
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict) {
            return self.refill_superseded();
        }
        handle.stored(key, &turn, Event::Refill, bytes, result)
    }
}
