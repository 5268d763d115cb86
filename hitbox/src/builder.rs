//! Builds a cache: every setting is here.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::metrics::register_collector;
use hitbox_backend::{Backend, Cacheable, IntoBackend, Jitter, OffloadPool};
use hitbox_core::{BackendError, BackendResult, Clock, ErrorKind, Offload};

use crate::advisor;
use crate::cache::Cache;
use crate::events::{CacheEvent, CountsCollector, Events, Hook};
use crate::settings::{AfterTimeout, EarlyRefresh, OnStale, Settings};
use crate::shared::{Shared, next_owner};

/// Builds a [`Cache`].
#[must_use = "nothing is built before `build`"]
pub struct CacheBuilder<V, B> {
    backend: B,
    settings: Settings,
    clock: Option<Arc<dyn Clock>>,
    offload: Option<Arc<dyn Offload>>,
    hook: Option<Hook>,
    value: PhantomData<fn() -> V>,
}

impl<V: Cacheable, B: Backend> CacheBuilder<V, B> {
    pub(crate) fn new(backend: B) -> Self {
        Self {
            backend,
            settings: Settings::default(),
            clock: None,
            offload: None,
            hook: None,
            value: PhantomData,
        }
    }

    /// The name: the prefix of its keys and a label of its metrics. Caches that share a backend need different ones.
    /// Default `cache`.
    pub fn name(mut self, name: &str) -> Self {
        self.settings.name = name.into();
        self
    }

    /// The schema of its values, 0 by default. Raise it when what the values mean changes and their type does not say so:
    /// what was stored with another schema is not found any more. It is the version of the keys that are made from
    /// arguments; a ready [`CacheKey`](hitbox_core::CacheKey) has a version of its own.
    pub fn schema(mut self, schema: u32) -> Self {
        self.settings.schema = schema;
        self
    }

    /// Fresh for so long after it was loaded or inserted. Default: for ever.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Served stale for so long beyond the TTL, while it is reloaded. Default: not at all.
    pub fn stale(mut self, stale: Duration) -> Self {
        self.settings.stale = stale;
        self
    }

    /// What a call with a loader does about a stale copy. Default: serves it and reloads in the background.
    pub fn on_stale(mut self, on_stale: OnStale) -> Self {
        self.settings.on_stale = on_stale;
        self
    }

    /// Kept for so long beyond its expiry, for loads that fail or take too long: then the expired value is served,
    /// marked as such. Default: not at all.
    pub fn fail_safe(mut self, retain: Duration) -> Self {
        self.settings.fail_safe = retain;
        self
    }

    /// After a load that failed, older copies are served for so long without trying again. Default 1 s.
    pub fn throttle(mut self, throttle: Duration) -> Self {
        self.settings.throttle = throttle;
        self
    }

