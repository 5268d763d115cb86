//! What an expression of backends consists of, resolved when it is built.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use hitbox_core::{BackendLabel, CacheKey, Clock, KeyPattern, Offload, Scope, Subject, Task, TaskKind};
use smallvec::SmallVec;

use crate::capability::Capabilities;
use crate::clock::SystemClock;
use crate::coherence::{LoadPermit, QueueSet, RefillPermit, WriteKind, WriteTicket};
use crate::in_flight::InFlightBodies;
use crate::leaf::LeafHandle;
use crate::operation::{LeafPosition, LeafSet, ReadOptions, TimeChange};
use crate::stats::LeafStatistics;

/// The leaves of an expression from left to right, what it can do, and how keys are known in each leaf. Cloning shares
/// it.
#[derive(Clone)]
pub struct Layout(Arc<Inner>);

struct Inner {
    leaves: Vec<LeafInfo>,
    capabilities: Capabilities,
    set: LeafSet,
    /// How many compositions a call passes to the leaf that is furthest down, and that leaf.
    height: u32,
    clock: Arc<dyn Clock>,
    /// Calls of users that no leaf answered.
    unanswered: AtomicU64,
    /// What the composition with this number leaves for later.
    offload: Option<(u64, Arc<dyn Offload>)>,
    /// Bodies that are being written through it.
    in_flight: InFlightBodies,
}

/// One leaf of an expression.
#[derive(Clone)]
pub struct LeafInfo {
    handle: LeafHandle,
    /// How keys are mapped on the way to it, outermost first.
    maps: Vec<Arc<dyn KeyMap>>,
}

/// Keys that a wrapper knows by other names than the backend that it wraps. It has to be injective.
pub trait KeyMap: Send + Sync + 'static {
    /// The key as the wrapped backend knows it.
    fn inward(&self, key: &CacheKey) -> CacheKey;

    /// The key that [`inward`](Self::inward) makes this one of; nothing if there is none.
    fn outward(&self, key: &CacheKey) -> Option<CacheKey>;

    /// The scope as the wrapped backend knows it.
    fn scope(&self, scope: &Scope) -> Scope;

    /// The pattern as the wrapped backend knows it.
    fn pattern(&self, pattern: &KeyPattern) -> KeyPattern;
}

/// A key map together with the layout that it makes of a backend's.
#[derive(Clone)]
pub struct KeyMapping {
    map: Arc<dyn KeyMap>,
    layout: Layout,
}

impl KeyMapping {
    /// Maps the keys of a backend with this layout.
    pub fn new(inner: &Layout, map: Arc<dyn KeyMap>) -> Self {
        let leaves = inner.0.leaves.iter().map(|leaf| LeafInfo {
            handle: leaf.handle.clone(),
            maps: std::iter::once(&map).chain(&leaf.maps).cloned().collect(),
        });
        let layout = Layout::of(leaves.collect(), inner.0.capabilities, inner.0.height);
        Self { map, layout: layout.with_offload(inner.0.offload.clone()) }
    }

    /// The map.
    pub fn map(&self) -> &Arc<dyn KeyMap> {
        &self.map
    }

    /// The layout with mapped keys.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The same with other capabilities.
    #[must_use]
    pub fn with_capabilities(self, change: impl FnOnce(Capabilities) -> Capabilities) -> Self {
        Self { layout: self.layout.with_capabilities(change), ..self }
    }
}

/// The state of a key in all leaves while nobody writes it: see [`Layout::state_at_rest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateAtRest {
    /// Of the key's writes, leaf by leaf.
    generations: SmallVec<[u64; 2]>,
    /// In these leaves. What is invalidated elsewhere is no concern of them.
    last_invalidation: u64,
}

impl Layout {
    fn of(leaves: Vec<LeafInfo>, capabilities: Capabilities, height: u32) -> Self {
        let positions = leaves.iter().map(|leaf| LeafSet::of(leaf.position()));
        let set = positions.fold(LeafSet::EMPTY, LeafSet::union);
        let first = leaves.first().map(|leaf| leaf.handle.clock().clone());
        let clock = first.unwrap_or_else(|| Arc::new(SystemClock));

        let (unanswered, in_flight) = (AtomicU64::new(0), InFlightBodies::default());
        Self(Arc::new(Inner {
            leaves,
            capabilities,
            set,
            height,
            clock,
            unanswered,
            offload: None,
            in_flight,
        }))
    }

