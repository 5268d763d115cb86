//! moka as a store.

use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use hitbox_backend::core::{
    BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, KeyHasher, Priority, Timestamp,
};
use hitbox_backend::store::memory::{Bound, DeferredDrops, Expiries, page_of};
use hitbox_backend::store::{Capabilities, DeleteStatus, Occupancy, Page, Peek, Raw, Store, Sweep};
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;
use std::sync::Arc;

use crate::priority::{Classes, Queues, Search};
use crate::reservation::Reservation;

/// What a write may do for entries that are over.
const DROPS_PER_WRITE: usize = 64;

/// moka as a store of live values.
pub struct MokaStore {
    cache: Cache<CacheKey, CacheValue<Raw>, BuildHasherDefault<KeyHasher>>,
    bound: Bound,
    /// moka weighs in 32 bits: in units that make the whole bound fit.
    unit: u64,
    reservation: Arc<Reservation>,
    /// Bytes that were written since moka last put others out for them, which it does when it has time.
    unsettled: AtomicU64,
    clock: Arc<dyn Clock>,
    counts: Counts,
    expiries: Expiries,
    classes: Option<Classes>,
}

/// Entries that came and went. moka does not say cheaply whom it puts out: that is what has come and neither was
/// removed nor is there. It puts nobody out before it is full, so that nothing is counted before it is half full.
#[derive(Debug, Default)]
struct Counts {
    is_counting: AtomicBool,
    /// Entries that were there when the counting began, and those that have come since.
    added: AtomicU64,
    removed: AtomicU64,
    expired: AtomicU64,
    /// Put out, as it was last told: the number never falls.
    evicted: Mutex<u64>,
}

