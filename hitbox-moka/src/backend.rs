//! moka as a leaf.

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
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, KeyHasher, Priority, Timestamp};
use moka::Entry;
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;

use crate::builder::MokaBuilder;
use crate::priority::Classes;

/// The in-memory backend. Clones share the store.
#[derive(Clone)]
pub struct MokaBackend {
    store: Arc<Store>,
    leaf: Leaf,
}

struct Store {
    cache: Cache<CacheKey, CacheValue<Raw>, BuildHasherDefault<KeyHasher>>,
    bound: Bound,
    dropped: Arc<Dropped>,
    expiries: Arc<Expiries>,
    classes: Option<Classes>,
}

/// Entries that moka dropped, by cause.
#[derive(Default)]
struct Dropped {
    evicted: AtomicU64,
    expired: AtomicU64,
}

impl Dropped {
    fn count(&self, cause: RemovalCause) {
        if cause == RemovalCause::Size {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl MokaBackend {
    /// Settings to start from.
    pub fn builder() -> MokaBuilder {
        MokaBuilder::new()
    }

    pub(crate) fn new(settings: MokaBuilder) -> Self {
        let MokaBuilder { bound, options, priorities } = settings;
        let dropped = Arc::new(Dropped::default());
        let expiries = Arc::new(Expiries::default());
        let (counts, ends) = (dropped.clone(), expiries.clone());
        let builder = Cache::builder().eviction_listener(move |key: Arc<CacheKey>, _, cause| {
            counts.count(cause);
            if cause == RemovalCause::Size {
                ends.forget(&key);
            }
        });
        // moka weighs in 32 bits: in units that make the whole bound fit.
        let unit = weight_unit(bound.max());
        let builder = builder.max_capacity(bound.max() / unit);
        let builder = match bound.clone() {
            Bound::Bytes(_, weigher) => builder.weigher(move |key: &CacheKey, value: &CacheValue<Raw>| {
                u32::try_from(weigher(key, value).div_ceil(unit)).unwrap_or(u32::MAX)
            }),
            _ => builder,
        };
        let cache = builder.build_with_hasher(BuildHasherDefault::default());
        let store =
            Arc::new(Store { cache, bound, dropped, expiries, classes: priorities.then(Classes::default) });
        let weak: Weak<Store> = Arc::downgrade(&store);
        Self { store, leaf: Leaf::new(options).showing("moka", weak) }
    }

    /// The value is larger than the whole cache: moka would take it and put it out again.
    fn check_size(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<()> {
        let (size, limit) = (self.store.bound.weight(key, value), self.store.bound.max());
        if size > limit { Err(BackendError::too_large("an entry", size, limit)) } else { Ok(()) }
    }
}

fn weight_unit(bytes: u64) -> u64 {
    (bytes >> 31) + 1
}

impl Debug for MokaBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MokaBackend").field("leaf", &self.leaf).field("bound", &self.store.bound).finish()
    }
}

/// What a write may do for entries that are over.
const DROPS_PER_WRITE: usize = 64;

impl Store {
    /// Stores an entry; makes room for it first, if classes decide who goes. Whether it is stored.
    fn insert(&self, key: &CacheKey, value: CacheValue<Raw>) -> bool {
        let Some(classes) = &self.classes else {
            self.cache.insert(key.clone(), value);
            return true;
        };
        let class = value.details().map_or(Priority::Normal, |details| details.priority);
        let unit = weight_unit(self.bound.max());
        let weight = match &self.bound {
            Bound::Bytes(..) => self.bound.weight(key, &value).div_ceil(unit),
            _ => 1,
        };
        let mut classes = classes.lock();
        // What is replaced gives its room back.
        self.cache.invalidate(key);
        self.cache.run_pending_tasks();
        while self.cache.weighted_size() + weight > self.bound.max() / unit {
            self.dropped.evicted.fetch_add(1, Ordering::Relaxed);
            let Some(victim) = classes.victim(class, key) else {
                classes.forget(key);
                return false;
            };
            self.cache.invalidate(&victim);
            self.expiries.forget(&victim);
            self.cache.run_pending_tasks();
        }
        self.cache.insert(key.clone(), value);
        classes.note(key, class);
        true
    }

    fn forget(&self, key: &CacheKey) {
        self.expiries.forget(key);
        if let Some(classes) = &self.classes {
            classes.lock().forget(key);
        }
    }

    /// Drops entries that are over, at most about `limit`.
    fn drop_due(&self, now: Timestamp, limit: usize) -> Sweep {
        let (keys, cut_short) = self.expiries.take_due(now, limit);
        let mut dropped = 0;
        for key in keys {
            // It may have been overwritten since.
            let is_over = |entry: &Entry<CacheKey, CacheValue<Raw>>| entry.value().is_gone(now);
            let result = self.cache.entry_by_ref(&key).and_compute_with(|entry| match entry {
                Some(entry) if is_over(&entry) => Op::Remove,
                _ => Op::Nop,
            });
            if matches!(result, CompResult::Removed(_)) {
                if let Some(classes) = &self.classes {
                    classes.lock().forget(&key);
                }
                self.dropped.expired.fetch_add(1, Ordering::Relaxed);
                dropped += 1;
            }
        }
        Sweep { dropped, cut_short }
    }
}

impl Occupied for Store {
    fn occupancy(&self) -> Occupancy {
        let entries = self.cache.entry_count();
        let weight = self.cache.weighted_size();
        let (max_entries, max_bytes, bytes) = match &self.bound {
            Bound::Bytes(max, _) => (None, Some(*max), weight * weight_unit(*max)),
            bound => (Some(bound.max()), None, 0),
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Occupancy::new(entries, bytes)
            .with_bounds(max_entries, max_bytes)
            .with_dropped(count(&self.dropped.evicted), count(&self.dropped.expired))
    }
}

#[async_trait]
impl Backend for MokaBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.store.cache.get(key))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.check_size(key, &value)?;
        let end = value.drop_at();
        if !self.store.insert(key, value) {
            self.store.expiries.forget(key);
            return Ok(());
        }
        self.store.expiries.schedule(key, end);
        let clock = self.leaf.clock();
        if clock.is_real() && end.is_some() {
            let now = clock.now();
            if self.store.expiries.is_due(now) {
                self.store.drop_due(now, DROPS_PER_WRITE);
            }
        }
        Ok(())
    }

