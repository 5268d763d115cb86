//! What in-memory stores have in common: their bound, the weight of an entry, and the ends of entries.

mod expiry;

use std::fmt;
use std::sync::Arc;

use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};

pub use crate::envelope::DeferredDrops;
pub use expiry::Expiries;

use super::Page;
use crate::envelope::Raw;

/// A page of a store's keys in the order of their hashes, so that it does not matter what is removed between two pages.
/// The framework's own keys are left out. Cursors have 48 bits: compositions need the rest.
pub fn page_of(keys: impl Iterator<Item = CacheKey>, cursor: u64, limit: usize) -> Page {
    let place = |key: &CacheKey| key.process_hash() >> 16;
    let mut keys: Vec<CacheKey> = keys.filter(|key| place(key) >= cursor && !key.is_reserved()).collect();
    if keys.len() <= limit {
        return Page { keys, next: None };
    }
    let limit = limit.max(1);
    keys.select_nth_unstable_by_key(limit - 1, place);
    // Keys with the place of the last one are on its page.
    let last = place(&keys[limit - 1]);
    keys.retain(|key| place(key) <= last);
    Page { keys, next: Some(last + 1) }
}

/// What a bound in bytes counts for an entry.
pub type Weigher = Arc<dyn Fn(&CacheKey, &CacheValue<Raw>) -> u64 + Send + Sync>;

/// How much a leaf holds.
#[derive(Clone)]
#[non_exhaustive]
pub enum Bound {
    /// So many entries.
    Entries(u64),
    /// So many bytes, as the weigher counts them.
    Bytes(u64, Weigher),
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(entries) => write!(f, "Entries({entries})"),
            Self::Bytes(bytes, _) => write!(f, "Bytes({bytes})"),
        }
    }
}

impl Bound {
    /// What an entry takes of the bound.
    pub fn weight(&self, key: &CacheKey, value: &CacheValue<Raw>) -> u64 {
        match self {
            Self::Entries(_) => 1,
            Self::Bytes(_, weigher) => weigher(key, value),
        }
    }

    /// How much there may be in all.
    pub const fn max(&self) -> u64 {
        match self {
            Self::Entries(max) | Self::Bytes(max, _) => *max,
        }
    }

    /// Whether something fits under the bound.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if nothing does.
    pub fn validate(&self) -> BackendResult<()> {
        let name = match self {
            Self::Entries(_) => "max_entries",
            Self::Bytes(..) => "max_bytes",
        };
        if self.max() > 0 {
            return Ok(());
        }
        Err(BackendError::new(ErrorKind::Configuration, format!("{name} must be at least 1")))
    }
}

/// What a store has reserved for bodies that are being collected. It rises in steps of 64 KiB, or of a 16th of a bound that is
/// small, and less than a step is not worth the work. It falls exactly: a body that has ended needs all of its room.
#[derive(Debug, Default)]
pub struct Reservation {
    weight: u64,
    reserved: u64,
}

impl Reservation {
    /// What is reserved.
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The bodies weigh so much now, in all. Says whether that changes what is reserved.
    pub fn change(&mut self, bound: &Bound, weight: u64) -> bool {
        let (step, before) = ((bound.max() / 16).clamp(1, 64 * 1024), self.reserved);
        let falls = weight < std::mem::replace(&mut self.weight, weight);
        self.reserved = match before {
            0 if weight < step => 0,
            _ if falls && weight <= step / 2 => 0,
            _ if falls => before.min(weight),
            _ if weight > before => weight.div_ceil(step).saturating_mul(step).min(bound.max()),
            _ => before,
        };
        self.reserved != before
    }
}

/// Bytes of key, payload and metadata: what a weigher starts from. A live payload is measured by a counting
/// serializer.
pub fn weigh(key: &CacheKey, value: &CacheValue<Raw>) -> u64 {
    let details = value.details().map_or(0, |details| {
        let metadata = details.metadata.iter().map(|(name, value)| name.len() + value.len() + 64);
        let scopes = details.scopes.iter().map(|scope| scope.name.len() + 48);
        metadata.chain(scopes).sum::<usize>() as u64 + 96
    });
    // The table of ends.
    let details = details + if value.drop_at().is_some() { 160 } else { 0 };
    key.as_encoded().len() as u64 + value.data().weight() + details
}

/// Setters of the builder of an in-memory leaf, which has the fields `bound: Bound` and `options: LeafOptions`:
/// its bound, and those of [`leaf_setters`](crate::leaf_setters). The literals are the default label and the
/// bytes that an entry takes beside key, payload and metadata.
#[macro_export]
macro_rules! memory_setters {
    ($label:literal, $overhead:literal) => {
        /// Holds at most this many entries. Default 100,000.
        #[must_use]
        pub fn max_entries(mut self, entries: u64) -> Self {
            self.bound = $crate::store::memory::Bound::Entries(entries);
            self
        }

        /// Holds at most this many bytes: keys, payloads as a counting serializer finds them, 160 bytes for an entry that has
        /// an end, for one with tags or metadata 96 and what they take (48 a tag and 64 a pair, and their texts), and
        #[doc = concat!(stringify!($overhead), " bytes per entry. What the allocator takes for these stays below 1.25 times the bound. Default: bound by entries.")]
        #[must_use]
        pub fn max_bytes(self, bytes: u64) -> Self {
            self.max_weight(
                bytes,
                ::std::sync::Arc::new(|key, value| $crate::store::memory::weigh(key, value) + $overhead),
            )
        }

        /// Holds at most `weight` as `weigher` counts it. Default: bound by entries.
        #[must_use]
        pub fn max_weight(mut self, weight: u64, weigher: $crate::store::memory::Weigher) -> Self {
            self.bound = $crate::store::memory::Bound::Bytes(weight, weigher);
            self
        }

        $crate::leaf_setters!($label);
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(max: u64) -> Bound {
        Bound::Bytes(max, Arc::new(weigh))
    }

    #[test]
    fn what_is_reserved_is_what_has_come_or_little_more() {
        for max in [1, 10, 100, 5_000, 1 << 20, 1 << 30] {
            let (bound, step) = (bound(max), (max / 16).clamp(1, 64 * 1024));
            let mut reservation = Reservation::default();
            let (up, down) = ((0..=max).step_by(step as usize / 3 + 1), (0..=max).rev());
            for weight in up.chain(down.step_by(step as usize / 3 + 1)).take(100_000) {
                reservation.change(&bound, weight);
                let reserved = reservation.reserved();
                assert!(reserved >= weight || weight < step, "{max}: {reserved} for {weight}");
                assert!(reserved <= max && reserved < weight + step, "{max}: {reserved} for {weight}");
            }
            reservation.change(&bound, 0);
            assert_eq!(reservation.reserved(), 0, "{max}");
        }
    }

    #[test]
    fn it_rises_in_steps_and_falls_exactly() {
        let (bound, mut reservation) = (bound(1 << 30), Reservation::default());
        let mut changes = |weights: &mut dyn Iterator<Item = u64>| {
            weights.filter(|weight| reservation.change(&bound, *weight)).count()
        };
        assert_eq!(changes(&mut (0..1000).map(|part| part * 1024)), 16);
        assert_eq!(changes(&mut [900_000, 900_000, 900_001].into_iter()), 2);
        assert_eq!(reservation.reserved(), 14 * 64 * 1024);
    }
}
