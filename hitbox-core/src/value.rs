//! A cached value with all that belongs to its entry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::time::OptionalTimestamp;
use crate::{Freshness, Lifetime, Timestamp};

/// A value with its times and details. `T` is the user's type, or the envelope on its way through
/// layers. Two are equal if they say the same, in whichever layer and however long ago they were stored.
#[derive(Clone, Debug)]
pub struct CacheValue<T> {
    data: T,
    lifetime: Lifetime,
    created: OptionalTimestamp,
    details: Option<Arc<Details>>,
}

/// The rarer facts of an entry. Entries without any of them share nothing and allocate nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Details {
    /// What the record stands for.
    pub kind: RecordKind,
    /// Dead when unread for longer than this.
    pub idle: Option<Duration>,
    /// The last read that was noted, for entries with an idle time; their creation if there was none.
    pub touched: Option<Timestamp>,
    /// How long the load of this value took.
    pub load_time: Option<Duration>,
    /// The version it was written under.
    pub version: Option<u64>,
    /// What it is invalidated with.
    pub scopes: Vec<Scope>,
    /// The user's own facts about the entry, as bytes. It can be replaced without the value.
    pub metadata: BTreeMap<String, Bytes>,
    /// Who goes first when room is needed.
    pub priority: Priority,
    /// The end of served is an instant that was named, and no time to live: no layer serves the entry longer, whatever its
    /// own rule says.
    pub absolute_end: bool,
    /// The epochs of "everything" and of its namespaces in the layer that keeps it, as one number; 0 for none. Put there
    /// by the layer.
    pub namespace_epoch: u64,
    /// There is nothing here but the namespace epoch.
    epoch_only: bool,
    /// When its scopes were last found current, in a measure of the layer that keeps it.
    pub last_valid: LastValid,
}

/// Who goes first when a layer that knows priorities needs room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before all others.
    Low,
    /// The usual.
    #[default]
    Normal,
    /// After all others.
    High,
}

/// A note of a layer on an entry that it keeps: no part of what the entry says.
#[derive(Debug, Default)]
pub struct LastValid(AtomicU64);

impl LastValid {
    /// The note, 0 if there is none.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Leaves a note.
    pub fn set(&self, note: u64) {
        self.0.store(note, Ordering::Release);
    }
}

/// Without the note, which is of no use elsewhere.
impl Clone for LastValid {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// By what they say, not by what a layer has put to them.
impl PartialEq for Details {
    fn eq(&self, other: &Self) -> bool {
        let facts =
            |d: &Self| (d.kind, d.idle, d.touched, d.load_time, d.version, d.priority, d.absolute_end);
        facts(self) == facts(other) && self.scopes == other.scopes && self.metadata == other.metadata
    }
}

/// What a stored record stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// A value.
    #[default]
    Value,
    /// The knowledge that the source has nothing under this key.
    Absent,
    /// Somebody's right to load this key.
    Lease,
    /// A deletion that must be remembered.
    Tombstone,
}

/// A set of entries that are invalidated together.
#[derive(Clone, Debug, Eq)]
pub struct Scope {
    /// Which family of names this is.
    pub kind: ScopeKind,
    /// Its name within the family.
    pub name: Box<str>,
    /// The scope's token, in the layer that keeps the entry, when the load or write of the entry began. Put there by
    /// the layer.
    pub epoch: Epoch,
}

impl Scope {
    /// A scope on its way to layers, which have not put their epoch to it yet.
    pub fn new(kind: ScopeKind, name: impl Into<Box<str>>) -> Self {
        Self { kind, name: name.into(), epoch: Epoch::NONE }
    }

    /// A tag.
    pub fn tag(name: impl Into<Box<str>>) -> Self {
        Self::new(ScopeKind::Tag, name)
    }

    /// Something that entries depend on.
    pub fn dependency(name: impl Into<Box<str>>) -> Self {
        Self::new(ScopeKind::Dependency, name)
    }

    /// All entries of a namespace, and of those within it.
    pub fn namespace(name: impl Into<Box<str>>) -> Self {
        Self::new(ScopeKind::Namespace, name)
    }

    /// All entries.
    pub fn everything() -> Self {
        Self::new(ScopeKind::Everything, "")
    }
}

/// By kind and name: epochs are the layers' own.
impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name == other.name
    }
}

/// The families of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScopeKind {
    /// All entries.
    Everything,
    /// The entries of a namespace.
    Namespace,
    /// The entries that carry a tag.
    Tag,
    /// The entries that depend on something.
    Dependency,
}

/// A unique token; a scope that is invalidated gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch(pub u128);

impl Epoch {
    /// The epoch of scopes that were never invalidated, where that can be known.
    pub const NONE: Self = Self(0);
}

impl Details {
    /// When an entry created at `created` dies unless it is read before, if it has an idle time.
    pub fn idle_end(&self, created: Option<Timestamp>) -> Option<Timestamp> {
        Some(self.touched.or(created)? + self.idle?)
    }
}

impl<T: PartialEq> PartialEq for CacheValue<T> {
    fn eq(&self, other: &Self) -> bool {
        let details = |value: &Self| value.details.as_deref().cloned().unwrap_or_default();
        let facts = |value: &Self| (value.lifetime, value.created);
        self.data == other.data && facts(self) == facts(other) && details(self) == details(other)
    }
}

