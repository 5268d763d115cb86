//! The one place around a leaf: here values are encoded, calls timed and counted, copies judged, and
//! writes kept in order. [`Leaf`] is what belongs to a leaf; [`calls`] and [`batch`] are what surrounds
//! its methods.

mod batch;
mod calls;
mod judge;
mod matching;
mod options;
mod scoped;
mod setters;
mod version;
mod view;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use hitbox_core::{
    BackendError, BackendLabel, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, Limits,
};

use crate::backend::{Adoption, Backend};
use crate::codec::Codec;
use crate::coherence::epochs::{Epochs, Keeping, Verdict};
use crate::coherence::{Coherence, Mutation};
use crate::envelope::attributes;
use crate::envelope::wire::{self, Record};
use crate::envelope::{Encodings, Raw};
use crate::metrics::{StoreNames, Timer, Timers};
use crate::read::LeafPosition;
use crate::receipt::{DeleteStatus, Outcome, Receipt};
use crate::stats::{Counters, Event, LeafStatistics, Occupancy, Occupied};

pub(crate) use batch::{begin_batch, read_many, remove_many, write_many};
pub(crate) use calls::{contains, erase, evict, install_if, mutation, of, read, remove, write};
pub use matching::Matched;
pub(crate) use matching::{close, remove_matching};
pub use options::LeafOptions;
pub use scoped::Invalidation;
pub(crate) use scoped::invalidate;
pub(crate) use version::write_if_newer;
pub(crate) use view::View;

/// What belongs to one view of a leaf: its path, codec, clock, limits, counters; and to its store: the
/// order of writes. Cloning shares all of it.
#[derive(Clone, Debug)]
pub struct Leaf(Arc<Inner>);

pub(crate) struct Inner {
    options: LeafOptions,
    pub(crate) path: BackendLabel,
    position: LeafPosition,
    coherence: Arc<Coherence>,
    epochs: Arc<Epochs>,
    pub(crate) counters: Counters,
    pub(crate) timers: Timers,
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "read only by the exporter"))]
    pub(crate) store: Option<(StoreNames, Weak<dyn Occupied>)>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf")
            .field("path", &self.path)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// What stored bytes are to a leaf.
#[derive(Debug)]
pub enum Parsed {
    /// An entry.
    Value(CacheValue<Raw>),
    /// Of no use here, and to be left as it is.
    Leave,
    /// Damaged: it may be removed.
    Remove,
}

impl Leaf {
    /// A leaf with a store of its own.
    pub fn new(options: LeafOptions) -> Self {
        Self::alone(options, Arc::default())
    }

    /// A leaf of this store.
    pub(crate) fn alone(options: LeafOptions, coherence: Arc<Coherence>) -> Self {
        let (path, epochs) = (options.label, coherence.epochs.clone());
        Self::with(options, path, 0, (coherence, epochs), None)
    }

    /// The same leaf with gauges `hitbox_<kind>_entries` and so on that show what `store` holds.
    #[must_use]
    pub fn showing(self, kind: &str, store: Weak<dyn Occupied>) -> Self {
        let Inner { options, path, position, coherence, epochs, .. } = &*self.0;
        let shared = (coherence.clone(), epochs.clone());
        Self::with(options.clone(), *path, *position, shared, Some((kind, store)))
    }

    fn with(
        options: LeafOptions,
        path: BackendLabel,
        position: LeafPosition,
        (coherence, epochs): (Arc<Coherence>, Arc<Epochs>),
        store: Option<(&str, Weak<dyn Occupied>)>,
    ) -> Self {
        options.codec.format.make_known();
        let (counters, timers) = (Counters::default(), Timers::new(path));
        let store = store.map(|(kind, store)| (StoreNames::of(kind), store));
        let inner = Arc::new(Inner { options, path, position, coherence, epochs, counters, timers, store });
        crate::metrics::register(&inner);
        Self(inner)
    }

    /// The same store under another path, counted by itself.
    pub fn adopted(&self, adoption: &Adoption) -> Self {
        let Inner { options, coherence, epochs, .. } = &*self.0;
        Self::placed(options.clone(), adoption, coherence.clone(), epochs.clone())
    }

    fn placed(
        options: LeafOptions,
        adoption: &Adoption,
        coherence: Arc<Coherence>,
        epochs: Arc<Epochs>,
    ) -> Self {
        let own = match adoption.suffix {
            Some(suffix) => BackendLabel::new(&format!("{}{suffix}", options.label)),
            None => options.label,
        };
        let path = adoption.prefix.join(own);
        Self::with(options, path, adoption.first, (coherence, epochs), None)
    }

