//! The way of a call that wants a body and has a source for it: what a layer has, somebody else's load, or its own.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::internal;
use hitbox_backend::operation::BodyReader;
use hitbox_backend::wrap::ReaderWrapper;
use hitbox_backend::{Backend, Body, Cacheable, ReadOptions};
use hitbox_core::{BackendResult, CacheKey, Freshness, Offload, ResponseSource};

use crate::call::{Call, Mode};
use crate::cycle;
use crate::error::{LoadError, LoadErrorKind};
use crate::events::{CacheEvent, count};
use crate::flight::{Flights, Joins, Role, Waiting};
use crate::inline::Inline;
use crate::load::{LoadPlan, RefreshAhead};
use crate::load_stream::{LeadersReader, Started, StreamLoader, StreamStart};
use crate::response::{AnswerKind, Outcome, Response};
use crate::settings::{AfterTimeout, OnStale};
use crate::shared::{READ, READ_AGAIN, Shared};
use crate::timeouts::{Timeouts, result_of};

type Reader = Box<dyn BodyReader>;
type Answer = Result<Response<Body>, LoadError>;

/// What waiting for a body to begin has come to.
enum Came {
    Began(Started),
    Failed(LoadError),
    /// Who led has gone.
    Abandoned,
    /// It takes long, and there is an older one.
    Older(Reader),
    TimedOut,
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// A body, by whatever way.
    pub(crate) async fn get_or_load_stream(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        loader: StreamLoader,
    ) -> Answer {
        self.reconcile_if_dirty();
        let soft = call.soft_timeout.or(self.settings.soft_timeout);
        let hard = call.hard_timeout.or(self.settings.hard_timeout);
        let mut timeouts = Timeouts::start(&*self.clock, soft, hard);
        // Nobody joins a load that goes past the cache.
        let flights = if call.mode == Mode::Bypass { Arc::default() } else { self.streams.clone() };
        let completions = match call.mode {
            Mode::Looked(completions) => completions,
            _ => flights.completions(key),
        };
        let found = match call.mode {
            Mode::Normal => {
                let found = self.body_soon(key, READ, &mut timeouts).await;
                self.count_look(found.as_ref().map(|reader| reader.freshness()));
                found
            }
            Mode::Looked(_) | Mode::Lead | Mode::Reload | Mode::Bypass => None,
        };
        let mut plan = LoadPlan { bypasses: call.mode == Mode::Bypass, ..LoadPlan::of(call, None) };
        let Some(reader) = found else {
            self.events.tell(|| CacheEvent::Miss { key });
            return self.load_stream(key, call, None, &flights, completions, loader, plan, timeouts).await;
        };
        plan.ahead = Some(RefreshAhead::of_body(&*reader));
        let serves_stale = matches!(self.settings.on_stale, OnStale::Serve | OnStale::ServeAndReload);
        let is_fresh = reader.freshness() == Freshness::Fresh;
        if !is_fresh && !serves_stale {
            return self
                .load_stream(key, call, Some(reader), &flights, completions, loader, plan, timeouts)
                .await;
        }
        let is_due = if is_fresh {
            self.settings.is_early(reader.entry(), self.now())
        } else {
            self.settings.on_stale == OnStale::ServeAndReload
        };
        if is_due && !self.throttle.is_on(key, || self.monotonic()) {
            self.start_stream_in_background(key, completions, loader, plan);
        }
        Ok(self.serve_body(key, reader, if is_fresh { AnswerKind::Hit } else { AnswerKind::Stale }))
    }

    /// What a layer has, if it answers in time. A failure is a miss.
    async fn body_soon(
        &self,
        key: &CacheKey,
        options: ReadOptions,
        timeouts: &mut Timeouts,
    ) -> Option<Reader> {
        let look = Box::pin(internal::open_reader(&*self.backend, key, &options));
        match timeouts.look.bound(look).await {
            Ok(Ok(reader)) => reader,
            Ok(Err(error)) => {
                self.read_failed(key, &error);
                None
            }
            Err(_) => {
                count(&self.events.counts.read_errors);
                None
            }
        }
    }