    fn with_offload(self, offload: Option<(u64, Arc<dyn Offload>)>) -> Self {
        let Inner { leaves, capabilities, set, height, clock, .. } = &*self.0;
        let (leaves, clock, unanswered) = (leaves.clone(), clock.clone(), AtomicU64::new(0));
        let (capabilities, set, height, in_flight) =
            (*capabilities, *set, *height, InFlightBodies::default());
        Self(Arc::new(Inner { leaves, capabilities, set, height, clock, unanswered, offload, in_flight }))
    }

    pub(crate) fn of_leaf(handle: LeafHandle, capabilities: Capabilities) -> Self {
        Self::of(vec![LeafInfo { handle, maps: Vec::new() }], capabilities, 1)
    }

    /// Two layers beside each other, in the composition with this number.
    pub(crate) fn join(
        upper: &Self,
        lower: &Self,
        capabilities: Capabilities,
        composition: u64,
        offload: &Arc<dyn Offload>,
    ) -> Self {
        let leaves = [&upper.0.leaves[..], &lower.0.leaves[..]].concat();
        let height = upper.0.height.max(lower.0.height) + 1;
        Self::of(leaves, capabilities, height).with_offload(Some((composition, offload.clone())))
    }

    /// The same leaves with other capabilities.
    #[must_use]
    pub fn with_capabilities(&self, change: impl FnOnce(Capabilities) -> Capabilities) -> Self {
        let layout = Self::of(self.0.leaves.clone(), change(self.0.capabilities), self.0.height);
        layout.with_offload(self.0.offload.clone())
    }

    /// The leaves, from left to right.
    pub fn leaves(&self) -> &[LeafInfo] {
        &self.0.leaves
    }

    /// The leaf at this position.
    pub fn leaf(&self, position: LeafPosition) -> Option<&LeafInfo> {
        self.0.leaves.iter().find(|leaf| leaf.position() == position)
    }

    /// What the expression can do.
    #[inline]
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// The positions of its leaves.
    #[inline]
    pub fn set(&self) -> LeafSet {
        self.0.set
    }

    /// How many compositions a call passes to the leaf that is furthest down, and that leaf.
    pub(crate) fn height(&self) -> u32 {
        self.0.height
    }

    /// The clock of the first leaf; the machine's if there is none.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// The dotted paths of the leaves.
    pub fn paths(&self) -> impl Iterator<Item = BackendLabel> {
        self.0.leaves.iter().map(LeafInfo::path)
    }

