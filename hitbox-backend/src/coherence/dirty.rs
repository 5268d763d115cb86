//! Keys whose copy in a store is outdated, because a write or delete of them succeeded elsewhere and failed there. Such
//! a copy is not served until it has been overwritten or removed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_core::{CacheKey, CacheValue, Timestamp};

/// If there are more dirty keys than this, some tens of megabytes, the whole store is dirty until it has been erased; in one
/// that other processes share, what is older than that is ignored.
const MAX_KEYS: usize = 1 << 17;

/// The count that stands for "the whole store".
const ALL: usize = usize::MAX;

#[derive(Debug, Default)]
pub(crate) struct DirtyKeys {
    /// Keys in the table. Every read looks at it, without the lock.
    count: AtomicUsize,
    table: Mutex<Table>,
    /// Other processes write to the store too.
    is_shared: bool,
    /// Entries that were made earlier are outdated: milliseconds since the epoch.
    ignored_before: AtomicU64,
    /// Somebody is cleaning them up.
    is_reconciled: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    keys: HashMap<CacheKey, Mark>,
    /// Writes that would have marked a key while the whole store was dirty.
    unnamed: u64,
}

/// Why a key is dirty.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The number of the write that made it dirty.
    number: u64,
    /// What was made until then is outdated.
    since: Timestamp,
}

/// An erasing of the store under way.
#[derive(Debug)]
pub(crate) struct Erasing {
    unnamed: u64,
}

impl DirtyKeys {
    pub(super) fn new(is_shared: bool) -> Self {
        Self { is_shared, ..Self::default() }
    }

    /// What the store had before the write with this number is outdated.
    ///
    /// Too many of them in a store that others share: all that was made before `now` is outdated for this process, and the
    /// store keeps it for others.
    pub(super) fn mark_dirty(&self, key: &CacheKey, number: u64, now: impl FnOnce() -> Timestamp) {
        let mut table = self.lock();
        if self.is_all() {
            table.unnamed += 1;
            return;
        }
        let since = now();
        let mark = table.keys.entry(key.clone()).or_insert(Mark { number, since });
        *mark = Mark { number: number.max(mark.number), since: since.max(mark.since) };
        if table.keys.len() > MAX_KEYS && self.is_shared {
            self.ignore(&mut table, since);
        } else if table.keys.len() > MAX_KEYS {
            table.keys = HashMap::new();
            self.count.store(ALL, Ordering::Release);
        } else {
            self.count.store(table.keys.len(), Ordering::Release);
        }
    }

    /// All that was made before `now` is outdated, and the store is not erased for it.
    pub(super) fn ignore_before(&self, now: Timestamp) {
        self.ignore(&mut self.lock(), now);
    }

    fn ignore(&self, table: &mut Table, now: Timestamp) {
        table.keys = HashMap::new();
        self.ignored_before.fetch_max(now.as_millis(), Ordering::AcqRel);
        self.count.store(0, Ordering::Release);
    }

    /// Whether an entry is outdated by its age: it was made before too many keys were dirty.
    pub(super) fn ignores<T>(&self, entry: &CacheValue<T>) -> bool {
        let before = self.ignored_before.load(Ordering::Acquire);
        before > 0 && entry.created().is_none_or(|created| created.as_millis() <= before)
    }

    #[inline(always)]
    pub(super) fn has(&self, key: &CacheKey) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.look_up(key)
    }

    #[cold]
    #[inline(never)]
    fn look_up(&self, key: &CacheKey) -> bool {
        self.is_all() || self.lock().keys.contains_key(key)
    }

    /// Until when entries of a dirty key are outdated; nothing if that is not known.
    pub(super) fn since(&self, key: &CacheKey) -> Option<Timestamp> {
        self.lock().keys.get(key).map(|mark| mark.since)
    }

    #[inline]
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Ordering::Acquire) != 0
    }

    pub(super) fn is_all(&self) -> bool {
        self.count.load(Ordering::Acquire) == ALL
    }

    /// The store has what the write with this number brought. A key that a later write marked stays dirty.
    #[inline]
    pub(crate) fn mark_clean(&self, key: &CacheKey, number: u64) {
        if matches!(self.count.load(Ordering::Acquire), 0 | ALL) {
            return;
        }
        let mut table = self.lock();
        if !self.is_all() && table.keys.get(key).is_some_and(|mark| mark.number <= number) {
            table.keys.remove(key);
            self.count.store(table.keys.len(), Ordering::Release);
        }
    }

    /// The store is about to be erased.
    pub(crate) fn begin_erase(&self) -> Erasing {
        Erasing { unnamed: self.lock().unnamed }
    }

    /// All that writes brought for which `is_before` holds has been erased. What later ones marked stays dirty.
    pub(crate) fn erased(&self, erasing: Erasing, is_before: impl Fn(&CacheKey, u64) -> bool) {
        let mut table = self.lock();
        if self.is_all() && table.unnamed != erasing.unnamed {
            // Nobody knows which keys were marked meanwhile: the next erasing has to do it.
            return;
        }
        table.keys.retain(|key, mark| !is_before(key, mark.number));
        self.count.store(table.keys.len(), Ordering::Release);
    }

    /// How many keys are dirty; while the whole store is, those that were marked.
    pub(super) fn len(&self) -> usize {
        let table = self.lock();
        if self.is_all() { MAX_KEYS + 1 + table.unnamed as usize } else { table.keys.len() }
    }

    /// Up to `limit` of those that are wanted, in no order.
    pub(super) fn some(&self, limit: usize, is_wanted: impl Fn(&CacheKey) -> bool) -> Vec<CacheKey> {
        self.lock().keys.keys().filter(|key| is_wanted(key)).take(limit).cloned().collect()
    }

    /// The right to clean up, which one has at a time.
    pub(super) fn begin_reconcile(&self) -> bool {
        !self.is_reconciled.swap(true, Ordering::AcqRel)
    }

    pub(super) fn end_reconcile(&self) {
        self.is_reconciled.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hitbox_core::{CacheKey, CacheValue, Timestamp};

    use super::{DirtyKeys, MAX_KEYS};

    fn made_at(millis: u64) -> CacheValue<()> {
        CacheValue::new(()).with_created(Some(Timestamp::from_millis(millis)))
    }

    #[test]
    fn case_e09_a_shared_store_is_not_erased_when_too_much_is_dirty() {
        let dirty = DirtyKeys::new(true);
        let mark = |number: u64| {
            let key = CacheKey::builder("k").part("n", number).build();
            dirty.mark_dirty(&key, number, || Timestamp::from_millis(1_000));
        };
        (0..MAX_KEYS as u64).for_each(mark);
        assert!(dirty.is_any() && !dirty.is_all() && !dirty.ignores(&made_at(1)));
        mark(MAX_KEYS as u64);
        assert!(!dirty.is_all(), "it would be erased");
        assert!(dirty.ignores(&made_at(1_000)) && dirty.ignores(&CacheValue::new(())));
        assert!(!dirty.ignores(&made_at(1_001)), "what is written later is served");
    }
}