    fn serve_body(&self, key: &CacheKey, reader: Reader, kind: AnswerKind) -> Response<Body> {
        match kind {
            AnswerKind::Hit => self.tell_hit(key, reader.freshness()),
            AnswerKind::Loaded | AnswerKind::Coalesced => {}
            _ => {
                count(&self.events.counts.stale_served);
                self.events.tell(|| CacheEvent::StaleServed { key });
            }
        }
        let outcome = Outcome::new(kind, reader.entry().lifetime().expire());
        let outcome = outcome.with_source(ResponseSource::Backend(reader.label()));
        let details = reader.entry().shared_details();
        Response::new(Body::from(reader), outcome).with(details)
    }

    /// What may be served since a load has failed, or has failed just now.
    async fn older_body(
        &self,
        key: &CacheKey,
        known: Option<Reader>,
        timeouts: &mut Timeouts,
    ) -> Option<Reader> {
        match known {
            Some(known) => Some(known),
            None => self.body_soon(key, READ_AGAIN.accepting(self.oldest_fallback()), timeouts).await,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the state of one call, taken apart")]
    async fn load_stream(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        mut older: Option<Reader>,
        flights: &Arc<Flights<StreamStart>>,
        mut completions: u64,
        loader: StreamLoader,
        plan: LoadPlan,
        mut timeouts: Timeouts,
    ) -> Answer {
        if self.throttle.is_on(key, || self.monotonic()) {
            older = self.older_body(key, older, &mut timeouts).await;
            if let Some(older) = older {
                return Ok(self.serve_body(key, older, AnswerKind::StaleOnError));
            }
        }
        let (mut load, mut has_waited) = (Some((loader, plan)), false);
        loop {
            let permit = || self.backend.layout().load_permit(key);
            let role = flights.join(key, self.last_invalidation(), Joins::Any, permit);
            let reader = LeadersReader::default();
            let (waiting, mut inline, is_leader) = match role {
                Role::Waiter(_) if call.mode == Mode::Lead => {
                    return Err(LoadError::new(LoadErrorKind::Declined, key));
                }
                Role::Waiter(waiting) => {
                    if !std::mem::replace(&mut has_waited, true) {
                        count(&self.events.counts.coalesced);
                    }
                    (waiting, None, false)
                }
                Role::Leader(completion, waiting) => {
                    // A body may have been stored since this call looked.
                    let has_looked = matches!(call.mode, Mode::Normal | Mode::Looked(_));
                    if has_looked && flights.completions(key) != completions {
                        completions = flights.completions(key);
                        let found = self.body_soon(key, READ_AGAIN, &mut timeouts).await;
                        if let Some(found) = found.filter(|found| found.freshness() == Freshness::Fresh) {
                            return Ok(self.serve_body(key, found, AnswerKind::Hit));
                        }
                    }
                    let Some((loader, plan)) = load.take() else {
                        return Err(LoadError::new(LoadErrorKind::Cancelled, key));
                    };
                    let inline = self.start_stream(completion, key, loader, plan, Some(reader.clone()));
                    (waiting, inline, true)
                }
            };
            // Held while this call waits.
            let edge =
                cycle::wait_for(waiting.flight.id, key).map_err(|keys| LoadError::of_cycle(key, &keys))?;
            let came = self
                .wait_for_body(flights, key, &mut timeouts, &mut older, &waiting, &mut inline, is_leader)
                .await;
            drop(edge);
            match came {
                Came::Began(started) if self.may_follow(key, &waiting, &started, load.is_none()) => {
                    let own = reader.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let reader = own.unwrap_or_else(|| started.follower.again());
                    let Started { expires, details, .. } = started;
                    let kind = match call.mode {
                        Mode::Bypass => AnswerKind::Bypassed,
                        _ if is_leader => AnswerKind::Loaded,
                        _ => AnswerKind::Coalesced,
                    };
                    let offload = self.offload.clone();
                    let loaded =
                        LoadedReader { reader: Box::new(reader), inline, offload, _waiting: waiting };
                    let body = Body::from(Box::new(loaded) as Reader);
                    return Ok(Response::new(body, Outcome::new(kind, expires)).with(details));
                }
                Came::Began(_) => flights.leave(key, &waiting.flight),
                Came::Failed(error) => {
                    if is_leader && let Some(panic) = waiting.flight.take_panic() {
                        std::panic::resume_unwind(panic);
                    }
                    let is_answer = matches!(error.kind(), LoadErrorKind::Absent | LoadErrorKind::Declined);
                    if is_answer || call.mode == Mode::Bypass {
                        return Err(error);
                    }
                    if error.kind() == LoadErrorKind::NothingToKeep {
                        // It was not modified: what is stored is the answer.
                        let kept = self.body_soon(key, READ_AGAIN, &mut timeouts).await.ok_or(error)?;
                        let kind = if is_leader { AnswerKind::Loaded } else { AnswerKind::Coalesced };
                        return Ok(self.serve_body(key, kept, kind));
                    }
                    let Some(older) = self.older_body(key, older, &mut timeouts).await else {
                        return Err(error);
                    };
                    let now = self.monotonic();
                    self.throttle.until(key, now, now.saturating_add(self.settings.throttle));
                    return Ok(self.serve_body(key, older, AnswerKind::StaleOnError));
                }
                Came::Abandoned if load.is_some() => {}
                Came::Abandoned => return Err(LoadError::new(LoadErrorKind::Cancelled, key)),
                Came::Older(older) => return Ok(self.serve_body(key, older, AnswerKind::StaleOnTimeout)),
                Came::TimedOut => return Err(self.timed_out(key)),
            }
        }
    }

    /// Whether a call may have a body that it has waited for: not if the body came after an invalidation of what it carries; nor, if
    /// there is a choice, if it has failed already.
    fn may_follow(
        &self,
        key: &CacheKey,
        waiting: &Waiting<StreamStart>,
        started: &Started,
        has_no_choice: bool,
    ) -> bool {
        let scopes = started.details.as_ref().map_or(&[][..], |details| &details.scopes);
        let layout = self.backend.layout();
        let is_outdated = waiting.is_late && layout.is_superseded(key, scopes, waiting.flight.permit());
        has_no_choice || !(is_outdated || started.follower.is_aborted())
    }

    /// Waits until a body begins, at most as long as this call may. Meanwhile it performs the load, if that is this call's to do.
    #[expect(clippy::too_many_arguments, reason = "the state of one call, taken apart")]
    async fn wait_for_body(
        &self,
        flights: &Flights<StreamStart>,
        key: &CacheKey,
        timeouts: &mut Timeouts,
        older: &mut Option<Reader>,
        waiting: &Waiting<StreamStart>,
        inline: &mut Option<Inline<'static>>,
        is_leader: bool,
    ) -> Came {
        let flight = &waiting.flight;
        let mut ended = std::pin::pin!(waiting.ended());
        let mut began = std::pin::pin!(waiting.loaded());
        let mut stands_still = std::pin::pin!(flight.stands_still(&*self.clock));
        let mut is_patient = true;
        loop {
            tokio::select! {
                biased;
                start = &mut began => return start.map_or_else(Came::Failed, Came::Began),
                _ = &mut ended => return Came::Abandoned,
                () = result_of(inline) => *inline = None,
                () = &mut stands_still, if !is_leader => {
                    flights.leave(key, flight);
                    return Came::Abandoned;
                }
                () = timeouts.hard.over() => {
                    if self.settings.after_timeout == AfterTimeout::GoOn {
                        flight.go_on();
                        Inline::hand_over(inline, &*self.offload);
                    }
                    return older.take().map_or(Came::TimedOut, Came::Older);
                }
                () = timeouts.soft.over(), if is_patient => {
                    is_patient = false;
                    if !Inline::hand_over(inline, &*self.offload) {
                        continue;
                    }
                    if let Some(older) = older.take() {
                        flight.go_on();
                        return Came::Older(older);
                    }
                }
            }
        }
    }
}

/// A body that is being loaded.
struct LoadedReader {
    reader: Reader,
    /// The load, if there was no room for it in the background.
    inline: Option<Inline<'static>>,
    offload: Arc<dyn Offload>,
    /// The load goes on while somebody reads.
    _waiting: Waiting<StreamStart>,
}

impl Drop for LoadedReader {
    /// There may be room by now.
    fn drop(&mut self) {
        Inline::hand_over(&mut self.inline, &*self.offload);
    }
}

#[async_trait]
impl ReaderWrapper for LoadedReader {
    fn reader(&self) -> &dyn BodyReader {
        &*self.reader
    }

    fn reader_mut(&mut self) -> &mut dyn BodyReader {
        &mut *self.reader
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        loop {
            tokio::select! {
                biased;
                chunk = self.reader.chunk() => {
                    if matches!(chunk, Ok(None)) && self.inline.is_some() {
                        // Nobody else has it stored.
                        result_of(&mut self.inline).await;
                        self.inline = None;
                    }
                    return chunk;
                }
                () = result_of(&mut self.inline) => self.inline = None,
            }
        }
    }
}
