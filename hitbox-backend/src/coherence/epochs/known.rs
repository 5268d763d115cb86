//! What calls know of the epoch of "everything" without a lock: keys in no namespace, of entries without tags, need no
//! other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hitbox_core::{Epoch, ScopeKind};

use super::super::logical_clock::UNDER_WAY;
use super::super::tokens::{EpochHome, Recording, Table};

/// A copy of what the table says, which is written under its lock.
#[derive(Debug)]
pub(super) struct Known {
    /// Neither "everything" nor a namespace has an epoch, and nothing is held.
    is_plain: AtomicBool,
    /// The token in short, as entries carry it; 0 if there is none.
    epoch: AtomicU64,
    /// No invalidation is under way, and in a store the epoch is recorded and not in doubt.
    is_settled: AtomicBool,
    /// When the store was asked for it, in monotonic nanoseconds.
    asked: AtomicU64,
}

impl Known {
    pub(super) fn new(home: EpochHome) -> Self {
        Self {
            is_plain: AtomicBool::new(true),
            epoch: AtomicU64::new(0),
            is_settled: AtomicBool::new(home == EpochHome::Process),
            asked: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The epoch, unless the table has to be asked: it may be about to be another.
    #[inline]
    pub(super) fn settled_epoch(&self) -> Option<u64> {
        // In this order: an invalidation ends being settled before it changes the epoch.
        let epoch = self.epoch();
        self.is_settled.load(Ordering::Acquire).then_some(epoch)
    }

    /// Whether the store need not be asked.
    pub(super) fn is_believed(&self, home: EpochHome, now: Duration, staleness_bound: Duration) -> bool {
        let asked = Duration::from_nanos(self.asked.load(Ordering::Acquire));
        let is_recent = || !staleness_bound.is_zero() && now.saturating_sub(asked) <= staleness_bound;
        self.is_settled.load(Ordering::Acquire) && (home != EpochHome::Shared || is_recent())
    }

    /// Copies what the table says.
    pub(super) fn refresh(&self, table: &Table, home: EpochHome) {
        let token = table.tokens[ScopeKind::Everything as usize].get("");
        let everything = token.and_then(|token| token.epoch);
        let is_settled = token.map_or(home == EpochHome::Process, |token| {
            let is_under_way = token.changed == UNDER_WAY || token.recording != Recording::Done;
            token.epoch.is_some() && !is_under_way && !token.is_doubtful
        });
        let has_namespaces =
            !table.tokens[ScopeKind::Namespace as usize].is_empty() || table.names.first != Epoch::NONE;
        let is_plain = everything.is_none() && !has_namespaces && table.patterns.is_empty();
        if !is_settled {
            self.is_settled.store(false, Ordering::Release);
        }
        self.epoch.store(everything.map_or(0, |epoch| epoch.0 as u64), Ordering::Release);
        self.asked.store(token.map_or(0, |token| token.asked.as_nanos() as u64), Ordering::Release);
        self.is_settled.store(is_settled, Ordering::Release);
        self.is_plain.store(is_plain, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use hitbox_core::{CacheKey, CacheValue, Scope, Timestamp};

    use super::super::super::logical_clock::{self, StartedAt};
    use super::super::{Attach, Epochs, Recorded};
    use super::*;

    /// What comes of a write of this key that started then.
    fn written(epochs: &Epochs, started: StartedAt) -> &'static str {
        match epochs.attach(&CacheKey::new("k"), CacheValue::new(()), started) {
            Attach::Attached(value) if value.namespace_epoch() != 0 => "attached",
            Attach::Attached(_) => "without an epoch",
            Attach::Superseded => "superseded",
            Attach::Missing(..) => "missing",
        }
    }

    #[test]
    fn what_is_known_without_a_lock_is_what_the_table_says() {
        let (now, bound) = (Duration::from_secs(5), Duration::from_secs(1));
        let everything = Scope::everything();
        let (key, until) = (CacheKey::new("k"), Timestamp::from_millis(1 << 50));
        for home in [EpochHome::Shared, EpochHome::Store] {
            let epochs = Epochs::new(home);
            let is_missing = |at| !epochs.missing(Some(&key), &[], at, bound).is_empty();
            assert!(is_missing(now), "{home:?}: nothing is known");
            assert_eq!(written(&epochs, StartedAt::write()), "missing", "{home:?}");
            let before = StartedAt::write();
            let first = epochs.create(now, std::slice::from_ref(&everything), None);
            epochs.recorded(&first[0]);
            assert!(!is_missing(now) && !is_missing(now + bound), "{home:?}");
            assert_eq!(is_missing(now + bound * 2), home == EpochHome::Shared, "{home:?}: asked long ago");
            assert_eq!(written(&epochs, before), "attached", "{home:?}: a first epoch ends nothing");
            let epoch = epochs.begin(&everything, now, until);
            let during = StartedAt::write();
            assert_eq!(written(&epochs, during), "superseded", "{home:?}: it is not recorded");
            epochs.recorded(&Scope { epoch, ..everything.clone() });
            assert_eq!(written(&epochs, during), "superseded", "{home:?}: it is not over");
            epochs.end(&everything, epoch, logical_clock::tick());
            assert_eq!(written(&epochs, before), "superseded", "{home:?}");
            assert_eq!(written(&epochs, during), "superseded", "{home:?}");
            assert_eq!(written(&epochs, StartedAt::write()), "attached", "{home:?}");
            epochs.lose(&Scope { epoch, ..everything.clone() });
            assert_eq!(written(&epochs, StartedAt::write()), "missing", "{home:?}: the store has lost it");
            assert_eq!(is_missing(now), home == EpochHome::Shared, "{home:?}");
        }
    }

    #[test]
    fn that_there_was_none_is_older_than_one_that_there_is() {
        let recorded = |epoch| Some(Recorded { epoch: Epoch(epoch), renewed: None, until: None });
        let answers = |answers: &[Option<Recorded>]| {
            let epochs = Epochs::new(EpochHome::Shared);
            // All questions were under way at once.
            let sequence = epochs.read_sequence();
            for answer in answers {
                epochs.merge(sequence, Duration::ZERO, &[(Scope::everything(), *answer)]);
            }
            written(&epochs, StartedAt::write())
        };
        assert_eq!(answers(&[None, recorded(7)]), "attached");
        assert_eq!(answers(&[recorded(7), None]), "attached");
        assert_eq!(answers(&[None, recorded(7), None, recorded(7)]), "attached");
        // Nobody knows which of two is newer.
        assert_eq!(answers(&[recorded(7), recorded(8)]), "missing");
        assert_eq!(answers(&[recorded(7), recorded(8), recorded(7)]), "missing");
    }

    #[test]
    fn what_is_read_while_an_invalidation_is_under_way_is_not_stored_in_memory() {
        let epochs = Epochs::new(EpochHome::Process);
        let (now, everything) = (Duration::from_secs(5), Scope::everything());
        let mut before = StartedAt::read();
        assert_eq!(written(&epochs, before), "without an epoch");
        for round in 0..2 {
            let epoch = epochs.begin(&everything, now, Timestamp::from_millis(1 << 50));
            let (during, new) = (StartedAt::read(), StartedAt::write());
            assert_eq!(written(&epochs, before), "superseded", "{round}");
            assert_eq!(written(&epochs, during), "superseded", "{round}: another layer may not know of it");
            assert_eq!(written(&epochs, new), "attached", "{round}: something new");
            epochs.end(&everything, epoch, logical_clock::tick());
            assert_eq!(written(&epochs, during), "superseded", "{round}: it was read before the end");
            before = StartedAt::read();
            assert_eq!(written(&epochs, before), "attached", "{round}");
        }
    }
}
