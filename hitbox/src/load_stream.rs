//! One load of a body: the source is read once, and what it brings goes to all who follow it and to the layers, at the same time. No
//! layer holds up those who read.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{FutureExt, Stream, StreamExt};
use hitbox_backend::internal::{
    self, BodyFeed, Follower, InFlightBody, LoadPermit, PATIENCE, QUEUE, WriteTicket, panic_message,
};
use hitbox_backend::operation::{Batch, BodyWriter, Removal, Renewal, Write, WriteOptions};
use hitbox_backend::{Backend, Cacheable, LeafOutcome, Receipt};
use hitbox_core::{
    BackendError, BackendResult, BoxFuture, CacheKey, CacheValue, Details, ErrorKind, Lifetime, Operation,
    Task, TaskKind, Timestamp,
};
use tracing::Instrument;

use crate::cycle;
use crate::error::{BoxError, LoadError, LoadErrorKind};
use crate::events::{CacheEvent, count};
use crate::flight::{Flight, FlightEnd, LoadCompletion};
use crate::inline::Inline;
use crate::load::LoadPlan;
use crate::loaded::{Loaded, Payload};
use crate::shared::Shared;
use crate::timeouts::Timeout;

/// What a body is read from.
pub(crate) type Source = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// A loader of a body. Nothing of it has run yet.
pub(crate) type StreamLoader = BoxFuture<'static, Result<Loaded<Source>, BoxError>>;

/// How the first part of such a load ends: the body has begun.
pub(crate) type StreamStart = Result<Started, LoadError>;

impl FlightEnd for StreamStart {
    /// The writer of the body shares it.
    type Permit = Arc<LoadPermit>;
}

/// A body that has begun.
#[derive(Clone)]
pub(crate) struct Started {
    /// Nobody reads it: others follow the same body.
    pub(crate) follower: Arc<Follower>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) details: Option<Arc<Details>>,
}

/// Where the load leaves the reader of the call that leads it. It goes with whoever drops it last.
pub(crate) type LeadersReader = Arc<Mutex<Option<Follower>>>;

/// Bytes that a source brings before others have their turn, if it never waits. A chunk counts for a sixteenth at least.
const TURN: usize = 256 * 1024;

