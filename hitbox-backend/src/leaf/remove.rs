//! Removals of a leaf.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;

use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue};

use super::check::Parsed;
use super::health::Side;
use super::turn::{Outage, Turn};
use super::{Leaf, LeafHandle};
use crate::coherence::WriteTicket;
use crate::coherence::epochs::Validity;
use crate::completion::{Batch, Completion};
use crate::envelope::wire;
use crate::metrics::Timers;
use crate::operation::{Reach, Removal, Target, WriteOptions};
use crate::receipt::{DeleteStatus, LeafOutcome, Receipt, Receipts};
use crate::stats::Event;
use crate::store::{Peek, Store, StoredBody};
use crate::stream;

impl LeafHandle {
    fn removed(&self, key: &CacheKey, turn: &Turn<'_>, result: BackendResult<DeleteStatus>) -> Receipt {
        match result {
            Ok(status) => {
                turn.mark_clean(self, key);
                self.answered(Side::Changes);
                self.count(Event::Remove, 1);
                let is_missing = status == DeleteStatus::Missing;
                self.line(if is_missing { LeafOutcome::Absent } else { LeafOutcome::Removed })
            }
            Err(error) => self.not_removed(error),
        }
    }

    fn not_removed(&self, error: BackendError) -> Receipt {
        self.line(LeafOutcome::of_error(self.failed(Event::RemoveError, error)))
    }
}

impl<S: Store> Leaf<S> {
    pub(super) fn remove_entries(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        if removals.len() == 1 {
            let Some(removal) = removals.into_one() else { return Completion::Done(Batch::default()) };
            if let Some(receipt) = self.remove_at_once(&removal) {
                return Completion::Done(Batch::one(receipt));
            }
            return Completion::later(async move { Batch::one(self.remove_any(&removal).await) });
        }
        Completion::later(self.remove_batch(removals.into_vec()))
    }

    fn remove_at_once(&self, removal: &Removal) -> Option<Receipt> {
        let Removal { key, options, .. } = removal;
        if options.skip.contains(self.handle.position()) {
            return Some(self.handle.line(LeafOutcome::Skipped));
        }
        if !removal.is_plain() {
            return None;
        }
        self.remove_now(key, options.ticket.as_deref())
    }

    /// Removes without waiting; nothing if somebody has to be waited for.
    pub(super) fn remove_now(&self, key: &CacheKey, ticket: Option<&WriteTicket>) -> Option<Receipt> {
        if !self.handle.capabilities().answers_at_once || self.handle.check_key(key).is_err() {
            return None;
        }
        let Poll::Ready(taken) = self.turn_now(key, ticket) else { return None };
        let turn = match taken {
            Ok(Some(turn)) => turn,
            Ok(None) => return Some(self.handle.line(LeafOutcome::Absent)),
            Err(error) => return Some(self.handle.not_removed(error)),
        };
        let was_invalidated = self.was_invalidated(key);
        let timer = Timers::start(self.handle.clock());
        let Poll::Ready(mut result) = self.store.try_remove(key) else { return None };
        self.handle.timers().remove.stop(self.handle.clock(), timer);
        if was_invalidated && result.is_ok() {
            result = Ok(DeleteStatus::Missing);
        }
        Some(self.handle.removed(key, &turn, result))
    }

    /// Whether a store that answers at once has something under the key that an invalidation has ended.
    fn was_invalidated(&self, key: &CacheKey) -> bool {
        if !self.epochs().may_have_invalidated() {
            return false;
        }
        let Poll::Ready(Some(held)) = self.store.try_read(key) else { return false };
        self.epochs().validity(key, &held) == Validity::Invalid
    }

    /// What the removal of this entry counts as: what was invalidated was not there.
    async fn status_of(&self, key: &CacheKey, held: Peek) -> DeleteStatus {
        match held {
            Peek::Absent => DeleteStatus::Missing,
            Peek::Unknown => DeleteStatus::of(1),
            Peek::Entry(entry) => {
                let status = DeleteStatus::of_entry(Some(&entry), self.handle.clock().now());
                // It is removed all the same if that cannot be said.
                let counts =
                    status != DeleteStatus::Missing && self.still_counts(key, &entry).await.unwrap_or(true);
                if counts { status } else { DeleteStatus::Missing }
            }
        }
    }

