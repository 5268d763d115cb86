//! Writes and removals.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use bytes::Bytes;
use hitbox_core::{CacheKey, CacheValue, KeyHasher, Lifetime, Timestamp};

use super::LeafSet;
use crate::coherence::{LoadPermit, RefillPermit, WriteTicket};
use crate::completion::Batch;
use crate::envelope::{Encodings, Raw};
use crate::receipt::{Receipt, Receipts};
use crate::stream::BodyReader;

/// One write: a key, what is stored under it, and on which condition.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Write {
    /// Its key.
    pub key: CacheKey,
    /// What is written.
    pub content: Content,
    /// On which condition.
    pub condition: Condition,
    /// What it belongs to.
    pub options: WriteOptions,
}

/// What a write brings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Content {
    /// An entry, which replaces all that was there.
    Entry(CacheValue<Raw>),
    /// An entry that a rule of admission keeps out: what was there is removed.
    NotAdmitted {
        /// The version that it would have had.
        version: Option<u64>,
    },
    /// Other metadata or times for the entry that is there. Its value stays; where there is none, nothing is created.
    Renewal(Renewal),
    /// Other times for the entry that is there. Its value stays, and is neither sent nor written again; where there is no
    /// entry, nothing is created.
    Times(TimeChange),
}

/// What is said anew of an entry that is there, as after it was validated.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// All of its metadata, if that changes.
    pub metadata: Option<Arc<BTreeMap<String, Bytes>>>,
    /// Its times, if they change.
    pub lifetime: Option<Lifetime>,
    /// The body that is meant. What else is stored stays as it is.
    pub generation: Option<u64>,
    /// The end of freshness that whoever renews it has seen. If it has become earlier since, somebody has expired the entry
    /// meanwhile: then its times stay as they are.
    pub seen_fresh_until: Option<Timestamp>,
}

impl Renewal {
    /// The entry with what is said anew.
    pub(crate) fn apply<T>(&self, entry: CacheValue<T>) -> CacheValue<T> {
        let fresh_until = entry.lifetime().fresh_until();
        let is_expired = self.seen_fresh_until.zip(fresh_until).is_some_and(|(seen, end)| end < seen);
        let lifetime = self.lifetime.filter(|_| !is_expired).unwrap_or(*entry.lifetime());
        let entry = entry.with_lifetime(lifetime);
        let Some(metadata) = &self.metadata else { return entry };
        let mut details = entry.details().cloned().unwrap_or_default();
        details.metadata.clone_from(metadata);
        let epoch = entry.namespace_epoch();
        entry.with_details(details).with_namespace_epoch(epoch)
    }

    /// With the times that a rule for entries makes of those that it has.
    pub(crate) fn changed(self, change: impl FnOnce(CacheValue<()>) -> CacheValue<()>) -> Self {
        let Some(lifetime) = self.lifetime else { return self };
        let entry = change(CacheValue::new(()).with_lifetime(lifetime));
        Self { lifetime: Some(*entry.lifetime()), ..self }
    }
}

/// What becomes of the times of an entry that is there. It does not matter how often or in which order such changes are
/// made: an end of fresh only ever becomes earlier, an end of life later, and what is noted is the latest read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeChange(Change);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    StaleFrom(Timestamp),
    ReadAt { at: Timestamp, created: Option<Timestamp> },
    KeptUntil(Option<Timestamp>),
}

impl TimeChange {
    /// It is not fresh from then on, whatever it is.
    pub const fn stale_from(at: Timestamp) -> Self {
        Self(Change::StaleFrom(at))
    }

    /// The entry that was made at `created` was read then, which begins its idle time anew. Another entry, or one without
    /// an idle time, stays as it is.
    pub const fn read_at(at: Timestamp, created: Option<Timestamp>) -> Self {
        Self(Change::ReadAt { at, created })
    }

    /// It lives until then, or for ever, unless it lives longer already.
    pub const fn kept_until(end: Option<Timestamp>) -> Self {
        Self(Change::KeptUntil(end))
    }

    /// The note that an entry with an idle time is read now, if one is due: there are at most eight in that time.
    pub fn of_read<T>(entry: &CacheValue<T>, now: impl FnOnce() -> Timestamp) -> Option<Self> {
        let details = entry.details()?;
        let (idle, touched) = (details.idle?, details.touched.or(entry.created())?);
        let now = now();
        (now.since(touched) >= idle / 8).then(|| Self::read_at(now, entry.created()))
    }

    /// Whether it ends the time in which the entry is fresh.
    pub const fn ends_fresh(&self) -> bool {
        matches!(self.0, Change::StaleFrom(_))
    }