    async fn entry_count(&self) -> BackendResult<u64> {
        let now = self.leaf.clock().now();
        Ok(self.store.cache.iter().filter(|(_, value)| value.is_readable(now)).count() as u64)
    }

    /// moka takes a look for a read when it chooses whom to put out.
    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        if !self.store.cache.contains_key(key) {
            return Ok(Peek::Absent);
        }
        Ok(self.store.cache.get(key).map_or(Peek::Absent, |value| Peek::Entry(value.map(drop))))
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let now = self.leaf.clock().now();
        let held = self.store.cache.remove(key);
        self.store.forget(key);
        let alive = held.is_some_and(|value| !value.is_gone(now));
        Ok(DeleteStatus::of(u32::from(alive)))
    }

    async fn erase(&self) -> BackendResult<()> {
        self.store.cache.invalidate_all();
        self.store.cache.run_pending_tasks();
        Ok(())
    }

    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        Ok(page_of(self.store.cache.iter().map(|(key, _)| CacheKey::clone(&key)), cursor, limit))
    }

    /// Drops entries whose time is over and does moka's pending maintenance.
    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let sweep = self.store.drop_due(self.leaf.clock().now(), limit);
        self.store.cache.run_pending_tasks();
        Ok(sweep)
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
        self.leaf.try_read(key, options, || self.store.cache.get(key))
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let weak: Weak<Store> = Arc::downgrade(&self.store);
        let leaf = self.leaf.adopted(adoption).showing("moka", weak);
        Some(Arc::new(Self { store: self.store.clone(), leaf }))
    }
}