    async fn remove_any(&self, removal: &Removal) -> Receipt {
        let Removal { key, reach, target, options } = removal;
        if options.skip.contains(self.handle.position()) {
            return self.handle.line(LeafOutcome::Skipped);
        }
        let (mut options, mut size) = (options.clone(), None);
        if *reach == Reach::Upper {
            size = stream::size_in(self, key).await;
            // An entry is dropped for want of room: that brings no new state.
            options.ticket.get_or_insert_with(|| self.layout.begin_maintenance_write(key));
        }
        let removed = match target {
            Target::Generation(generation) => self.remove_generation(key, *generation, &options).await,
            Target::Outdated if self.handle.capabilities().shared => {
                self.remove_outdated(key, &options).await
            }
            Target::Any | Target::Outdated => self.remove_one(key, &options).await,
        };
        removed.of_size(size)
    }

    pub(super) async fn remove_one(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        let ticket = self.ticket(key, options);
        let work = async |turn| self.remove_in_turn(key, &turn).await;
        let removed = self.in_turn(key, &ticket, LeafOutcome::Absent, work).await;
        removed.unwrap_or_else(|error| self.handle.not_removed(error))
    }

    pub(super) async fn remove_in_turn(&self, key: &CacheKey, turn: &Turn<'_>) -> Receipt {
        if let Err(error) = self.handle.check_key(key) {
            return self.handle.removed(key, turn, Err(error));
        }
        let timer = Timers::start(self.handle.clock());
        let result = if !self.epochs().may_have_invalidated() || self.handle.capabilities().answers_at_once {
            let was_invalidated = self.was_invalidated(key);
            self.store
                .remove(key)
                .await
                .map(|status| if was_invalidated { DeleteStatus::Missing } else { status })
        } else {
            match self.store.take(key).await {
                Ok(held) => Ok(self.status_of(key, held).await),
                Err(error) => Err(error),
            }
        };
        self.handle.timers().remove.stop(self.handle.clock(), timer);
        self.handle.removed(key, turn, result)
    }

    /// Removes the body of this generation. That ends no load: what is stored is another state, or the one that was there.
    async fn remove_generation(&self, key: &CacheKey, generation: u64, options: &WriteOptions) -> Receipt {
        let ticket = options.ticket.clone().unwrap_or_else(|| self.layout.begin_maintenance_write(key));
        let work = async |turn| match self.take_generation(key, generation).await {
            Ok(None) => self.handle.line(LeafOutcome::Absent),
            result => {
                self.handle.removed(key, &turn, result.map(|status| status.unwrap_or(DeleteStatus::Missing)))
            }
        };
        let removed = self.in_turn(key, &ticket, LeafOutcome::Absent, work).await;
        removed.unwrap_or_else(|error| self.handle.not_removed(error))
    }

    /// Nothing if there is no entry, or another one. It is the turn of the caller.
    async fn take_generation(&self, key: &CacheKey, generation: u64) -> BackendResult<Option<DeleteStatus>> {
        self.handle.check_key(key)?;
        if self.handle.coherence().is_dirty(key) && !self.handle.capabilities().shared {
            // Nobody is served what is there, and nobody may be when the generation that followed it is gone. In a store that others
            // share it stays dirty: they may have replaced it.
            self.store.remove(key).await?;
            return Ok(Some(DeleteStatus::Missing));
        }
        if let Some(held) = self.store.take_same(key, generation).await? {
            return Ok(match held {
                Peek::Absent => None,
                held => Some(self.status_of(key, held).await),
            });
        }
        if self.handle.capabilities().shared {
            // Others may write between a look and a removal.
            return Err(BackendError::unsupported("the removal of one generation"));
        }
        let stored = self.stored_identity(key).await?;
        if stored.is_none_or(|(_, identity)| identity != generation) {
            return Ok(None);
        }
        let held = self.store.take(key).await?;
        Ok(Some(self.status_of(key, held).await))
    }

    /// What is stored, and its identity.
    async fn stored_identity(&self, key: &CacheKey) -> BackendResult<Option<(CacheValue<()>, u64)>> {
        match self.store.open_body(key).await? {
            StoredBody::There(body) => {
                let entry = wire::peek(body.start()).and_then(Result::ok);
                return Ok(entry.zip(wire::identity_of(body.start())));
            }
            StoredBody::Absent => return Ok(None),
            StoredBody::Unsupported => {}
        }
        let Some(stored) = self.store.read(key).await? else { return Ok(None) };
        let Parsed::Value(stored) = self.handle.parse(key, stored) else { return Ok(None) };
        let identity = stored.data().identity();
        Ok(Some((stored.map(drop), identity)))
    }

    /// Removes what is older than the call that failed here, in a store that others share.
    async fn remove_outdated(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        let ticket = self.ticket(key, options);
        let work = async |turn| self.handle.removed(key, &turn, self.take_outdated(key).await);
        let removed = self.in_turn(key, &ticket, LeafOutcome::Absent, work).await;
        removed.unwrap_or_else(|error| self.handle.not_removed(error))
    }

