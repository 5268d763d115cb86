//! Tags: sets of entries that are invalidated together.
//!
//! A tag has an epoch, a unique token. An entry carries the epochs of its tags as they were when its load or write
//! began, and is valid only while all are current. To invalidate a tag is to give it another epoch: it takes no time,
//! however many entries carry it. The epochs are those of this process; tags that it has not invalidated have one
//! that another process does not know, so that entries with tags are never trusted across a restart.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use hitbox_backend::ScopeView;
use hitbox_core::{Epoch, Scope, ScopeKind};

/// The epochs of a cache's tags.
#[derive(Debug)]
pub(crate) struct Scopes {
    /// Some entry carries a tag: until then reads need not ask.
    is_used: AtomicBool,
    /// Invalidations so far.
    moment: AtomicU64,
    /// Of tags that were never invalidated.
    first: Epoch,
    tags: RwLock<HashMap<Box<str>, Invalidated>>,
}

#[derive(Clone, Copy, Debug)]
struct Invalidated {
    epoch: Epoch,
    at: u64,
}

impl Default for Scopes {
    fn default() -> Self {
        Self {
            is_used: AtomicBool::new(false),
            moment: AtomicU64::new(0),
            first: unique(),
            tags: RwLock::default(),
        }
    }
}

/// A token that no other has, here or elsewhere.
fn unique() -> Epoch {
    let half = || u128::from(RandomState::new().hash_one(fastrand::u64(..)));
    Epoch(half() << 64 | half())
}

impl Scopes {
    /// Whether reads have to know the epochs.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Acquire)
    }

    /// A load or write begins now.
    pub(crate) fn moment(&self) -> u64 {
        self.moment.load(Ordering::Acquire)
    }

    /// The scopes of an entry whose load or write began at `began`; `None` if one of them was invalidated since.
    pub(crate) fn of(&self, tags: &[Box<str>], began: u64) -> Option<Vec<Scope>> {
        if tags.is_empty() {
            return Some(Vec::new());
        }
        self.is_used.store(true, Ordering::Release);
        let known = self.tags.read().unwrap_or_else(PoisonError::into_inner);
        let scope = |name: &str| {
            let epoch = match known.get(name) {
                Some(tag) if tag.at > began => return None,
                Some(tag) => tag.epoch,
                None => self.first,
            };
            Some(Scope { kind: ScopeKind::Tag, name: name.into(), epoch })
        };
        tags.iter().map(|name| scope(name)).collect()
    }

    /// No entry that carries one of these tags now, or whose load is under way, is valid any more.
    pub(crate) fn invalidate(&self, tags: &[&str]) {
        let mut known = self.tags.write().unwrap_or_else(PoisonError::into_inner);
        let at = self.moment.fetch_add(1, Ordering::AcqRel) + 1;
        for tag in tags {
            known.insert((*tag).into(), Invalidated { epoch: unique(), at });
        }
    }
}

impl ScopeView for Scopes {
    fn is_current(&self, scope: &Scope) -> bool {
        let known = self.tags.read().unwrap_or_else(PoisonError::into_inner);
        let epoch = known.get(&scope.name).map_or(self.first, |tag| tag.epoch);
        scope.kind == ScopeKind::Tag && scope.epoch == epoch
    }
}
