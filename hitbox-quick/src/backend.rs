//! quick_cache as a leaf.

use std::fmt::{self, Debug};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hitbox_backend::memory::{Bound, Expiries, page_of};
use hitbox_backend::{
    Adoption, Backend, Capabilities, DeleteStatus, Leaf, Occupancy, Occupied, Page, Peek, Raw, ReadOptions,
    Sweep, TryRead,
};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, KeyHasher, Timestamp};
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, Weighter};

use crate::builder::QuickBuilder;

/// The in-memory backend. Clones share the store.
#[derive(Clone)]
pub struct QuickBackend {
    store: Arc<Store>,
    leaf: Leaf,
}

struct Store {
    cache: Cache<CacheKey, Weighed, Weights, BuildHasherDefault<KeyHasher>, Evictions>,
    bound: Bound,
    dropped: Arc<Dropped>,
}

/// An entry with its weight, which is asked for again and again.
#[derive(Clone)]
struct Weighed {
    value: CacheValue<Raw>,
    weight: u64,
}

#[derive(Clone)]
struct Weights;

impl Weighter<CacheKey, Weighed> for Weights {
    fn weight(&self, _: &CacheKey, entry: &Weighed) -> u64 {
        entry.weight
    }
}

/// What becomes of entries that were put out or whose time is over.
#[derive(Default)]
struct Dropped {
    evicted: AtomicU64,
    expired: AtomicU64,
    expiries: Expiries,
}

#[derive(Clone)]
struct Evictions(Arc<Dropped>);

impl Lifecycle<CacheKey, Weighed> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: CacheKey, _: Weighed) {
        self.0.evicted.fetch_add(1, Ordering::Relaxed);
        self.0.expiries.forget(&key);
    }
}

/// What a write may do for entries that are over.
const DROPS_PER_WRITE: usize = 64;

/// The size of an entry from which on more shards would not pay: it decides how many there are.
const TYPICAL_BYTES: u64 = 4096;

impl QuickBackend {
    /// Settings to start from.
    pub fn builder() -> QuickBuilder {
        QuickBuilder::new()
    }

    pub(crate) fn new(settings: QuickBuilder) -> Self {
        let QuickBuilder { bound, options } = settings;
        let items = match &bound {
            Bound::Bytes(bytes, _) => bytes.div_ceil(TYPICAL_BYTES),
            bound => bound.max(),
        };
        let dropped = Arc::new(Dropped::default());
        let cache = Cache::with(
            usize::try_from(items).unwrap_or(usize::MAX).min(1 << 24),
            bound.max(),
            Weights,
            BuildHasherDefault::default(),
            Evictions(dropped.clone()),
        );
        let store = Arc::new(Store { cache, bound, dropped });
        let weak: Weak<Store> = Arc::downgrade(&store);
        Self { store, leaf: Leaf::new(options).showing("quick", weak) }
    }
}

impl Store {
    /// Drops entries that are over, at most about `limit`.
    fn drop_due(&self, now: Timestamp, limit: usize) -> Sweep {
        let (keys, cut_short) = self.dropped.expiries.take_due(now, limit);
        let mut sweep = Sweep { dropped: 0, cut_short };
        for key in keys {
            // It may have been overwritten since.
            let is_over = |entry: &Weighed| entry.value.is_gone(now);
            if self.cache.remove_if(&key, is_over).is_some() {
                self.dropped.expired.fetch_add(1, Ordering::Relaxed);
                sweep.dropped += 1;
            }
        }
        sweep
    }
}

impl Debug for QuickBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuickBackend").field("leaf", &self.leaf).field("bound", &self.store.bound).finish()
    }
}

impl Occupied for Store {
    fn occupancy(&self) -> Occupancy {
        let (max_entries, max_bytes, bytes) = match &self.bound {
            Bound::Bytes(max, _) => (None, Some(*max), self.cache.weight()),
            bound => (Some(bound.max()), None, 0),
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Occupancy::new(self.cache.len() as u64, bytes)
            .with_bounds(max_entries, max_bytes)
            .with_dropped(count(&self.dropped.evicted), count(&self.dropped.expired))
    }
}

#[async_trait]
impl Backend for QuickBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.store.cache.get(key).map(|entry| entry.value))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let (weight, limit) = (self.store.bound.weight(key, &value), self.store.cache.shard_capacity());
        if weight > limit {
            return Err(BackendError::too_large("an entry", weight, limit));
        }
        let end = value.drop_at();
        self.store.cache.insert(key.clone(), Weighed { value, weight });
        self.store.dropped.expiries.schedule(key, end);
        let clock = self.leaf.clock();
        if clock.is_real() && end.is_some() {
            let now = clock.now();
            if self.store.dropped.expiries.is_due(now) {
                self.store.drop_due(now, DROPS_PER_WRITE);
            }
        }
        Ok(())
    }

    async fn entry_count(&self) -> BackendResult<u64> {
        let now = self.leaf.clock().now();
        Ok(self.store.cache.iter().filter(|(_, entry)| entry.value.is_readable(now)).count() as u64)
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        Ok(self.store.cache.peek(key).map_or(Peek::Absent, |entry| Peek::Entry(entry.value.map(drop))))
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let now = self.leaf.clock().now();
        let held = self.store.cache.remove(key);
        self.store.dropped.expiries.forget(key);
        let alive = held.is_some_and(|(_, entry)| !entry.value.is_gone(now));
        Ok(DeleteStatus::of(u32::from(alive)))
    }

    async fn erase(&self) -> BackendResult<()> {
        self.store.cache.clear();
        Ok(())
    }

    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        Ok(page_of(self.store.cache.iter().map(|(key, _)| key), cursor, limit))
    }

    /// Drops entries whose time is over.
    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        Ok(self.store.drop_due(self.leaf.clock().now(), limit))
    }

    fn occupancy(&self) -> Option<Occupancy> {
        Some(self.store.occupancy())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.keeps_live_values = true;
        capabilities.answers_at_once = true;
        capabilities.enumerates = true;
        capabilities.erases = true;
        capabilities
    }

    fn leaf(&self) -> Option<&Leaf> {
        Some(&self.leaf)
    }

    #[inline]
    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.leaf.try_read(key, options, || self.store.cache.get(key).map(|entry| entry.value))
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let weak: Weak<Store> = Arc::downgrade(&self.store);
        let leaf = self.leaf.adopted(adoption).showing("quick", weak);
        Some(Arc::new(Self { store: self.store.clone(), leaf }))
    }
}
