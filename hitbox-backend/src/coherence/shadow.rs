//! Keys whose copy in a store is outdated, since a write or delete of them succeeded elsewhere and failed
//! there. Such a copy is not served until it has been overwritten or removed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_core::CacheKey;

/// More keys than this, some tens of megabytes, hide the whole store until it has been cleared.
const MAX_KEYS: usize = 1 << 17;

/// The count that stands for "the whole store".
const ENTIRELY: usize = usize::MAX;

#[derive(Debug, Default)]
pub(crate) struct Shadow {
    /// Keys in the set; read without the lock by every read.
    count: AtomicUsize,
    /// Hidden keys, each with the number of the write that hid it.
    keys: Mutex<HashMap<CacheKey, u64>>,
}

impl Shadow {
    /// Hides what the store had before the write with this number.
    pub(super) fn hide(&self, key: &CacheKey, number: u64) {
        let mut keys = self.lock();
        if self.is_hidden_entirely() {
            return;
        }
        let by = keys.entry(key.clone()).or_insert(number);
        *by = number.max(*by);
        if keys.len() > MAX_KEYS {
            *keys = HashMap::new();
            self.count.store(ENTIRELY, Ordering::Release);
        } else {
            self.count.store(keys.len(), Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn is_hidden(&self, key: &CacheKey) -> bool {
        match self.count.load(Ordering::Acquire) {
            0 => false,
            ENTIRELY => true,
            _ => self.lock().contains_key(key),
        }
    }

    #[inline]
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Ordering::Acquire) != 0
    }

    pub(super) fn is_hidden_entirely(&self) -> bool {
        self.count.load(Ordering::Acquire) == ENTIRELY
    }

    /// The store has what the write with this number brought. A copy that a newer one hid stays hidden.
    pub(crate) fn repaired(&self, key: &CacheKey, number: u64) {
        if matches!(self.count.load(Ordering::Acquire), 0 | ENTIRELY) {
            return;
        }
        let mut keys = self.lock();
        if !self.is_hidden_entirely() && keys.get(key).is_some_and(|by| *by <= number) {
            keys.remove(key);
            self.count.store(keys.len(), Ordering::Release);
        }
    }

    /// The store is empty.
    pub(crate) fn cleared(&self) {
        let mut keys = self.lock();
        *keys = HashMap::new();
        self.count.store(0, Ordering::Release);
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, u64>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
