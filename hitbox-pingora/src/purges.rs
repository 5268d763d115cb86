//! What was purged since a response was asked for. Its key and its tags are known when the header has come; by then the origin may have
//! read what was purged meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_core::CacheKey;
use pingora_cache::key::HashBinary;

/// Purges of so many kinds are told apart. Those that share a place cost each other a response that is not stored.
const PLACES: usize = 4096;

/// The moments of the last purges.
pub(crate) struct Purges {
    now: AtomicU64,
    of_everything: AtomicU64,
    last: Box<[AtomicU64]>,
}

/// A moment in the order of purges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);

impl Default for Purges {
    fn default() -> Self {
        let last = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { now: AtomicU64::new(0), of_everything: AtomicU64::new(0), last }
    }
}

impl Purges {
    pub(crate) fn now(&self) -> Moment {
        Moment(self.now.load(Ordering::SeqCst))
    }

    fn place_of_tag(&self, tag: &str) -> &AtomicU64 {
        &self.last[CacheKey::new(tag).process_hash() as usize % PLACES]
    }

    fn place_of_resource(&self, primary: &HashBinary) -> &AtomicU64 {
        &self.last[usize::from(u16::from_be_bytes([primary[0], primary[1]])) % PLACES]
    }

    fn note_at(&self, place: &AtomicU64) {
        let moment = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        place.fetch_max(moment, Ordering::SeqCst);
    }

    /// A resource is about to be purged, or expired.
    pub(crate) fn note_resource(&self, primary: &HashBinary) {
        self.note_at(self.place_of_resource(primary));
    }

    /// A tag is about to be invalidated.
    pub(crate) fn note_tag(&self, tag: &str) {
        self.note_at(self.place_of_tag(tag));
    }

    /// Everything is.
    pub(crate) fn note_everything(&self) {
        self.note_at(&self.of_everything);
    }

    /// Whether this resource, or one of the tags, has been purged since.
    pub(crate) fn came_since(&self, asked: Moment, primary: &HashBinary, tags: &[String]) -> bool {
        let is_later = |place: &AtomicU64| place.load(Ordering::SeqCst) > asked.0;
        is_later(&self.of_everything)
            || is_later(self.place_of_resource(primary))
            || tags.iter().any(|tag| is_later(self.place_of_tag(tag)))
    }
}
