//! One load: the loader is run, what it brings is stored, and the flight lands.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, abortable, select};
use hitbox_backend::{
    Backend, Cacheable, LeafSet, Mutation, Raw, ReadOptions, WriteOptions, is_superseded, ticket_of_leaf,
};
use hitbox_core::{
    Accept, BoxFuture, CacheKey, CacheValue, Details, Freshness, Lifetime, RecordKind, Task, TaskKind,
    Timestamp,
};
use tracing::Instrument;

use crate::call::{Call, Mode};
use crate::error::{BoxError, LoadError, LoadErrorKind};
use crate::events::{CacheEvent, count};
use crate::flight::Landing;
use crate::loaded::{Load, Loaded, Payload, ReadPrevious};
use crate::remarks::Remarks;
use crate::settings::{EarlyRefresh, Life};
use crate::shared::{Copy, Shared};

/// A load that reached its limit.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the load was cut at its limit")
    }
}

impl std::error::Error for Cut {}

/// How a flight ends.
pub(crate) type End<V> = Result<Delivered<V>, LoadError>;

/// What a flight brings to those who wait for it.
#[derive(Clone)]
pub(crate) struct Delivered<V> {
    /// `None` if the source has nothing.
    pub(crate) value: Option<V>,
    pub(crate) expires: Option<Timestamp>,
    /// It is an older copy, served since the load failed.
    pub(crate) is_fallback: bool,
    /// What is kept beside it, if there is anything.
    pub(crate) details: Option<Arc<Details>>,
}

pub(crate) type LoaderFn<'l, V> =
    Box<dyn FnOnce(Load<V>) -> BoxFuture<'l, Result<Loaded<V>, BoxError>> + Send + 'l>;

