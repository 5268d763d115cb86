//! Writes of a leaf. A write into memory is carried out at once, without a future; others wait for their slot and for
//! the store.

use hitbox_core::{BackendResult, CacheKey, CacheValue, ErrorKind};

use super::first_epochs::AttachedOrStored;
use super::health::Side;
use super::prepare::bytes_of;
use super::turn::{Outage, Turn};
use super::{Leaf, LeafHandle};
use crate::coherence::WriteTicket;
use crate::coherence::epochs::Attach;
use crate::coherence::logical_clock::StartedAt;
use crate::completion::{Batch, Completion};
use crate::envelope::Raw;
use crate::metrics::Timers;
use crate::operation::{Condition, Content, LastWrites, Write, WriteOptions};
use crate::receipt::{LeafOutcome, Receipt, Receipts};
use crate::stats::Event;
use crate::store::Store;
use std::sync::Arc;
use std::task::Poll;

impl LeafHandle {
    pub(super) fn stored(
        &self,
        key: &CacheKey,
        turn: &Turn<'_>,
        event: Event,
        bytes: u64,
        result: BackendResult<()>,
    ) -> Receipt {
        let is_left_out = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotAdmitted);
        if result.is_ok() || is_left_out {
            turn.mark_clean(self, key);
        }
        if is_left_out {
            self.count(Event::NotAdmitted, 1);
            return self.line(LeafOutcome::NotAdmitted);
        }
        self.written(event, bytes, result)
    }

    pub(super) fn written(&self, event: Event, bytes: u64, result: BackendResult<()>) -> Receipt {
        match result {
            Ok(()) => {
                self.answered(Side::Changes);
                self.count(event, 1);
                self.count(Event::BytesWritten, bytes);
                self.line(LeafOutcome::Stored)
            }
            Err(error) => {
                if error.kind() == ErrorKind::VersionMismatch {
                    self.count(Event::VersionMismatch, 1);
                }
                self.refuse(error)
            }
        }
    }
}

