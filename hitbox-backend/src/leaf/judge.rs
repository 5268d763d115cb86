//! Whether a read may use the copy that a leaf has.

use std::task::Poll;

use hitbox_core::{BackendResult, CacheKey, CacheValue, Freshness, ReadMode, RecordKind};

use super::Leaf;
use crate::coherence::epochs::Verdict;
use crate::envelope::Raw;
use crate::read::{Answer, Found, LeafSet, ReadOptions, TryRead};
use crate::stats::Event;

/// What is rare about an entry, or about its store, makes it.
enum Rare {
    Usable,
    Useless(Event),
    Unknown,
}

impl Leaf {
    /// Answers a read from memory: `look` is the look-up. For leaves that never wait.
    #[inline(always)]
    pub fn try_read(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
        look: impl FnOnce() -> Option<CacheValue<Raw>>,
    ) -> TryRead {
        self.try_read_or_wait(key, options, || Poll::Ready(look()))
    }

    /// The same for leaves that may have to wait: then the look-up is pending.
    #[inline(always)]
    pub fn try_read_or_wait(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
        look: impl FnOnce() -> Poll<Option<CacheValue<Raw>>>,
    ) -> TryRead {
        let inner = &*self.0;
        if options.skip.contains(inner.position) {
            return TryRead::Miss;
        }
        if inner.coherence.is_hidden(key) {
            self.count(Event::Hidden, 1);
            self.count(Event::Miss, 1);
            return TryRead::Miss;
        }
        let Poll::Ready(stored) = look() else { return TryRead::WouldWait(LeafSet::EMPTY) };
        match stored {
            Some(value) => self.judge(key, value, options),
            None => {
                self.count(Event::Miss, 1);
                TryRead::Miss
            }
        }
    }

    /// Whether this read may use a copy that has details, or whose store has seen invalidations.
    #[inline(never)]
    fn judge_rare(&self, key: &CacheKey, value: &CacheValue<Raw>, options: &ReadOptions) -> Rare {
        if let Some(details) = value.details() {
            let is_wanted = match details.kind {
                RecordKind::Value => true,
                RecordKind::Absent => options.absent,
                _ => false,
            };
            let idle_end = details.idle_end(value.created());
            if !is_wanted || idle_end.is_some_and(|end| end <= self.0.options.clock.now()) {
                return Rare::Useless(Event::Outdated);
            }
        }
        match self.0.epochs.verdict(key, value) {
            Verdict::Current => Rare::Usable,
            Verdict::Invalidated => Rare::Useless(Event::Invalidated),
            Verdict::Unknown => Rare::Unknown,
        }
    }

    /// A copy that this read cannot use.
    #[cold]
    #[inline(never)]
    fn useless(&self, why: Event) -> TryRead {
        self.count(why, 1);
        self.count(Event::Miss, 1);
        TryRead::Miss
    }

    /// What a copy is to this read: nothing is counted if that is not known here.
    #[inline(always)]
    fn judge(&self, key: &CacheKey, value: CacheValue<Raw>, options: &ReadOptions) -> TryRead {
        if value.is_annotated() || !self.0.epochs.is_plain() {
            match self.judge_rare(key, &value, options) {
                Rare::Usable => {}
                Rare::Useless(why) => return self.useless(why),
                Rare::Unknown => return TryRead::WouldWait(LeafSet::EMPTY),
            }
        }
        let mut event = Event::Hit;
        let mut freshness = Freshness::Fresh;
        if !value.lifetime().is_forever() {
            freshness = value.lifetime().freshness(self.0.options.clock.now());
            if freshness != Freshness::Fresh {
                if !options.accept.allows(freshness) {
                    return self.useless(Event::Outdated);
                }
                event = Event::Stale;
            }
        }
        self.count(event, 1);
        let (label, leaf) = (self.0.path, self.0.position);
        TryRead::Hit(Found { value, freshness, label, leaf, mode: ReadMode::Direct })
    }

    pub(super) fn answer(
        &self,
        key: &CacheKey,
        stored: BackendResult<Option<CacheValue<Raw>>>,
        options: &ReadOptions,
    ) -> Answer {
        match stored {
            Ok(stored) => {
                if let Some(encoded) = stored.as_ref().and_then(|value| value.data().as_encoded()) {
                    self.count(Event::BytesRead, encoded.bytes.len() as u64);
                }
                let Some(value) = stored else {
                    self.count(Event::Miss, 1);
                    return Ok(None);
                };
                match self.judge(key, value, options) {
                    TryRead::Hit(found) => Ok(Some(found)),
                    TryRead::Miss => Ok(None),
                    // What is not known by now has been lost.
                    TryRead::WouldWait(_) => {
                        self.useless(Event::Invalidated);
                        Ok(None)
                    }
                }
            }
            Err(error) => Err(self.failed(Event::ReadError, error)),
        }
    }
}
