//! A layer's own time to live.

use std::sync::Arc;
use std::time::Duration;

use hitbox_core::{CacheKey, CacheValue, Lifetime};

use super::Wrapper;
use crate::backend::Backend;
use crate::into::IntoBackend;
use crate::jitter::Jitter;
use crate::layout::Layout;

/// What a layer makes of the lifetimes that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TtlRule {
    /// No instant is later than so long after the write or refill.
    Cap(Duration),
    /// Entries expire so long after the write or refill, or never, whatever they bring; but not after an absolute end that
    /// they bring.
    Override(Option<Duration>),
}

/// A backend that shortens or replaces lifetimes on their way in: of writes, refills and bodies.
pub struct Ttl {
    inner: Arc<dyn Backend>,
    layout: Layout,
    rule: TtlRule,
    jitter: Jitter,
}

impl Ttl {
    /// Applies `rule` to what is stored in `inner`.
    pub fn new<Kind>(inner: impl IntoBackend<Kind>, rule: TtlRule) -> Self {
        Self::of(inner.into_shared(), rule, Jitter::NONE)
    }

    /// Prolongs this layer's TTL by a share of it, different for each key and instant.
    #[must_use]
    pub fn jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    fn of(inner: Arc<dyn Backend>, rule: TtlRule, jitter: Jitter) -> Self {
        let longest_life = match rule {
            TtlRule::Cap(cap) | TtlRule::Override(Some(cap)) => Some(cap),
            TtlRule::Override(None) => None,
        };
        let layout = inner.layout().with_capabilities(|mut facts| {
            facts.longest_life = longest_life;
            facts
        });
        Self { inner, layout, rule, jitter }
    }
}

impl Wrapper for Ttl {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self::of(inner, self.rule, self.jitter))
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn change(&self, key: &CacheKey, entry: CacheValue<()>) -> CacheValue<()> {
        let now = self.layout.clock().now();
        let jittered = |ttl| self.jitter.prolong(ttl, key, now);
        let lifetime = match self.rule {
            TtlRule::Cap(cap) => entry.lifetime().capped(now + jittered(cap)),
            TtlRule::Override(ttl) => {
                let own = ttl.map_or(Lifetime::FOREVER, |ttl| Lifetime::ttl(now, jittered(ttl)));
                let is_absolute = entry.details().is_some_and(|details| details.absolute_end);
                entry.lifetime().expire().filter(|_| is_absolute).map_or(own, |end| own.capped(end))
            }
        };
        entry.with_lifetime(lifetime)
    }
}
