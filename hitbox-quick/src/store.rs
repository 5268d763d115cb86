//! quick_cache as a store.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use hitbox_backend::core::{
    BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, KeyHasher, Timestamp,
};
use hitbox_backend::store::memory::{self, Bound, DeferredDrops, Expiries, page_of};
use hitbox_backend::store::{Capabilities, DeleteStatus, Occupancy, Page, Peek, Raw, Store, Sweep};
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, Weighter};

/// quick_cache as a store of live values.
pub struct QuickStore {
    cache: Cache<CacheKey, Weighed, Weights, BuildHasherDefault<KeyHasher>, Evictions>,
    bound: Bound,
    /// The weight that a shard may have.
    shard_capacity: u64,
    reserved: Reserved,
    clock: Arc<dyn Clock>,
    dropped: Arc<Dropped>,
    /// Raised when all entries that are there are invalidated.
    generation: AtomicU64,
    /// The generation up to which invalidated entries have been dropped.
    swept_to: AtomicU64,
}

/// Room that is reserved for bodies that are being collected. quick_cache forgets what it knows of evicted keys when its bound
/// is changed. So a pinned entry in each shard stands for what is reserved, and is written again with each change.
#[derive(Default)]
struct Reserved {
    /// A key of the framework's own for each shard.
    keys: OnceLock<Box<[CacheKey]>>,
    in_all: Mutex<memory::Reservation>,
    /// What is reserved in each shard.
    in_each_shard: AtomicU64,
}

/// An entry with its weight, which is asked for again and again, and in the upper bits the generation that it is of: hits
/// copy it all.
#[derive(Clone)]
struct Weighed {
    value: CacheValue<Raw>,
    weight_and_generation: u64,
}

/// The bits of a weight: 256 TiB.
const WEIGHT_BITS: u32 = 48;

/// The generation of entries that stand for what is reserved. No other entry is of it.
const RESERVATION: u64 = u64::MAX >> WEIGHT_BITS;

impl Weighed {
    fn new(value: CacheValue<Raw>, weight: u64, generation: u64) -> Self {
        Self { value, weight_and_generation: weight | (generation % RESERVATION) << WEIGHT_BITS }
    }

    fn reservation(weight: u64) -> Self {
        let value = CacheValue::new(Raw::live(()));
        Self { value, weight_and_generation: weight | RESERVATION << WEIGHT_BITS }
    }

    fn weight(&self) -> u64 {
        self.weight_and_generation & ((1 << WEIGHT_BITS) - 1)
    }

    fn is_reservation(&self) -> bool {
        self.weight_and_generation >> WEIGHT_BITS == RESERVATION
    }

    /// Whether it is of this generation; they come round after 65,535 of them.
    fn is_of(&self, generation: u64) -> bool {
        self.weight_and_generation >> WEIGHT_BITS == generation % RESERVATION
    }
}

#[derive(Clone)]
struct Weights;

impl Weighter<CacheKey, Weighed> for Weights {
    fn weight(&self, _: &CacheKey, entry: &Weighed) -> u64 {
        entry.weight()
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

    fn is_pinned(&self, _: &CacheKey, entry: &Weighed) -> bool {
        entry.is_reservation()
    }

    /// `on_evict` is called of entries that are replaced, too.
    fn before_evict(&self, (): &mut (), key: &CacheKey, _: &mut Weighed) {
        self.0.evicted.fetch_add(1, Ordering::Relaxed);
        self.0.expiries.forget(key);
    }
}

/// What a write may do for entries that are over.
const DROPS_PER_WRITE: usize = 64;

/// The size of an entry from which on more shards would not pay: it decides how many there are.
const TYPICAL_BYTES: u64 = 4096;

impl fmt::Debug for QuickStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuickStore").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl QuickStore {
    pub(crate) fn new(bound: Bound, clock: Arc<dyn Clock>) -> Self {
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
        let (generation, swept_to) = (AtomicU64::new(0), AtomicU64::new(0));
        let shard_capacity = cache.shard_capacity();
        Self {
            cache,
            bound,
            shard_capacity,
            reserved: Reserved::default(),
            clock,
            dropped,
            generation,
            swept_to,
        }
    }

    /// Keys of the framework's own, one in each shard.
    fn key_of_each_shard(&self) -> Box<[CacheKey]> {
        let mut keys = BTreeMap::new();
        for number in 0_u64.. {
            let key = CacheKey::builder("reservation").part("number", number).reserved().build();
            keys.entry(self.cache.shard_index(&key)).or_insert(key);
            if keys.len() == self.cache.num_shards() {
                break;
            }
        }
        keys.into_values().collect()
    }

    /// Writes the entries that stand for what is reserved.
    fn write_reservation(&self, weight: u64) {
        let keys = self.reserved.keys.get_or_init(|| self.key_of_each_shard());
        let in_each = weight.div_ceil(keys.len() as u64).min(self.shard_capacity);
        self.reserved.in_each_shard.store(in_each, Ordering::Relaxed);
        for key in keys {
            match in_each {
                0 => drop(self.cache.remove(key)),
                _ => self.cache.insert(key.clone(), Weighed::reservation(in_each)),
            }
        }
    }

    /// Entries, without those that stand for what is reserved.
    fn entries(&self) -> u64 {
        let keys = self.reserved.keys.get().map_or(&[][..], |keys| keys);
        let reserved = keys.iter().filter(|key| self.cache.contains_key(*key)).count();
        self.cache.len().saturating_sub(reserved) as u64
    }

