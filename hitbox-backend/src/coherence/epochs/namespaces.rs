//! The limit of a store's namespaces.

use std::time::Duration;

use hitbox_core::{CacheKey, Clock, Timestamp};
use tokio::sync::MutexGuard;

use super::Epochs;

/// After a step of a listing there is none for so many times as long as it took: who is refused again and again costs the
/// others at most that share.
const PAUSE: u32 = 10;

/// How far a listing of the store has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Where it goes on; nothing before it has begun.
    cursor: Option<u64>,
    /// Monotonic time before which it does not.
    not_before: Duration,
}

/// The right to list some of the store.
pub(crate) struct Listing<'e> {
    epochs: &'e Epochs,
    progress: MutexGuard<'e, Progress>,
    began: Duration,
}

impl Epochs {
    /// Notes the namespaces of an entry that is about to be stored and ends then, unless they would be more than `limit`:
    /// then it says how many.
    pub(crate) fn admit(
        &self,
        key: &CacheKey,
        end: Option<Timestamp>,
        now: Timestamp,
        limit: u64,
    ) -> Result<(), u64> {
        if self.read().namespaces.knows(key, end) {
            return Ok(());
        }
        self.write().namespaces.admit(key, end, now, limit)
    }

    /// The right to list some of the store, to find namespaces without entries; nothing if somebody is at it or was just now.
    pub(crate) fn listing(&self, clock: &dyn Clock) -> Option<Listing<'_>> {
        let (progress, began) = (self.listing.try_lock().ok()?, clock.monotonic());
        (began >= progress.not_before).then_some(Listing { epochs: self, progress, began })
    }
}

impl Listing<'_> {
    /// Where it goes on.
    pub(crate) fn cursor(&mut self) -> u64 {
        *self.progress.cursor.get_or_insert_with(|| {
            self.epochs.write().namespaces.begin_listing();
            0
        })
    }

    /// Takes note of a page. Says whether it was the last: what has not been found is given back then.
    pub(crate) fn note(&mut self, keys: &[CacheKey], next: Option<u64>, clock: &dyn Clock) -> bool {
        let mut table = self.epochs.write();
        table.namespaces.list(keys);
        self.progress.cursor = next;
        if next.is_none() {
            table.namespaces.end_listing();
        }
        let now = clock.monotonic();
        self.progress.not_before = now + now.saturating_sub(self.began) * PAUSE;
        next.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tokens::EpochHome;
    use super::*;
    use hitbox_core::{Scope, ScopeKind};

    /// What was found valid is looked at again after each invalidation, in whatever order they end.
    #[test]
    fn the_last_change_never_goes_back() {
        let epochs = Epochs::new(EpochHome::Process);
        let (slow, quick) = (Scope::tag("slow"), Scope::tag("quick"));
        let slow_epoch = epochs.begin(&slow, Duration::ZERO, Timestamp::from_millis(1));
        let slow_time = crate::coherence::logical_clock::tick();
        let quick_epoch = epochs.begin(&quick, Duration::ZERO, Timestamp::from_millis(1));
        epochs.end(&quick, quick_epoch, crate::coherence::logical_clock::tick());
        let latest = epochs.latest();
        epochs.end(&slow, slow_epoch, slow_time);
        assert_eq!(epochs.latest(), latest);
    }

    /// Of a shared store the epochs of namespaces are asked for that are only read.
    #[test]
    fn case_f12_names_that_are_only_read_are_forgotten() {
        let epochs = Epochs::new(EpochHome::Shared);
        let mut largest = 0;
        for number in 0..600_000 {
            let scope = Scope::namespace(format!("tenant {number}"));
            epochs.merge(epochs.read_sequence(), Duration::ZERO, &[(scope, None)]);
            largest = largest.max(epochs.read().tokens[ScopeKind::Namespace as usize].len());
        }
        assert!((1 << 17..=1 << 18).contains(&largest), "{largest} names");
    }
}
