//! Bodies of stores that take and hand them out by chunks. Those of others are collected first, and are read as a whole.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_core::{
    BackendError, BackendLabel, BackendResult, CacheKey, CacheValue, ErrorKind, Freshness, Operation,
};

use super::Leaf;
use super::check::Checked;
use super::collect::CollectingWriter;
use super::condition::{Candidate, conflict};
use super::health::Side;
use super::turn::Turn;
use crate::coherence::RefillPermit;
use crate::coherence::logical_clock::StartedAt;
use crate::envelope::wire::{self, BodyHead};
use crate::envelope::{Chunks, Raw};
use crate::metrics::Timers;
use crate::operation::{BodyOrigin, Condition, ReadOptions, Renewal, WriteOptions};
use crate::receipt::{LeafOutcome, Receipt};
use crate::stats::Event;
use crate::store::{Conditional, Store, StoreCondition, StoreReader, StoreWriter, StoredBody, WrittenPart};
use crate::stream::{self, BodyReader, BodyWriter, BufferedReader};

/// What came of opening a stored body.
enum Opened<S> {
    Body(LeafReader<S>),
    /// The leaf has nothing that this read may use, which has been counted.
    Nothing,
    /// The entry has to be read as a whole.
    Whole,
}

impl<S: Store> Leaf<S> {
    pub(super) async fn open_stored_body(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn BodyReader>>> {
        if options.skip.contains(self.handle.position()) {
            return Ok(None);
        }
        let opened = self.look_for_body(key, options).await;
        match opened
            .map_err(|error| self.handle.failed(Event::ReadError, error.during(Operation::ReadBody)))?
        {
            Opened::Body(reader) => {
                stream::note_read(self, key, &reader.entry, options).await;
                Ok(Some(Box::new(reader)))
            }
            Opened::Nothing => {
                self.layout.count_unanswered(options);
                Ok(None)
            }
            Opened::Whole => BufferedReader::open(self, key, options).await,
        }
    }

    async fn look_for_body(&self, key: &CacheKey, options: &ReadOptions) -> BackendResult<Opened<S>> {
        let handle = &self.handle;
        handle.check_key(key)?;
        if handle.coherence().is_dirty(key) {
            handle.miss(Event::Dirty, options);
            return Ok(Opened::Nothing);
        }
        self.ask_for(self.missing_epochs(key)).await?;
        let held = self.epochs().held_against(key);
        let timer = Timers::start(handle.clock());
        let stored = self.store.open_body(key).await;
        handle.timers().read.stop(handle.clock(), timer);
        let body = match stored? {
            StoredBody::There(body) => body,
            StoredBody::Absent => {
                handle.answered(Side::Reads);
                handle.count_read(Event::Miss, options);
                return Ok(Opened::Nothing);
            }
            StoredBody::Unsupported => return Ok(Opened::Whole),
        };
        handle.answered(Side::Reads);
        // What is damaged or of no use is seen to where entries are read as a whole.
        let BodyHead::Body(entry, identity) = wire::body_head(key, body.start(), handle.codec()) else {
            return Ok(Opened::Whole);
        };
        // The check of values is the hot path, and is not made for other entries too.
        let entry = entry.map(|()| Raw::chunks(Chunks::default(), 0));
        if self.needs_epochs(key, &entry) {
            self.fetch_epochs(std::iter::once((key, &entry))).await?;
        }
        if handle.coherence().ignores(&entry) {
            handle.miss(Event::Dirty, options);
            return Ok(Opened::Nothing);
        }
        let freshness = match handle.check(key, &entry, options, self.epochs().is_plain(), held) {
            Checked::Usable(freshness) => freshness,
            Checked::Unusable => return Ok(Opened::Nothing),
            // The store has been asked: epochs that are not known by now are lost.
            Checked::NeedEpochs => {
                handle.miss(Event::Invalidated, options);
                return Ok(Opened::Nothing);
            }
        };
        let (leaf, len, entry) = (self.clone(), body.body_len(), entry.map(drop));
        let is_counted = !options.background;
        Ok(Opened::Body(LeafReader { leaf, body, entry, freshness, identity, at: 0..len, is_counted }))
    }

    pub(super) async fn open_body_writer(
        &self,
        key: &CacheKey,
        entry: CacheValue<()>,
        mut options: WriteOptions,
    ) -> BackendResult<Box<dyn BodyWriter>> {
        let handle = &self.handle;
        let failed =
            |error: BackendError| handle.failed(Event::WriteError, error.during(Operation::WriteBody));
        // It is as old as its writer, not as what comes of asking the store.
        let origin = stream::claim(&self.layout, key, &mut options);
        // A value that is kept as it came, and has no bytes yet.
        let mut frame = wire::body_frame(key, handle.codec());
        frame.identity = origin.generation();
        let value = entry.clone().map(|()| Raw::encoded(frame, None));
        let is_refill = matches!(origin, BodyOrigin::Refill(_));
        let is_skipped = options.skip.contains(handle.position());
        // A refill knows nothing of what other processes have written meanwhile: the store has to compare.
        let facts = handle.capabilities();
        let begun = if is_skipped || (is_refill && facts.shared && !facts.writes_conditionally) {
            None
        } else {
            self.check(key, &value).map_err(failed)?;
            self.store.begin_body(key, &value).await.map_err(failed)?
        };
        let Some(body) = begun else {
            options.origin = Some(origin);
            return CollectingWriter::open(self.clone(), key, entry, options).map_err(failed);
        };
        let (leaf, key) = (self.clone(), key.clone());
        Ok(Box::new(LeafWriter { leaf, key, entry, value, options, origin, body, written: 0 }))
    }

    /// Commits a body of a lower layer, if nothing was written or invalidated since the permit was taken.
    async fn commit_refill(
        &self,
        key: &CacheKey,
        body: Box<dyn StoreWriter>,
        value: CacheValue<Raw>,
        bytes: u64,
        permit: &RefillPermit,
    ) -> Receipt {
        let handle = &self.handle;
        let queue = &handle.coherence().queue;
        let generation = permit.generation(queue, key.process_hash());
        let Some(generation) = generation.filter(|_| !handle.is_gone(&value)) else {
            body.abort().await;
            return handle.line(LeafOutcome::Skipped);
        };
        match queue.enter_refill(key, generation) {
            Some(slot) => {
                let ended = Ended { body, value, bytes, event: Event::Refill };
                self.commit_in_turn(key, ended, permit.started(), Turn::Own(slot)).await
            }
            None => {
                body.abort().await;
                self.refill_superseded()
            }
        }
    }

    /// Commits a body whose turn it is.
    async fn commit_in_turn(
        &self,
        key: &CacheKey,
        Ended { mut body, value, bytes, event }: Ended,
        started: StartedAt,
        turn: Turn<'_>,
    ) -> Receipt {
        let handle = &self.handle;
        let value = match self.attach_epochs(key, value, started).await {
            Ok(Some(value)) => value,
            Ok(None) => {
                body.abort().await;
                if event == Event::Refill {
                    return self.refill_superseded();
                }
                return self.remove_superseded(key, &turn).await;
            }
            Err(error) => {
                body.abort().await;
                return handle.refuse(error);
            }
        };
        let _noted = handle.coherence().note(key);
        let timer = Timers::start(handle.clock());
        let facts = handle.capabilities();
        let result = if event == Event::Refill && facts.shared {
            let candidate = Candidate::Body(&mut *body, &value);
            let stored = Box::pin(self.store_if_native(key, candidate, &Condition::Repair)).await;
            if stored.is_err() {
                body.abort().await;
            }
            stored
        } else {
            body.commit(value).await
        };
        handle.timers().write.stop(handle.clock(), timer);
        if event == Event::Refill && result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict) {
            return self.refill_superseded();
        }
        handle.stored(key, &turn, event, bytes, result)
    }
}

