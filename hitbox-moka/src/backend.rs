//! moka as a leaf.

use std::fmt::{self, Debug};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hitbox_backend::{
    Adoption, Backend, Capabilities, DeleteStatus, Leaf, Occupancy, Occupied, Page, Raw, ReadOptions, Sweep,
    TryRead,
};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Freshness};
use moka::notification::RemovalCause;
use moka::sync::Cache;

use crate::builder::{Bound, MokaBuilder};
use crate::expiry::DropAt;

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
}

/// Entries that moka dropped, by cause.
#[derive(Default)]
struct Dropped {
    evicted: AtomicU64,
    expired: AtomicU64,
}

impl Dropped {
    fn count(&self, cause: RemovalCause) {
        match cause {
            RemovalCause::Size => self.evicted.fetch_add(1, Ordering::Relaxed),
            RemovalCause::Expired => self.expired.fetch_add(1, Ordering::Relaxed),
            RemovalCause::Explicit | RemovalCause::Replaced => return,
        };
    }
}

/// Keys bring their hash: keyed with a secret of the process, computed once.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys hash themselves as one u64; anything else is folded in.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
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
        let listener = dropped.clone();
        let builder = Cache::builder().eviction_listener(move |_, _, cause| listener.count(cause));
        let builder = match &bound {
            Bound::Entries(entries) => builder.max_capacity(*entries),
            Bound::Bytes(bytes, weigher) => {
                let weigher = weigher.clone();
                // moka weighs in 32 bits: in units that make the whole bound fit.
                let unit = weight_unit(*bytes);
                let weigh = move |key: &CacheKey, value: &CacheValue<Raw>| {
                    u32::try_from(weigher(key, value).div_ceil(unit)).unwrap_or(u32::MAX)
                };
                builder.max_capacity(bytes / unit).weigher(weigh)
            }
        };
        let builder = if options.clock.is_real() {
            builder.expire_after(DropAt(options.clock.clone()))
        } else {
            builder
        };
        let cache = builder.build_with_hasher(BuildHasherDefault::default());
        let store = Arc::new(Store { cache, bound, dropped });
        let weak: Weak<Store> = Arc::downgrade(&store);
        Self { store, leaf: Leaf::new(options).showing("moka", weak) }
    }

    /// The value is larger than the whole cache: moka would take it and put it out again.
    fn check_size(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<()> {
        if let Bound::Bytes(limit, weigher) = &self.store.bound {
            let size = weigher(key, value);
            if size > *limit {
                return Err(BackendError::too_large("an entry", size, *limit));
            }
        }
        Ok(())
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

impl Occupied for Store {
    fn occupancy(&self) -> Occupancy {
        let entries = self.cache.entry_count();
        let weight = self.cache.weighted_size();
        let (max_entries, max_bytes, bytes) = match &self.bound {
            Bound::Entries(max) => (Some(*max), None, 0),
            Bound::Bytes(max, _) => (None, Some(*max), weight * weight_unit(*max)),
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
        self.store.cache.insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let now = self.leaf.clock().now();
        let held = self.store.cache.remove(key);
        let alive = held.is_some_and(|value| value.lifetime().freshness(now) != Freshness::Gone);
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

    /// Does moka's pending maintenance; under a clock that is driven by hand also drops, among all
    /// entries, those whose time is over.
    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let mut sweep = Sweep::default();
        if !self.leaf.clock().is_real() {
            let now = self.leaf.clock().now();
            let over = |value: &CacheValue<Raw>| value.lifetime().freshness(now) == Freshness::Gone;
            for (key, _) in self.store.cache.iter().filter(|(_, value)| over(value)) {
                if sweep.dropped >= limit as u64 {
                    sweep.cut_short = true;
                    break;
                }
                self.store.cache.invalidate(&*key);
                self.store.dropped.count(RemovalCause::Expired);
                sweep.dropped += 1;
            }
        }
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
