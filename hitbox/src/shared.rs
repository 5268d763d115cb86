//! What all handles of a cache share, and how it reads its layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_backend::internal::{self, Decoded, Reconciler};
use hitbox_backend::{Backend, Cacheable, ReadOptions};
use hitbox_core::{
    Accept, BackendError, BackendResult, BoxFuture, CacheKey, Clock, Freshness, Offload, ResponseSource,
    Subject, Timestamp,
};

use crate::events::{CacheEvent, CountsCollector, Events, count, look_of};
use crate::flight::Flights;
use crate::load::LoadEnd;
use crate::load_stream::StreamStart;
use crate::response::{AnswerKind, Outcome, Response};
use crate::settings::Settings;
use crate::throttle::Throttle;
use crate::timeouts::{Timeout, patience};

/// The reads of a cache, which brings its layers up to date by itself.
pub(crate) const READ: ReadOptions = ReadOptions::NORMAL.without_reconcile();
/// Those that a call makes after its first look, and those of loads. No user has asked for them.
pub(crate) const READ_AGAIN: ReadOptions = READ.in_background();

pub(crate) struct Shared<V: Cacheable, B: Backend + ?Sized> {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) offload: Arc<dyn Offload>,
    pub(crate) flights: Arc<Flights<LoadEnd<V>>>,
    /// Loads of bodies.
    pub(crate) streams: Arc<Flights<StreamStart>>,
    pub(crate) throttle: Throttle,
    pub(crate) reconciler: Reconciler,
    pub(crate) events: Events,
    /// Shows the counts for as long as the cache lives.
    pub(crate) _collector: Arc<CountsCollector>,
    /// Distinguishes caches in the offload.
    pub(crate) owner: u64,
    pub(crate) backend: Arc<B>,
}

pub(crate) fn next_owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A copy as the answer to a call.
#[inline]
pub(crate) fn respond<V>(copy: Decoded<V>, kind: AnswerKind) -> Response<Option<V>> {
    let outcome = Outcome::new(kind, copy.entry.lifetime().expire());
    let outcome = outcome.with_source(ResponseSource::Backend(copy.label));
    let details = copy.entry.shared_details();
    Response::new(copy.entry.into_data(), outcome).with(details)
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// The last invalidation of anything that an entry may carry, in any layer.
    pub(crate) fn last_invalidation(&self) -> u64 {
        self.backend.layout().last_invalidation()
    }

    /// A usable copy.
    pub(crate) async fn read(
        &self,
        key: &CacheKey,
        options: ReadOptions,
    ) -> BackendResult<Option<Decoded<V>>> {
        internal::read(&*self.backend, key, options).await
    }

    /// The same, with failures as misses.
    pub(crate) async fn read_if_possible(&self, key: &CacheKey, options: ReadOptions) -> Option<Decoded<V>> {
        self.if_possible(key, self.read(key, options).await)
    }

    /// A failure as a miss.
    pub(crate) fn if_possible(
        &self,
        key: &CacheKey,
        answer: BackendResult<Option<Decoded<V>>>,
    ) -> Option<Decoded<V>> {
        answer.unwrap_or_else(|error| {
            self.read_failed(key, &error);
            None
        })
    }

    /// A read failed, which counts as a miss.
    pub(crate) fn read_failed(&self, key: &CacheKey, error: &BackendError) {
        count(&self.events.counts.read_errors);
        self.events.layer_failed(key, error);
    }

    /// The oldest copy that may be served where a load fails or takes too long.
    pub(crate) fn oldest_fallback(&self) -> Accept {
        if self.settings.fail_safe.is_zero() { Accept::Stale } else { Accept::Expired }
    }

    /// What may be served where a load fails or takes too long.
    pub(crate) async fn fallback(&self, key: &CacheKey) -> Option<Decoded<V>> {
        self.read_if_possible(key, READ_AGAIN.accepting(self.oldest_fallback())).await
    }

    /// Whether a copy that was read earlier in the same call may still be served instead of a load.
    pub(crate) fn is_fallback(&self, copy: &Decoded<V>) -> bool {
        let now = self.now();
        !copy.entry.is_gone(now) && self.oldest_fallback().allows(copy.entry.lifetime().freshness(now))
    }

    /// What a layer is asked during a load, which goes on without it if that takes long.
    pub(crate) async fn within_patience<T>(&self, work: BoxFuture<'_, Option<T>>) -> Option<T> {
        let Settings { soft_timeout, hard_timeout, load_limit, .. } = self.settings;
        let time = patience(soft_timeout, hard_timeout).or(load_limit);
        Timeout::after(&*self.clock, time).bound(work).await.unwrap_or_else(|_| {
            count(&self.events.counts.read_errors);
            None
        })
    }

    /// Loads of values and of bodies that are under way.
    pub(crate) fn loads_under_way(&self) -> u64 {
        (self.flights.len() + self.streams.len()) as u64
    }

    pub(crate) fn subject(&self, key: &CacheKey) -> Subject {
        Subject { owner: self.owner, key: key.clone() }
    }

    /// Counts what the first look of a call has come to.
    #[inline]
    pub(crate) fn count_look(&self, found: Option<Freshness>) {
        self.events.counts.looks.add(look_of(found), 1);
    }

    /// A copy is served.
    #[inline]
    pub(crate) fn tell_hit(&self, key: &CacheKey, freshness: Freshness) {
        self.events.tell(|| CacheEvent::Hit { key, freshness });
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}