/// A body that has ended, and is not committed.
struct Ended {
    body: Box<dyn StoreWriter>,
    value: CacheValue<Raw>,
    bytes: u64,
    event: Event,
}

impl<S: Store> Leaf<S> {
    /// Stores a body once more, chunk by chunk, with what is said anew of it; nothing if the store has to be asked
    /// for all of it at once. It is the turn of the caller.
    pub(super) async fn rewrite_body(
        &self,
        key: &CacheKey,
        renewal: &Renewal,
    ) -> BackendResult<Option<Receipt>> {
        let handle = &self.handle;
        let body = match self.store.open_body(key).await? {
            StoredBody::There(body) => body,
            StoredBody::Absent => return Ok(Some(handle.line(LeafOutcome::Absent))),
            StoredBody::Unsupported => return Ok(None),
        };
        let BodyHead::Body(entry, identity) = wire::body_head(key, body.start(), handle.codec()) else {
            return Ok(None);
        };
        let is_meant = renewal.generation.is_none_or(|generation| generation == identity);
        if !is_meant || !self.still_counts(key, &entry).await? {
            return Ok(Some(handle.line(LeafOutcome::Absent)));
        }
        // It is the same body.
        let mut frame = wire::body_frame(key, handle.codec());
        frame.identity = identity;
        let value = self.prepare(key, renewal.apply(entry).map(|()| Raw::encoded(frame, None)), None)?;
        match body.replace_entry(&value).await? {
            Some(Conditional::Written) => return Ok(Some(handle.written(Event::Write, 0, Ok(())))),
            Some(Conditional::Conflict(_)) => return Err(conflict()),
            None => {}
        }
        let Some(mut writer) = self.store.begin_body(key, &value).await? else { return Ok(None) };
        let (mut at, len) = (0, body.body_len());
        while at < len {
            let copied = match body.read_at(at, len - at).await {
                Ok(chunk) => {
                    at += chunk.len() as u64;
                    writer.chunk(chunk).await
                }
                Err(error) => Err(self.not_read(&*body, error).await),
            };
            if let Err(error) = copied {
                writer.abort().await;
                return Err(error);
            }
        }
        let result = if handle.capabilities().shared {
            // Another process may have written meanwhile.
            match writer.commit_if(&value, &StoreCondition::IfSame(identity)).await {
                Ok(Conditional::Written) => Ok(()),
                not_written => {
                    writer.abort().await;
                    Err(not_written.err().unwrap_or_else(conflict))
                }
            }
        } else {
            writer.commit(value).await
        };
        Ok(Some(handle.written(Event::Write, len, result)))
    }

