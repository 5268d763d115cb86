//! The labelled handle of a leaf: what belongs to one place where a store stands. It knows nothing of the store's type.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hitbox_core::{BackendError, BackendLabel, BackendResult, BoxFuture, CacheKey, Clock, Limits, Operation};

use super::health::{Health, Side};
use super::{Leaf, LeafOptions};
use crate::backend::Placement;
use crate::capability::Capabilities;
use crate::codec::Codec;
use crate::coherence::Coherence;
use crate::metrics::{GaugeNames, Timer, Timers};
use crate::operation::{LeafPosition, TimeChange, WriteOptions};
use crate::receipt::Receipt;
use crate::stats::{Counters, Event, LeafStatistics, Occupancy};
use crate::store::Store;

/// What a handle can ask of its store, whatever that is.
pub(crate) trait ErasedStore: Send + Sync {
    fn occupancy(&self) -> Option<Occupancy>;

    /// Changes the times of what is stored under a key of the leaf with this handle.
    fn change_times_at(
        self: Arc<Self>,
        handle: LeafHandle,
        key: CacheKey,
        change: TimeChange,
    ) -> BoxFuture<'static, Receipt>;
}

impl<S: Store> ErasedStore for S {
    fn occupancy(&self) -> Option<Occupancy> {
        Store::occupancy(self)
    }

    fn change_times_at(
        self: Arc<Self>,
        handle: LeafHandle,
        key: CacheKey,
        change: TimeChange,
    ) -> BoxFuture<'static, Receipt> {
        let leaf = Leaf::with(self, handle);
        Box::pin(async move {
            let ticket = leaf.layout.begin_maintenance_write(&key);
            leaf.change_times(&key, &change, &WriteOptions::of(&ticket)).await
        })
    }
}

/// The labelled handle of a leaf: its path, codec, clock, limits and counters, and what all handles of its store share.
/// Cloning shares all of it.
#[derive(Clone, Debug)]
pub struct LeafHandle(Arc<LeafState>);

pub(crate) struct LeafState {
    options: LeafOptions,
    pub(crate) path: BackendLabel,
    position: LeafPosition,
    capabilities: Capabilities,
    coherence: Arc<Coherence>,
    health: Health,
    /// It has been put into a composition, where another handle stands for it.
    is_placed: AtomicBool,
    pub(crate) counters: Counters,
    pub(crate) timers: Timers,
    store: Weak<dyn ErasedStore>,
    pub(crate) gauges: Option<GaugeNames>,
}

impl fmt::Debug for LeafState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("path", &self.path)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl LeafState {
    pub(crate) fn is_placed(&self) -> bool {
        self.is_placed.load(Ordering::Relaxed)
    }

    pub(crate) fn occupancy(&self) -> Option<Occupancy> {
        self.store.upgrade()?.occupancy()
    }
}

impl LeafHandle {
    pub(super) fn new(
        options: LeafOptions,
        capabilities: Capabilities,
        coherence: Arc<Coherence>,
        store: Weak<dyn ErasedStore>,
        gauge_family: Option<&str>,
    ) -> Self {
        options.codec.format.make_known();
        let path = options.label.as_part();
        let gauges = gauge_family.map(GaugeNames::of);
        Self::at(options, path, 0, capabilities, coherence, store, gauges)
    }

    fn at(
        options: LeafOptions,
        path: BackendLabel,
        position: LeafPosition,
        capabilities: Capabilities,
        coherence: Arc<Coherence>,
        store: Weak<dyn ErasedStore>,
        gauges: Option<GaugeNames>,
    ) -> Self {
        let (counters, timers) = (Counters::default(), Timers::new(path));
        let health = Health::default();
        let state = Arc::new(LeafState {
            options,
            path,
            position,
            capabilities,
            coherence,
            health,
            is_placed: AtomicBool::new(false),
            counters,
            timers,
            store,
            gauges,
        });
        crate::metrics::register_leaf(&state);
        Self(state)
    }

    /// Whether it is a part of something larger, where its store has a handle of its own.
    pub(crate) fn is_placed(&self) -> bool {
        self.0.is_placed()
    }

    /// What it stands in has been given another place, where its store has a handle of its own.
    pub(crate) fn stands_elsewhere(&self) {
        self.0.is_placed.store(true, Ordering::Relaxed);
    }

