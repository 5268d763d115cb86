//! A layer's own time to live.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hitbox_core::{CacheKey, CacheValue, Clock, Lifetime};

use crate::backend::{Adoption, Backend, RemoveItem, WriteItem, WriteOptions, adopt};
use crate::capability::Capabilities;
use crate::clock::SystemClock;
use crate::coherence::Ticket;
use crate::envelope::Raw;
use crate::jitter::Jitter;
use crate::receipt::Receipt;

/// What a layer makes of the lifetimes that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlRule {
    /// No instant is later than so long after the write or refill.
    Cap(Duration),
    /// Entries expire so long after the write or refill, or never, whatever they bring.
    Override(Option<Duration>),
}

/// A backend that shortens or replaces lifetimes on their way in, by writes and refills.
pub struct Ttl {
    inner: Arc<dyn Backend>,
    rule: TtlRule,
    jitter: Jitter,
    clock: Arc<dyn Clock>,
}

impl Ttl {
    /// Applies `rule` to what is stored in `inner`.
    pub fn new(inner: impl Backend, rule: TtlRule) -> Self {
        Self::around(Arc::new(inner), rule, Jitter::NONE)
    }

    /// Prolongs this layer's TTL by a share of it, different for each key and instant.
    #[must_use]
    pub fn jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    fn around(inner: Arc<dyn Backend>, rule: TtlRule, jitter: Jitter) -> Self {
        let clock = inner.leaves().first().map_or_else(|| Arc::new(SystemClock) as _, |l| l.clock().clone());
        Self { inner, rule, jitter, clock }
    }

    fn apply(&self, key: &CacheKey, value: CacheValue<Raw>) -> CacheValue<Raw> {
        let now = self.clock.now();
        let spread = |ttl| self.jitter.spread(ttl, key, now);
        let lifetime = match self.rule {
            TtlRule::Cap(cap) => value.lifetime().capped(now + spread(cap)),
            TtlRule::Override(Some(ttl)) => Lifetime::ttl(now, spread(ttl)),
            TtlRule::Override(None) => Lifetime::FOREVER,
        };
        value.with_lifetime(lifetime)
    }
}

#[async_trait]
impl Backend for Ttl {
    crate::forward!(self => self.inner; store, reads, facts, names);

    fn capabilities(&self) -> Capabilities {
        let longest = match self.rule {
            TtlRule::Cap(cap) | TtlRule::Override(Some(cap)) => Some(cap),
            TtlRule::Override(None) => None,
        };
        Capabilities { longest_life: longest, ..self.inner.capabilities() }
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        self.inner.write_with(key, self.apply(key, value), options).await
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        self.inner.remove_with(key, options).await
    }

    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        let apply = |item: WriteItem| WriteItem { value: self.apply(&item.key, item.value), ..item };
        self.inner.write_many(items.into_iter().map(apply).collect()).await
    }

    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        self.inner.remove_many(items).await
    }

    async fn write_if_newer_with(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        options: &WriteOptions,
    ) -> Receipt {
        self.inner.write_if_newer_with(key, self.apply(key, value), options).await
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        self.inner.install_if(key, self.apply(key, value), ticket).await
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self::around(adopt(&self.inner, adoption), self.rule, self.jitter)))
    }
}