    /// A chunk could not be read. A body that is damaged is removed.
    async fn not_read(&self, body: &dyn StoreReader, error: BackendError) -> BackendError {
        let handle = &self.handle;
        let error = error.during(Operation::ReadBody);
        if error.kind() != ErrorKind::Codec {
            return handle.failed(Event::ReadError, error);
        }
        handle.count(Event::Damaged, 1);
        tracing::warn!(backend = %handle.path(), %error, "a stored body is damaged");
        if let Err(error) = body.discard().await {
            tracing::debug!(backend = %handle.path(), %error, "a damaged body could not be removed");
        }
        error.at(handle.path())
    }
}

/// A body on its way into a store that takes it by chunks.
struct LeafWriter<S> {
    leaf: Leaf<S>,
    key: CacheKey,
    entry: CacheValue<()>,
    /// The entry as the store is given it.
    value: CacheValue<Raw>,
    options: WriteOptions,
    origin: BodyOrigin,
    body: Box<dyn StoreWriter>,
    written: u64,
}

#[async_trait]
impl<S: Store> BodyWriter for LeafWriter<S> {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        let len = chunk.len() as u64;
        self.body.chunk(chunk).await.map_err(|error| {
            self.leaf.handle.failed(Event::WriteError, error.during(Operation::WriteBody))
        })?;
        self.written += len;
        Ok(())
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        self.body.written()
    }

    /// What has come is in the store, and goes when the body ends.
    fn let_go(&mut self) {}

    async fn finish(self: Box<Self>) -> Receipt {
        let size = stream::size_of(self.written, &self.entry);
        self.end().await.of_size(Some(size))
    }

    async fn abort(self: Box<Self>) {
        self.body.abort().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        let Self { leaf, key, entry, mut options, origin, body, .. } = *self;
        body.abort().await;
        let BodyOrigin::Load(load) = origin else { return leaf.not_admitted() };
        options.ticket = stream::ticket_of(&leaf.layout, &key, &entry, &options, &load);
        if options.ticket.is_none() {
            return leaf.handle.line(LeafOutcome::Superseded);
        }
        leaf.leave_out(&key, None, &Condition::Always, &options).await
    }
}