    /// Dead when unread for so long. A read is noted at most an eighth of that late. Default: never.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.settings.idle = Some(idle);
        self
    }

    /// Remembers for so long that the source has nothing under a key. Default: not at all.
    pub fn absent_ttl(mut self, ttl: Duration) -> Self {
        self.settings.absent = Some(ttl);
        self
    }

    /// Prolongs each TTL by a share of it between 0 and this, so that entries loaded together do not end together:
    /// 0.1 spreads over [ttl, 1.1 × ttl]. The same for a key and instant in every layer and process. Clamped to 0..=1;
    /// default 0.
    pub fn jitter(mut self, share: f64) -> Self {
        if !(0.0..=1.0).contains(&share) {
            tracing::warn!(cache = %self.settings.name, share, "jitter is a share between 0 and 1");
        }
        self.settings.jitter = Jitter::new(share);
        self
    }

    /// Reloads in the background once this share of the freshness has passed, on the next hit. 0 to 1; default: not.
    pub fn refresh_after(mut self, share: f64) -> Self {
        self.settings.early = Some(EarlyRefresh::Share(share));
        self
    }

    /// Reloads in the background ahead of the end by chance (XFetch), the likelier the nearer the end is and the longer
    /// loads take. `beta` is 1 as a rule; more is earlier. Default: not.
    pub fn refresh_by_chance(mut self, beta: f64) -> Self {
        self.settings.early = Some(EarlyRefresh::Chance(beta));
        self
    }

    /// A call that has waited for so long is answered with an older copy, if there is one. The load goes on; a call that
    /// performs it by itself goes on with it until the hard timeout. A layer that
    /// has not answered by then is not waited for: the load begins beside it. Default: no limit.
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.settings.soft_timeout = Some(timeout);
        self
    }

    /// A call that has waited for so long gets an error, unless something has been loaded by then. A layer that has not
    /// answered in half of the time is not waited for: the load begins beside it. Default: no limit.
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.settings.hard_timeout = Some(timeout);
        self
    }

    /// What becomes of the load then. Default: it goes on and is stored.
    pub fn after_timeout(mut self, after: AfterTimeout) -> Self {
        self.settings.after_timeout = after;
        self
    }

    /// Cuts a load after so long, whoever waits: a source that never answers must not keep its key for ever. Default
    /// 5 minutes; `None` lets it run.
    pub fn load_limit(mut self, limit: Option<Duration>) -> Self {
        self.settings.load_limit = limit;
        self
    }

    /// Whether loads go on when nobody waits for them any more. Default: they are cancelled.
    pub fn finish_abandoned(mut self, finish: bool) -> Self {
        self.settings.finish_abandoned = finish;
        self
    }

    /// Runs loads and background work. Default: a pool of its own, on the tokio runtime of whoever calls.
    pub fn offload(mut self, offload: Arc<dyn Offload>) -> Self {
        self.offload = Some(offload);
        self
    }

    /// The clock. Default: that of the first layer.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Is told of every event while it happens. It must not block. Default: none.
    pub fn on_event(mut self, hook: impl Fn(&CacheEvent<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// The cache, with its backend erased.
    ///
    /// # Errors
    /// [`Configuration`](ErrorKind::Configuration) if a setting makes no sense at all, or a layer stores bytes and values
    /// are [`Live`](crate::Live). Settings that contradict each other are warned of, in the log and by [`Cache::advice`].
    pub fn build(self) -> BackendResult<Cache<V>> {
        let (backend, parts) = self.split();
        parts.build_over(backend.into_shared())
    }

    /// The same without erasing the backend: for those who want static dispatch and have a name for its type.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_generic(self) -> BackendResult<Cache<V, B>> {
        let (backend, parts) = self.split();
        parts.build_over(Arc::new(backend))
    }

    fn split(self) -> (B, CacheBuilder<V, ()>) {
        let Self { backend, settings, clock, offload, hook, value } = self;
        (backend, CacheBuilder { backend: (), settings, clock, offload, hook, value })
    }
}

impl<V: Cacheable> CacheBuilder<V, ()> {
    fn build_over<C: Backend + ?Sized>(self, backend: Arc<C>) -> BackendResult<Cache<V, C>> {
        let Self { settings, clock, offload, hook, .. } = self;
        let wrong = |what: &'static str| Err(BackendError::new(ErrorKind::Configuration, what));
        match settings.early {
            Some(EarlyRefresh::Share(share)) if !(0.0..=1.0).contains(&share) => {
                return wrong("the share of refresh_after is between 0 and 1");
            }
            Some(EarlyRefresh::Chance(beta)) if !(beta.is_finite() && beta >= 0.0) => {
                return wrong("the beta of refresh_by_chance is a number from 0 on");
            }
            _ => {}
        }
        if settings.idle.is_some_and(|idle| idle.as_millis() == 0) {
            return wrong("with an idle time under a millisecond nothing is ever found");
        }
        let mut leaves = backend.layout().leaves().iter();
        if V::IS_LIVE
            && let Some(leaf) = leaves.find(|leaf| !leaf.capabilities().keeps_live_values)
        {
            let value = std::any::type_name::<V>();
            let message = format!("it stores bytes, and a {value} never becomes bytes: it stays in memory");
            return Err(BackendError::new(ErrorKind::Configuration, message).at(leaf.path()));
        }
        let clock = clock.unwrap_or_else(|| backend.layout().clock().clone());
        let offload = offload.unwrap_or_else(|| OffloadPool::builder().clock(clock.clone()).build().shared());
        let advice: Arc<[advisor::Advice]> = advisor::examine(&settings, &*backend).into();
        for advice in &*advice {
            tracing::warn!(cache = %settings.name, "{advice}");
        }
        let events = Events { name: settings.name, hook, counts: Arc::default() };
        let (counts, layout) = (events.counts.clone(), backend.layout().clone());
        let collector = Arc::new(CountsCollector { name: settings.name, counts, layout });
        let weak: std::sync::Weak<CountsCollector> = Arc::downgrade(&collector);
        register_collector(weak);
        let shared = Shared {
            settings,
            clock,
            offload,
            flights: Arc::default(),
            streams: Arc::default(),
            throttle: Default::default(),
            reconciler: Default::default(),
            events,
            _collector: collector,
            owner: next_owner(),
            backend,
        };
        Ok(Cache { shared: Arc::new(shared), advice })
    }
}
