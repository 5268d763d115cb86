//! Moves ends of life apart, so that entries written together do not end together.

use std::time::Duration;

use hitbox_core::{CacheKey, Timestamp};
use twox_hash::XxHash3_64;

/// A share of a duration by which it may be prolonged: 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// None at all.
    pub const NONE: Self = Self(0.0);

    /// Up to `share` of a duration, clamped to 0..=1; not-a-number is 0.
    pub fn new(share: f64) -> Self {
        if share.is_nan() { Self::NONE } else { Self(share.clamp(0.0, 1.0)) }
    }

    /// Whether it changes nothing.
    pub fn is_none(self) -> bool {
        self.0 == 0.0
    }

    /// A duration in [`duration`, `duration` × (1 + share)], which depends on the key and the instant alone: the same
    /// in every process.
    pub fn prolong(self, duration: Duration, key: &CacheKey, now: Timestamp) -> Duration {
        if self.is_none() {
            return duration;
        }
        let hash = XxHash3_64::oneshot_with_seed(now.as_millis(), key.as_encoded());
        // The upper 53 bits, as a number in [0, 1].
        let unit = (hash >> 11) as f64 / ((1_u64 << 53) - 1) as f64;
        let more = duration.as_millis() as f64 * self.0 * unit;
        // Floats saturate on their way to integers.
        duration.saturating_add(Duration::from_millis(more as u64))
    }
}
