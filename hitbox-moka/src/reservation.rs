//! Room that is reserved in moka for bodies that are being collected.
//!
//! moka's bound cannot be changed. So an entry stands for what is reserved, under a key of the framework's own: it is written
//! again with each change, and for an entry that grows moka evicts others and does not ask whether it may come in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_backend::core::CacheKey;
use hitbox_backend::store::memory;

#[derive(Debug)]
pub(crate) struct Reservation {
    key: CacheKey,
    /// What the entry weighs when it is written next.
    entry_weight: AtomicU64,
    /// What is reserved, for those who only look.
    reserved: AtomicU64,
    changes: Mutex<memory::Reservation>,
}

impl Default for Reservation {
    fn default() -> Self {
        let key = CacheKey::builder("reservation").reserved().build();
        Self { key, entry_weight: AtomicU64::new(0), reserved: AtomicU64::new(0), changes: Mutex::default() }
    }
}

impl Reservation {
    pub(crate) fn key(&self) -> &CacheKey {
        &self.key
    }

    /// What the entry of this key weighs if it stands for what is reserved.
    pub(crate) fn weight_of(&self, key: &CacheKey) -> Option<u64> {
        (key.is_reserved() && *key == self.key).then(|| self.entry_weight.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Nobody else changes it meanwhile.
    pub(crate) fn lock(&self) -> MutexGuard<'_, memory::Reservation> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry is about to be written with this weight. Only for who has the lock.
    pub(crate) fn set_entry_weight(&self, weight: u64) -> u64 {
        self.entry_weight.swap(weight, Ordering::Relaxed)
    }

    /// So much is reserved now. Only for who has the lock.
    pub(crate) fn set_reserved(&self, weight: u64) {
        self.reserved.store(weight, Ordering::Relaxed);
    }
}
