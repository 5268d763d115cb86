//! Large values that a store has not taken within its deadline. To send them again and again would keep smaller ones from
//! being read and written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hitbox_core::{BackendError, BackendResult, ErrorKind};

/// Smaller values are not what takes long.
const LARGE: u64 = 64 * 1024;
/// A value is sent so often before it is given up.
const TRIES: u32 = 2;
/// How long it is given up for.
const PAUSE: Duration = Duration::from_secs(30);
/// Keys that are remembered; more are sent again.
const MAX_KEYS: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct SlowWrites {
    /// Every write looks at it, without the lock.
    is_any: AtomicBool,
    keys: Mutex<HashMap<u64, Slow>>,
}

#[derive(Clone, Copy, Debug)]
struct Slow {
    bytes: u64,
    tries: u32,
    /// On the monotonic clock.
    until: Duration,
}

impl SlowWrites {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Slow>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a value of so many bytes may be sent.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) if one of this key took longer than the deadline, a short while ago and twice.
    pub(crate) fn check(&self, hash: u64, bytes: u64, now: Duration) -> BackendResult<()> {
        if !self.is_any.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.lock().get(&hash) {
            Some(slow) if slow.tries >= TRIES && now < slow.until && bytes >= slow.bytes => {
                let message = "the value took longer than the deadline and is not sent again for a while";
                Err(BackendError::new(ErrorKind::TooLarge, message))
            }
            _ => Ok(()),
        }
    }

    /// Takes note of what came of a write.
    pub(crate) fn note(&self, hash: u64, bytes: u64, now: Duration, result: &BackendResult<()>) {
        let is_slow = bytes >= LARGE && matches!(result, Err(error) if error.kind() == ErrorKind::Timeout);
        if !is_slow && !self.is_any.load(Ordering::Acquire) {
            return;
        }
        let mut keys = self.lock();
        if is_slow {
            if keys.len() >= MAX_KEYS {
                keys.retain(|_, slow| now < slow.until);
            }
            if keys.len() < MAX_KEYS || keys.contains_key(&hash) {
                let slow = keys.entry(hash).or_insert(Slow { bytes, tries: 0, until: now });
                slow.tries = if now < slow.until + PAUSE { slow.tries + 1 } else { 1 };
                (slow.bytes, slow.until) = (slow.bytes.min(bytes), now + PAUSE);
            }
        } else if result.is_ok() {
            keys.remove(&hash);
        }
        self.is_any.store(!keys.is_empty(), Ordering::Release);
    }
}