    /// A call of a user has met no copy.
    #[inline]
    pub(crate) fn count_unanswered(&self, options: &ReadOptions) {
        if !options.background {
            self.0.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls of users that were not answered with a copy.
    pub(crate) fn unanswered(&self) -> u64 {
        self.0.unanswered.load(Ordering::Relaxed)
    }

    /// Notes that an entry with an idle time has been read: at once in leaves that do not have to be waited for, and in the
    /// others by what is handed back, if there are any. No reader waits for a leaf that did not answer it.
    pub(crate) fn note_read(&self, key: &CacheKey, change: TimeChange) -> Option<Notes> {
        let note = |leaf: &LeafInfo| leaf.handle.clone().note_read(leaf.key(key).into_owned(), change);
        let (at_once, later): (Vec<&LeafInfo>, Vec<&LeafInfo>) =
            self.0.leaves.iter().partition(|leaf| leaf.capabilities().answers_at_once);
        for leaf in at_once {
            // What is being written at this moment begins its time anew.
            let _ = note(leaf).now_or_never();
        }
        let leaves = later.into_iter().cloned().collect::<Vec<_>>();
        (!leaves.is_empty()).then(|| Notes { leaves, key: key.clone(), change })
    }

    /// The same, with what is left done in the offload of the composition. A leaf alone hands it back.
    pub(crate) fn note_read_later(&self, key: &CacheKey, change: TimeChange) -> Option<Notes> {
        let notes = self.note_read(key, change)?;
        let Some((owner, offload)) = &self.0.offload else { return Some(notes) };
        let subject = Subject { owner: *owner, key: key.clone() };
        if let Err(refused) = offload.register(Task::unique(TaskKind::TOUCH, subject, notes.make())) {
            tracing::trace!(why = ?refused.why, "a read of an idle entry was not noted");
        }
        None
    }

    /// Statistics per leaf.
    pub fn statistics(&self) -> Vec<LeafStatistics> {
        self.0.leaves.iter().map(LeafInfo::statistics).collect()
    }

    /// A key that the leaf at `position` knows by this name, as callers of the expression know it. That is how what a
    /// shared leaf is told about finds its way to the layers above.
    pub fn outward(&self, position: LeafPosition, key: &CacheKey) -> Option<CacheKey> {
        self.leaf(position)?.outward(key)
    }

    fn queues(&self, key: &CacheKey) -> QueueSet {
        let mut queues = QueueSet::default();
        for leaf in &self.0.leaves {
            queues.add(&leaf.handle.coherence().queue, leaf.hash_of(key));
        }
        queues
    }

    pub(crate) fn in_flight(&self) -> &InFlightBodies {
        &self.0.in_flight
    }

    /// Begins a write or delete of a key in all leaves.
    pub fn begin_write(&self, key: &CacheKey) -> Arc<WriteTicket> {
        WriteTicket::begin(self.queues(key), WriteKind::Change)
    }

    /// Begins a write of a key in leaves that all answer at once.
    pub(crate) fn begin_write_at_once(&self, key: &CacheKey) -> Arc<WriteTicket> {
        WriteTicket::begin_at_once(self.queues(key))
    }

    /// Begins a write of a key that brings no new state: loads that are under way may still be stored.
    pub fn begin_maintenance_write(&self, key: &CacheKey) -> Arc<WriteTicket> {
        WriteTicket::begin(self.queues(key), WriteKind::Maintenance)
    }

    /// Begins writes of several keys at once. Equal keys share a ticket.
    pub fn begin_writes<'k>(&self, keys: impl Iterator<Item = &'k CacheKey>) -> Vec<Arc<WriteTicket>> {
        WriteTicket::begin_many(keys.map(|key| (key.process_hash(), self.queues(key))).collect())
    }

    /// The right to store what a load of this key brings, in all leaves.
    pub fn load_permit(&self, key: &CacheKey) -> LoadPermit {
        let (mut queues, mut keys) = (QueueSet::default(), SmallVec::<[CacheKey; 3]>::new());
        for leaf in &self.0.leaves {
            let key = leaf.key(key);
            if queues.add(&leaf.handle.coherence().queue, key.process_hash()) {
                keys.push(key.into_owned());
            }
        }
        LoadPermit::new(queues, keys, self.clock().now())
    }

    /// The right to fill all leaves but these, if nothing is written to the key from now on.
    pub fn refill_permit(&self, key: &CacheKey, skip: LeafSet) -> RefillPermit {
        let mut permit = RefillPermit::default();
        for leaf in self.0.leaves.iter().filter(|leaf| !skip.contains(leaf.position())) {
            permit.add(&leaf.handle.coherence().queue, leaf.hash_of(key));
        }
        permit
    }

    /// Whether something has been invalidated, in any leaf, since a load of this key took its permit, so that an entry
    /// with these scopes must not be stored.
    pub fn is_superseded(&self, key: &CacheKey, scopes: &[Scope], load: &LoadPermit) -> bool {
        self.0.leaves.iter().any(|leaf| {
            let epochs = &leaf.handle.coherence().epochs;
            epochs.is_superseded(&leaf.key(key), scopes, load.started())
        })
    }

    /// The process's number of the last invalidation of any scope in any leaf, as far as it is known here. Later ones
    /// have greater numbers.
    pub fn last_invalidation(&self) -> u64 {
        self.0.leaves.iter().map(|leaf| leaf.handle.last_invalidation()).max().unwrap_or(0)
    }

    /// Tells states of a key apart, in all leaves, while nobody writes it: what is read in one state may be shown to who
    /// comes in the same. Nothing while somebody writes it.
    pub(crate) fn state_at_rest(&self, key: &CacheKey) -> Option<StateAtRest> {
        let last_invalidation = self.last_invalidation();
        let of_leaf = |leaf: &LeafInfo| leaf.handle.coherence().queue.generation_at_rest(leaf.hash_of(key));
        let generations = self.0.leaves.iter().map(of_leaf).collect::<Option<_>>()?;
        Some(StateAtRest { generations, last_invalidation })
    }

    /// Whether some leaf has a copy of this key that must not be served.
    #[inline]
    pub(crate) fn is_dirty(&self, key: &CacheKey) -> bool {
        self.0.leaves.iter().any(|leaf| leaf.is_dirty(key))
    }

    /// Whether some store has not recorded all invalidations.
    pub fn has_unrecorded(&self) -> bool {
        self.0.leaves.iter().any(|leaf| leaf.handle.coherence().epochs.has_unrecorded())
    }

    /// Whether some leaf has copies that must not be served.
    #[inline]
    pub fn has_dirty(&self) -> bool {
        self.0.leaves.iter().any(|leaf| leaf.handle.coherence().has_dirty())
    }
}

impl LeafInfo {
    /// The labelled handle: its path, counters, clock and codec.
    pub fn handle(&self) -> &LeafHandle {
        &self.handle
    }

