//! What was not shared a moment ago: who asks for it does not wait for others in vain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox::core::CacheKey;

/// Places. Two keys that fall into one displace each other, and are waited for once more.
const PLACES: usize = 4096;
/// After this time it is tried again whether the response can be shared.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Keys whose responses were not shared, and when. Of a fixed size, and forgetful: what is forgotten costs a wait.
pub(crate) struct NotShared(Box<[AtomicU64]>);

impl NotShared {
    pub(crate) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, key: &CacheKey) -> (&AtomicU64, u64) {
        let hash = key.process_hash();
        // The upper half tells keys of one place apart.
        (&self.0[hash as usize % PLACES], hash >> 32 << 32)
    }

    /// The response of this key was not shared, at this time since the start of the process.
    pub(crate) fn remember(&self, key: &CacheKey, now: Duration) {
        let (place, tag) = self.place(key);
        place.store(tag | (now.as_secs() & u64::from(u32::MAX)), Ordering::Relaxed);
    }

    /// Whether it was not shared lately.
    pub(crate) fn contains(&self, key: &CacheKey, now: Duration) -> bool {
        let (place, tag) = self.place(key);
        let known = place.load(Ordering::Relaxed);
        let since = now.as_secs().saturating_sub(known & u64::from(u32::MAX));
        known != 0 && known >> 32 << 32 == tag && since < REMEMBERED.as_secs()
    }

    /// It can be shared.
    pub(crate) fn forget(&self, key: &CacheKey) {
        let (place, tag) = self.place(key);
        if place.load(Ordering::Relaxed) >> 32 << 32 == tag {
            place.store(0, Ordering::Relaxed);
        }
    }
}