/// What comes next for a body that is passed on.
enum Step {
    /// The source has brought something, or has ended.
    Read(Option<Result<Bytes, BoxError>>),
    /// The source has ended, and layers have taken all.
    Done,
    /// Nothing has happened for as long as one that takes nothing is waited for.
    Pause,
    /// The source has brought nothing for too long.
    TimedOut,
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Starts the load that a call leads. If it has to run within the call, it is returned.
    pub(crate) fn start_stream(
        self: &Arc<Self>,
        completion: LoadCompletion<StreamStart>,
        key: &CacheKey,
        loader: StreamLoader,
        plan: LoadPlan,
        reader: Option<LeadersReader>,
    ) -> Option<Inline<'static>> {
        let flight = completion.flight.clone();
        if self.settings.finish_abandoned {
            flight.go_on();
        }
        let run = self.clone().run_stream(completion, key.clone(), loader, plan, reader);
        let task = Task::new(TaskKind::LOAD, run.instrument(self.span(key))).interactive();
        let refused = self.offload.register(task).err()?;
        Some(Inline::Owned(flight.run_within_call(refused.task.work)))
    }

    /// Starts a load that nobody waits for, unless one is under way or has ended since `completions` were counted, or there is no room.
    pub(crate) fn start_stream_in_background(
        self: &Arc<Self>,
        key: &CacheKey,
        completions: u64,
        loader: StreamLoader,
        plan: LoadPlan,
    ) {
        let permit = || self.backend.layout().load_permit(key);
        let led = self.streams.lead_unless_under_way(key, self.last_invalidation(), permit);
        let Some(completion) = led.filter(|_| self.streams.completions(key) == completions) else { return };
        let run = self.clone().run_stream(completion, key.clone(), loader, plan, None);
        let task = Task::new(TaskKind::LOAD, run.instrument(self.span(key)));
        if let Err(refused) = self.offload.register(task) {
            count(&self.events.counts.refused);
            tracing::debug!(cache = %self.settings.name, %key, why = ?refused.why, "a reload was not taken");
        }
    }

    async fn run_stream(
        self: Arc<Self>,
        completion: LoadCompletion<StreamStart>,
        key: CacheKey,
        loader: StreamLoader,
        plan: LoadPlan,
        reader: Option<LeadersReader>,
    ) {
        let counts = &self.events.counts;
        count(&counts.loads);
        let in_background = completion.is_in_background;
        self.events.tell(|| CacheEvent::LoadStarted { key: &key, in_background });
        let began = self.monotonic();
        let flight = completion.flight.clone();
        let work = cycle::within(flight.id, key.clone(), AssertUnwindSafe(loader).catch_unwind());
        let mut limit = Timeout::after(&*self.clock, self.settings.load_limit);
        let loaded = match select(pin!(flight.cancelled()), pin!(limit.bound(pin!(work)))).await {
            Either::Left(_) => return,
            Either::Right((loaded, _)) => loaded.map_err(drop),
        };
        let fail = |error: LoadError| {
            self.stream_failed(&key, &error);
            error
        };
        let loaded = match loaded {
            Ok(Ok(Ok(loaded))) => loaded,
            Ok(Ok(Err(error))) => return completion.complete(Err(fail(LoadError::of_loader(&key, error)))),
            Ok(Err(panic)) => {
                count(&counts.load_panics);
                let error = fail(LoadError::of_panic(&key, panic_message(&*panic)));
                completion.keep_panic(panic);
                return completion.complete(Err(error));
            }
            Err(()) => return completion.complete(Err(fail(LoadError::new(LoadErrorKind::TimedOut, &key)))),
        };
        let Loaded { payload, lifetime, store, options } = loaded;
        let source = match payload {
            Payload::Value(source) => source,
            Payload::Absent => {
                return completion.complete(Err(LoadError::new(LoadErrorKind::Absent, &key)));
            }
            Payload::Declined => {
                return completion.complete(Err(LoadError::new(LoadErrorKind::Declined, &key)));
            }
            Payload::NotModified(generation) => {
                let lifetime = self.renewed(&key, lifetime.or(plan.lifetime));
                let metadata = (!options.metadata.is_empty()).then(|| Arc::new(options.metadata));
                let renewal =
                    Renewal { metadata, lifetime: Some(lifetime), generation, ..Renewal::default() };
                // Who waits need not wait for a layer that hangs: the others have it.
                let patience = internal::patience_with(self.backend.layout());
                let kept = Box::pin(self.keep(&key, renewal, flight.permit()));
                let ticket = match Timeout::after(&*self.clock, Some(patience)).bound(kept).await {
                    Ok(ticket) => ticket,
                    Err(_) => {
                        self.not_stored(&key, &internal::took_nothing(patience));
                        None
                    }
                };
                // Whoever waits reads it again.
                completion.store(Err(LoadError::new(LoadErrorKind::NothingToKeep, &key)));
                completion.stored(ticket);
                return;
            }
        };
        self.throttle.end(&key);

        let (mut options, wanted, now) = (options.or(&plan.options), lifetime.or(plan.lifetime), self.now());
        options.absolute_end = wanted.until.is_some();
        let lifetime = self.settings.lifetime(&key, wanted, false, now).filter(|_| store && !plan.bypasses);
        let (expires, details) = (lifetime.and_then(|lifetime| lifetime.expire()), options.details());
        let kept = lifetime.unwrap_or_else(|| Lifetime::new(None, None, None));
        let entry = CacheValue::new(()).with_lifetime(kept).with_created(Some(now));
        let entry = entry.with_details(self.details(now, options));
        let permit = flight.shared_permit().clone();
        let layout = self.backend.layout();
        let mut layers = match lifetime {
            Some(_) => BodyFeed::opening(layout, self.open(&key, &entry, &permit)),
            None => {
                let refused = BackendError::new(ErrorKind::NotAdmitted, "the body is not to be stored");
                BodyFeed::new(layout, Err(refused))
            }
        };
        let in_flight = InFlightBody::begin(layout, &key, entry, permit, layers.written());
        let in_flight = if plan.bypasses { in_flight } else { in_flight.listed() };
        if let Some(reader) = reader {
            *reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_flight.lead());
        }
        let follower = Arc::new(in_flight.follow());
        completion.store(Ok(Started { follower, expires, details }));

        let passing = self.pass_on(&key, source, &mut layers, &in_flight, &flight);
        let passing = cycle::within(flight.id, key.clone(), AssertUnwindSafe(passing).catch_unwind());
        let passed = match select(pin!(flight.cancelled()), pin!(passing)).await {
            Either::Left(_) => return,
            Either::Right((passed, _)) => passed,
        };
        let failed = match passed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((error.clone(), LoadError::of_loader(&key, error.into()))),
            Err(panic) => {
                count(&counts.load_panics);
                let message = panic_message(&*panic);
                let error =
                    BackendError::new(ErrorKind::Io, format!("the source of a body panicked: {message}"));
                Some((error, LoadError::of_panic(&key, message)))
            }
        };
        if let Some((error, load_error)) = failed {
            in_flight.abort(error);
            self.stream_failed(&key, &load_error);
            layers.abort(&*self.clock).await;
            return completion.stored(());
        }
        let took = self.monotonic().saturating_sub(began);
        counts.load_millis.fetch_add(took.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
        self.events.tell(|| CacheEvent::Loaded { key: &key, took });
        let has_older = plan.ahead.is_some() || plan.may_replace || !self.settings.fail_safe.is_zero();
        let ticket = if lifetime.is_some() {
            self.end_stream(&key, layers, flight.permit()).await
        } else if has_older && !plan.bypasses {
            self.end_older(&key, flight.permit()).await
        } else {
            None
        };
        drop(in_flight);
        completion.stored(ticket);
    }

    /// The life of the stored body starts anew. Where nothing is stored nothing is created.
    async fn keep(
        self: &Arc<Self>,
        key: &CacheKey,
        renewal: Renewal,
        permit: &LoadPermit,
    ) -> Option<Arc<WriteTicket>> {
        let ticket = permit.begin()?;
        let write = Write::renewal(key.clone(), renewal).with_options(WriteOptions::of(&ticket));
        let receipt = self.backend.write(Batch::one(write)).await.into_one().unwrap_or_default();
        if let Some(error) = receipt.error() {
            self.not_stored(key, error);
        }
        self.record_failures(key, &receipt, &ticket);
        Some(ticket)
    }

    fn stream_failed(&self, key: &CacheKey, error: &LoadError) {
        count(&self.events.counts.load_failures);
        tracing::debug!(cache = %self.settings.name, %key, ?error, "a load of a body failed");
        self.events.tell(|| CacheEvent::LoadFailed { key, error });
    }

    /// Opens the layers. What the source brings goes out meanwhile.
    fn open(
        self: &Arc<Self>,
        key: &CacheKey,
        entry: &CacheValue<()>,
        permit: &Arc<LoadPermit>,
    ) -> BoxFuture<'static, BackendResult<Box<dyn BodyWriter>>> {
        let (shared, key, entry, permit) = (self.clone(), key.clone(), entry.clone(), permit.clone());
        Box::pin(async move { shared.open_recorded(&key, entry, permit).await })
    }

    /// A body is not stored.
    fn not_stored(&self, key: &CacheKey, error: &BackendError) {
        count(&self.events.counts.write_errors);
        tracing::debug!(cache = %self.settings.name, %key, %error, "a body that is being loaded is not stored");
    }

    /// Has the source read, to its end, and what it brings taken by the layers and by those who follow.
    async fn pass_on(
        &self,
        key: &CacheKey,
        mut source: Source,
        layers: &mut BodyFeed,
        in_flight: &InFlightBody,
        flight: &Flight<StreamStart>,
    ) -> BackendResult<()> {
        let mut is_stored = layers.error().is_none();
        let (mut has_ended, mut limit) = (false, Timeout::after(&*self.clock, self.settings.load_limit));
        let (mut room, mut has_room) = (pin!(in_flight.has_room()), false);
        // Since when the source has been asked for what comes next.
        let mut asked = None;
        // What has come since others had their turn.
        let mut passed = 0;
        loop {
            if passed >= TURN {
                passed = 0;
                tokio::task::yield_now().await;
            }
            let (began, was_behind) = (self.monotonic(), layers.is_behind());
            layers.begin_wait();
            let step = poll_fn(|cx| {
                let fed = layers.poll_feed(cx, 0);
                if layers.has_changed() {
                    in_flight.has_been_written();
                }
                if is_stored && let Some(error) = layers.error() {
                    is_stored = false;
                    self.not_stored(key, error);
                }
                if has_ended {
                    return fed.map(|()| Step::Done);
                }
                if layers.is_behind() {
                    return Poll::Pending;
                }
                has_room = has_room || room.as_mut().poll(cx).is_ready();
                if !has_room {
                    return Poll::Pending;
                }
                asked = asked.or_else(|| Some(self.monotonic()));
                source.poll_next_unpin(cx).map(Step::Read)
            });
            let step = {
                let (pause, limited) = (self.clock.sleep(PATIENCE), pin!(limit.over()));
                match select(step, select(pause, limited)).await {
                    Either::Left((step, _)) => step,
                    Either::Right((Either::Left(_), _)) => Step::Pause,
                    Either::Right((Either::Right(_), _)) => Step::TimedOut,
                }
            };
            let waited = self.monotonic().saturating_sub(began);
            if was_behind && !layers.keeps_up(waited, QUEUE as u64) {
                layers.give_up();
            }
            let is_over = matches!(step, Step::TimedOut);
            match step {
                Step::Done => return Ok(()),
                Step::Read(Some(Ok(chunk))) => {
                    passed += chunk.len().max(TURN / 16);
                    if !chunk.is_empty() {
                        limit = Timeout::after(&*self.clock, self.settings.load_limit);
                        room.set(in_flight.has_room());
                        (has_room, asked) = (false, None);
                        layers.push(chunk.clone());
                        in_flight.push(chunk);
                    }
                }
                Step::Read(Some(Err(error))) => return Err(internal::source_failed(error)),
                Step::Read(None) => {
                    // Who follows need not wait until it is stored, which goes on without them.
                    flight.go_on();
                    in_flight.complete();
                    (has_ended, asked, limit) = (true, None, Timeout::Never);
                }
                Step::Pause => {
                    // Nobody waits for the last of it, but it has to come to an end.
                    if has_ended && !layers.keeps_up(waited, 1) {
                        layers.give_up();
                    }
                }
                Step::TimedOut => {}
            }
            // It may have been somebody else who kept it waiting; and chunks without bytes are nothing that it has brought.
            if let (Some(asked), Some(load_limit)) = (asked, self.settings.load_limit) {
                let waited = self.monotonic().saturating_sub(asked);
                if waited >= load_limit {
                    let error =
                        BackendError::new(ErrorKind::Timeout, "the source of a body brought nothing in time");
                    return Err(error.during(Operation::WriteBody));
                }
                if is_over {
                    limit = Timeout::after(&*self.clock, Some(load_limit - waited));
                }
            } else if is_over {
                limit = Timeout::after(&*self.clock, self.settings.load_limit);
            }
        }
    }

    /// Has a body stored that has come. The ticket has to outlive the flight.
    async fn end_stream(
        &self,
        key: &CacheKey,
        layers: BodyFeed,
        permit: &LoadPermit,
    ) -> Option<Arc<WriteTicket>> {
        let writer = layers.into_end().ok()?;
        let ticket = permit.begin();
        let receipt = writer.finish().await;
        let is_superseded = |receipt: &Receipt| {
            receipt.leaves().iter().all(|leaf| matches!(leaf.outcome, LeafOutcome::Superseded))
        };
        if ticket.is_none() || is_superseded(&receipt) {
            count(&self.events.counts.load_superseded);
            self.events.tell(|| CacheEvent::Superseded { key });
        } else if let Some(error) = receipt.error() {
            self.not_stored(key, error);
        }
        ticket
    }

    /// What is not stored still ends what was there.
    async fn end_older(self: &Arc<Self>, key: &CacheKey, permit: &LoadPermit) -> Option<Arc<WriteTicket>> {
        let ticket = permit.begin()?;
        let removal = Removal::new(key.clone()).with_options(WriteOptions::of(&ticket));
        let receipt = self.backend.remove(Batch::one(removal)).await.into_one().unwrap_or_default();
        self.record_failures(key, &receipt, &ticket);
        Some(ticket)
    }
}
