//! Whose turn it is to write a key of the store.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::{Either, join_all, select};
use hitbox_core::{BackendError, BackendResult, CacheKey, ErrorKind};

use super::{Leaf, LeafHandle};
use crate::coherence::write_queue::OwnSlot;
use crate::coherence::write_ticket::SlotGuard;
use crate::coherence::{Passed, WriteTicket};
use crate::operation::WriteOptions;
use crate::receipt::{LeafOutcome, Receipt};
use crate::store::Store;

/// The right to write a key of the store now.
pub(super) enum Turn<'a> {
    /// A slot of this call's own.
    Own(OwnSlot<'a>),
    /// The guard of a ticket's slot.
    Of(&'a WriteTicket, #[expect(dead_code, reason = "the turn ends when it is dropped")] SlotGuard<'a>),
}

/// A turn, or none where the store has what is to be written, or something later: it stands in another place of the
/// expression too.
pub(super) type Taken<'a> = BackendResult<Option<Turn<'a>>>;

impl<'a> Turn<'a> {
    fn taken(ticket: &'a WriteTicket, guard: Result<SlotGuard<'a>, Passed>) -> Taken<'a> {
        match guard {
            Ok(guard) => Ok(Some(Self::Of(ticket, guard))),
            Err(Passed::Overtaken) => Ok(None),
            Err(Passed::Late) => {
                let message = "a later change of the key came before this one could be made once more";
                Err(BackendError::new(ErrorKind::Overloaded, message))
            }
        }
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
    #[inline]
    pub(super) fn turn_now<'a>(&'a self, key: &CacheKey, ticket: Option<&'a WriteTicket>) -> Poll<Taken<'a>> {
        let (queue, hash) = (&*self.handle.coherence().queue, key.process_hash());
        let Some(ticket) = ticket else {
            let slot = queue.enter_now(hash, crate::coherence::WriteKind::Change);
            return slot.map_or(Poll::Pending, |slot| Poll::Ready(Ok(Some(Turn::Own(slot)))));
        };
        ticket.guard_now(queue, hash).map(|guard| Turn::taken(ticket, guard))
    }

    async fn turn<'a>(&'a self, key: &CacheKey, ticket: &'a WriteTicket) -> Taken<'a> {
        let (queue, hash) = (&*self.handle.coherence().queue, key.process_hash());
        Turn::taken(ticket, ticket.guard(queue, hash).await)
    }

    /// Does what is to be done in the turn of a write; the outcome is `overtaken` where that is done already. Who has to
    /// wait for others has as long for both as the store gives a call, so that many writes of one key do not wait one
    /// after the other for a store that hangs.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) if that was too short: the store may have acted.
    /// [`Overloaded`](ErrorKind::Overloaded) if the turn has passed.
    pub(super) async fn in_turn<'a, F: Future<Output = Receipt> + Send + 'a>(
        &'a self,
        key: &'a CacheKey,
        ticket: &'a WriteTicket,
        overtaken: LeafOutcome,
        work: impl FnOnce(Turn<'a>) -> F + Send + 'a,
    ) -> BackendResult<Receipt> {
        if let Poll::Ready(taken) = self.turn_now(key, Some(ticket)) {
            return match taken? {
                Some(turn) => Ok(work(turn).await),
                None => Ok(self.handle.line(overtaken)),
            };
        }
        let waiting = async move {
            match self.turn(key, ticket).await? {
                Some(turn) => Ok(work(turn).await),
                None => Ok(self.handle.line(overtaken)),
            }
        };
        self.in_time(Box::pin(waiting)).await
    }

    /// The turns of a batch, each with an error if it did not come in time.
    pub(super) async fn turns<'a>(
        &'a self,
        writes: impl Iterator<Item = (&'a CacheKey, &'a WriteTicket)>,
    ) -> Vec<Taken<'a>> {
        let wait = async |key, ticket| match self.turn_now(key, Some(ticket)) {
            Poll::Ready(taken) => taken,
            Poll::Pending => self.in_time(self.turn(key, ticket)).await,
        };
        join_all(writes.map(|(key, ticket)| wait(key, ticket))).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = BackendResult<T>>) -> BackendResult<T> {
        let Some(limit) = self.handle.turn_limit() else { return work.await };
        match select(pin!(work), self.handle.clock().sleep(limit)).await {
            Either::Left((done, _)) => done,
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