    /// Its dotted path.
    pub fn path(&self) -> BackendLabel {
        self.handle.path()
    }

    /// Its place in the expression.
    #[inline]
    pub fn position(&self) -> LeafPosition {
        self.handle.position()
    }

    /// What its store can do.
    pub fn capabilities(&self) -> &Capabilities {
        self.handle.capabilities()
    }

    /// A key as this leaf knows it.
    pub fn key<'k>(&self, key: &'k CacheKey) -> Cow<'k, CacheKey> {
        let mut key = Cow::Borrowed(key);
        for map in &self.maps {
            key = Cow::Owned(map.inward(&key));
        }
        key
    }

    /// A pattern as this leaf knows it.
    pub(crate) fn pattern(&self, pattern: &KeyPattern) -> KeyPattern {
        self.maps.iter().fold(pattern.clone(), |pattern, map| map.pattern(&pattern))
    }

    fn hash_of(&self, key: &CacheKey) -> u64 {
        if self.maps.is_empty() { key.process_hash() } else { self.key(key).process_hash() }
    }

    /// A key of this leaf as callers of the expression know it.
    pub fn outward(&self, key: &CacheKey) -> Option<CacheKey> {
        self.maps.iter().rev().try_fold(key.clone(), |key, map| map.outward(&key))
    }

    /// What the store had of this key before the write of this ticket is not served any more.
    pub fn mark_dirty(&self, key: &CacheKey, ticket: &WriteTicket) {
        self.handle.coherence().mark_dirty(&self.key(key), ticket, &**self.handle.clock());
    }

    /// Whether the store has what the write of this ticket brought.
    pub(crate) fn has_done(&self, key: &CacheKey, ticket: &WriteTicket) -> bool {
        ticket.is_done(&self.handle.coherence().queue, self.hash_of(key))
    }

    pub(crate) fn mark_clean(&self, key: &CacheKey, ticket: &WriteTicket) {
        if self.handle.coherence().has_dirty() {
            self.handle.coherence().mark_clean(&self.key(key), ticket);
        }
    }

    /// Whether the leaf's copy of this key must not be served.
    #[inline]
    pub fn is_dirty(&self, key: &CacheKey) -> bool {
        let coherence = self.handle.coherence();
        coherence.has_dirty() && coherence.is_dirty(&self.key(key))
    }

    /// Its statistics.
    pub fn statistics(&self) -> LeafStatistics {
        self.handle.statistics()
    }
}

/// Notes of one read in leaves that have to be waited for.
#[derive(Debug)]
pub struct Notes {
    leaves: Vec<LeafInfo>,
    key: CacheKey,
    change: TimeChange,
}

impl Notes {
    /// Makes them. What a leaf misses of it is told of in the log alone.
    pub async fn make(self) {
        let Self { leaves, key, change } = &self;
        let note = |leaf: &LeafInfo| leaf.handle.clone().note_read(leaf.key(key).into_owned(), *change);
        join_all(leaves.iter().map(note)).await;
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.paths()).finish()
    }
}

impl fmt::Debug for LeafInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafInfo").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl fmt::Debug for KeyMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMapping").field("layout", &self.layout).finish_non_exhaustive()
    }
}
