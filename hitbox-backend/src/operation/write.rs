//! Writes and removals.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hitbox_core::{CacheKey, CacheValue};

use super::LeafSet;
use crate::coherence::{LoadPermit, RefillPermit, WriteTicket};
use crate::envelope::{Encodings, Raw};

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
    /// Other metadata for the entry that is there. Its value and its times stay; where there is none, nothing is
    /// created.
    Metadata(Arc<BTreeMap<String, Bytes>>),
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
    /// If no entry is stored that a read would find.
    IfAbsent,
    /// If the stored entry is the one that was read as this.
    IfSame(Arc<CacheValue<Raw>>),
    /// If nothing was written since the permit was taken: the entry comes from a lower layer.
    Refill(Arc<RefillPermit>),
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
    /// The load whose value is written; for bodies that are written by chunks.
    pub load: Option<Arc<LoadPermit>>,
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
        Self { load: Some(load), ..self }
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
        let content = Content::Metadata(Arc::new(metadata));
        Self { key, content, condition: Condition::Always, options: WriteOptions::default() }
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

impl Removal {
    /// A delete.
    #[inline]
    pub fn new(key: CacheKey) -> Self {
        Self { key, reach: Reach::All, options: WriteOptions::default() }
    }

    /// An eviction: the lower layer keeps the entry.
    pub fn evict(key: CacheKey) -> Self {
        Self { reach: Reach::Upper, ..Self::new(key) }
    }

    /// The same with these options.
    #[must_use]
    pub fn with_options(self, options: WriteOptions) -> Self {
        Self { options, ..self }
    }
}
