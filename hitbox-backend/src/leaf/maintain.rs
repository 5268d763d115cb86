//! Work on a leaf's whole store.

use hitbox_core::{BackendResult, Operation};

use super::Leaf;
use crate::coherence::logical_clock;
use crate::operation::{Maintained, Maintenance};
use crate::stats::{EntryCount, Event};
use crate::store::Store;

impl<S: Store> Leaf<S> {
    pub(super) async fn do_maintenance(&self, work: &Maintenance) -> BackendResult<Maintained> {
        let done = match *work {
            Maintenance::Sweep { limit } => self.store.sweep(limit).await.map(Maintained::Swept),
            Maintenance::Erase { skip } if skip.contains(self.handle.position()) => Ok(Maintained::Erased),
            Maintenance::Erase { .. } => self.erase().await.map(|()| Maintained::Erased),
            Maintenance::List { cursor, limit } => {
                self.store.keys(cursor, limit).await.map(Maintained::Listed)
            }
            Maintenance::Finish => Ok(Maintained::Finished),
            Maintenance::Close => self.store.close().await.map(|()| Maintained::Closed),
            Maintenance::Record { limit } => self.record_all(limit).await.map(Maintained::Recorded),
            Maintenance::Count => {
                let entries = self.count().await.map_err(|error| self.during_maintenance(error));
                return Ok(Maintained::Counted(vec![EntryCount { label: self.handle.path(), entries }]));
            }
        };
        done.map_err(|error| self.during_maintenance(error))
    }

    /// Some scopes, and all patterns. Says how many are left that are nobody else's to record.
    async fn record_all(&self, limit: usize) -> BackendResult<u64> {
        let left = self.record_some(limit).await?;
        self.remove_held().await.map_err(|error| self.handle.failed(Event::RemoveError, error))?;
        Ok(left)
    }

    /// The store counts as far as times tell. Where something was invalidated every entry is looked at.
    async fn count(&self) -> BackendResult<u64> {
        if self.epochs().may_have_invalidated() && self.handle.capabilities().enumerates {
            self.count_present().await
        } else {
            self.store.count().await
        }
    }

    fn during_maintenance(&self, error: hitbox_core::BackendError) -> hitbox_core::BackendError {
        error.at(self.handle.path()).during(Operation::Maintain)
    }

    async fn erase(&self) -> BackendResult<()> {
        let coherence = self.handle.coherence();
        let drain = coherence.queue.drain(None).await;
        let erasing = coherence.dirty.begin_erase();
        let began = logical_clock::now();
        let erased = self.store.erase().await;
        match erased {
            Ok(()) => {
                self.epochs().lose_all(began);
                coherence.dirty.erased(erasing, |key, number| drain.is_before(key.process_hash(), number));
                Ok(())
            }
            Err(error) => Err(self.handle.failed(Event::RemoveError, error.during(Operation::Maintain))),
        }
    }
}
