//! moka as a leaf.

use std::fmt::{self, Debug};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hitbox_backend::memory::{Bound, Expiries};
use hitbox_backend::{
    Adoption, Backend, Capabilities, DeleteStatus, Leaf, Occupancy, Occupied, Page, Raw, ReadOptions, Sweep,
    TryRead,
};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, KeyHasher, Timestamp};
use moka::Entry;
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;

use crate::builder::MokaBuilder;

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
        let MokaBuilder { bound, options } = settings;
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
        let store = Arc::new(Store { cache, bound, dropped, expiries });
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
        self.store.cache.insert(key.clone(), value);
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

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let now = self.leaf.clock().now();
        let held = self.store.cache.remove(key);
        self.store.expiries.forget(key);
        let alive = held.is_some_and(|value| !value.is_gone(now));
        Ok(DeleteStatus::of(u32::from(alive)))
    }

    async fn clear(&self) -> BackendResult<()> {
        self.store.cache.invalidate_all();
        self.store.cache.run_pending_tasks();
        Ok(())
    }

    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        // moka's iterator cannot be resumed; the cursor counts what has been passed.
        let skip = usize::try_from(cursor).unwrap_or(usize::MAX);
        let keys: Vec<CacheKey> =
            self.store.cache.iter().skip(skip).take(limit).map(|(key, _)| CacheKey::clone(&key)).collect();
        let next = (keys.len() == limit && limit > 0).then(|| cursor + limit as u64);
        Ok(Page { keys, next })
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
        capabilities.clears = true;
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
