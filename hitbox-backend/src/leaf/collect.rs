//! Bodies for stores that take entries as a whole: their chunks are collected, and written as one value when the body ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Operation};

use super::Leaf;
use crate::backend::Backend;
use crate::completion::Batch;
use crate::envelope::{Chunks, DeferredDrops, GrowingChunks, Raw};
use crate::feed;
use crate::operation::{BodyOrigin, Condition, Content, Write, WriteOptions};
use crate::receipt::{LeafOutcome, Receipt};
use crate::store::{Store, WrittenPart};
use crate::stream::{self, BodyWriter, MAX_BUFFERED_BODY};

/// Collects chunks and writes them as one value when the body ends.
pub(super) struct CollectingWriter<S: Store> {
    leaf: Leaf<S>,
    key: CacheKey,
    entry: CacheValue<()>,
    options: WriteOptions,
    origin: BodyOrigin,
    body: Arc<Collected<S>>,
}

/// What has been collected of a body.
struct Collected<S: Store> {
    content: Mutex<Collecting>,
    growth: Mutex<Growth<S>>,
}

enum Collecting {
    Growing(GrowingChunks),
    Complete(Chunks),
    /// It is not stored. Who follows the body may still need what has come.
    GivenUp(Chunks),
}

impl<S: Store> Collected<S> {
    fn lock(&self) -> MutexGuard<'_, Collecting> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It weighs so much now.
    fn weighs(&self, weight: u64) -> BackendResult<()> {
        // Entries may be evicted, and their values are the user's, who may come back here when they are dropped.
        let _drops = DeferredDrops::begin();
        let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        growth.set(weight)
    }

    /// The store is about to count it.
    fn counts_no_more(&self) {
        let _drops = DeferredDrops::begin();
        let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        growth.end();
    }

    /// Ends it for all who read it.
    fn end(&self, end: fn(Chunks) -> Collecting) {
        let mut collecting = self.lock();
        if let Collecting::Growing(growing) = &mut *collecting {
            *collecting = end(std::mem::take(growing).finish());
        }
    }

    fn give_up(&self) {
        self.end(Collecting::GivenUp);
    }

    /// All of it, unless it was given up.
    fn complete(&self) -> Option<Chunks> {
        self.end(Collecting::Complete);
        match &*self.lock() {
            Collecting::Complete(chunks) => Some(chunks.clone()),
            Collecting::Growing(_) | Collecting::GivenUp(_) => None,
        }
    }
}

#[async_trait]
impl<S: Store> WrittenPart for Collected<S> {
    fn readable(&self) -> u64 {
        match &*self.lock() {
            Collecting::Growing(growing) => growing.len(),
            Collecting::Complete(chunks) | Collecting::GivenUp(chunks) => chunks.len(),
        }
    }

    fn has_ended(&self) -> bool {
        !matches!(&*self.lock(), Collecting::Growing(_))
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        let part = match &*self.lock() {
            Collecting::Growing(growing) => growing.read(at..u64::MAX, limit),
            Collecting::Complete(chunks) | Collecting::GivenUp(chunks) => {
                chunks.read(at..chunks.len(), limit)
            }
        };
        part.ok_or_else(feed::given_up)
    }
}

/// What a body weighs in the sum of all that are being collected for its store. It counts as long as somebody holds what has come,
/// until its store has it.
struct Growth<S: Store> {
    /// Taken when it has ended: who still reads the body needs no store.
    leaf: Option<Leaf<S>>,
    weight: u64,
}

impl<S: Store> Growth<S> {
    /// It weighs so much now.
    fn set(&mut self, weight: u64) -> BackendResult<()> {
        let Some(leaf) = self.leaf.as_ref().filter(|_| weight != self.weight) else { return Ok(()) };
        let _drops = DeferredDrops::begin();
        let mut all = leaf.handle.coherence().collected();
        let sum = (*all - self.weight).saturating_add(weight);
        if weight < self.weight {
            // It is true, whatever the store makes of it.
            (*all, self.weight) = (sum, weight);
            return leaf.store.reserve(sum);
        }
        // What is refused counts for nobody.
        leaf.store.reserve(sum)?;
        (*all, self.weight) = (sum, weight);
        Ok(())
    }

    fn end(&mut self) {
        if let Err(error) = self.set(0) {
            tracing::debug!(%error, "a store keeps room for a body that has ended");
        }
        self.leaf = None;
    }
}