impl<S: Store> LeafWriter<S> {
    async fn end(self) -> Receipt {
        let Self { leaf, key, entry, value, mut options, origin, body, written } = self;
        let value = stream::ended(value, &origin, &**leaf.handle.clock());
        let value = match leaf.encoded(value, None) {
            Ok(value) => value,
            Err(error) => {
                body.abort().await;
                return leaf.handle.refuse(error);
            }
        };
        let load = match origin {
            BodyOrigin::Load(load) => load,
            BodyOrigin::Refill(refill) => {
                return leaf.commit_refill(&key, body, value, written, &refill.permit).await;
            }
        };
        let Some(ticket) = stream::ticket_of(&leaf.layout, &key, &entry, &options, &load) else {
            body.abort().await;
            return leaf.handle.line(LeafOutcome::Superseded);
        };
        if leaf.handle.is_gone(&value) {
            body.abort().await;
            options.ticket = Some(ticket);
            return leaf.remove_one(&key, &options).await;
        }
        let ended = Ended { body, value, bytes: written, event: Event::Write };
        let work = |turn| leaf.commit_in_turn(&key, ended, ticket.started(), turn);
        let committed = leaf.in_turn(&key, &ticket, LeafOutcome::Stored, work).await;
        committed.unwrap_or_else(|error| leaf.handle.refuse(error))
    }
}

/// A body in a store that hands it out by chunks.
struct LeafReader<S> {
    leaf: Leaf<S>,
    body: Box<dyn StoreReader>,
    entry: CacheValue<()>,
    freshness: Freshness,
    identity: u64,
    /// What is left to be handed out.
    at: Range<u64>,
    is_counted: bool,
}

#[async_trait]
impl<S: Store> BodyReader for LeafReader<S> {
    fn entry(&self) -> &CacheValue<()> {
        &self.entry
    }

    fn label(&self) -> BackendLabel {
        self.leaf.handle.path()
    }

    fn freshness(&self) -> Freshness {
        self.freshness
    }

    fn generation(&self) -> u64 {
        self.identity
    }

    fn len(&self) -> Option<u64> {
        Some(self.body.body_len())
    }

    fn seek(&mut self, range: Range<u64>) -> BackendResult<()> {
        self.at = stream::part_of(range, self.body.body_len(), self.label())?;
        Ok(())
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        if self.at.is_empty() {
            return Ok(None);
        }
        let handle = &self.leaf.handle;
        let timer = Timers::start(handle.clock());
        let read = self.body.read_at(self.at.start, self.at.end - self.at.start).await;
        handle.timers().read.stop(handle.clock(), timer);
        match read {
            Ok(chunk) => {
                handle.answered(Side::Reads);
                if self.is_counted {
                    handle.count(Event::BytesRead, chunk.len() as u64);
                }
                self.at.start += chunk.len() as u64;
                Ok(Some(chunk))
            }
            Err(error) => Err(self.leaf.not_read(&*self.body, error).await),
        }
    }
}