    /// The same for a view of a store that brings no leaf: what shares it beside this view cannot be known, so that
    /// epochs are in the store and are asked for each time.
    pub(crate) fn adopted_alone(&self, adoption: &Adoption) -> Self {
        if !self.is_nobodys() {
            return self.adopted(adoption);
        }
        let (options, epochs) = self.asked_each_time();
        Self::placed(options, adoption, self.0.coherence.clone(), epochs)
    }

    /// The same for one that is not part of a composition.
    pub(crate) fn with_identity(&self) -> Self {
        let (options, epochs) = self.asked_each_time();
        let path = options.label;
        Self::with(options, path, 0, (self.0.coherence.clone(), epochs), None)
    }

    fn asked_each_time(&self) -> (LeafOptions, Arc<Epochs>) {
        let mut options = self.0.options.clone();
        options.suspect_time = Duration::ZERO;
        (options, Arc::new(Epochs::kept(Keeping::Shared)))
    }

    /// Whether it stands for all backends that bring none, without telling them apart.
    pub(crate) fn is_nobodys(&self) -> bool {
        self.epochs().keeping() == Keeping::Nowhere
    }

    /// Whether it stands for all backends that bring none.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.is_nobodys() || self.suspect_time().is_zero()
    }

    /// The verdict, where entries of a shared store are not judged by what was believed long ago.
    pub(super) fn known_verdict(&self, key: &CacheKey, value: &CacheValue<Raw>) -> Verdict {
        let epochs = self.epochs();
        let has_scopes = value.details().is_some_and(|details| !details.scopes.is_empty());
        if epochs.keeping() == Keeping::Shared && has_scopes {
            Verdict::Unknown
        } else {
            self.epochs().verdict(key, value)
        }
    }

    /// The dotted path.
    pub fn path(&self) -> BackendLabel {
        self.0.path
    }

    /// Its place in the expression that it is part of.
    pub fn position(&self) -> LeafPosition {
        self.0.position
    }

    /// The codec of records that this leaf writes.
    pub fn codec(&self) -> &Codec {
        &self.0.options.codec
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.options.clock
    }

    /// What all views of the store share.
    pub fn coherence(&self) -> &Arc<Coherence> {
        &self.0.coherence
    }

    /// The epochs of its scopes.
    #[inline(always)]
    pub(crate) fn epochs(&self) -> &Arc<Epochs> {
        &self.0.epochs
    }

    /// The process's number of the last invalidation of any scope of the store, also of one that other processes made
    /// and that is known here. Later ones have greater numbers.
    pub fn last_invalidation(&self) -> u64 {
        self.epochs().latest()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.options.limits
    }

    /// How long epochs of a store that others share are believed.
    pub(crate) fn suspect_time(&self) -> Duration {
        self.0.options.suspect_time
    }

    /// Counts something.
    #[inline(always)]
    pub fn count(&self, event: Event, amount: u64) {
        self.0.counters.add(event, amount);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Takes back one that turned out to be another.
    pub(crate) fn take_back(&self, event: Event) {
        self.0.counters.take_back(event);
    }

    /// The counters as they are now.
    pub fn statistics(&self, occupancy: Option<Occupancy>) -> LeafStatistics {
        self.0.counters.snapshot(self.0.path, occupancy)
    }

    /// Runs `work` and, if there is a leaf to tell, measures it.
    pub(crate) fn time<R>(
        leaf: Option<&Self>,
        timer: impl Fn(&Timers) -> &Timer,
        work: impl FnOnce() -> R,
    ) -> R {
        let Some(leaf) = leaf else { return work() };
        let started = Timers::start(&leaf.0.options.clock);
        let result = work();
        timer(&leaf.0.timers).stop(&leaf.0.options.clock, started);
        result
    }

    /// What stored bytes are to this leaf; counts what is of no use.
    pub fn parse(&self, key: &CacheKey, bytes: &Bytes) -> Parsed {
        self.parsed(key, wire::decode(key, bytes, self.codec(), Some(self)))
    }

    /// The same for a record of which the store knows by checksums and keys of its own that it is intact, and
    /// this key's.
    pub fn parse_verified(&self, key: &CacheKey, bytes: &Bytes) -> Parsed {
        self.parsed(key, wire::decode_verified(bytes, self.codec(), Some(self)))
    }

    fn parsed(&self, key: &CacheKey, record: Record) -> Parsed {
        match record {
            Record::Value(value) => Parsed::Value(value),
            Record::Other(reason) => {
                self.count(Event::Foreign, 1);
                tracing::debug!(backend = %self.0.path, ?reason, "a stored record is of no use here");
                Parsed::Leave
            }
            Record::Damaged => {
                self.count(Event::Damaged, 1);
                tracing::warn!(backend = %self.0.path, %key, "a stored record is damaged");
                Parsed::Remove
            }
        }
    }

    /// The bytes under which a byte-storing leaf stores an entry.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the entry was not encoded, as those that leaves are given are.
    pub fn to_bytes(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<Vec<u8>> {
        match value.data().as_encoded() {
            Some(encoded) => Ok(wire::encode(key, value, encoded)),
            None => Err(BackendError::new(ErrorKind::Codec, "a live value reached a store of bytes")),
        }
    }

    /// Counts an error and names this leaf in it.
    pub(crate) fn failed(&self, event: Event, error: BackendError) -> BackendError {
        self.0.counters.add_error(event, error.kind());
        error.at(self.0.path)
    }

    pub(super) fn check_key(&self, key: &CacheKey) -> BackendResult<()> {
        let (size, limit) = (key.as_encoded().len() as u64, self.0.options.limits.key_bytes);
        if size > limit { Err(BackendError::too_large("a key", size, limit)) } else { Ok(()) }
    }

    /// The entry as this leaf stores it, or why it does not.
    pub(super) fn prepare<B: Backend + ?Sized>(
        &self,
        backend: &B,
        key: &CacheKey,
        value: CacheValue<Raw>,
        encodings: &Encodings,
    ) -> BackendResult<CacheValue<Raw>> {
        self.check_key(key)?;
        if let Some(details) = value.details() {
            let limits = &self.0.options.limits;
            for (what, count, limit) in [
                ("pairs of metadata", details.metadata.len() as u64, limits.metadata),
                ("tags and dependencies", details.scopes.len() as u64, limits.tags),
            ] {
                if count > limit {
                    return Err(BackendError::too_many(what, count, limit));
                }
            }
            let limit = limits.attributes_bytes.min(wire::MAX_ATTRIBUTES_BYTES);
            let size = attributes::len(details);
            if size > limit {
                return Err(BackendError::too_large("tags and metadata", size, limit));
            }
        }
        let value = match value.created() {
            Some(_) => value,
            None => value.with_created(Some(self.0.options.clock.now())),
        };
        if backend.capabilities().keeps_live_values {
            return Ok(value);
        }
        let content_type = value.details().and_then(|d| d.metadata.get("content-type"));
        let encoded = value.data().to_encoded(
            &self.0.options.codec,
            content_type.map(String::as_str),
            encodings,
            Some(self),
        )?;
        let limit = self.0.options.limits.value_bytes;
        if encoded.plain_len > limit {
            return Err(BackendError::too_large("a value", encoded.plain_len, limit));
        }
        Ok(value.map(|_| Raw::encoded(encoded, Some(self.clone()))))
    }

    /// Whether there is nothing to store, since the entry's time is over already.
    pub(super) fn is_gone(&self, value: &CacheValue<Raw>) -> bool {
        value.drop_at().is_some_and(|end| end <= self.0.options.clock.now())
    }

    pub(super) fn stored(
        &self,
        key: &CacheKey,
        mutation: &Mutation,
        event: Event,
        bytes: u64,
        result: BackendResult<()>,
    ) -> Receipt {
        let outcome = match result {
            Ok(()) => {
                self.0.coherence.show(key, mutation);
                self.count(event, 1);
                self.count(Event::BytesWritten, bytes);
                Outcome::Stored
            }
            Err(error) => Outcome::of_error(self.failed(Event::WriteError, error)),
        };
        Receipt::of(self.0.path, outcome)
    }

    pub(super) fn removed(
        &self,
        key: &CacheKey,
        mutation: &Mutation,
        result: BackendResult<DeleteStatus>,
    ) -> Receipt {
        let outcome = match result {
            Ok(status) => {
                self.0.coherence.show(key, mutation);
                self.count(Event::Remove, 1);
                if status == DeleteStatus::Missing { Outcome::Absent } else { Outcome::Removed }
            }
            Err(error) => Outcome::of_error(self.failed(Event::RemoveError, error)),
        };
        Receipt::of(self.0.path, outcome)
    }

    pub(super) fn refuse(&self, error: BackendError) -> Receipt {
        Receipt::of(self.0.path, Outcome::of_error(self.failed(Event::WriteError, error)))
    }
}
