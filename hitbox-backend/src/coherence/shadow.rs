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
    hidden: Mutex<Hidden>,
}

#[derive(Debug, Default)]
struct Hidden {
    /// Hidden keys, each with the number of the write that hid it.
    keys: HashMap<CacheKey, u64>,
    /// Writes that would have hidden a key while the whole store was hidden.
    unnamed: u64,
}

/// A clear under way.
#[derive(Debug)]
pub(crate) struct Clearing {
    unnamed: u64,
}

impl Shadow {
    /// Hides what the store had before the write with this number.
    pub(super) fn hide(&self, key: &CacheKey, number: u64) {
        let mut hidden = self.lock();
        if self.is_hidden_entirely() {
            hidden.unnamed += 1;
            return;
        }
        let by = hidden.keys.entry(key.clone()).or_insert(number);
        *by = number.max(*by);
        if hidden.keys.len() > MAX_KEYS {
            hidden.keys = HashMap::new();
            self.count.store(ENTIRELY, Ordering::Release);
        } else {
            self.count.store(hidden.keys.len(), Ordering::Release);
        }
    }

    #[inline(always)]
    pub(super) fn is_hidden(&self, key: &CacheKey) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.has(key)
    }

    #[cold]
    #[inline(never)]
    fn has(&self, key: &CacheKey) -> bool {
        self.is_hidden_entirely() || self.lock().keys.contains_key(key)
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
        let mut hidden = self.lock();
        if !self.is_hidden_entirely() && hidden.keys.get(key).is_some_and(|by| *by <= number) {
            hidden.keys.remove(key);
            self.count.store(hidden.keys.len(), Ordering::Release);
        }
    }

    /// The store is about to be cleared.
    pub(crate) fn begin_clear(&self) -> Clearing {
        Clearing { unnamed: self.lock().unnamed }
    }

    /// The store has been cleared of all that writes brought for which `is_before` holds. What later ones
    /// hid stays hidden.
    pub(crate) fn cleared(&self, clearing: Clearing, is_before: impl Fn(&CacheKey, u64) -> bool) {
        let mut hidden = self.lock();
        if self.is_hidden_entirely() && hidden.unnamed != clearing.unnamed {
            // Which keys were hidden meanwhile is not known: the next clear has to do it.
            return;
        }
        hidden.keys.retain(|key, number| !is_before(key, *number));
        self.count.store(hidden.keys.len(), Ordering::Release);
    }

    pub(super) fn len(&self) -> usize {
        self.lock().keys.len()
    }

    fn lock(&self) -> MutexGuard<'_, Hidden> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
