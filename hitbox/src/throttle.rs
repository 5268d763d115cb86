//! Keys whose load failed a moment ago. Until their time an older copy is served without trying again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hitbox_core::CacheKey;

/// More are forgotten, those first whose time is over.
const MAX_THROTTLED: usize = 65_536;

/// Nothing is locked as long as no key is throttled.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// Keys in the table.
    count: AtomicUsize,
    keys: Mutex<HashMap<CacheKey, Duration>>,
}

impl Throttle {
    /// No load of this key before the monotonic instant `until`.
    pub(crate) fn until(&self, key: &CacheKey, now: Duration, until: Duration) {
        if until <= now {
            return;
        }
        let mut keys = self.lock();
        if keys.len() >= MAX_THROTTLED {
            keys.retain(|_, until| *until > now);
        }
        if keys.len() < MAX_THROTTLED {
            keys.insert(key.clone(), until);
        }
        self.count.store(keys.len(), Ordering::Release);
    }

    /// Whether the key is not to be loaded at the monotonic instant `now`.
    pub(crate) fn is_on(&self, key: &CacheKey, now: impl FnOnce() -> Duration) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut keys = self.lock();
        let Some(until) = keys.get(key) else { return false };
        if *until > now() {
            return true;
        }
        keys.remove(key);
        self.count.store(keys.len(), Ordering::Release);
        false
    }

    /// The key may be loaded again.
    pub(crate) fn end(&self, key: &CacheKey) {
        if self.is_empty() {
            return;
        }
        let mut keys = self.lock();
        keys.remove(key);
        self.count.store(keys.len(), Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Duration>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_locked_while_nothing_is_throttled() {
        let throttle = Throttle::default();
        let (key, at) = (CacheKey::new("k"), Duration::from_secs);
        {
            // Whoever locks now waits for ever.
            let _locked = throttle.lock();
            throttle.end(&key);
            assert!(!throttle.is_on(&key, || at(1)));
        }
        throttle.until(&key, at(1), at(3));
        assert!(throttle.is_on(&key, || at(2)));
        assert!(!throttle.is_on(&key, || at(3)), "its time is over");
        throttle.until(&key, at(1), at(3));
        throttle.end(&key);
        assert!(throttle.is_empty() && !throttle.is_on(&key, || at(2)));
        throttle.until(&key, at(1), at(1));
        assert!(throttle.is_empty(), "no time at all");
    }
}
