//! Invalidations by pattern that the store has not carried out: it failed, or the call was given up. What they mean is
//! invalid all the same, until the store has removed it.

use std::sync::atomic::Ordering;

use hitbox_core::{CacheKey, CacheValue, Clock, KeyPattern, Scope, Timestamp};

use super::super::logical_clock;
use super::Epochs;

/// Patterns that are held at a time: each read of the store looks at all of them.
const MAX_HELD: usize = 64;

/// A pattern that is held.
#[derive(Clone, Debug)]
pub(crate) struct HeldPattern {
    pub(crate) pattern: KeyPattern,
    /// What was made until then is invalid.
    pub(crate) until: Timestamp,
    /// When it was held last, on the logical clock: one millisecond has room for an invalidation that fails and for one that began before it.
    pub(crate) since: u64,
}

/// Up to when entries of a key are invalid, if something is held against them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held(Option<Timestamp>);

impl Held {
    pub(crate) const NOTHING: Self = Self(None);

    /// Whether this entry is meant.
    #[inline]
    pub(crate) fn means<T>(self, entry: &CacheValue<T>) -> bool {
        self.0.is_some_and(|until| entry.created().is_none_or(|created| created <= until))
    }
}

impl Epochs {
    /// Makes entries invalid whose keys match and that were made until now. If too many patterns are held, all entries are;
    /// the store has its record of that until `kept`.
    pub(crate) fn hold(&self, pattern: &KeyPattern, clock: &dyn Clock, kept: Timestamp) {
        let (until, since) = (self.made_until(clock), logical_clock::tick());
        let mut table = self.write();
        let known = table.patterns.iter().position(|held| held.pattern == *pattern);
        match known {
            Some(at) => {
                let held = &mut table.patterns[at];
                (held.until, held.since) = (until.max(held.until), since.max(held.since));
            }
            None if table.patterns.len() == MAX_HELD => {
                drop(table);
                tracing::warn!("too many patterns wait for a store: all that it has is invalidated");
                return self.end_all(clock, kept);
            }
            None => table.patterns.push(HeldPattern { pattern: pattern.clone(), until, since }),
        }
        self.count_open(&table);
        // What was found valid before has to be looked at again.
        self.latest.store(logical_clock::tick(), Ordering::Release);
        self.refresh(&table);
    }

    /// An entry is made at this instant, which is to come.
    pub(crate) fn made_ahead(&self, at: Timestamp) {
        self.ahead.fetch_max(at.as_millis(), Ordering::AcqRel);
    }

    /// Until when the entries that are there were made.
    pub(crate) fn made_until(&self, clock: &dyn Clock) -> Timestamp {
        clock.now().max(Timestamp::from_millis(self.ahead.load(Ordering::Acquire)))
    }

    fn end_all(&self, clock: &dyn Clock, kept: Timestamp) {
        let everything = Scope::everything();
        let epoch = self.begin(&everything, clock.monotonic(), kept);
        self.forget_unrecorded();
        self.end(&everything, epoch, logical_clock::tick());
    }

    /// The store has removed what this pattern meant at this time of the logical clock. What has been held since is held still: the store may have been
    /// asked before.
    pub(crate) fn release(&self, pattern: &KeyPattern, at: u64) {
        if !self.has_held() {
            return;
        }
        let mut table = self.write();
        table.patterns.retain(|held| held.pattern != *pattern || held.since > at);
        self.count_open(&table);
        self.refresh(&table);
    }

    /// The patterns that are held.
    pub(crate) fn held(&self) -> Vec<HeldPattern> {
        if self.has_held() { self.read().patterns.clone() } else { Vec::new() }
    }

    #[inline]
    pub(super) fn has_held(&self) -> bool {
        self.patterns.load(Ordering::Acquire) != 0
    }

    /// What is held against the entry of a key. Reads ask before they ask the store: what that has at this moment may be
    /// handed out when it has been removed, and nothing is held any more.
    #[inline]
    pub(crate) fn held_against(&self, key: &CacheKey) -> Held {
        if self.has_held() { self.look_for(key) } else { Held::NOTHING }
    }

    #[cold]
    fn look_for(&self, key: &CacheKey) -> Held {
        let table = self.read();
        let meant = table.patterns.iter().filter(|held| held.pattern.matches(key));
        Held(meant.map(|held| held.until).max())
    }
}
