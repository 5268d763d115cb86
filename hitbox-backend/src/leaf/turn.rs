//! Whose turn it is to write a key of the store.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, join_all, select};
use hitbox_core::{BackendError, BackendResult, CacheKey, ErrorKind};

use super::{Leaf, LeafHandle};
use crate::coherence::WriteTicket;
use crate::coherence::write_queue::OwnSlot;
use crate::coherence::write_ticket::SlotGuard;
use crate::operation::WriteOptions;
use crate::receipt::Receipt;
use crate::store::Store;

/// The right to write a key of the store now.
pub(super) enum Turn<'a> {
    /// A slot of this call's own.
    Own(OwnSlot<'a>),
    /// The guard of a ticket's slot.
    Of(&'a WriteTicket, SlotGuard<'a>),
}

impl Turn<'_> {
    /// Whether the store has what is to be written, or something later: it stands in another place of the expression too.
    pub(super) fn is_overtaken(&self) -> bool {
        matches!(self, Self::Of(_, guard) if guard.is_overtaken())
    }

    pub(super) fn mark_clean(&self, handle: &LeafHandle, key: &CacheKey) {
        let coherence = handle.coherence();
        match self {
            Self::Own(slot) => coherence.dirty.mark_clean(key, slot.number()),
            Self::Of(ticket, _) => coherence.mark_clean(key, ticket),
        }
    }
}

/// A store that has let one entry of a batch wait for too long: nothing more is asked of it. Otherwise each entry would
/// wait in vain for as long.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<BackendError>);

impl Outage {
    pub(super) fn note(&mut self, receipt: &Receipt) {
        if let Some(error) = receipt.error() {
            self.note_error(error);
        }
    }

    pub(super) fn note_error(&mut self, error: &BackendError) {
        if error.kind() == ErrorKind::Timeout {
            self.0.get_or_insert_with(|| error.clone());
        }
    }

    pub(super) fn error(&self) -> Option<BackendError> {
        self.0.clone()
    }
}

impl<S: Store> Leaf<S> {
    pub(super) fn ticket(&self, key: &CacheKey, options: &WriteOptions) -> Arc<WriteTicket> {
        options.ticket.clone().unwrap_or_else(|| self.layout.begin_write(key))
    }

    /// The turn of a write, if nobody has to be waited for.
    pub(super) fn turn_now<'a>(
        &'a self,
        key: &CacheKey,
        ticket: Option<&'a WriteTicket>,
    ) -> Option<Turn<'a>> {
        let (queue, hash) = (&*self.handle.coherence().queue, key.process_hash());
        match ticket {
            None => Some(Turn::Own(queue.enter_now(hash, crate::coherence::WriteKind::Change)?)),
            Some(ticket) => Some(Turn::Of(ticket, ticket.guard_now(queue, hash)?)),
        }
    }

    async fn turn<'a>(&'a self, key: &CacheKey, ticket: &'a WriteTicket) -> Turn<'a> {
        let (queue, hash) = (&*self.handle.coherence().queue, key.process_hash());
        Turn::Of(ticket, ticket.guard(queue, hash).await)
    }

    /// Does what is to be done in the turn of a write. Who has to wait for others has as long for both as the store gives
    /// a call, so that many writes of one key do not wait one after the other for a store that hangs.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) if that was too short. The store may have acted.
    pub(super) async fn in_turn<'a, F: Future + Send + 'a>(
        &'a self,
        key: &'a CacheKey,
        ticket: &'a WriteTicket,
        work: impl FnOnce(Turn<'a>) -> F + Send + 'a,
    ) -> BackendResult<F::Output> {
        if let Some(turn) = self.turn_now(key, Some(ticket)) {
            return Ok(work(turn).await);
        }
        self.in_time(Box::pin(async move { work(self.turn(key, ticket).await).await })).await
    }

    /// The turns of a batch, each with an error if it did not come in time.
    pub(super) async fn turns<'a>(
        &'a self,
        writes: impl Iterator<Item = (&'a CacheKey, &'a WriteTicket)>,
    ) -> Vec<BackendResult<Turn<'a>>> {
        let wait = async |key, ticket| match self.turn_now(key, Some(ticket)) {
            Some(turn) => Ok(turn),
            None => self.in_time(self.turn(key, ticket)).await,
        };
        join_all(writes.map(|(key, ticket)| wait(key, ticket))).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> BackendResult<T> {
        let Some(limit) = self.handle.turn_limit() else { return Ok(work.await) };
        match select(pin!(work), self.handle.clock().sleep(limit)).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => {
                let message = format!(
                    "the call and earlier changes of its key took longer than {} ms",
                    limit.as_millis()
                );
                Err(BackendError::new(ErrorKind::Timeout, message))
            }
        }
    }
}