    /// The entry with its new times.
    ///
    /// # Errors
    /// The entry is handed back if nothing changes.
    pub fn apply<T>(&self, entry: CacheValue<T>) -> Result<CacheValue<T>, CacheValue<T>> {
        match self.0 {
            Change::StaleFrom(at) => {
                if entry.lifetime().fresh_until().is_some_and(|end| end <= at) {
                    return Err(entry);
                }
                let lifetime = entry.lifetime().with_stale(at);
                Ok(entry.with_lifetime(lifetime))
            }
            Change::KeptUntil(until) => {
                let longer = Lifetime::new(entry.lifetime().stale(), until, None);
                if !longer.outlives(entry.lifetime()) {
                    return Err(entry);
                }
                Ok(entry.with_lifetime(longer))
            }
            Change::ReadAt { at, created } => match entry.details() {
                Some(details)
                    if details.idle.is_some()
                        && entry.created() == created
                        && details.touched.is_none_or(|touched| touched < at) =>
                {
                    let mut details = details.clone();
                    details.touched = Some(at);
                    let epoch = entry.namespace_epoch();
                    Ok(entry.with_details(details).with_namespace_epoch(epoch))
                }
                _ => Err(entry),
            },
        }
    }
}

/// On which condition a write is carried out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Condition {
    /// In any case.
    #[default]
    Always,
    /// If the stored version is lower, or there is none.
    IfNewer(u64),
    /// Unless another process has stored a higher version: the layer that decides about versions has taken this one. It makes
    /// the copies of this process superseded if so.
    IfNotOlder(u64),
    /// If no entry is stored that a read would find.
    IfAbsent,
    /// If the stored entry is the one that was read as this.
    IfSame(Arc<CacheValue<Raw>>),
    /// If nothing was written since the permit was taken: the entry comes from a lower layer.
    Refill(Arc<RefillPermit>),
    /// Unless another process has written a later entry, or one of a higher version: the entry comes from a layer that did
    /// not miss it. It makes the copies of this process superseded if so.
    Repair,
}

impl Condition {
    /// Whether it depends on what is stored.
    pub const fn depends_on_stored(&self) -> bool {
        matches!(self, Self::IfNewer(_) | Self::IfAbsent | Self::IfSame(_))
    }

    /// Whether the entry comes from a lower layer.
    pub const fn is_refill(&self) -> bool {
        matches!(self, Self::Refill(_))
    }
}

/// What a write or removal belongs to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// The ticket of the write that this is a part of. Without one the backend begins its own.
    pub ticket: Option<Arc<WriteTicket>>,
    /// What has been encoded so far.
    pub encodings: Option<Arc<Encodings>>,
    /// Leaves that are left as they are.
    pub skip: LeafSet,
    /// Where it comes from; for bodies that are written by chunks.
    pub origin: Option<BodyOrigin>,
}

/// Where a body that is written by chunks comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BodyOrigin {
    /// A load: it is as old as its permit.
    Load(Arc<LoadPermit>),
    /// A lower layer.
    Refill(Arc<BodyRefill>),
}

/// A body that is copied from a lower layer.
#[derive(Debug)]
pub struct BodyRefill {
    /// It is stored if nothing was written since the permit was taken.
    pub permit: Arc<RefillPermit>,
    /// Bytes in the body, if that is known.
    pub len: Option<u64>,
    /// That of the body in the lower layer.
    pub generation: u64,
}

impl BodyOrigin {
    /// Tells the body from others of its key; the same in all layers.
    pub fn generation(&self) -> u64 {
        match self {
            Self::Load(load) => load.generation(),
            Self::Refill(refill) => refill.generation,
        }
    }
}

impl WriteOptions {
    /// Part of the write with this ticket.
    pub fn of(ticket: &Arc<WriteTicket>) -> Self {
        Self { ticket: Some(ticket.clone()), ..Self::default() }
    }

    /// The same without these leaves.
    #[must_use]
    pub fn skipping(self, skip: LeafSet) -> Self {
        Self { skip, ..self }
    }

    /// The write of this load.
    #[must_use]
    pub fn with_load(self, load: Arc<LoadPermit>) -> Self {
        Self { origin: Some(BodyOrigin::Load(load)), ..self }
    }
}

impl WriteOptions {
    /// The body that this reader has, which is copied from a lower layer.
    pub(crate) fn of_refill(permit: Arc<RefillPermit>, body: &dyn BodyReader) -> Self {
        let refill = BodyRefill { permit, len: body.len(), generation: body.generation() };
        Self { origin: Some(BodyOrigin::Refill(Arc::new(refill))), ..Self::default() }
    }

    /// The refill whose body is written.
    pub(crate) fn refill(&self) -> Option<&BodyRefill> {
        match &self.origin {
            Some(BodyOrigin::Refill(refill)) => Some(refill),
            _ => None,
        }
    }
}

impl Write {
    /// An entry, in any case.
    #[inline]
    pub fn new(key: CacheKey, value: CacheValue<Raw>) -> Self {
        let (condition, options) = (Condition::Always, WriteOptions::default());
        Self { key, content: Content::Entry(value), condition, options }
    }

