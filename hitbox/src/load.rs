//! One load: the loader is run, what it brings is stored, and the flight is complete.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use hitbox_backend::internal::{Decoded, LoadPermit, WriteTicket, panic_message};
use hitbox_backend::operation::{Batch, BodyReader};
use hitbox_backend::operation::{Condition, LeafPosition, LeafSet, Removal, Write, WriteOptions};
use hitbox_backend::{Backend, Cacheable, Raw};
use hitbox_core::{
    Accept, BoxFuture, CacheKey, CacheValue, Details, Freshness, Lifetime, RecordKind, Task, TaskKind,
    Timestamp,
};
use tracing::Instrument;

use crate::call::{Call, Mode};
use crate::cycle;
use crate::entry_options::EntryOptions;
use crate::error::{BoxError, LoadError, LoadErrorKind};
use crate::events::{CacheEvent, count};
use crate::flight::{FlightEnd, LoadCompletion};
use crate::loaded::{Load, Loaded, Payload, ReadPrevious};
use crate::settings::{EarlyRefresh, LifetimeOverride};
use crate::shared::{READ_AGAIN, Shared};
use crate::timeouts::Timeout;

/// How a flight ends.
pub(crate) type LoadEnd<V> = Result<LoadResult<V>, LoadError>;

impl<V: Clone> FlightEnd for LoadEnd<V> {
    type Permit = LoadPermit;
}

/// What a flight brings to those who wait for it.
#[derive(Clone)]
pub(crate) struct LoadResult<V> {
    /// `None` if the source has nothing.
    pub(crate) value: Option<V>,
    pub(crate) expires: Option<Timestamp>,
    /// It is an older copy, served since the load failed.
    pub(crate) is_fallback: bool,
    /// What is kept beside it, if there is anything.
    pub(crate) details: Option<Arc<Details>>,
}

/// What a loader comes to.
pub(crate) type LoaderResult<V> = Result<Loaded<V>, BoxError>;

/// A loader. Nothing of it has run yet.
pub(crate) enum LoaderFn<'l, V> {
    /// It wants to know nothing.
    Plain(BoxFuture<'l, LoaderResult<V>>),
    /// It wants to know of the load that it is part of.
    Told(Box<dyn FnOnce(Load<V>) -> BoxFuture<'l, LoaderResult<V>> + Send + 'l>),
}

impl<'l, V> LoaderFn<'l, V> {
    /// The work of the loader, which is told of its load if it wants to know.
    pub(crate) fn start(self, load: impl FnOnce() -> Load<V>) -> BoxFuture<'l, LoaderResult<V>> {
        match self {
            Self::Plain(work) => work,
            Self::Told(loader) => loader(load()),
        }
    }
}