impl<S: Store> Leaf<S> {
    pub(super) fn write_entries(&self, mut writes: Batch<Write>) -> Completion<'_, Receipts> {
        if let [write] = &mut *writes {
            return match self.write_now(write) {
                Some(receipt) => Completion::Done(Batch::one(receipt)),
                None => self.write_alone(writes),
            };
        }
        if let Some(last) = LastWrites::of(&writes) {
            return self.write_entries(last.pick(writes)).map(move |receipts| last.for_all(&receipts));
        }
        if self.handle.capabilities().answers_at_once {
            return self.write_in_order(writes);
        }
        Completion::later(self.write_batch(writes.into_vec()))
    }

    /// A single write, which has to wait. What most of them need has a future of its own: one of more than a kilobyte is no
    /// longer served from what the allocator keeps for the thread.
    fn write_alone(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        match writes.into_one() {
            Some(Write { key, content: Content::Entry(value), condition: Condition::Always, options })
                if !options.skip.contains(self.handle.position()) && !self.handle.is_gone(&value) =>
            {
                match self.prepare(&key, value, options.encodings.as_deref()) {
                    Ok(value) => {
                        let ticket = options.ticket;
                        Completion::later(async move {
                            Batch::one(self.write_prepared(&key, value, &Condition::Always, ticket).await)
                        })
                    }
                    Err(error) => Completion::Done(Batch::one(self.handle.refuse(error))),
                }
            }
            Some(write) => Completion::later(async { Batch::one(self.write_one(write).await) }),
            None => Completion::Done(Receipts::default()),
        }
    }

    /// One after the other; nothing is left for later as long as nobody has to be waited for.
    fn write_in_order(&self, mut writes: Batch<Write>) -> Completion<'_, Receipts> {
        let mut receipts = Batch::with_capacity(writes.len());
        for write in writes.iter_mut() {
            match self.write_now(write) {
                Some(receipt) => receipts.push(receipt),
                None => return Completion::later(self.write_later(writes, receipts)),
            }
        }
        Completion::Done(receipts)
    }

    /// The rest of a batch, of which so many have been answered.
    async fn write_later(&self, writes: Batch<Write>, mut receipts: Receipts) -> Receipts {
        let answered = receipts.len();
        for write in writes.into_iter().skip(answered) {
            receipts.push(self.write_one(write).await);
        }
        receipts
    }

    /// Writes without waiting; nothing if somebody has to be waited for, and then the write is what it was.
    fn write_now(&self, write: &mut Write) -> Option<Receipt> {
        let handle = &self.handle;
        let Write { key, content, condition, options } = write;
        let (Content::Entry(value), Condition::Always) = (&mut *content, &*condition) else { return None };
        if !handle.capabilities().answers_at_once {
            return None;
        }
        if options.skip.contains(handle.position()) {
            return Some(handle.line(LeafOutcome::Skipped));
        }
        let ticket = options.ticket.as_deref();
        if handle.is_gone(value) {
            // A value past its time replaces what was there with nothing.
            return self.remove_now(key, ticket);
        }
        if let Err(error) = self.check(key, value) {
            return Some(handle.refuse(error));
        }
        let started = ticket.map_or_else(StartedAt::write, WriteTicket::started);
        let Poll::Ready(taken) = self.turn_now(key, ticket) else { return None };
        let turn = match taken {
            Ok(Some(turn)) => turn,
            Ok(None) => return Some(handle.line(LeafOutcome::Stored)),
            Err(error) => return Some(handle.refuse(error)),
        };
        let Content::Entry(value) = std::mem::replace(content, Content::NotAdmitted { version: None }) else {
            return None;
        };
        let value = match self.encoded(value, options.encodings.as_deref()) {
            Ok(value) => value,
            Err(error) => return Some(handle.refuse(error)),
        };
        match self.store_now(key, value, started, &turn, Event::Write) {
            Ok(receipt) => Some(receipt),
            Err(value) => {
                *content = Content::Entry(value);
                None
            }
        }
    }

    /// Stores an entry whose turn it is, with the epochs of its scopes, without waiting.
    ///
    /// # Errors
    /// The entry is handed back if the store has to be waited for.
    pub(super) fn store_now(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        started: StartedAt,
        turn: &Turn<'_>,
        event: Event,
    ) -> Result<Receipt, CacheValue<Raw>> {
        let handle = &self.handle;
        if self.admit_namespaces(key, &value).is_err() {
            return Err(value);
        }
        let value = match self.epochs().attach(key, value, started) {
            Attach::Attached(value) => value,
            Attach::Missing(value, _) => return Err(value),
            Attach::Superseded => {
                if event == Event::Refill {
                    return Ok(self.refill_superseded());
                }
                // What was there was invalidated too.
                drop(self.store.try_remove(key));
                return Ok(handle.line(LeafOutcome::Superseded));
            }
        };
        let bytes = bytes_of(&value);
        let _noted = handle.coherence().note(key);
        let timer = Timers::start(handle.clock());
        let result = self.store.try_write(key, value)?;
        handle.timers().write.stop(handle.clock(), timer);
        Ok(handle.stored(key, turn, event, bytes, result))
    }

    /// Writes whatever it is.
    pub(super) async fn write_one(&self, write: Write) -> Receipt {
        let handle = &self.handle;
        if write.options.skip.contains(handle.position()) {
            return handle.line(LeafOutcome::Skipped);
        }
        let Write { key, content, condition, options } = write;
        match (content, condition) {
            (Content::Entry(value), Condition::Refill(permit)) => self.refill(&key, value, &permit).await,
            (Content::NotAdmitted { .. }, Condition::Refill(_)) => self.not_admitted(),
            (Content::Entry(value), condition) => self.write_entry(&key, value, &condition, &options).await,
            // What is rare is not a part of every write's future.
            (Content::NotAdmitted { version }, condition) => {
                Box::pin(self.leave_out(&key, version, &condition, &options)).await
            }
            (Content::Renewal(renewal), _) => Box::pin(self.renew(&key, &renewal, &options)).await,
            (Content::Times(change), _) => Box::pin(self.change_times(&key, &change, &options)).await,
        }
    }

    async fn write_entry(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &Condition,
        options: &WriteOptions,
    ) -> Receipt {
        let handle = &self.handle;
        if handle.is_gone(&value) && !condition.depends_on_stored() {
            return Box::pin(self.remove_one(key, options)).await;
        }
        match self.prepare(key, value, options.encodings.as_deref()) {
            Ok(value) => self.write_prepared(key, value, condition, options.ticket.clone()).await,
            Err(error) => handle.refuse(error),
        }
    }

    async fn write_prepared(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &Condition,
        ticket: Option<Arc<WriteTicket>>,
    ) -> Receipt {
        let ticket = ticket.unwrap_or_else(|| self.layout.begin_write(key));
        let work = |turn| self.write_in_turn(key, value, condition, ticket.started(), turn);
        let written = self.in_turn(key, &ticket, LeafOutcome::Stored, work).await;
        written.unwrap_or_else(|error| self.handle.refuse(error))
    }

    async fn write_in_turn(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &Condition,
        started: StartedAt,
        turn: Turn<'_>,
    ) -> Receipt {
        let handle = &self.handle;
        let attached = match self.attach_known_epochs(key, value, started) {
            Ok(attached) => attached,
            Err(value) => {
                let bytes = bytes_of(&value);
                let is_plain = matches!(condition, Condition::Always);
                // Rare, and not to be a part of every write's future.
                match Box::pin(self.attach_or_store(key, value, started, is_plain)).await {
                    Ok(AttachedOrStored::Attached(attached)) => attached,
                    Ok(AttachedOrStored::Stored) => {
                        return handle.stored(key, &turn, Event::Write, bytes, Ok(()));
                    }
                    Err(error) => return handle.refuse(error),
                }
            }
        };
        let Some(value) = attached else { return Box::pin(self.remove_superseded(key, &turn)).await };
        let bytes = bytes_of(&value);
        let (slow, hash) = (&handle.coherence().slow_writes, key.process_hash());
        if let Err(error) = slow.check(hash, bytes, handle.clock().monotonic()) {
            return handle.refuse(error);
        }
        let _noted = handle.coherence().note(key);
        let timer = Timers::start(handle.clock());
        // Where no other process writes, nothing can be in the way of a repair.
        let facts = handle.capabilities();
        let gives_way = facts.shared
            && match condition {
                Condition::Repair => true,
                // A dirty copy is known to be older, whatever its version is.
                Condition::IfNotOlder(_) => !handle.coherence().is_dirty(key),
                _ => false,
            };
        let result = if condition.depends_on_stored() || (gives_way && facts.writes_conditionally) {
            Box::pin(self.store_if(key, value, condition)).await
        } else {
            self.store.write(key, value).await
        };
        handle.timers().write.stop(handle.clock(), timer);
        slow.note(hash, bytes, handle.clock().monotonic(), &result);
        if gives_way && result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict) {
            return handle.line(LeafOutcome::Superseded);
        }
        handle.stored(key, &turn, Event::Write, bytes, result)
    }

    /// Several writes with one native call for those that replace what is there.
    async fn write_batch(&self, writes: Vec<Write>) -> Receipts {
        let is_plain = |write: &Write| {
            matches!((&write.content, &write.condition), (Content::Entry(_), Condition::Always))
                && write.options.skip.is_empty()
        };
        if !writes.iter().all(is_plain) {
            let (mut receipts, mut outage) = (Batch::with_capacity(writes.len()), Outage::default());
            for write in writes {
                let receipt = match outage.error() {
                    Some(error) => self.handle.refuse(error),
                    None => self.write_one(write).await,
                };
                outage.note(&receipt);
                receipts.push(receipt);
            }
            return receipts;
        }
        let keys: Vec<&CacheKey> = writes.iter().map(|write| &write.key).collect();
        let tickets = self.tickets(&keys, writes.iter().map(|write| &write.options));
        let mut receipts: Vec<Option<Receipt>> = writes.iter().map(|_| None).collect();
        let mut prepared = Vec::with_capacity(writes.len());
        let mut over = Vec::new();
        for (index, write) in writes.into_iter().enumerate() {
            let Write { key, content: Content::Entry(value), options, .. } = write else { continue };
            if self.handle.is_gone(&value) {
                over.push((index, key));
                continue;
            }
            match self.prepare(&key, value, options.encodings.as_deref()) {
                Ok(value) => prepared.push((index, key, value)),
                Err(error) => receipts[index] = Some(self.handle.refuse(error)),
            }
        }
        let mut outage = Outage::default();
        for (index, key) in over {
            let receipt = match outage.error() {
                Some(error) => self.handle.refuse(error),
                None => self.remove_one(&key, &WriteOptions::of(&tickets[index])).await,
            };
            outage.note(&receipt);
            receipts[index] = Some(receipt);
        }
        for (index, receipt) in self.store_batch(prepared, &tickets).await {
            receipts[index] = Some(receipt);
        }
        receipts.into_iter().map(Option::unwrap_or_default).collect()
    }

    async fn store_batch(
        &self,
        prepared: Vec<(usize, CacheKey, CacheValue<Raw>)>,
        tickets: &[Arc<WriteTicket>],
    ) -> Vec<(usize, Receipt)> {
        let handle = &self.handle;
        let keys: Vec<(usize, CacheKey)> =
            prepared.iter().map(|(index, key, _)| (*index, key.clone())).collect();
        let turns = self.turns(keys.iter().map(|(index, key)| (key, &*tickets[*index]))).await;
        let mut done = Vec::with_capacity(prepared.len());
        let mut batch = Vec::with_capacity(prepared.len());
        let mut open = Vec::with_capacity(prepared.len());
        let mut outage = Outage::default();
        let entries = prepared.iter().map(|(index, key, value)| (key, value, tickets[*index].started()));
        if let Err(error) = self.learn_epochs(entries).await {
            // Each entry asks for itself what is missing, unless it would wait in vain.
            outage.note_error(&error);
        }
        for ((index, key, value), turn) in prepared.into_iter().zip(turns) {
            let turn = match outage.error().map_or(turn, Err) {
                Ok(None) => {
                    done.push((index, handle.line(LeafOutcome::Stored)));
                    continue;
                }
                Ok(Some(turn)) => turn,
                Err(error) => {
                    done.push((index, handle.refuse(error)));
                    continue;
                }
            };
            match self.attach_epochs(&key, value, tickets[index].started()).await {
                Ok(Some(value)) => {
                    open.push((index, bytes_of(&value), turn));
                    batch.push((key, value));
                }
                Ok(None) => {
                    let receipt = self.remove_superseded(&key, &turn).await;
                    outage.note(&receipt);
                    done.push((index, receipt));
                }
                Err(error) => {
                    outage.note_error(&error);
                    done.push((index, handle.refuse(error)));
                }
            }
        }
        if let Some(error) = outage.error() {
            // Those that were ready before would wait in vain for as long once more.
            done.extend(open.into_iter().map(|(index, ..)| (index, handle.refuse(error.clone()))));
            return done;
        }
        if batch.is_empty() {
            return done;
        }
        let keys: Vec<CacheKey> = batch.iter().map(|(key, _)| key.clone()).collect();
        let _noted: Vec<_> = keys.iter().map(|key| handle.coherence().note(key)).collect();
        let timer = Timers::start(handle.clock());
        let results = self.store.write_batch(batch).await;
        handle.timers().write.stop(handle.clock(), timer);
        for ((key, (index, bytes, turn)), result) in keys.iter().zip(open).zip(results) {
            done.push((index, handle.stored(key, &turn, Event::Write, bytes, result)));
        }
        done
    }

    /// The tickets of a batch: all that have none begin at once.
    pub(super) fn tickets<'o>(
        &self,
        keys: &[&CacheKey],
        options: impl Iterator<Item = &'o WriteOptions>,
    ) -> Vec<Arc<WriteTicket>> {
        let known: Vec<Option<Arc<WriteTicket>>> = options.map(|options| options.ticket.clone()).collect();
        let open = keys.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(key, _)| *key);
        let mut begun = self.layout.begin_writes(open).into_iter();
        known.into_iter().filter_map(|known| known.or_else(|| begun.next())).collect()
    }
}