impl<T> CacheValue<T> {
    /// A value that never ends.
    pub const fn new(data: T) -> Self {
        Self { data, lifetime: Lifetime::FOREVER, created: OptionalTimestamp::ABSENT, details: None }
    }

    /// The same with these instants.
    pub const fn with_lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The same for so long from now on, by the clock of the system. [`with_lifetime`](Self::with_lifetime) takes other
    /// clocks, and the other instants.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "it says that it is the clock of the system")]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.with_lifetime(Lifetime::ttl(SystemTime::now().into(), ttl))
    }

    /// The same with a time of creation.
    pub const fn with_created(mut self, created: Option<Timestamp>) -> Self {
        self.created = OptionalTimestamp::of(created);
        self
    }

    /// Gives it a time of creation.
    pub const fn set_created(&mut self, created: Timestamp) {
        self.created = OptionalTimestamp::of(Some(created));
    }

    /// The same with the layer's epochs of "everything" and of the entry's namespaces, as one number. It is kept with
    /// the details; 0 needs none.
    pub fn with_namespace_epoch(self, epoch: u64) -> Self {
        match &self.details {
            None if epoch == 0 => self,
            None => {
                let details = Details { namespace_epoch: epoch, epoch_only: true, ..Details::default() };
                Self { details: Some(Arc::new(details)), ..self }
            }
            Some(details) if details.namespace_epoch == epoch => self,
            Some(details) => {
                let details = Details { namespace_epoch: epoch, ..Details::clone(details) };
                self.with_details(details)
            }
        }
    }

    /// What [`with_namespace_epoch`](Self::with_namespace_epoch) put there; 0 if nobody did.
    #[inline]
    pub fn namespace_epoch(&self) -> u64 {
        self.details.as_ref().map_or(0, |details| details.namespace_epoch)
    }

    /// The same with these details. Empty ones are not kept.
    pub fn with_details(mut self, details: Details) -> Self {
        let mut details = details;
        details.epoch_only = details == Details::default();
        self.details = (details.namespace_epoch != 0 || !details.epoch_only).then(|| Arc::new(details));
        self
    }

    /// Whether the entry has details, be it only a namespace epoch.
    #[inline(always)]
    pub const fn has_details(&self) -> bool {
        self.details.is_some()
    }

    /// The user's value, or the envelope.
    pub const fn data(&self) -> &T {
        &self.data
    }

    /// Takes the value out.
    pub fn into_data(self) -> T {
        self.data
    }

    /// The three instants.
    pub const fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// When the entry was first written, if that is known.
    pub const fn created(&self) -> Option<Timestamp> {
        self.created.get()
    }

    /// The rarer facts, if there are any.
    pub fn details(&self) -> Option<&Details> {
        self.details.as_deref().filter(|details| !details.epoch_only)
    }

    /// The same, shared.
    #[inline]
    pub fn shared_details(&self) -> Option<Arc<Details>> {
        self.details.as_ref().filter(|details| !details.epoch_only).cloned()
    }

    /// The instant from which on a store may drop the entry: the end of its life, or of its idle time if
    /// that is earlier.
    pub fn drop_at(&self) -> Option<Timestamp> {
        let idle_end = self.details().and_then(|details| details.idle_end(self.created()));
        match (self.lifetime.drop_at(), idle_end) {
            (Some(life), Some(idle)) => Some(life.min(idle)),
            (life, idle) => life.or(idle),
        }
    }

    /// Whether its physical life is over at `now`.
    pub fn is_gone(&self, now: Timestamp) -> bool {
        self.drop_at().is_some_and(|end| end <= now)
    }

    /// Whether it is a value of a user, and no record that says something else, as "the source has nothing".
    pub fn is_value(&self) -> bool {
        self.details().is_none_or(|details| details.kind == RecordKind::Value)
    }

    /// Whether a normal read may see it at `now`, as far as its times tell.
    pub fn is_readable(&self, now: Timestamp) -> bool {
        self.is_value() && self.lifetime.freshness(now) <= Freshness::Stale && !self.is_gone(now)
    }

    /// The same entry around other data.
    #[inline]
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> CacheValue<U> {
        CacheValue {
            data: change(self.data),
            lifetime: self.lifetime,
            created: self.created,
            details: self.details,
        }
    }

    /// The same entry around other data, which shares what is rare.
    #[inline(always)]
    pub fn around<U>(&self, data: U) -> CacheValue<U> {
        CacheValue { data, lifetime: self.lifetime, created: self.created, details: self.details.clone() }
    }

    /// The value, or the envelope, and the entry without it.
    #[inline]
    pub fn split(self) -> (T, CacheValue<()>) {
        let Self { data, lifetime, created, details } = self;
        (data, CacheValue { data: (), lifetime, created, details })
    }

    /// The same entry around other data, or the reason why not.
    ///
    /// # Errors
    /// Those of `change`.
    #[inline(always)]
    pub fn try_map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<CacheValue<U>, E> {
        Ok(CacheValue {
            data: change(self.data)?,
            lifetime: self.lifetime,
            created: self.created,
            details: self.details,
        })
    }
}
