//! Whether a read may use the copy that a leaf has.

use std::task::Poll;

use hitbox_core::{CacheKey, CacheValue, Freshness, ReadMode, RecordKind, Timestamp};

use super::health::Side;
use super::{Leaf, LeafHandle};
use crate::codec::COMPRESSOR_NONE;
use crate::coherence::epochs::{Held, Validity};
use crate::envelope::wire::{self, Record};
use crate::envelope::{Raw, Unusable};
use crate::operation::{Found, LeafSet, ReadOptions, TryRead};
use crate::stats::Event;
use crate::store::Store;

/// Whether a read may use a copy.
pub(super) enum Checked {
    Usable(Freshness),
    /// It may not, for a reason that has been counted: the read is a miss.
    Unusable,
    /// Epochs have to be asked for first. Nothing has been counted.
    NeedEpochs,
}

impl Checked {
    /// The answer of a read that may not use its copy.
    const fn without_copy(&self) -> TryRead {
        match self {
            Self::NeedEpochs => TryRead::WouldWait(LeafSet::EMPTY),
            Self::Usable(_) | Self::Unusable => TryRead::Miss,
        }
    }
}

/// What stored bytes are to a leaf.
pub(super) enum Parsed {
    Value(CacheValue<Raw>),
    /// Nothing that is of use here; to be removed if it is damaged.
    Nothing {
        damaged: bool,
    },
}

impl<S: Store> Leaf<S> {
    /// Answers a read from memory, if the store can.
    #[inline(always)]
    pub(super) fn read_now(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        let handle = &self.handle;
        if options.skip.contains(handle.position()) {
            return TryRead::Miss;
        }
        if handle.coherence().is_dirty(key) {
            return handle.miss(Event::Dirty, options);
        }
        let epochs = &handle.coherence().epochs;
        let is_plain = epochs.is_plain();
        let held = if is_plain { Held::NOTHING } else { epochs.held_against(key) };
        // What memory answers with is looked at where it is, and moved once, when all has been decided: moving what has
        // just been written makes the processor wait.
        let answer = self.store.try_read(key);
        let Poll::Ready(stored) = &answer else { return TryRead::WouldWait(LeafSet::EMPTY) };
        let Some(stored) = stored else {
            handle.count_read(Event::Miss, options);
            return TryRead::Miss;
        };
        if self.is_live {
            let checked = handle.check(key, stored, options, is_plain, held);
            return match (checked, answer) {
                (Checked::Usable(freshness), Poll::Ready(Some(value))) => {
                    TryRead::Hit(handle.found(value, freshness))
                }
                (checked, answer) => {
                    if let (Checked::Unusable, Poll::Ready(Some(over))) = (&checked, &answer)
                        && handle.is_gone(over)
                    {
                        self.store.reclaim();
                    }
                    checked.without_copy()
                }
            };
        }
        let Poll::Ready(Some(stored)) = answer else { return TryRead::Miss };
        match handle.parse(key, stored) {
            Parsed::Value(value) => {
                handle.answered(Side::Reads);
                handle.count_bytes_read(&value, options);
                match handle.check(key, &value, options, is_plain, held) {
                    Checked::Usable(freshness) => TryRead::Hit(handle.found(value, freshness)),
                    checked => checked.without_copy(),
                }
            }
            // It is removed by the ordinary way.
            Parsed::Nothing { damaged: true } => TryRead::WouldWait(LeafSet::EMPTY),
            Parsed::Nothing { damaged: false } => {
                handle.count_read(Event::Miss, options);
                TryRead::Miss
            }
        }
    }
}

impl LeafHandle {
    /// What a store has answered. A record is read here.
    pub(super) fn parse(&self, key: &CacheKey, stored: CacheValue<Raw>) -> Parsed {
        let record = match stored.data().as_stored() {
            None if self.is_of_other_schema(key, &stored) => Record::Other(wire::Other::Schema),
            None => return Parsed::Value(stored),
            Some(Ok(bytes)) => wire::decode(key, bytes, self.codec(), Some(self)),
            Some(Err(Unusable::Damaged)) => Record::Damaged,
            Some(Err(Unusable::Foreign)) => Record::Other(wire::Other::Foreign),
            Some(Err(Unusable::TooLarge)) => Record::Other(wire::Other::TooLarge),
        };
        match record {
            Record::Value(value) if self.claims_too_much(&value) => Parsed::Nothing { damaged: true },
            Record::Value(value) if self.is_too_large(&value) => Parsed::Nothing { damaged: false },
            Record::Value(value) => Parsed::Value(value),
            Record::Other(wire::Other::TooLarge) => Parsed::Nothing { damaged: false },
            Record::Other(reason) => {
                self.count(Event::Foreign, 1);
                tracing::debug!(backend = %self.path(), ?reason, "a stored record is of no use here");
                Parsed::Nothing { damaged: false }
            }
            Record::Damaged => Parsed::Nothing { damaged: true },
        }
    }

