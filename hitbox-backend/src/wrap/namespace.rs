//! Several caches in one store.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_core::{BackendError, BackendResult, CacheKey, KeyPattern, Operation, Scope, ScopeKind};

use super::{Wrapper, forward};
use crate::backend::Backend;
use crate::completion::Completion;
use crate::into::IntoBackend;
use crate::layout::{KeyMap, KeyMapping, LeafInfo};
use crate::leaf::failure;
use crate::operation::{Maintained, Maintenance};
use crate::stats::EntryCount;

/// Keys that are listed at a time to count those of a namespace.
const PAGE: usize = 10_000;

/// A backend whose keys are kept apart from those of other namespaces in the same store.
pub struct Namespace {
    inner: Arc<dyn Backend>,
    keys: KeyMapping,
    name: Arc<str>,
}

impl Namespace {
    /// The part of `inner` with this name.
    pub fn new<Kind>(inner: impl IntoBackend<Kind>, name: &str) -> Self {
        Self::of(inner.into_shared(), name.into())
    }

    fn of(inner: Arc<dyn Backend>, name: Arc<str>) -> Self {
        let map = Arc::new(InNamespace::new(name.clone()));
        let keys = KeyMapping::new(inner.layout(), map).with_capabilities(|mut facts| {
            // It would reach the other namespaces of the store. Entries are counted by listing keys.
            facts.erases = false;
            facts.counts = facts.enumerates && inner.layout().leaves().len() == 1;
            facts
        });
        Self { inner, keys, name }
    }

    /// The entries of this namespace. Those whose time is over are counted until they are dropped. What cannot be counted
    /// has an error in its line.
    async fn count(&self) -> Maintained {
        let leaves = self.keys.layout().leaves();
        let entries = match leaves {
            [_] => self.count_keys().await,
            _ => {
                let error = BackendError::unsupported("counting a namespace of several layers");
                Err(error.during(Operation::Maintain))
            }
        };
        let line = |leaf: &LeafInfo| EntryCount { label: leaf.path(), entries: entries.clone() };
        Maintained::Counted(leaves.iter().map(line).collect())
    }

    async fn count_keys(&self) -> BackendResult<u64> {
        let (mut entries, mut cursor) = (0, Some(0));
        while let Some(from) = cursor {
            let work = Maintenance::List { cursor: from, limit: PAGE };
            let page = forward::maintain(self, &work).await?.into_listed()?;
            for key in &page.keys {
                let present = self.inner.contains(&self.keys.map().inward(key)).await?;
                entries += u64::from(present != crate::operation::Presence::Absent);
            }
            cursor = page.next;
        }
        Ok(entries)
    }
}

impl Wrapper for Namespace {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self::of(inner, self.name.clone()))
    }

    fn keys(&self) -> Option<&KeyMapping> {
        Some(&self.keys)
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        match work {
            Maintenance::Erase { .. } => {
                let error =
                    BackendError::unsupported("erasing a part of a store").during(Operation::Maintain);
                Completion::Done(Err(failure::name(self.keys.layout(), error)))
            }
            Maintenance::Count => Completion::later(async { Ok(self.count().await) }),
            work => forward::maintain(self, work),
        }
    }
}

/// Keys, scopes and patterns within a namespace.
struct InNamespace {
    /// Tells the maps of a process apart.
    id: u64,
    name: Arc<str>,
}

/// A key that a map has met, and what it made of it.
struct Derived {
    map: u64,
    outer: CacheKey,
    inner: CacheKey,
}

/// What a thread remembers of keys whose hashes end alike, the last that was made first.
type Derivations = [Option<Derived>; 4];

/// Keys that are read again and again are not made again and again: each thread remembers a few hundred.
const PLACES: usize = 128;

thread_local! {
    static DERIVED: RefCell<[Derivations; PLACES]> =
        const { RefCell::new([const { [const { None }; 4] }; PLACES]) };
}

impl InNamespace {
    fn new(name: Arc<str>) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), name }
    }

    fn derive(&self, key: &CacheKey, known: &mut Derivations) -> CacheKey {
        let is_it = |derived: &&Derived| derived.map == self.id && derived.outer == *key;
        if let Some(derived) = known.iter().flatten().find(is_it) {
            return derived.inner.clone();
        }
        let inner = key.in_namespace(&self.name);
        known.rotate_right(1);
        known[0] = Some(Derived { map: self.id, outer: key.clone(), inner: inner.clone() });
        inner
    }

    /// The path of a namespace within this one, as keys have it.
    fn path(&self, inner: &str) -> String {
        let key = CacheKey::new("").in_namespace(&self.name);
        if inner.is_empty() { key.namespace().to_owned() } else { format!("{}/{inner}", key.namespace()) }
    }
}

impl KeyMap for InNamespace {
    fn inward(&self, key: &CacheKey) -> CacheKey {
        let place = key.process_hash().wrapping_add(self.id) as usize % PLACES;
        let derive = |derived: &RefCell<[Derivations; PLACES]>| {
            Some(self.derive(key, &mut derived.try_borrow_mut().ok()?[place]))
        };
        // A thread that ends remembers nothing.
        DERIVED.try_with(derive).ok().flatten().unwrap_or_else(|| key.in_namespace(&self.name))
    }

    fn outward(&self, key: &CacheKey) -> Option<CacheKey> {
        key.without_namespace(&self.name)
    }

    /// Everything is this namespace, and namespaces are within it. Tags are the store's.
    fn scope(&self, scope: &Scope) -> Scope {
        match scope.kind {
            // Without a name it is all of the store.
            _ if self.name.is_empty() => scope.clone(),
            ScopeKind::Everything => Scope::namespace(self.path("")),
            ScopeKind::Namespace => Scope::namespace(self.path(&scope.name)),
            _ => scope.clone(),
        }
    }

    fn pattern(&self, pattern: &KeyPattern) -> KeyPattern {
        pattern.clone().within(&self.name)
    }
}
