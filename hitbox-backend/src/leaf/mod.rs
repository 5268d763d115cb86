//! The one backend around a store. Here values are encoded, calls timed and counted, copies checked, writes kept in
//! order, and epochs attached. One file an operation, single calls and batches together.

mod change;
mod check;
mod collect;
mod condition;
mod contains;
mod epoch_io;
pub(crate) mod failure;
mod first_epochs;
mod handle;
mod health;
mod invalidate;
mod maintain;
mod options;
mod prepare;
mod read;
mod refill;
mod remove;
mod setters;
mod streams;
mod turn;
mod write;

use std::fmt;
use std::sync::{Arc, Weak};

use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue};

use crate::backend::{Backend, Placement};
use crate::coherence::Coherence;
use crate::coherence::epochs::EpochHome;
use crate::completion::{Batch, Completion};
use crate::envelope::Inspection;
use crate::layout::Layout;
use crate::operation::{
    Answers, Invalidation, Maintained, Maintenance, Presence, ReadOptions, Removal, TryRead, Write,
    WriteOptions,
};
use crate::receipt::{Receipt, Receipts};
use crate::store::Store;
use crate::stream::{BodyReader, BodyWriter};

pub use handle::LeafHandle;
pub(crate) use handle::LeafState;
pub(crate) use invalidate::drain;
pub use options::LeafOptions;

/// A store as a backend. Cloning is cheap; clones share the store, the order of its writes, and what is counted.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> hitbox_core::BackendResult<()> {
/// use hitbox_backend::{CacheBackend, Leaf, doc::Map, store::LeafOptions};
/// use hitbox_core::{CacheContext, CacheKey, CacheValue};
///
/// let leaf = Leaf::new(Map::default(), LeafOptions::new("map"));
/// let key = CacheKey::new("greeting");
/// leaf.set(&key, CacheValue::new("hello".to_owned()), &mut CacheContext::new()).await?;
/// assert!(leaf.get::<String>(&key, &mut CacheContext::new()).await?.is_some());
/// # Ok(()) }
/// ```
pub struct Leaf<S> {
    store: Arc<S>,
    handle: LeafHandle,
    layout: Layout,
    /// Values are not encoded for the store.
    is_live: bool,
}

impl<S> Clone for Leaf<S> {
    fn clone(&self) -> Self {
        let Self { store, handle, layout, is_live } = self;
        Self { store: store.clone(), handle: handle.clone(), layout: layout.clone(), is_live: *is_live }
    }
}

impl<S> fmt::Debug for Leaf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("path", &self.handle.path()).finish_non_exhaustive()
    }
}

impl<S: Store> Leaf<S> {
    /// The leaf of a store. There should be one: leaves that are made of one store twice keep no order between their
    /// writes. Its clones do.
    pub fn new(store: S, options: LeafOptions) -> Self {
        Self::of(Arc::new(store), options)
    }

    /// The same for a store that somebody else holds too.
    pub fn of(store: Arc<S>, options: LeafOptions) -> Self {
        let facts = store.capabilities();
        let home = match (facts.keeps_live_values, facts.shared) {
            (true, _) => EpochHome::Process,
            (false, true) => EpochHome::Shared,
            (false, false) => EpochHome::Store,
        };
        let weak: Weak<S> = Arc::downgrade(&store);
        let coherence = Arc::new(Coherence::new(home));
        // What others cannot write to is looked at and written in one slot of the queue.
        let writes_conditionally = facts.writes_conditionally || !facts.shared;
        let capabilities = crate::store::Capabilities { writes_conditionally, ..facts };
        let handle = LeafHandle::new(options, capabilities, coherence, weak, store.gauge_family());
        Self::with(store, handle)
    }

    fn with(store: Arc<S>, handle: LeafHandle) -> Self {
        let layout = Layout::of_leaf(handle.clone(), *handle.capabilities());
        let is_live = handle.capabilities().keeps_live_values;
        Self { store, handle, layout, is_live }
    }

    /// The store.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// What the store has under a key, whether or not a read would answer with it: its times, tags and format, and its value
    /// as text where its format says what it holds. Nothing is counted; a store may take it for a use of the entry when it
    /// evicts. For people and tools.
    ///
    /// # Errors
    /// If the store fails; [`ErrorKind::Codec`](hitbox_core::ErrorKind::Codec) if it has no entry that this release understands.
    pub async fn inspect(&self, key: &CacheKey) -> BackendResult<Option<Inspection>> {
        let failed = |error: BackendError| error.at(self.handle.path());
        let Some(stored) = self.store.read(key).await.map_err(failed)? else { return Ok(None) };
        let now = self.handle.clock().now();
        Inspection::of_answer(key, stored, now).map(Some).map_err(|why| failed(why.into()))
    }

    /// The labelled handle: path, counters, clock and codec.
    pub fn handle(&self) -> &LeafHandle {
        &self.handle
    }
}

impl<S: Store> Backend for Leaf<S> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    #[inline]
    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.read_now(key, options)
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        self.read_entries(keys, options)
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        self.write_entries(writes)
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        self.remove_entries(removals)
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        Completion::later(self.look(key))
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        Completion::later(self.carry_out(invalidation))
    }

    fn observe<'a>(&'a self, change: &'a Invalidation) -> Completion<'a, Receipt> {
        Completion::later(self.take_note_of(change))
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        Completion::later(self.do_maintenance(work))
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        Completion::later(self.open_stored_body(key, options))
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        Completion::later(self.open_body_writer(key, entry, options))
    }

    fn adopt(&self, placement: &Placement) -> Arc<dyn Backend> {
        Arc::new(Self::with(self.store.clone(), self.handle.relabel(placement)))
    }
}