    async fn take_outdated(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.handle.check_key(key)?;
        let Some((stored, identity)) = self.stored_identity(key).await? else {
            return Ok(DeleteStatus::Missing);
        };
        let since = self.handle.coherence().dirty_since(key);
        if since.zip(stored.created()).is_some_and(|(since, created)| created > since) {
            return Ok(DeleteStatus::Missing);
        }
        let held = match self.store.take_same(key, identity).await? {
            Some(held) => held,
            None => self.store.take(key).await?,
        };
        Ok(self.status_of(key, held).await)
    }

    /// A write whose scopes have been invalidated since it started replaces what was there with nothing.
    pub(super) async fn remove_superseded(&self, key: &CacheKey, turn: &Turn<'_>) -> Receipt {
        let removed = self.remove_in_turn(key, turn).await;
        if removed.is_ok() { self.handle.line(LeafOutcome::Superseded) } else { removed }
    }

    async fn take_batch(&self, batch: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        if !self.epochs().may_have_invalidated() || self.handle.capabilities().answers_at_once {
            let were_invalidated: Vec<bool> = batch.iter().map(|key| self.was_invalidated(key)).collect();
            let removed = self.store.remove_batch(batch).await.into_iter().zip(were_invalidated);
            let status = |(removed, was_invalidated): (BackendResult<DeleteStatus>, bool)| {
                removed.map(|status| if was_invalidated { DeleteStatus::Missing } else { status })
            };
            return removed.map(status).collect();
        }
        let taken = self.store.take_batch(batch).await;
        let mut removed = Vec::with_capacity(taken.len());
        for (key, held) in batch.iter().zip(taken) {
            removed.push(match held {
                Ok(held) => Ok(self.status_of(key, held).await),
                Err(error) => Err(error),
            });
        }
        removed
    }

    /// One native call for all keys. A key that occurs twice is gone when it is removed the second time.
    async fn remove_batch(&self, removals: Vec<Removal>) -> Receipts {
        if removals.iter().any(|removal| !removal.is_plain() || !removal.options.skip.is_empty()) {
            let (mut receipts, mut outage) = (Batch::with_capacity(removals.len()), Outage::default());
            for removal in &removals {
                let receipt = match outage.error() {
                    Some(error) => self.handle.not_removed(error),
                    None => self.remove_any(removal).await,
                };
                outage.note(&receipt);
                receipts.push(receipt);
            }
            return receipts;
        }
        let keys: Vec<&CacheKey> = removals.iter().map(|removal| &removal.key).collect();
        let tickets = self.tickets(&keys, removals.iter().map(|removal| &removal.options));
        let mut unique: Vec<(CacheKey, Arc<WriteTicket>)> = Vec::with_capacity(removals.len());
        let mut known: HashMap<CacheKey, usize> = HashMap::with_capacity(removals.len());
        for (removal, ticket) in removals.iter().zip(tickets) {
            known.entry(removal.key.clone()).or_insert_with(|| {
                unique.push((removal.key.clone(), ticket));
                unique.len() - 1
            });
        }
        if unique.is_empty() {
            return Batch::default();
        }
        let waiting = unique.iter().map(|(key, ticket)| (key, &**ticket));
        let (mut batch, mut turns) = (Vec::with_capacity(unique.len()), Vec::with_capacity(unique.len()));
        let mut receipts: Vec<Receipt> = vec![Receipt::default(); unique.len()];
        for (at, turn) in self.turns(waiting).await.into_iter().enumerate() {
            match turn {
                Ok(None) => receipts[at] = self.handle.line(LeafOutcome::Absent),
                Ok(Some(turn)) => {
                    batch.push(unique[at].0.clone());
                    turns.push((at, turn));
                }
                Err(error) => receipts[at] = self.handle.not_removed(error),
            }
        }
        let timer = Timers::start(self.handle.clock());
        let results = self.take_batch(&batch).await;
        self.handle.timers().remove.stop(self.handle.clock(), timer);
        for ((key, (at, turn)), result) in batch.iter().zip(&turns).zip(results) {
            receipts[*at] = self.handle.removed(key, turn, result);
        }
        let mut receipt_of = |key: &CacheKey| {
            let receipt = known.get(key).and_then(|index| receipts.get_mut(*index))?;
            let again = if receipt.is_ok() { self.handle.line(LeafOutcome::Absent) } else { receipt.clone() };
            Some(std::mem::replace(receipt, again))
        };
        removals.iter().map(|removal| receipt_of(&removal.key).unwrap_or_default()).collect()
    }
}
