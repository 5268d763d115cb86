//! Whether a read may use the copy that a leaf has.

use std::task::Poll;

use hitbox_core::{CacheKey, CacheValue, Freshness, ReadMode, RecordKind};

use super::{Leaf, LeafHandle};
use crate::coherence::epochs::Validity;
use crate::envelope::wire::{self, Record};
use crate::envelope::{Raw, Unusable};
use crate::operation::{Found, LeafSet, ReadOptions, TryRead};
use crate::stats::Event;
use crate::store::Store;

/// What has been found out about a copy that has details, or whose store has seen invalidations.
enum Checked {
    Usable,
    Unusable(Event),
    NeedEpochs,
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
            return handle.miss(Event::Dirty);
        }
        let Poll::Ready(stored) = self.store.try_read(key) else { return TryRead::WouldWait(LeafSet::EMPTY) };
        let Some(stored) = stored else {
            handle.count(Event::Miss, 1);
            return TryRead::Miss;
        };
        if self.is_live {
            return handle.check(key, stored, options);
        }
        match handle.parse(key, stored) {
            Parsed::Value(value) => {
                handle.count_bytes_read(&value);
                handle.check(key, value, options)
            }
            // It is removed by the ordinary way.
            Parsed::Nothing { damaged: true } => TryRead::WouldWait(LeafSet::EMPTY),
            Parsed::Nothing { damaged: false } => {
                handle.count(Event::Miss, 1);
                TryRead::Miss
            }
        }
    }
}

impl LeafHandle {
    /// What a store has answered. A record is read here.
    pub(super) fn parse(&self, key: &CacheKey, stored: CacheValue<Raw>) -> Parsed {
        let record = match stored.data().as_stored() {
            None => return Parsed::Value(stored),
            Some(Ok(bytes)) => wire::decode(key, bytes, self.codec(), Some(self)),
            Some(Err(Unusable::Damaged)) => Record::Damaged,
            Some(Err(Unusable::Foreign)) => Record::Other(wire::Other::Foreign),
        };
        match record {
            Record::Value(value) => Parsed::Value(value),
            Record::Other(reason) => {
                self.count(Event::Foreign, 1);
                tracing::debug!(backend = %self.path(), ?reason, "a stored record is of no use here");
                Parsed::Nothing { damaged: false }
            }
            Record::Damaged => Parsed::Nothing { damaged: true },
        }
    }

    pub(super) fn count_bytes_read(&self, value: &CacheValue<Raw>) {
        if let Some(encoded) = value.data().as_encoded() {
            self.count(Event::BytesRead, encoded.bytes.len() as u64);
        }
    }

    /// The slow path: a copy that has details, or whose store has seen invalidations.
    #[inline(never)]
    fn check_details(&self, key: &CacheKey, value: &CacheValue<Raw>, options: &ReadOptions) -> Checked {
        if let Some(details) = value.details() {
            let is_wanted = match details.kind {
                RecordKind::Value => true,
                RecordKind::Absent => options.absent,
                _ => false,
            };
            let idle_end = details.idle_end(value.created());
            if !is_wanted || idle_end.is_some_and(|end| end <= self.clock().now()) {
                return Checked::Unusable(Event::Outdated);
            }
        }
        match self.coherence().epochs.validity(key, value) {
            Validity::Valid => Checked::Usable,
            Validity::Invalid => Checked::Unusable(Event::Invalidated),
            Validity::NeedEpochs => Checked::NeedEpochs,
        }
    }

    /// The leaf has something that this read cannot use.
    #[cold]
    #[inline(never)]
    pub(super) fn miss(&self, why: Event) -> TryRead {
        self.count(why, 1);
        self.count(Event::Miss, 1);
        TryRead::Miss
    }

    /// What a copy is to this read. Nothing is counted if epochs have to be asked for first.
    #[inline(always)]
    pub(super) fn check(&self, key: &CacheKey, value: CacheValue<Raw>, options: &ReadOptions) -> TryRead {
        if value.has_details() || !self.coherence().epochs.is_plain() {
            match self.check_details(key, &value, options) {
                Checked::Usable => {}
                Checked::Unusable(why) => return self.miss(why),
                Checked::NeedEpochs => return TryRead::WouldWait(LeafSet::EMPTY),
            }
        }
        let mut event = Event::Hit;
        let mut freshness = Freshness::Fresh;
        if !value.lifetime().is_forever() {
            freshness = value.lifetime().freshness(self.clock().now());
            if freshness != Freshness::Fresh {
                if !options.accept.allows(freshness) {
                    return self.miss(Event::Outdated);
                }
                event = Event::Stale;
            }
        }
        self.count(event, 1);
        let (label, leaf) = (self.path(), self.position());
        TryRead::Hit(Found { value, freshness, label, leaf, mode: ReadMode::Direct })
    }
}