    /// Other metadata for the entry that is stored.
    pub fn metadata(key: CacheKey, metadata: BTreeMap<String, Bytes>) -> Self {
        Self::renewal(key, Renewal { metadata: Some(Arc::new(metadata)), ..Renewal::default() })
    }

    /// Other metadata or times for the entry that is stored.
    pub fn renewal(key: CacheKey, renewal: Renewal) -> Self {
        let (content, condition) = (Content::Renewal(renewal), Condition::Always);
        Self { key, content, condition, options: WriteOptions::default() }
    }

    /// Other times for the entry that is stored.
    pub fn times(key: CacheKey, change: TimeChange) -> Self {
        let (content, condition) = (Content::Times(change), Condition::Always);
        Self { key, content, condition, options: WriteOptions::default() }
    }

    /// Nothing, since what came is not admitted: what was there is removed.
    pub(crate) fn not_admitted(key: CacheKey, options: WriteOptions) -> Self {
        let content = Content::NotAdmitted { version: None };
        Self { key, content, condition: Condition::Always, options }
    }

    /// The same on a condition.
    #[must_use]
    pub fn with_condition(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }

    /// The same with these options.
    #[must_use]
    pub fn with_options(self, options: WriteOptions) -> Self {
        Self { options, ..self }
    }
}

/// One removal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Removal {
    /// The key.
    pub key: CacheKey,
    /// From which layers.
    pub reach: Reach,
    /// Which entry it is of.
    pub target: Target,
    /// What it belongs to.
    pub options: WriteOptions,
}

/// From which layers a key is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// From all.
    #[default]
    All,
    /// From the upper layer of the outermost composition; a leaf alone drops it. It ends no load: what is served may
    /// come back by a refill.
    Upper,
}

/// Which entry of a key is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// Whatever there is.
    #[default]
    Any,
    /// The body of this generation alone.
    Generation(u64),
    /// What is older than the call of this process that failed there. In a store that others share they may have replaced it since; in
    /// others it is whatever there is.
    Outdated,
}

impl Removal {
    /// A delete.
    #[inline]
    pub fn new(key: CacheKey) -> Self {
        Self { key, reach: Reach::All, target: Target::Any, options: WriteOptions::default() }
    }

    /// An eviction: the lower layer keeps the entry.
    pub fn evict(key: CacheKey) -> Self {
        Self { reach: Reach::Upper, ..Self::new(key) }
    }

    /// The same of the body of this generation alone. What else is stored, or being written, under the key stays.
    #[must_use]
    pub fn of_generation(self, generation: u64) -> Self {
        Self { target: Target::Generation(generation), ..self }
    }

    /// The same of what is outdated.
    pub(crate) fn of_outdated(self) -> Self {
        Self { target: Target::Outdated, ..self }
    }

    /// The same with these options.
    #[must_use]
    pub fn with_options(self, options: WriteOptions) -> Self {
        Self { options, ..self }
    }

    /// Whether it takes the key out of all layers, whatever is there.
    pub(crate) fn is_plain(&self) -> bool {
        self.reach == Reach::All && self.target == Target::Any
    }
}

/// The writes of a batch that are carried out where keys are there more than once: equal keys share a ticket, which has one
/// turn, so that the last write of each answers for all.
pub(crate) struct LastWrites {
    /// For each write of the batch the place of the last of its key.
    last: Vec<usize>,
    /// The places of those.
    picked: Vec<usize>,
}

impl LastWrites {
    /// Nothing if each write has a key of its own, or one of them does not simply replace what is there.
    pub(crate) fn of(writes: &[Write]) -> Option<Self> {
        let mut last: HashMap<&CacheKey, usize, BuildHasherDefault<KeyHasher>> =
            HashMap::with_capacity_and_hasher(writes.len(), BuildHasherDefault::default());
        last.extend(writes.iter().enumerate().map(|(index, write)| (&write.key, index)));
        let replaces = |write: &Write| {
            matches!(write.content, Content::Entry(_) | Content::NotAdmitted { .. })
                && matches!(write.condition, Condition::Always)
                && write.options.skip == writes[0].options.skip
        };
        if last.len() == writes.len() || !writes.iter().all(replaces) {
            return None;
        }
        let last: Vec<usize> = writes.iter().map(|write| last[&write.key]).collect();
        let picked = (0..writes.len()).filter(|index| last[*index] == *index).collect();
        Some(Self { last, picked })
    }

    pub(crate) fn pick(&self, writes: Batch<Write>) -> Batch<Write> {
        let all = writes.into_iter().enumerate();
        all.filter(|(index, _)| self.last[*index] == *index).map(|(_, write)| write).collect()
    }

    /// The receipts of the whole batch.
    pub(crate) fn for_all(&self, receipts: &[Receipt]) -> Receipts {
        let place = |last: &usize| self.picked.partition_point(|index| index < last);
        self.last.iter().map(|last| receipts.get(place(last)).cloned().unwrap_or_default()).collect()
    }
}