/// A loader, and where it may run.
pub(crate) enum Loader<'l, V> {
    /// Anywhere.
    Detached(LoaderFn<'static, V>),
    /// Within the call, whose variables it borrows.
    Scoped(LoaderFn<'l, V>),
}

/// Why a load is made while there is a copy.
pub(crate) struct RefreshAhead {
    /// When the copy was made, and where it was.
    created: Option<Timestamp>,
    leaf: LeafPosition,
    /// The copy is fresh still.
    is_early: bool,
}

impl RefreshAhead {
    /// A body is loaded while there is one, or was.
    pub(crate) fn of_body(reader: &dyn BodyReader) -> Self {
        let is_early = reader.freshness() == Freshness::Fresh;
        Self { created: reader.entry().created(), leaf: 0, is_early }
    }

    pub(crate) fn of<V>(copy: &Decoded<V>, is_early: bool) -> Self {
        Self { created: copy.entry.created(), leaf: copy.leaf, is_early }
    }
}

/// What a load is told by the call that leads it.
pub(crate) struct LoadPlan {
    pub(crate) lifetime: LifetimeOverride,
    pub(crate) options: EntryOptions,
    pub(crate) ahead: Option<RefreshAhead>,
    /// There may be an older copy, which nobody has looked at.
    pub(crate) may_replace: bool,
    /// What it brings is not stored, and nobody else sees it.
    pub(crate) bypasses: bool,
}

impl LoadPlan {
    /// The load that a call leads, ahead of need if there is a copy.
    pub(crate) fn of(call: &Call, ahead: Option<RefreshAhead>) -> Self {
        let may_replace = matches!(call.mode, Mode::Reload | Mode::Looked(_) | Mode::Lead);
        Self { lifetime: call.lifetime, options: call.options.clone(), ahead, may_replace, bypasses: false }
    }
}

/// The older copy that a loader has been shown. "Not modified" means this one.
type Shown<V> = Arc<Mutex<Option<Decoded<V>>>>;

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Starts a load that nobody waits for, unless one is under way, has ended since `completions` were counted, or
    /// there is no room.
    pub(crate) fn start_in_background(
        self: &Arc<Self>,
        key: &CacheKey,
        completions: u64,
        loader: LoaderFn<'static, V>,
        plan: LoadPlan,
    ) {
        let permit = || self.backend.layout().load_permit(key);
        let last_invalidation = self.last_invalidation();
        let Some(completion) = self.flights.lead_unless_under_way(key, last_invalidation, permit) else {
            return;
        };
        if self.flights.completions(key) != completions {
            // The copy that asked for it may be of yesterday. The next hit tells.
            return;
        }
        let work = self.work(completion, key, loader, plan);
        if let Err(refused) = self.offload.register(Task::new(TaskKind::LOAD, work)) {
            count(&self.events.counts.refused);
            tracing::debug!(cache = %self.settings.name, %key, why = ?refused.why, "a reload was not taken");
        }
    }

    /// The work of one load.
    pub(crate) fn work<'l>(
        self: &Arc<Self>,
        completion: LoadCompletion<LoadEnd<V>>,
        key: &CacheKey,
        loader: LoaderFn<'l, V>,
        plan: LoadPlan,
    ) -> impl Future<Output = ()> + Send + use<'l, V, B>
    where
        B: 'l,
    {
        self.clone().run(completion, key.clone(), loader, plan).instrument(self.span(key))
    }

    pub(crate) fn span(&self, key: &CacheKey) -> tracing::Span {
        tracing::trace_span!("load", cache = %self.settings.name, %key)
    }

    async fn run<'l>(
        self: Arc<Self>,
        completion: LoadCompletion<LoadEnd<V>>,
        key: CacheKey,
        loader: LoaderFn<'l, V>,
        plan: LoadPlan,
    ) {
        let counts = &self.events.counts;
        if let Some(ahead) = plan.ahead.as_ref().filter(|ahead| ahead.is_early) {
            if let Some(result) = self.within_patience(Box::pin(self.newer_copy(&key, ahead))).await {
                count(&counts.refreshed_from_layer);
                completion.complete(Ok(result));
                return;
            }
            count(&counts.refreshed_early);
        }
        count(&counts.loads);
        let in_background = completion.is_in_background;
        self.events.tell(|| CacheEvent::LoadStarted { key: &key, in_background });
        let shown = OnceLock::new();
        let started = self.monotonic();
        // The closure is called inside: it may panic as well as the future that it makes.
        let work = async {
            let load = || {
                let slot = shown.get_or_init(Shown::default);
                Load { key: key.clone(), previous: self.read_previous(&key, slot) }
            };
            loader.start(load).await
        };
        let work = cycle::within(completion.flight.id, key.clone(), AssertUnwindSafe(work).catch_unwind());
        let mut work = std::pin::pin!(work);
        // A loader that answers at once needs no timer.
        let result = match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            Poll::Ready(result) => Ok(result),
            Poll::Pending => {
                let mut limit = Timeout::after(&*self.clock, self.settings.load_limit);
                let cancelled = std::pin::pin!(completion.flight.cancelled());
                let bound = std::pin::pin!(limit.bound(work));
                // A load that nobody waits for is cancelled even if its result is there.
                match select(cancelled, bound).await {
                    Either::Left(_) => return,
                    Either::Right((result, _)) => result.map_err(drop),
                }
            }
        };
        let took = self.monotonic().saturating_sub(started);
        counts.load_millis.fetch_add(took.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
        let error = match result {
            Ok(Ok(Ok(loaded))) => {
                self.events.tell(|| CacheEvent::Loaded { key: &key, took });
                self.throttle.end(&key);
                let ticket = self.store(&completion, &key, loaded, shown.get(), &plan, took).await;
                completion.stored(ticket);
                return;
            }
            Ok(Ok(Err(error))) => LoadError::of_loader(&key, error),
            Ok(Err(panic)) => {
                count(&counts.load_panics);
                let error = LoadError::of_panic(&key, panic_message(&*panic));
                self.failed(&key, &error);
                completion.keep_panic(panic);
                completion.complete(Err(error));
                return;
            }
            Err(_) => LoadError::new(LoadErrorKind::TimedOut, &key),
        };
        self.failed(&key, &error);
        let end = match self.within_patience(Box::pin(self.fallback(&key))).await {
            Some(copy) => {
                let now = self.monotonic();
                self.throttle.until(&key, now, now.saturating_add(self.settings.throttle));
                Ok(LoadResult::fallback(copy))
            }
            None => Err(error),
        };
        completion.complete(end);
    }

    fn failed(&self, key: &CacheKey, error: &LoadError) {
        count(&self.events.counts.load_failures);
        tracing::debug!(cache = %self.settings.name, %key, ?error, "a load failed");
        self.events.tell(|| CacheEvent::LoadFailed { key, error });
    }

    fn read_previous(self: &Arc<Self>, key: &CacheKey, shown: &Shown<V>) -> ReadPrevious<V> {
        let (shared, key, shown) = (self.clone(), key.clone(), shown.clone());
        Arc::new(move || {
            let (shared, key, shown) = (shared.clone(), key.clone(), shown.clone());
            Box::pin(async move {
                let copy = shared.previous(&key).await?;
                let value = copy.entry.data().clone();
                *shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
                value
            })
        })
    }

    async fn previous(&self, key: &CacheKey) -> Option<Decoded<V>> {
        self.within_patience(Box::pin(self.read_if_possible(key, READ_AGAIN.accepting(Accept::Expired))))
            .await
    }

    /// Before the source is asked ahead of need: a copy in a lower layer that somebody else has loaded since. It is
    /// put into the layer that had the older one.
    async fn newer_copy(&self, key: &CacheKey, ahead: &RefreshAhead) -> Option<LoadResult<V>> {
        let layout = self.backend.layout();
        let others = layout.leaves().iter().map(|leaf| leaf.position()).filter(|leaf| *leaf != ahead.leaf);
        let others = others.map(LeafSet::of).fold(LeafSet::EMPTY, LeafSet::union);
        let permit = Arc::new(layout.refill_permit(key, others));
        let options = READ_AGAIN.accepting(Accept::Fresh).skipping(LeafSet::of(ahead.leaf));
        let entry = self.read_if_possible(key, options).await?.entry;
        // The same entry may live longer there: the layer above has a cap of its own.
        if entry.created() < ahead.created || self.settings.is_early(&entry, self.now()) {
            return None;
        }
        let result = LoadResult::of(&entry);
        let refill = entry.try_map(|value| value.map(Raw::live).ok_or(())).ok()?;
        let refill = Write::new(key.clone(), refill).with_condition(Condition::Refill(permit));
        drop(self.backend.write(Batch::one(refill)).await);
        Some(result)
    }

    /// Stores what a loader brought, unless the key was written meanwhile. The ticket, if there is one, has to outlive
    /// the flight.
    async fn store(
        self: &Arc<Self>,
        completion: &LoadCompletion<LoadEnd<V>>,
        key: &CacheKey,
        loaded: Loaded<V>,
        shown: Option<&Shown<V>>,
        plan: &LoadPlan,
        took: Duration,
    ) -> Option<Arc<WriteTicket>> {
        let Loaded { payload, lifetime, store, options } = loaded;
        let mut options = options.or(&plan.options);
        let value = match payload {
            Payload::Value(value) => Some(value),
            Payload::Absent => None,
            Payload::Declined => {
                completion.store(Err(LoadError::new(LoadErrorKind::Declined, key)));
                return None;
            }
            Payload::NotModified(_) => {
                let shown =
                    shown.and_then(|shown| shown.lock().unwrap_or_else(PoisonError::into_inner).take());
                let previous = match shown {
                    Some(shown) => Some(shown),
                    None => self.previous(key).await,
                };
                let Some(previous) = previous else {
                    let error = LoadError::new(LoadErrorKind::NothingToKeep, key);
                    self.failed(key, &error);
                    completion.store(Err(error));
                    return None;
                };
                // What it says nothing about stays.
                if let Some(details) = previous.entry.details() {
                    options = options.or(&EntryOptions::of(details));
                }
                previous.entry.into_data()
            }
        };
        let (now, absent) = (self.now(), value.is_none());
        let is_kept = store && (!absent || self.settings.absent.is_some());
        let wanted = lifetime.or(plan.lifetime);
        options.absolute_end = wanted.until.is_some();
        let lifetime = self.settings.lifetime(key, wanted, absent, now).filter(|_| is_kept);
        let expires = lifetime.and_then(|lifetime| lifetime.expire());
        let details = options.details();
        completion.store(Ok(LoadResult { value: value.clone(), expires, is_fallback: false, details }));
        // What is not stored still ends what was there.
        let has_older = plan.ahead.is_some() || plan.may_replace || !self.settings.fail_safe.is_zero();
        if lifetime.is_none() && !has_older {
            return None;
        }
        let permit = completion.flight.permit();
        let is_valid = !self.backend.layout().is_superseded(key, &options.scopes, permit);
        let Some(ticket) = is_valid.then(|| permit.begin()).flatten() else {
            count(&self.events.counts.load_superseded);
            self.events.tell(|| CacheEvent::Superseded { key });
            return None;
        };
        let write_options = WriteOptions::of(&ticket);
        let receipts = match lifetime {
            Some(lifetime) => {
                options.load_time =
                    matches!(self.settings.early, Some(EarlyRefresh::Chance(_))).then_some(took);
                let entry = self.entry(value, lifetime, now, options);
                let write = Write::new(key.clone(), entry).with_options(write_options);
                self.backend.write(Batch::one(write)).await
            }
            None => {
                let removal = Removal::new(key.clone()).with_options(write_options);
                self.backend.remove(Batch::one(removal)).await
            }
        };
        let receipt = receipts.into_one().unwrap_or_default();
        if !receipt.is_ok() {
            count(&self.events.counts.write_errors);
        }
        self.record_failures(key, &receipt, &ticket);
        Some(ticket)
    }

    /// The entry that is stored.
    pub(crate) fn entry(
        &self,
        value: Option<V>,
        lifetime: Lifetime,
        now: Timestamp,
        options: EntryOptions,
    ) -> CacheValue<Raw> {
        let mut details = self.details(now, options);
        let raw = match value {
            Some(value) => Raw::live(value),
            None => {
                details.kind = RecordKind::Absent;
                Raw::live(())
            }
        };
        CacheValue::new(raw).with_lifetime(lifetime).with_created(Some(now)).with_details(details)
    }

    /// What an entry that is written now says of itself.
    pub(crate) fn details(&self, now: Timestamp, options: EntryOptions) -> Details {
        let mut details = Details::default();
        let EntryOptions { load_time, version, priority, metadata, scopes, absolute_end } = options;
        (details.load_time, details.version) = (load_time, version);
        (details.metadata, details.scopes) = (metadata, scopes);
        details.priority = priority.unwrap_or_default();
        details.absolute_end = absolute_end;
        if let Some(idle) = self.settings.idle {
            details.idle = Some(idle);
            details.touched = Some(now);
        }
        details
    }
}

impl<V> LoadResult<V> {
    fn fallback(copy: Decoded<V>) -> Self {
        let details = copy.entry.shared_details();
        let expires = copy.entry.lifetime().expire();
        Self { value: copy.entry.into_data(), expires, is_fallback: true, details }
    }
}

impl<V: Clone> LoadResult<V> {
    /// What an entry that is stored says.
    pub(crate) fn of(entry: &CacheValue<Option<V>>) -> Self {
        let details = entry.shared_details();
        let expires = entry.lifetime().expire();
        Self { value: entry.data().clone(), expires, is_fallback: false, details }
    }
}