    /// A store may keep encoded values as they are, without a record around them.
    fn is_of_other_schema(&self, key: &CacheKey, value: &CacheValue<Raw>) -> bool {
        let own = wire::schema_under(key, self.codec().schema);
        value.data().as_encoded().is_some_and(|encoded| encoded.schema != own)
    }

    /// A record that says its value will be larger than this leaf takes is none that was written here: nothing is made room
    /// for.
    fn claims_too_much(&self, value: &CacheValue<Raw>) -> bool {
        let is_packed =
            value.data().as_encoded().is_some_and(|encoded| encoded.compressor != COMPRESSOR_NONE);
        is_packed && self.is_too_large(value)
    }

    /// It may have come by chunks.
    fn is_too_large(&self, value: &CacheValue<Raw>) -> bool {
        value.data().as_encoded().is_some_and(|encoded| encoded.plain_len > self.limits().value_bytes)
    }

    pub(super) fn count_bytes_read(&self, value: &CacheValue<Raw>, options: &ReadOptions) {
        if let Some(encoded) = value.data().as_encoded().filter(|_| !options.background) {
            self.count(Event::BytesRead, encoded.bytes.len() as u64);
        }
    }

    /// The slow path: a copy that has details, or whose store has seen invalidations.
    #[inline(never)]
    fn check_details(
        &self,
        key: &CacheKey,
        value: &CacheValue<Raw>,
        options: &ReadOptions,
        held: Held,
    ) -> Result<(), Checked> {
        if held.means(value) {
            return Err(self.unusable(Event::Invalidated, options));
        }
        if let Some(details) = value.details() {
            let is_wanted = match details.kind {
                RecordKind::Value => true,
                RecordKind::Absent => options.absent,
                _ => false,
            };
            let idle_end = details.idle_end(value.created());
            if !is_wanted || idle_end.is_some_and(|end| end <= self.clock().now()) {
                return Err(self.unusable(Event::Outdated, options));
            }
        }
        match self.coherence().epochs.validity(key, value) {
            Validity::Valid => Ok(()),
            Validity::Invalid => Err(self.unusable(Event::Invalidated, options)),
            Validity::NeedEpochs => Err(Checked::NeedEpochs),
        }
    }

    /// The leaf has something that this read cannot use.
    #[cold]
    #[inline(never)]
    pub(super) fn miss(&self, why: Event, options: &ReadOptions) -> TryRead {
        self.count_read(why, options);
        self.count_read(Event::Miss, options);
        TryRead::Miss
    }

    fn unusable(&self, why: Event, options: &ReadOptions) -> Checked {
        self.miss(why, options);
        Checked::Unusable
    }

    /// Counts what a read has come to, if a user has asked.
    #[inline(always)]
    pub(crate) fn count_read(&self, event: Event, options: &ReadOptions) {
        if !options.background {
            self.count(event, 1);
        }
    }

    /// Whether this read may use a copy. It is counted. `is_plain` says that the store has seen no invalidation, and `held`
    /// what was held against the key before the store was asked.
    #[inline(always)]
    pub(super) fn check(
        &self,
        key: &CacheKey,
        value: &CacheValue<Raw>,
        options: &ReadOptions,
        is_plain: bool,
        held: Held,
    ) -> Checked {
        if (value.has_details() || !is_plain)
            && let Err(checked) = self.check_details(key, value, options, held)
        {
            return checked;
        }
        if let Some(end) = value.lifetime().fresh_until()
            && self.clock().has_come(end)
        {
            return self.check_age(value, end, options);
        }
        self.count_read(Event::Hit, options);
        Checked::Usable(Freshness::Fresh)
    }

    /// Whether this read may use a copy whose freshness has ended. It is counted.
    #[inline(never)]
    fn check_age(&self, value: &CacheValue<Raw>, end: Timestamp, options: &ReadOptions) -> Checked {
        // A clock that was set back since does not make it fresh again.
        let now = self.clock().now().max(end);
        let freshness = value.lifetime().freshness(now);
        if !options.accept.allows(freshness) {
            return self.unusable(Event::Outdated, options);
        }
        self.count_read(Event::Stale, options);
        Checked::Usable(freshness)
    }

    /// A copy that may be used, with where it is from.
    #[inline(always)]
    pub(super) fn found(&self, value: CacheValue<Raw>, freshness: Freshness) -> Found {
        let (label, leaf) = (self.path(), self.position());
        Found { value, freshness, label, leaf, mode: ReadMode::Direct }
    }
}