impl std::fmt::Debug for MokaStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MokaStore").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl MokaStore {
    pub(crate) fn new(bound: Bound, clock: Arc<dyn Clock>, priorities: bool) -> Self {
        let unit = (bound.max() >> 31) + 1;
        let builder = Cache::builder().max_capacity(bound.max() / unit);
        let reservation = Arc::new(Reservation::default());
        let builder = match bound.clone() {
            Bound::Bytes(_, weigher) => {
                let reservation = reservation.clone();
                let max = bound.max() / unit;
                builder.weigher(move |key: &CacheKey, value: &CacheValue<Raw>| {
                    let weight = match reservation.weight_of(key) {
                        Some(reserved) => reserved.div_ceil(unit).min(max),
                        None => weigher(key, value).div_ceil(unit),
                    };
                    u32::try_from(weight).unwrap_or(u32::MAX)
                })
            }
            _ => builder,
        };
        let cache = builder.build_with_hasher(BuildHasherDefault::default());
        let classes = priorities.then(Classes::default);
        let unsettled = AtomicU64::new(0);
        Self {
            cache,
            bound,
            unit,
            reservation,
            unsettled,
            clock,
            counts: Counts::default(),
            expiries: Expiries::default(),
            classes,
        }
    }

    /// The bytes of an entry, if they are what is bound. One that is larger than the whole store is refused: moka would take
    /// it and put it out again.
    fn size_of(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<u64> {
        let Bound::Bytes(limit, _) = self.bound else { return Ok(0) };
        let size = self.bound.weight(key, value);
        if size > limit { Err(BackendError::too_large("an entry", size, limit)) } else { Ok(size) }
    }

    /// An entry of this size was written: others are put out for it, at the latest when a 64th of the bound is over.
    #[inline]
    fn settle(&self, size: u64) {
        if size > 0 && self.unsettled.fetch_add(size, Ordering::Relaxed) + size >= self.bound.max() / 64 {
            self.unsettled.store(0, Ordering::Relaxed);
            self.cache.run_pending_tasks();
        }
    }

    /// Stores an entry; makes room for it first, if classes decide who goes. Whether it is stored.
    fn insert(&self, key: &CacheKey, value: CacheValue<Raw>) -> bool {
        let Some(classes) = &self.classes else {
            self.count_if_new(key);
            self.cache.insert(key.clone(), value);
            return true;
        };
        let class = value.details().map_or(Priority::Normal, |details| details.priority);
        let weight = match &self.bound {
            Bound::Bytes(..) => self.bound.weight(key, &value).div_ceil(self.unit),
            _ => 1,
        };
        let mut queues = classes.lock();
        self.cache.run_pending_tasks();
        // What is replaced gives its room back, and is there until then: an overwrite is no miss.
        let max = (self.bound.max() / self.unit) + queues.weight_of(key);
        let needed = (self.cache.weighted_size() + weight).saturating_sub(max);
        if needed > queues.yields(class, key) {
            if self.cache.remove(key).is_some() {
                self.count_removed(1);
            }
            queues.forget(key);
            return false;
        }
        self.count_if_new(key);
        self.make_room(&mut classes.search(class), &mut queues, key, max.saturating_sub(weight));
        self.cache.insert(key.clone(), value);
        queues.note(key, class, weight);
        true
    }

    /// Evicts others than `except` until what is left weighs no more than this, or none of them may go.
    fn make_room(&self, search: &mut Search<'_>, queues: &mut Queues, except: &CacheKey, left: u64) {
        while self.cache.weighted_size() > left {
            let Some(victim) = search.next(queues, except) else { break };
            self.cache.invalidate(&victim);
            self.expiries.forget(&victim);
            self.cache.run_pending_tasks();
        }
    }

    /// Writes the entry that stands for what is reserved, with the weight that it is to have. Only for who has the lock of the
    /// reservation.
    fn write_reservation(&self, weight: u64) {
        let (reservation, key) = (&*self.reservation, self.reservation.key());
        let stand_in = || CacheValue::new(Raw::live(()));
        // Held until moka has settled: who makes room sees what moka weighs.
        let mut queues = self.classes.as_ref().map(Classes::lock);
        self.cache.run_pending_tasks();
        if weight > 0 && !self.cache.contains_key(key) {
            // What weighs nothing comes in, however full it is.
            reservation.set_entry_weight(0);
            self.cache.insert(key.clone(), stand_in());
            self.cache.run_pending_tasks();
        }
        let before = reservation.set_entry_weight(weight);
        if let (Some(classes), Some(queues)) = (&self.classes, &mut queues) {
            let more = weight.saturating_sub(before).div_ceil(self.unit);
            let left = (self.bound.max() / self.unit).saturating_sub(more);
            self.make_room(&mut classes.search(Priority::High), queues, key, left);
        }
        match weight {
            0 => self.cache.invalidate(key),
            _ => self.cache.insert(key.clone(), stand_in()),
        }
        self.cache.run_pending_tasks();
    }

    /// moka evicts what is not read. What is reserved is read with each write, since nothing is evicted but for writes; it is
    /// written again if it has been evicted all the same.
    #[cold]
    fn keep_reservation(&self) {
        let key = self.reservation.key();
        if self.cache.get(key).is_none() {
            let reservation = self.reservation.lock();
            if reservation.reserved() > 0 && !self.cache.contains_key(key) {
                self.write_reservation(reservation.reserved());
            }
        }
    }

    /// Entries, without the one that stands for what is reserved.
    fn entries(&self) -> u64 {
        let has_stand_in = self.cache.contains_key(self.reservation.key());
        self.cache.entry_count().saturating_sub(has_stand_in.into())
    }

    /// Counts an entry that is about to be written, unless it replaces another. Writes of one key come one after the
    /// other, so that the look is true.
    #[inline]
    fn count_if_new(&self, key: &CacheKey) {
        let counts = &self.counts;
        if !counts.is_counting.load(Ordering::Relaxed) {
            if self.cache.weighted_size() < self.bound.max() / self.unit / 2 {
                return;
            }
            self.begin_counting();
        }
        if !self.cache.contains_key(key) {
            counts.added.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_counting(&self) {
        self.cache.run_pending_tasks();
        if !self.counts.is_counting.swap(true, Ordering::Relaxed) {
            self.counts.added.fetch_add(self.entries(), Ordering::Relaxed);
        }
    }

    fn count_removed(&self, entries: u64) {
        if self.counts.is_counting.load(Ordering::Relaxed) {
            self.counts.removed.fetch_add(entries, Ordering::Relaxed);
        }
    }

    fn forget(&self, key: &CacheKey) {
        self.expiries.forget(key);
        if let Some(classes) = &self.classes {
            classes.lock().forget(key);
        }
    }

    /// Drops entries that are over, at most about `limit`.
    fn drop_due(&self, now: Timestamp, limit: usize) -> Sweep {
        let _drops = DeferredDrops::begin();
        let (keys, cut_short) = self.expiries.take_due(now, limit);
        let mut dropped = 0;
        for key in keys {
            // It may have been overwritten since.
            let result = self.cache.entry_by_ref(&key).and_compute_with(|entry| match entry {
                Some(entry) if entry.value().is_gone(now) => Op::Remove,
                _ => Op::Nop,
            });
            if matches!(result, CompResult::Removed(_)) {
                if let Some(classes) = &self.classes {
                    classes.lock().forget(&key);
                }
                self.counts.expired.fetch_add(1, Ordering::Relaxed);
                self.count_removed(1);
                dropped += 1;
            }
        }
        Sweep { dropped, cut_short }
    }

    fn put(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        // Others may be put out for it.
        let _drops = DeferredDrops::begin();
        let size = self.size_of(key, &value)?;
        let end = value.drop_at();
        // The dead go before the living.
        self.drop_some_due();
        let reserved = self.reservation.reserved();
        if reserved > 0 {
            self.keep_reservation();
            // moka would evict what is reserved for an entry that does not fit beside it, if that overwrites another.
            if size > self.bound.max().saturating_sub(reserved) {
                self.take(key);
                let message = "bodies that are being collected take all the room";
                return Err(BackendError::new(ErrorKind::NotAdmitted, message));
            }
        }
        if !self.insert(key, value) {
            self.expiries.forget(key);
            let message = "entries of higher priority take all the room";
            return Err(BackendError::new(ErrorKind::NotAdmitted, message));
        }
        self.settle(size);
        if self.reservation.reserved() > reserved {
            // It was reserved meanwhile.
            self.keep_reservation();
        }
        self.expiries.schedule(key, end);
        if end.is_some() {
            // Ends of entries that moka has put out do not pile up.
            self.expiries.prune(self.cache.entry_count(), |key| self.cache.contains_key(key));
        }
        Ok(())
    }

    fn drop_some_due(&self) {
        if self.expiries.is_any() && self.clock.is_real() {
            let now = self.clock.now();
            if self.expiries.is_due(now) {
                self.drop_due(now, DROPS_PER_WRITE);
            }
        }
    }

    #[inline]
    fn look_up(&self, key: &CacheKey) -> Option<CacheValue<Raw>> {
        if let Some(classes) = &self.classes {
            classes.touch(key);
        }
        let _drops = DeferredDrops::begin();
        self.cache.get(key)
    }

    fn take(&self, key: &CacheKey) -> DeleteStatus {
        let _drops = DeferredDrops::begin();
        // moka hands out what it has invalidated.
        let is_there = self.cache.contains_key(key);
        let Some(held) = self.cache.remove(key) else { return DeleteStatus::Missing };
        self.count_removed(1);
        self.forget(key);
        DeleteStatus::of_entry(Some(&held).filter(|_| is_there), self.clock.now())
    }
}

#[async_trait]
impl Store for MokaStore {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.look_up(key))
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
        Poll::Ready(self.look_up(key))
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
        self.size_of(key, entry)
    }

    fn reserve(&self, weight: u64) -> BackendResult<()> {
        let Bound::Bytes(max, _) = self.bound else { return Ok(()) };
        if weight > max {
            return Err(BackendError::too_large("bodies that are being collected", weight, max));
        }
        let _drops = DeferredDrops::begin();
        let mut reservation = self.reservation.lock();
        if reservation.change(&self.bound, weight) {
            self.reservation.set_reserved(reservation.reserved());
            self.write_reservation(reservation.reserved());
        }
        Ok(())
    }

    /// moka takes a look for a read when it chooses whom to put out.
    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        let _drops = DeferredDrops::begin();
        if !self.cache.contains_key(key) {
            return Ok(Peek::Absent);
        }
        Ok(self.cache.get(key).map_or(Peek::Absent, |value| Peek::Entry(value.map(drop))))
    }

    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let _drops = DeferredDrops::begin();
        Ok(page_of(self.cache.iter().map(|(key, _)| CacheKey::clone(&key)), cursor, limit))
    }

    async fn count(&self) -> BackendResult<u64> {
        let _drops = DeferredDrops::begin();
        let now = self.clock.now();
        let is_counted = |key: &CacheKey, value: &CacheValue<Raw>| {
            self.reservation.weight_of(key).is_none() && value.is_readable(now)
        };
        Ok(self.cache.iter().filter(|(key, value)| is_counted(key, value)).count() as u64)
    }

    async fn erase(&self) -> BackendResult<()> {
        let _drops = DeferredDrops::begin();
        self.cache.run_pending_tasks();
        self.count_removed(self.entries());
        self.abandon();
        self.cache.run_pending_tasks();
        Ok(())
    }

    fn reclaim(&self) {
        let now = self.clock.now();
        if self.expiries.is_due(now) {
            self.drop_due(now, DROPS_PER_WRITE);
        }
    }

    /// moka drops them by and by.
    fn abandon(&self) {
        let _drops = DeferredDrops::begin();
        self.expiries.clear();
        if let Some(classes) = &self.classes {
            classes.lock().clear();
        }
        self.cache.invalidate_all();
    }

    /// Drops entries whose time is over and does moka's pending maintenance.
    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let _drops = DeferredDrops::begin();
        let sweep = self.drop_due(self.clock.now(), limit);
        self.cache.run_pending_tasks();
        Ok(sweep)
    }

    /// Does moka's pending maintenance, so that its counts are those of now.
    fn occupancy(&self) -> Option<Occupancy> {
        let _drops = DeferredDrops::begin();
        self.cache.run_pending_tasks();
        let entries = self.entries();
        let (max_entries, max_bytes, bytes) = match &self.bound {
            Bound::Bytes(max, _) => (None, Some(*max), self.cache.weighted_size() * self.unit),
            bound => (Some(bound.max()), None, 0),
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let expired = count(&self.counts.expired);
        let gone = count(&self.counts.added).saturating_sub(count(&self.counts.removed) + entries);
        let mut evicted = self.counts.evicted.lock().unwrap_or_else(PoisonError::into_inner);
        *evicted = gone.max(*evicted);
        let held = Occupancy::new(entries, bytes).with_bounds(max_entries, max_bytes);
        Some(held.with_dropped(*evicted, expired))
    }

    fn gauge_family(&self) -> Option<&'static str> {
        Some("moka")
    }
}
