//! Invalidations: what is not to be served any more, and who said so.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hitbox_core::{CacheKey, KeyPattern, Scope};

use crate::coherence::{Coherence, logical_clock};
use crate::layout::KeyMap;

/// An invalidation on its way through the layers. Cloning shares it.
#[derive(Clone)]
pub struct Invalidation {
    target: InvalidationTarget,
    origin: Origin,
    /// How keys were mapped on the way here, outermost first.
    maps: Vec<Arc<dyn KeyMap>>,
    shared: Arc<Shared>,
}

/// What is invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidationTarget {
    /// These keys.
    Keys(Vec<CacheKey>),
    /// All entries that carry one of these scopes. Takes no time that grows with the entries.
    Scopes(Vec<Scope>),
    /// All entries whose key matches. Takes time that grows with the keys that are stored.
    Matching(KeyPattern),
}

/// Where an invalidation came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// A caller in this process: every layer carries it out.
    Caller,
    /// Another process, which has carried it out in the layers that are shared.
    Elsewhere,
}

/// What the leaves report to the call.
#[derive(Default)]
struct Shared {
    /// Scopes that are being invalidated. While this lasts nothing is stored that carries one of them; when it ends,
    /// nothing is that started before.
    under_way: Mutex<Vec<(Arc<Coherence>, Scope)>>,
    /// Distinct keys that some leaf held.
    removed: Mutex<HashSet<CacheKey>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Shared {
    fn drop(&mut self) {
        let under_way = std::mem::take(&mut *lock(&self.under_way));
        if under_way.is_empty() {
            return;
        }
        let at = logical_clock::tick();
        for (coherence, scope) in under_way {
            coherence.epochs.end(&scope, scope.epoch, at);
        }
    }
}

impl Invalidation {
    /// A caller's.
    pub fn new(target: InvalidationTarget) -> Self {
        Self { target, origin: Origin::Caller, maps: Vec::new(), shared: Arc::default() }
    }

    /// One that another process has made, for [`observe`](crate::Backend::observe).
    pub fn elsewhere(target: InvalidationTarget) -> Self {
        Self { origin: Origin::Elsewhere, ..Self::new(target) }
    }

    /// What is invalidated.
    pub fn target(&self) -> &InvalidationTarget {
        &self.target
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The same for a backend that knows keys by other names.
    #[must_use]
    pub fn mapped(&self, map: &Arc<dyn KeyMap>) -> Self {
        let target = match &self.target {
            InvalidationTarget::Keys(keys) => {
                InvalidationTarget::Keys(keys.iter().map(|key| map.inward(key)).collect())
            }
            InvalidationTarget::Scopes(scopes) => {
                InvalidationTarget::Scopes(scopes.iter().map(|scope| map.scope(scope)).collect())
            }
            InvalidationTarget::Matching(pattern) => InvalidationTarget::Matching(map.pattern(pattern)),
        };
        let maps = self.maps.iter().chain([map]).cloned().collect();
        Self { target, origin: self.origin, maps, shared: self.shared.clone() }
    }

    /// A leaf held this key and has removed it.
    pub fn count_removed(&self, key: CacheKey) {
        let outward = self.maps.iter().rev().try_fold(key, |key, map| map.outward(&key));
        if let Some(key) = outward {
            lock(&self.shared.removed).insert(key);
        }
    }

    /// How many distinct keys leaves have removed.
    pub fn removed(&self) -> u64 {
        lock(&self.shared.removed).len() as u64
    }

    pub(crate) fn begin(&self, coherence: &Arc<Coherence>, scopes: &[Scope]) {
        lock(&self.shared.under_way).extend(scopes.iter().map(|scope| (coherence.clone(), scope.clone())));
    }
}

impl fmt::Debug for Invalidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidation")
            .field("target", &self.target)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