impl<S: Store> Drop for Growth<S> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<S: Store> CollectingWriter<S> {
    /// Opens a writer.
    ///
    /// # Errors
    /// [`TooLarge`](hitbox_core::ErrorKind::TooLarge) if the body is known to be.
    pub(super) fn open(
        leaf: Leaf<S>,
        key: &CacheKey,
        entry: CacheValue<()>,
        mut options: WriteOptions,
    ) -> BackendResult<Box<dyn BodyWriter>> {
        let origin = stream::claim(&leaf.layout, key, &mut options);
        let growth = Mutex::new(Growth { leaf: Some(leaf.clone()), weight: 0 });
        let content = Mutex::new(Collecting::Growing(GrowingChunks::default()));
        let body = Arc::new(Collected { content, growth });
        let writer = Self { leaf, key: key.clone(), entry, options, origin, body };
        if let Some(len) = writer.refilled_len() {
            writer.check_size(len)?;
            writer.weigh(len)?;
        }
        Ok(Box::new(writer))
    }

    /// The length of a body that is copied from a lower layer, if it is known.
    fn refilled_len(&self) -> Option<u64> {
        match &self.origin {
            BodyOrigin::Refill(refill) => refill.len,
            BodyOrigin::Load(_) => None,
        }
    }

    /// Whether a value may have so many bytes.
    fn check_size(&self, size: u64) -> BackendResult<()> {
        let limits =
            [("a buffered body", MAX_BUFFERED_BODY), ("a value", self.leaf.handle.limits().value_bytes)];
        match limits.into_iter().filter(|(_, limit)| size > *limit).min_by_key(|(_, limit)| *limit) {
            None => Ok(()),
            Some((what, limit)) => {
                Err(BackendError::too_large(what, size, limit).during(Operation::WriteBody))
            }
        }
    }

    /// What an entry weighs whose body takes so many bytes of memory, if the store could take it.
    fn weigh(&self, bytes: u64) -> BackendResult<u64> {
        let entry = self.entry.clone().map(|()| Raw::size(bytes));
        self.leaf.store.weigh(&self.key, &entry).map_err(|error| error.during(Operation::WriteBody))
    }

    /// Takes a chunk, if there is room for it. All bodies that are collected together get no more than there is for one.
    fn take(&self, chunk: Bytes) -> BackendResult<()> {
        let (size, bytes) = match &*self.body.lock() {
            Collecting::Growing(growing) => (growing.len() + chunk.len() as u64, growing.weight_with(&chunk)),
            Collecting::Complete(_) | Collecting::GivenUp(_) => return Err(feed::given_up()),
        };
        self.check_size(size)?;
        let weight = self.weigh(bytes)?;
        self.body.weighs(weight).map_err(|error| error.during(Operation::WriteBody))?;
        // Nobody else pushes.
        if let Collecting::Growing(growing) = &mut *self.body.lock() {
            growing.push(chunk);
        }
        Ok(())
    }

    async fn end(self, content: Content) -> Receipt {
        let Self { leaf, key, entry, mut options, origin, body } = self;
        let layout = &leaf.layout;
        let condition = match origin {
            BodyOrigin::Refill(refill) => Condition::Refill(refill.permit.clone()),
            BodyOrigin::Load(load) => {
                let Some(ticket) = stream::ticket_of(layout, &key, &entry, &options, &load) else {
                    return Receipt::of_all(layout.paths(), &LeafOutcome::Superseded);
                };
                options.ticket = Some(ticket);
                Condition::Always
            }
        };
        body.counts_no_more();
        let mut write = Write::not_admitted(key, options).with_condition(condition);
        write.content = content;
        leaf.write(Batch::one(write)).await.into_one().unwrap_or_default()
    }
}

#[async_trait]
impl<S: Store> BodyWriter for CollectingWriter<S> {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        let taken = self.take(chunk);
        if taken.is_err() {
            self.body.give_up();
        }
        taken
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        Some(self.body.clone())
    }

    fn let_go(&mut self) {
        self.body.give_up();
        let growth = Mutex::new(Growth { leaf: None, weight: 0 });
        let content = Mutex::new(Collecting::GivenUp(Chunks::default()));
        self.body = Arc::new(Collected { content, growth });
    }

    async fn finish(self: Box<Self>) -> Receipt {
        let Some(body) = self.body.complete() else {
            return self.leaf.handle.line(LeafOutcome::Failed(feed::given_up()));
        };
        let entry = stream::ended(self.entry.clone(), &self.origin, &**self.leaf.handle.clock());
        let (generation, size) = (self.origin.generation(), stream::size_of(body.len(), &self.entry));
        self.end(Content::Entry(entry.map(|()| Raw::chunks(body, generation)))).await.of_size(Some(size))
    }

    async fn abort(self: Box<Self>) {
        self.body.give_up();
    }

    async fn leave_out(mut self: Box<Self>) -> Receipt {
        self.let_go();
        self.end(Content::NotAdmitted { version: None }).await
    }
}