/// A loader, and where it may run.
pub(crate) enum Loader<'l, V> {
    /// Anywhere.
    Detached(LoaderFn<'static, V>),
    /// Within the call, whose variables it borrows.
    Scoped(LoaderFn<'l, V>),
}

/// Why a load is made while there is a copy.
pub(crate) struct Ahead {
    /// When the copy was made, and where it was.
    pub(crate) created: Option<Timestamp>,
    pub(crate) leaf: u8,
    /// The copy is fresh still.
    pub(crate) is_early: bool,
}

/// What a load is told by the call that leads it.
pub(crate) struct Plan {
    pub(crate) life: Life,
    pub(crate) remarks: Remarks,
    pub(crate) ahead: Option<Ahead>,
    /// There may be an older copy, which nobody has looked at.
    pub(crate) is_forced: bool,
}

impl Plan {
    /// The load that a call leads, ahead of need if there is a copy.
    pub(crate) fn of(call: &Call, ahead: Option<Ahead>) -> Self {
        let is_forced = call.mode == Mode::Reload;
        Self { life: call.life, remarks: call.remarks.clone(), ahead, is_forced }
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Starts the load that a call leads. If it has to run within the call, it is returned.
    pub(crate) fn start<'l>(
        self: &Arc<Self>,
        landing: Landing<End<V>>,
        key: &CacheKey,
        loader: Loader<'l, V>,
        plan: Plan,
    ) -> Option<BoxFuture<'l, ()>>
    where
        B: 'l,
    {
        match loader {
            Loader::Scoped(loader) => Some(Box::pin(
                self.clone().run(landing, key.clone(), loader, plan).instrument(self.span(key)),
            )),
            Loader::Detached(loader) => {
                let flight = landing.flight.clone();
                let (work, abort) = abortable(
                    self.clone().run(landing, key.clone(), loader, plan).instrument(self.span(key)),
                );
                if self.settings.finish_abandoned {
                    flight.go_on();
                } else {
                    flight.abort_with(abort);
                }
                // An aborted load leaves its flight as it is dropped.
                let task = Task::new(TaskKind::LOAD, work.map(drop)).urgent();
                self.offload.register(task).err().map(|refused| refused.task.work)
            }
        }
    }

    /// Starts a load that nobody waits for, unless one is under way, has landed since `landings` were counted, or there
    /// is no room.
    pub(crate) fn start_in_background(
        self: &Arc<Self>,
        key: &CacheKey,
        landings: u64,
        loader: LoaderFn<'static, V>,
        plan: Plan,
    ) {
        let claim = || hitbox_backend::claim(&*self.backend, key);
        let moment = self.moment(key);
        let Some(landing) = self.flights.lead_unless_under_way(key, moment, claim) else { return };
        if self.flights.landings(key) != landings {
            // The copy that asked for it may be of yesterday. The next hit tells.
            return;
        }
        let work = self.clone().run(landing, key.clone(), loader, plan).instrument(self.span(key));
        if let Err(refused) = self.offload.register(Task::new(TaskKind::LOAD, work)) {
            count(&self.events.counts.refused);
            tracing::debug!(cache = %self.settings.name, %key, why = ?refused.why, "a reload was not taken");
        }
    }

    fn span(&self, key: &CacheKey) -> tracing::Span {
        tracing::trace_span!("load", cache = %self.settings.name, %key)
    }

    async fn run<'l>(
        self: Arc<Self>,
        landing: Landing<End<V>>,
        key: CacheKey,
        loader: LoaderFn<'l, V>,
        plan: Plan,
    ) {
        let counts = &self.events.counts;
        if let Some(ahead) = plan.ahead.as_ref().filter(|ahead| ahead.is_early) {
            if let Some(delivered) = self.newer_copy(&key, ahead).await {
                count(&counts.refreshed_from_layer);
                landing.land(Ok(delivered));
                return;
            }
            count(&counts.refreshed_early);
        }
        count(&counts.loads);
        let in_background = landing.is_in_background;
        self.events.tell(|| CacheEvent::LoadStarted { key: &key, in_background });
        let load = Load { key: key.clone(), previous: self.read_previous(&key) };
        let started = self.clock.monotonic();
        // The closure is called inside: it may panic as well as the future that it makes.
        let work = AssertUnwindSafe(async { loader(load).await }).catch_unwind();
        let result =
            match select(std::pin::pin!(work), std::pin::pin!(self.after(self.settings.load_limit))).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => Ok(Err(Cut.into())),
            };
        let took = self.clock.monotonic().saturating_sub(started);
        counts.load_millis.fetch_add(took.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
        match result {
            Ok(Ok(loaded)) => {
                self.events.tell(|| CacheEvent::Loaded { key: &key, took });
                self.throttle.end(&key);
                let (end, mutation) = self.keep(&landing, &key, loaded, &plan, took).await;
                landing.land(end);
                // Until here others have joined the flight.
                drop(mutation);
            }
            Ok(Err(error)) => {
                let error = match error.downcast::<Cut>() {
                    Ok(_) => LoadError::new(LoadErrorKind::TimedOut, &key),
                    Err(error) => LoadError::of_loader(&key, error),
                };
                self.failed(&key, &error);
                let end = match self.fallback(&key).await {
                    Some(copy) => {
                        let now = self.clock.monotonic();
                        self.throttle.until(&key, now, now.saturating_add(self.settings.throttle));
                        Ok(Delivered::fallback(copy))
                    }
                    None => Err(error),
                };
                landing.land(end);
            }
            Err(panic) => {
                count(&counts.load_panics);
                let error = LoadError::of_panic(&key, message_of(&*panic));
                self.failed(&key, &error);
                landing.keep_panic(panic);
                landing.land(Err(error));
            }
        }
    }

    fn failed(&self, key: &CacheKey, error: &LoadError) {
        count(&self.events.counts.load_failures);
        tracing::debug!(cache = %self.settings.name, %key, ?error, "a load failed");
        self.events.tell(|| CacheEvent::LoadFailed { key, error });
    }

    fn read_previous(self: &Arc<Self>, key: &CacheKey) -> ReadPrevious<V> {
        let (shared, key) = (self.clone(), key.clone());
        Arc::new(move || {
            let (shared, key) = (shared.clone(), key.clone());
            Box::pin(async move { shared.previous(&key).await?.entry.into_data() })
        })
    }

    async fn previous(&self, key: &CacheKey) -> Option<Copy<V>> {
        self.look_if_possible(key, ReadOptions { accept: Accept::Expired, ..ReadOptions::NORMAL }).await
    }

    /// Before the source is asked ahead of need: a copy in a lower layer that somebody else has loaded since. It is
    /// put into the layer that had the older one.
    async fn newer_copy(&self, key: &CacheKey, ahead: &Ahead) -> Option<Delivered<V>> {
        let ticket = ticket_of_leaf(&*self.backend, key, ahead.leaf);
        let options = ReadOptions { skip: LeafSet::of(ahead.leaf), ..ReadOptions::NORMAL };
        let found = match self.backend.read_with(key, &options).await {
            Ok(found) => found?,
            Err(error) => {
                count(&self.events.counts.read_errors);
                self.events.layer_failed(key, &error);
                return None;
            }
        };
        let is_newer = found.value.created() > ahead.created && found.freshness == Freshness::Fresh;
        if !is_newer || self.settings.is_early(&found.value, self.now()) {
            return None;
        }
        let value = found.value.data().decode().ok()?;
        let delivered = Delivered::of(&found.value.clone().map(|_| Some(value)));
        self.backend.install_if(key, found.value, &ticket).await;
        Some(delivered)
    }

    /// Stores what a loader brought, unless the key was written meanwhile. The mutation, if there is one, has to
    /// outlive the flight.
    async fn keep(
        self: &Arc<Self>,
        landing: &Landing<End<V>>,
        key: &CacheKey,
        loaded: Loaded<V>,
        plan: &Plan,
        took: Duration,
    ) -> (End<V>, Option<Arc<Mutation>>) {
        let Loaded { payload, life, store, remarks } = loaded;
        let mut remarks = remarks.or(&plan.remarks);
        let value = match payload {
            Payload::Value(value) => Some(value),
            Payload::Absent => None,
            Payload::NotModified => {
                let Some(previous) = self.previous(key).await else {
                    let error = LoadError::new(LoadErrorKind::NothingToKeep, key);
                    self.failed(key, &error);
                    return (Err(error), None);
                };
                // What it says nothing about stays.
                if let Some(details) = previous.entry.details() {
                    remarks = remarks.or(&Remarks::of(details));
                }
                previous.entry.into_data()
            }
        };
        let (now, absent) = (self.now(), value.is_none());
        let is_kept = store && (!absent || self.settings.absent.is_some());
        let lifetime = self.settings.lifetime(key, life.or(plan.life), absent, now).filter(|_| is_kept);
        let expires = lifetime.and_then(|lifetime| lifetime.expire());
        let details = remarks.details();
        let delivered = Delivered { value: value.clone(), expires, is_fallback: false, details };
        // What is not stored still ends what was there.
        let has_older = plan.ahead.is_some() || plan.is_forced || !self.settings.fail_safe.is_zero();
        if lifetime.is_none() && !has_older {
            return (Ok(delivered), None);
        }
        let claim = &landing.flight.claim;
        let is_valid = !is_superseded(&*self.backend, key, &remarks.scopes, claim);
        let Some(mutation) = is_valid.then(|| claim.begin()).flatten() else {
            count(&self.events.counts.load_superseded);
            self.events.tell(|| CacheEvent::Superseded { key });
            return (Ok(delivered), None);
        };
        let options = WriteOptions { mutation: Some(mutation.clone()), ..WriteOptions::default() };
        let receipt = match lifetime {
            Some(lifetime) => {
                remarks.load_time =
                    matches!(self.settings.early, Some(EarlyRefresh::Chance(_))).then_some(took);
                let entry = self.entry(value, lifetime, now, remarks);
                self.backend.write_with(key, entry, &options).await
            }
            None => self.backend.remove_with(key, &options).await,
        };
        if !receipt.is_ok() {
            count(&self.events.counts.write_errors);
        }
        if self.account(key, &receipt, &mutation) {
            self.recover_later(key);
        }
        (Ok(delivered), Some(mutation))
    }

    /// The entry that is stored.
    pub(crate) fn entry(
        &self,
        value: Option<V>,
        lifetime: Lifetime,
        now: Timestamp,
        remarks: Remarks,
    ) -> CacheValue<Raw> {
        let mut details = Details::default();
        let Remarks { load_time, version, priority, metadata, scopes } = remarks;
        (details.load_time, details.version) = (load_time, version);
        (details.metadata, details.scopes) = (metadata, scopes);
        details.priority = priority.unwrap_or_default();
        if let Some(idle) = self.settings.idle {
            details.idle = Some(idle);
            details.touched = Some(now);
        }
        let raw = match value {
            Some(value) => Raw::live(value),
            None => {
                details.kind = RecordKind::Absent;
                Raw::live(())
            }
        };
        CacheValue::new(raw).with_lifetime(lifetime).with_created(Some(now)).with_details(details)
    }
}

impl<V> Delivered<V> {
    pub(crate) fn fallback(copy: Copy<V>) -> Self {
        let details = copy.entry.shared_details();
        let expires = copy.entry.lifetime().expire();
        Self { value: copy.entry.into_data(), expires, is_fallback: true, details }
    }
}

impl<V: Clone> Delivered<V> {
    /// What an entry that is stored says.
    pub(crate) fn of(entry: &CacheValue<Option<V>>) -> Self {
        let details = entry.shared_details();
        let expires = entry.lifetime().expire();
        Self { value: entry.data().clone(), expires, is_fallback: false, details }
    }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}