    /// The same store at another place, counted by itself.
    pub(super) fn relabel(&self, placement: &Placement) -> Self {
        self.stands_elsewhere();
        let LeafState { options, capabilities, coherence, store, gauges, .. } = &*self.0;
        let path = placement.path(options.label);
        let (coherence, store) = (coherence.clone(), store.clone());
        Self::at(options.clone(), path, placement.first, *capabilities, coherence, store, *gauges)
    }

    /// The dotted path.
    pub fn path(&self) -> BackendLabel {
        self.0.path
    }

    /// Its place in the expression that it is part of.
    #[inline(always)]
    pub fn position(&self) -> LeafPosition {
        self.0.position
    }

    /// What it can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// The codec of records that it writes.
    pub fn codec(&self) -> &Codec {
        &self.0.options.codec
    }

    /// The clock.
    #[inline(always)]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.options.clock
    }

    /// What it accepts.
    pub fn limits(&self) -> &Limits {
        &self.0.options.limits
    }

    /// How long epochs of a store that others share are believed.
    pub fn staleness_bound(&self) -> Duration {
        self.0.options.staleness_bound
    }

    /// How long a write that waits for others may take.
    pub(super) fn turn_limit(&self) -> Option<Duration> {
        self.0.options.turn_limit
    }

    /// What all handles of the store share.
    #[inline(always)]
    pub fn coherence(&self) -> &Arc<Coherence> {
        &self.0.coherence
    }

    /// The process's number of the last invalidation of any scope of the store, also of one that other processes made
    /// and that is known here. Later ones have greater numbers.
    pub fn last_invalidation(&self) -> u64 {
        self.0.coherence.epochs.latest()
    }

    /// Counts something.
    #[inline(always)]
    pub fn count(&self, event: Event, amount: u64) {
        self.0.counters.add(event, amount);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Takes back one that turned out to be another.
    pub(crate) fn take_back(&self, event: Event) {
        self.0.counters.take_back(event);
    }

    /// The counters as they are now, and what the store holds.
    pub fn statistics(&self) -> LeafStatistics {
        let counted = self.0.counters.snapshot(self.0.path, self.0.occupancy());
        LeafStatistics { failing: self.0.health.is_failing(), ..counted }
    }

    pub(crate) fn timers(&self) -> &Timers {
        &self.0.timers
    }

    /// Runs `work` and, if there is a leaf to tell, measures it.
    pub(crate) fn time<R>(
        leaf: Option<&Self>,
        timer: impl Fn(&Timers) -> &Timer,
        work: impl FnOnce() -> R,
    ) -> R {
        let Some(leaf) = leaf else { return work() };
        let started = Timers::start(leaf.clock());
        let result = work();
        timer(&leaf.0.timers).stop(leaf.clock(), started);
        result
    }

    /// Notes a read of a key of this leaf, if the store is still there. What it misses of that is no error of the read, and
    /// does not make its copy outdated.
    pub(crate) async fn note_read(self, key: CacheKey, change: TimeChange) {
        let Some(store) = self.0.store.upgrade() else { return };
        let path = self.path();
        if let Some(error) = store.change_times_at(self, key, change).await.error() {
            tracing::debug!(backend = %path, %error, "a read of an idle entry was not noted");
        }
    }

    /// Counts an error and names this leaf in it.
    pub(crate) fn failed(&self, event: Event, error: BackendError) -> BackendError {
        self.0.counters.add_error(event, error.kind());
        let operation = match event {
            Event::ReadError => Operation::Read,
            Event::RemoveError => Operation::Remove,
            _ => Operation::Write,
        };
        let error = error.at(self.0.path).during(operation);
        let side = if operation == Operation::Read { Side::Reads } else { Side::Changes };
        self.0.health.failed(self.0.path, &**self.clock(), side, &error);
        error
    }

    /// The store has answered a call: if such calls had failed before, and no others do, it is back.
    #[inline]
    pub(super) fn answered(&self, side: Side) {
        self.0.health.answered(self.0.path, side);
    }

    pub(super) fn check_key(&self, key: &CacheKey) -> BackendResult<()> {
        let (size, limit) = (key.as_encoded().len() as u64, self.0.options.limits.key_bytes);
        if size > limit { Err(BackendError::too_large("a key", size, limit)) } else { Ok(()) }
    }
}