    /// Drops entries that are over, at most about `limit`.
    fn drop_due(&self, now: Timestamp, limit: usize) -> Sweep {
        let _drops = DeferredDrops::begin();
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

    /// The weight of an entry, if it fits.
    fn weight_of(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<u64> {
        let weight = self.bound.weight(key, value);
        let limit = self.shard_capacity.min((1 << WEIGHT_BITS) - 1);
        if weight > limit { Err(BackendError::too_large("an entry", weight, limit)) } else { Ok(weight) }
    }

    fn put(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        // Others may be put out for it.
        let _drops = DeferredDrops::begin();
        let weight = self.weight_of(key, &value)?;
        self.check_room(key, weight)?;
        let end = value.drop_at();
        // The dead go before the living.
        if self.dropped.expiries.is_any() && self.clock.is_real() {
            let now = self.clock.now();
            if self.dropped.expiries.is_due(now) {
                self.drop_due(now, DROPS_PER_WRITE);
            }
        }
        let generation = self.generation.load(Ordering::Relaxed);
        self.cache.insert(key.clone(), Weighed::new(value, weight, generation));
        self.dropped.expiries.schedule(key, end);
        // More may have been reserved meanwhile.
        self.check_room(key, weight)
    }

    /// Whether an entry fits beside what is reserved. That is not evicted: quick_cache would take both.
    fn check_room(&self, key: &CacheKey, weight: u64) -> BackendResult<()> {
        let reserved = self.reserved.in_each_shard.load(Ordering::Relaxed);
        if weight <= self.shard_capacity.saturating_sub(reserved) {
            return Ok(());
        }
        self.take(key);
        let message = "bodies that are being collected take all the room";
        Err(BackendError::new(ErrorKind::NotAdmitted, message))
    }

    fn take(&self, key: &CacheKey) -> DeleteStatus {
        let _drops = DeferredDrops::begin();
        let held = self.cache.remove(key);
        self.dropped.expiries.forget(key);
        let now = self.clock.now();
        DeleteStatus::of_entry(held.as_ref().map(|(_, entry)| &entry.value), now)
    }
}

#[async_trait]
impl Store for QuickStore {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.cache.get(key).map(|entry| entry.value))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.put(key, value)
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(self.take(key))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::MEMORY
    }

    #[inline]
    fn try_read(&self, key: &CacheKey) -> Poll<Option<CacheValue<Raw>>> {
        Poll::Ready(self.cache.get(key).map(|entry| entry.value))
    }

    fn try_write(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
    ) -> Result<BackendResult<()>, CacheValue<Raw>> {
        Ok(self.put(key, value))
    }

    fn try_remove(&self, key: &CacheKey) -> Poll<BackendResult<DeleteStatus>> {
        Poll::Ready(Ok(self.take(key)))
    }

    fn weigh(&self, key: &CacheKey, entry: &CacheValue<Raw>) -> BackendResult<u64> {
        match self.bound {
            Bound::Bytes(..) => self.weight_of(key, entry),
            _ => Ok(0),
        }
    }

    fn reserve(&self, weight: u64) -> BackendResult<()> {
        let max = self.bound.max();
        if weight > max {
            return Err(BackendError::too_large("bodies that are being collected", weight, max));
        }
        let _drops = DeferredDrops::begin();
        let mut reservation = self.reserved.in_all.lock().unwrap_or_else(PoisonError::into_inner);
        if reservation.change(&self.bound, weight) {
            self.write_reservation(reservation.reserved());
        }
        Ok(())
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        Ok(self.cache.peek(key).map_or(Peek::Absent, |entry| Peek::Entry(entry.value.map(drop))))
    }

    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let _drops = DeferredDrops::begin();
        Ok(page_of(self.cache.iter().map(|(key, _)| key), cursor, limit))
    }

    async fn count(&self) -> BackendResult<u64> {
        let _drops = DeferredDrops::begin();
        let now = self.clock.now();
        let is_counted = |entry: &Weighed| !entry.is_reservation() && entry.value.is_readable(now);
        Ok(self.cache.iter().filter(|(_, entry)| is_counted(entry)).count() as u64)
    }

    async fn erase(&self) -> BackendResult<()> {
        let _drops = DeferredDrops::begin();
        self.dropped.expiries.clear();
        let reservation = self.reserved.in_all.lock().unwrap_or_else(PoisonError::into_inner);
        self.cache.clear();
        if reservation.reserved() > 0 {
            self.write_reservation(reservation.reserved());
        }
        Ok(())
    }

    fn reclaim(&self) {
        let now = self.clock.now();
        if self.dropped.expiries.is_due(now) {
            self.drop_due(now, DROPS_PER_WRITE);
        }
    }

    /// A sweep drops them.
    fn abandon(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops entries whose time is over, and all that were there when all were invalidated.
    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let _drops = DeferredDrops::begin();
        let generation = self.generation.load(Ordering::Relaxed);
        if self.swept_to.swap(generation, Ordering::Relaxed) != generation {
            self.cache.retain(|_, entry| entry.is_of(generation) || entry.is_reservation());
        }
        let sweep = self.drop_due(self.clock.now(), limit);
        Ok(sweep)
    }

    fn occupancy(&self) -> Option<Occupancy> {
        let (max_entries, max_bytes, bytes) = match &self.bound {
            Bound::Bytes(max, _) => (None, Some(*max), self.cache.weight()),
            bound => (Some(bound.max()), None, 0),
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let held = Occupancy::new(self.entries(), bytes).with_bounds(max_entries, max_bytes);
        Some(held.with_dropped(count(&self.dropped.evicted), count(&self.dropped.expired)))
    }

    fn gauge_family(&self) -> Option<&'static str> {
        Some("quick")
    }
}
