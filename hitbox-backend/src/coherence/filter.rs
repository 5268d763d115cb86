//! Which keys a store may have: a Bloom filter that every write of the store is noted in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hitbox_core::CacheKey;

use crate::envelope::wire::key_digest;

const BITS_PER_KEY: u64 = 10;
const HASHES: u64 = 7;

#[derive(Debug)]
struct Bits {
    words: Box<[AtomicU64]>,
    added: AtomicU64,
}

impl Bits {
    fn new(expected: u64) -> Self {
        let words = (expected.max(64) * BITS_PER_KEY).div_ceil(64);
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), added: AtomicU64::new(0) }
    }

    /// Double hashing (Kirsch and Mitzenmacher 2006) of the halves of the digest.
    fn places(&self, key: &CacheKey) -> impl Iterator<Item = (usize, u64)> {
        let digest = key_digest(key);
        let (first, step) = (digest as u64, (digest >> 64) as u64 | 1);
        let bits = self.words.len() as u64 * 64;
        (0..HASHES).map(move |n| {
            let bit = first.wrapping_add(step.wrapping_mul(n)) % bits;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    fn add(&self, key: &CacheKey) {
        let mut is_new = false;
        for (word, bit) in self.places(key) {
            is_new |= self.words[word].fetch_or(bit, Ordering::AcqRel) & bit == 0;
        }
        if is_new {
            self.added.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn may_have(&self, key: &CacheKey) -> bool {
        self.places(key).all(|(word, bit)| self.words[word].load(Ordering::Acquire) & bit != 0)
    }
}

#[derive(Debug)]
struct Tables {
    /// `None` before it was filled for the first time: every key may be there.
    current: Option<Arc<Bits>>,
    /// Being filled.
    next: Option<Arc<Bits>>,
}

/// The filter of a store.
#[derive(Debug)]
pub(crate) struct Filter {
    expected: u64,
    tables: RwLock<Tables>,
    /// Who fills it anew.
    rebuilds: AtomicU64,
}

impl Filter {
    pub(crate) fn new(expected: u64) -> Self {
        let tables = RwLock::new(Tables { current: None, next: None });
        Self { expected, tables, rebuilds: AtomicU64::new(0) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has this key, or will.
    pub(crate) fn add(&self, key: &CacheKey) {
        let tables = self.read();
        tables.current.iter().chain(&tables.next).for_each(|bits| bits.add(key));
    }

    /// Notes the key of a write now, and again when the write has ended: the filter that is being filled may have been
    /// begun, or have taken the older one's place, in between.
    pub(crate) fn note<'f>(&'f self, key: &'f CacheKey) -> Noted<'f> {
        self.add(key);
        Noted(self, key)
    }

    pub(crate) fn may_have(&self, key: &CacheKey) -> bool {
        self.read().current.as_ref().is_none_or(|bits| bits.may_have(key))
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let tables = self.read();
        tables.current.iter().chain(&tables.next).map(|bits| bits.words.len() as u64 * 8).sum()
    }

    pub(crate) fn is_overfull(&self) -> bool {
        let added = |bits: &Arc<Bits>| bits.added.load(Ordering::Relaxed);
        self.read().current.as_ref().is_some_and(|bits| added(bits) > 2 * self.expected)
    }

    /// Begins to fill it anew.
    pub(crate) fn rebuild(&self) -> Rebuild<'_> {
        let bits = Arc::new(Bits::new(self.expected));
        let number = self.rebuilds.fetch_add(1, Ordering::AcqRel) + 1;
        self.write().next = Some(bits.clone());
        Rebuild { filter: self, bits, number }
    }
}

/// A write under way; dropped when it has ended, however.
pub(crate) struct Noted<'f>(&'f Filter, &'f CacheKey);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}

/// A filter that is being filled.
pub(crate) struct Rebuild<'f> {
    filter: &'f Filter,
    bits: Arc<Bits>,
    number: u64,
}

impl Rebuild<'_> {
    pub(crate) fn add(&self, key: &CacheKey) {
        self.bits.add(key);
    }

    /// It has every key that the store has. If another was begun since, that will do.
    pub(crate) fn finish(self) {
        let mut tables = self.filter.write();
        if self.filter.rebuilds.load(Ordering::Acquire) == self.number {
            tables.current = Some(self.bits.clone());
            tables.next = None;
        }
    }
}

impl Drop for Rebuild<'_> {
    fn drop(&mut self) {
        let mut tables = self.filter.write();
        if tables.next.as_ref().is_some_and(|next| Arc::ptr_eq(next, &self.bits)) {
            tables.next = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use hitbox_core::CacheKey;

    use super::Filter;

    fn key(number: u64) -> CacheKey {
        CacheKey::builder("k").part("n", number).build()
    }

    #[test]
    fn there_are_no_false_negatives_and_few_false_positives() {
        let filter = Filter::new(10_000);
        assert!(filter.may_have(&key(1)), "nothing is known yet");
        let rebuild = filter.rebuild();
        (0..5_000).for_each(|number| rebuild.add(&key(number)));
        // Written while it was filled.
        (5_000..10_000).for_each(|number| drop(filter.note(&key(number))));
        rebuild.finish();
        assert!((0..10_000).all(|number| filter.may_have(&key(number))));
        let wrong = (10_000..110_000).filter(|number| filter.may_have(&key(*number))).count();
        assert!(wrong < 2_000, "{wrong} of 100,000 pass");
        assert_eq!(filter.memory_bytes(), 12_504);
        let rebuild = filter.rebuild();
        let noted_key = key(7);
        let noted = filter.note(&noted_key);
        rebuild.finish();
        drop(noted);
        assert!(filter.may_have(&key(7)), "a write that ended after the exchange");
        assert!(!filter.may_have(&key(1)), "what was not listed is out");
    }
}
