//! When entries in memory are dropped: at the end of their physical life, by writers and sweeps.
//!
//! Reads hide what is over, so that all that is needed is to find what can be dropped, and reads pay nothing
//! for it. (moka could drop entries by itself, at the price of a sixth of every hit: it asks for a new life
//! after each read.) Entries with an end stand in a table ordered by it, in slots of 32 milliseconds.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_core::{CacheKey, KeyHasher, Timestamp};

const STRIPES: usize = 16;
const SLOT_MILLIS: u64 = 32;
/// Fewer ends are not worth a look.
const MIN_ENDS: u64 = 1024;
/// No entry has an end.
const NEVER: u64 = u64::MAX;

/// The ends of all entries of a store that have one.
#[derive(Debug)]
pub struct Expiries {
    stripes: [Mutex<Stripe>; STRIPES],
    /// No entry is due before this slot. It may be too early, never too late.
    next: AtomicU64,
    /// How many there are.
    ends: AtomicU64,
}

/// Every key is in both tables or in none.
#[derive(Debug, Default)]
struct Stripe {
    slot_of: HashMap<CacheKey, u64, BuildHasherDefault<KeyHasher>>,
    /// In the order of their slots.
    due: BTreeSet<Due>,
}

/// A key and the slot of its end, in this order.
#[derive(Debug)]
struct Due(u64, CacheKey);

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_slot = self.0.cmp(&other.0).then_with(|| self.1.process_hash().cmp(&other.1.process_hash()));
        by_slot.then_with(|| self.1.as_encoded().cmp(other.1.as_encoded()))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl Stripe {
    /// Whether it was there.
    fn remove(&mut self, key: &CacheKey) -> bool {
        let Some(slot) = self.slot_of.remove(key) else { return false };
        self.due.remove(&Due(slot, key.clone()))
    }
}

impl Default for Expiries {
    fn default() -> Self {
        Self { stripes: Default::default(), next: AtomicU64::new(NEVER), ends: AtomicU64::new(0) }
    }
}

