//! Room that is reserved in moka for bodies that are being collected.
//!
//! moka's bound cannot be changed. So an entry stands for what is reserved, under a key of the framework's own: it is written
//! again with each change, and for an entry that grows moka evicts others and does not ask whether it may come in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_backend::core::CacheKey;

#[derive(Debug)]
pub(crate) struct Reservation {
    key: CacheKey,
    /// What the entry weighs when it is written next.
    weight: AtomicU64,
    changes: Mutex<()>,
}

/// What is reserved, while nobody else changes it.
pub(crate) struct Reserved<'a> {
    weight: &'a AtomicU64,
    _changes: MutexGuard<'a, ()>,
}

impl Default for Reservation {
    fn default() -> Self {
        let key = CacheKey::builder("reservation").reserved().build();
        Self { key, weight: AtomicU64::new(0), changes: Mutex::default() }
    }
}

impl Reservation {
    pub(crate) fn key(&self) -> &CacheKey {
        &self.key
    }

    /// What the entry of this key weighs if it stands for what is reserved.
    pub(crate) fn weight_of(&self, key: &CacheKey) -> Option<u64> {
        (key.is_reserved() && *key == self.key).then(|| self.weight.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    pub(crate) fn lock(&self) -> Reserved<'_> {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        Reserved { weight: &self.weight, _changes }
    }
}

impl Reserved<'_> {
    pub(crate) fn get(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&mut self, weight: u64) {
        self.weight.store(weight, Ordering::Relaxed);
    }
}