impl Expiries {
    fn stripe(&self, key: &CacheKey) -> MutexGuard<'_, Stripe> {
        self.lock((key.process_hash() >> 32) as usize % STRIPES)
    }

    fn lock(&self, stripe: usize) -> MutexGuard<'_, Stripe> {
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of this key may be dropped from `end` on, or never.
    #[inline]
    pub fn schedule(&self, key: &CacheKey, end: Option<Timestamp>) {
        match end {
            None => self.forget(key),
            Some(end) => self.schedule_at(key, end),
        }
    }

    fn schedule_at(&self, key: &CacheKey, end: Timestamp) {
        let slot = end.as_millis().div_ceil(SLOT_MILLIS);
        let mut stripe = self.stripe(key);
        if stripe.slot_of.get(key) != Some(&slot) {
            if !stripe.remove(key) {
                self.ends.fetch_add(1, atomic::Ordering::Relaxed);
            }
            stripe.slot_of.insert(key.clone(), slot);
            stripe.due.insert(Due(slot, key.clone()));
        }
        // Under the lock, so that whoever moves it on has seen this entry.
        self.next.fetch_min(slot, atomic::Ordering::AcqRel);
    }

    /// Forgets the ends of entries that are not there any more, if there are half as many again as entries: for stores that
    /// do not say whom they put out. Costs one look-up an end, now and then: three for each entry that is put out.
    pub fn prune(&self, entries: u64, is_there: impl Fn(&CacheKey) -> bool) {
        let ends = self.ends.load(atomic::Ordering::Relaxed);
        if ends < entries + entries / 2 + MIN_ENDS {
            return;
        }
        for index in 0..STRIPES {
            let keys: Vec<CacheKey> = self.lock(index).slot_of.keys().cloned().collect();
            for key in keys.iter().filter(|key| !is_there(key)) {
                self.forget(key);
            }
        }
    }

    /// The entry of this key is gone.
    #[inline]
    pub fn forget(&self, key: &CacheKey) {
        // Nothing to forget if no entry ever had an end.
        if self.is_any() {
            self.remove(key);
        }
    }

    /// All entries will be gone: for stores that are about to drop them. An entry that is written meanwhile may leave
    /// its end behind, until its time comes; none stays without its end.
    pub fn clear(&self) {
        for index in 0..STRIPES {
            let stripe = std::mem::take(&mut *self.lock(index));
            self.ends.fetch_sub(stripe.slot_of.len() as u64, atomic::Ordering::Relaxed);
        }
    }

    fn remove(&self, key: &CacheKey) {
        if self.stripe(key).remove(key) {
            self.ends.fetch_sub(1, atomic::Ordering::Relaxed);
        }
    }

    /// Whether an entry ever had an end.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.next.load(atomic::Ordering::Acquire) != NEVER
    }

    /// Whether [`Self::take_due`] may find something. Costs one load.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next.load(atomic::Ordering::Acquire) <= now.as_millis() / SLOT_MILLIS
    }

    /// Keys whose entries are over at `now`, at most `limit`, which are forgotten; and whether there are more.
    pub fn take_due(&self, now: Timestamp, limit: usize) -> (Vec<CacheKey>, bool) {
        let last = now.as_millis() / SLOT_MILLIS;
        let mut keys = Vec::new();
        // Entries that are scheduled from here on lower it again.
        self.next.store(NEVER - 1, atomic::Ordering::Release);
        for index in 0..STRIPES {
            let mut stripe = self.lock(index);
            while let Some(Due(slot, _)) = stripe.due.first() {
                if *slot > last || keys.len() >= limit {
                    self.next.fetch_min(*slot, atomic::Ordering::AcqRel);
                    break;
                }
                let Some(Due(_, key)) = stripe.due.pop_first() else { break };
                if stripe.slot_of.remove(&key).is_some() {
                    self.ends.fetch_sub(1, atomic::Ordering::Relaxed);
                }
                keys.push(key);
            }
        }
        (keys, self.is_due(now))
    }
}

#[cfg(test)]
mod tests {
    use hitbox_core::{CacheKey, Timestamp};

    use super::Expiries;

    fn key(number: u64) -> CacheKey {
        CacheKey::builder("k").part("n", number).build()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn what_is_due_is_taken_once_and_in_time() {
        let expiries = Expiries::default();
        assert!(!expiries.is_due(at(u64::MAX - 2)), "nothing has an end");
        for number in 0..100 {
            expiries.schedule(&key(number), Some(at(1_000 + number * 10)));
        }
        // Never early: at most a slot late.
        assert!(!expiries.is_due(at(999)));
        let (early, more) = expiries.take_due(at(1_300), 1_000);
        assert!(early.iter().all(|k| (0..30).any(|n| *k == key(n))) && !early.is_empty() && !more);
        let (none, _) = expiries.take_due(at(1_300), 1_000);
        assert!(none.is_empty(), "taken twice");
        let (some, more) = expiries.take_due(at(10_000), 20);
        assert!(some.len() >= 20 && more);
        let (rest, more) = expiries.take_due(at(10_000), 1_000);
        assert_eq!((early.len() + some.len() + rest.len(), more), (100, false));
        assert!(!expiries.is_due(at(1_000_000)));
    }

    #[test]
    fn an_overwrite_moves_the_end_and_a_delete_forgets_it() {
        let expiries = Expiries::default();
        expiries.schedule(&key(1), Some(at(1_000)));
        expiries.schedule(&key(1), Some(at(5_000)));
        expiries.schedule(&key(2), Some(at(1_000)));
        expiries.schedule(&key(2), None);
        expiries.schedule(&key(3), Some(at(1_000)));
        expiries.forget(&key(3));
        assert!(expiries.take_due(at(4_000), 10).0.is_empty());
        assert_eq!(expiries.take_due(at(6_000), 10).0, [key(1)]);
    }
}
