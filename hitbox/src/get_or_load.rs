//! The way of a call that has a loader: a copy, somebody else's load, or its own.
//!
//! A layer that does not answer delays neither a timeout nor a loader: what it is asked is asked beside the load.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use hitbox_backend::internal::{self, Decoded};
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{BoxFuture, CacheKey, Freshness};

use crate::call::{Call, Mode};
use crate::cycle;
use crate::error::{LoadError, LoadErrorKind};
use crate::events::{CacheEvent, count};
use crate::flight::{Ended, Joins, Role, Waiting};
use crate::inline::{Inline, Patience};
use crate::lead::Lead;
use crate::load::{LoadEnd, LoadPlan, LoadResult, Loader, RefreshAhead};
use crate::response::{AnswerKind, Outcome, Response};
use crate::settings::{AfterTimeout, OnStale};
use crate::shared::{READ, READ_AGAIN, Shared, respond};
use crate::timeouts::{Timeouts, result_of};

/// What a call with a loader is answered with.
pub(crate) type Answer<V> = Result<Response<Option<V>>, LoadError>;

/// A read that goes on.
type Reading<'r, V> = BoxFuture<'r, Option<Decoded<V>>>;

/// What the first look of a call has come to.
struct Looked<'r, V> {
    copy: Option<Decoded<V>>,
    /// It takes longer than a load may wait for it.
    late: Option<Reading<'r, V>>,
    /// Flights that had ended before.
    completions: u64,
}

/// A call that waits.
struct Wait<'c, V: Cacheable> {
    key: &'c CacheKey,
    timeouts: Timeouts,
    /// An older copy that has been found.
    older: Option<Decoded<V>>,
    /// The first look, if it is still under way.
    late: Option<Reading<'c, V>>,
    /// A stale copy that comes late is served while it is reloaded.
    serves_stale: bool,
}

/// Why a load has failed. The panic of a loader is that of the call that leads it.
fn error_of<V: Clone>(error: LoadError, waiting: &Waiting<LoadEnd<V>>, is_leader: bool) -> LoadError {
    if is_leader && let Some(panic) = waiting.flight.take_panic() {
        std::panic::resume_unwind(panic);
    }
    error
}

/// What waiting for a flight has come to.
enum Waited<V> {
    Ended(Ended<LoadEnd<V>>),
    /// The first look has brought a copy after all.
    Found(Decoded<V>),
    /// It takes long, and there is an older copy.
    Older(Decoded<V>),
    TimedOut,
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// A value, by whatever way. With `absent` what is known to be absent is an answer too.
    pub(crate) async fn get_or_load<'l>(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        absent: bool,
        loader: impl FnOnce() -> Loader<'l, V> + Send,
    ) -> Answer<V>
    where
        B: 'l,
    {
        let completions = self.flights.completions(key);
        let first = match call.mode {
            Mode::Normal => internal::try_read(&*self.backend, key, &READ.with_absent(absent)),
            Mode::Looked(_) | Mode::Lead | Mode::Reload | Mode::Bypass => Ok(None),
        };
        match first {
            Ok(Some(copy)) if self.is_plain_hit(&copy) => {
                self.count_look(Some(copy.freshness));
                self.tell_hit(key, copy.freshness);
                Ok(respond(copy, AnswerKind::Hit))
            }
            first => match self.lead_at_once(key, call, completions, first, loader) {
                Ok(result) => Ok(self.loaded(key, result, true)),
                // Nothing of what follows is part of a plain hit's future.
                Err(lead) => Box::pin(self.get_or_load_slowly(key, call, absent, completions, lead)).await,
            },
        }
    }

    /// Whether there is nothing to do for a copy but to serve it.
    #[inline]
    fn is_plain_hit(&self, copy: &Decoded<V>) -> bool {
        copy.freshness == Freshness::Fresh && self.settings.early.is_none() && copy.entry.details().is_none()
    }

    async fn get_or_load_slowly<'l>(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        absent: bool,
        completions: u64,
        lead: Lead<'l, V, impl FnOnce() -> Loader<'l, V> + Send>,
    ) -> Answer<V>
    where
        B: 'l,
    {
        let (first, loader) = match lead {
            Lead::Open(first, loader) => (first, loader),
            Lead::Led(waiting, inline) => return self.wait_for_own(key, waiting, inline).await,
        };
        self.reconcile_if_dirty();
        let soft = call.soft_timeout.or(self.settings.soft_timeout);
        let hard = call.hard_timeout.or(self.settings.hard_timeout);
        let mut timeouts = Timeouts::start(&*self.clock, soft, hard);
        if call.mode == Mode::Bypass {
            return self.bypass(key, loader(), timeouts).await;
        }
        let (copy, late) = match first {
            Ok(copy) => (copy, None),
            Err(skip) => {
                let look: Reading<'_, V> =
                    Box::pin(self.read_if_possible(key, READ.with_absent(absent).skipping(skip)));
                match timeouts.look.bound(look).await {
                    Ok(copy) => (copy, None),
                    Err(late) => (None, Some(late)),
                }
            }
        };
        if call.mode == Mode::Normal {
            self.count_look(copy.as_ref().map(|copy| copy.freshness));
        }
        let looked = |copy| Looked { copy, late, completions };
        let Some(copy) = copy else {
            self.events.tell(|| CacheEvent::Miss { key });
            return self.load_and_wait(key, call, looked(None), absent, loader(), timeouts).await;
        };
        self.touch(key, &copy);
        let ahead = |is_early| Some(RefreshAhead::of(&copy, is_early));
        match copy.freshness {
            Freshness::Fresh => {
                if self.settings.is_early(&copy.entry, self.now())
                    && !self.throttle.is_on(key, || self.monotonic())
                    && let Loader::Detached(loader) = loader()
                {
                    self.start_in_background(key, completions, loader, LoadPlan::of(call, ahead(true)));
                }
                self.tell_hit(key, copy.freshness);
                Ok(respond(copy, AnswerKind::Hit))
            }
            _ if self.settings.on_stale == OnStale::Serve => self.serve_stale(key, copy, AnswerKind::Stale),
            _ if self.settings.on_stale == OnStale::ServeAndReload => match loader() {
                Loader::Detached(loader) => {
                    if !self.throttle.is_on(key, || self.monotonic()) {
                        self.start_in_background(key, completions, loader, LoadPlan::of(call, ahead(false)));
                    }
                    self.serve_stale(key, copy, AnswerKind::Stale)
                }
                loader => self.load_and_wait(key, call, looked(Some(copy)), absent, loader, timeouts).await,
            },
            _ => self.load_and_wait(key, call, looked(Some(copy)), absent, loader(), timeouts).await,
        }
    }

    /// Waits for the load that this call leads, as long as it takes.
    async fn wait_for_own(
        &self,
        key: &CacheKey,
        waiting: Waiting<LoadEnd<V>>,
        inline: Option<Inline<'_>>,
    ) -> Answer<V> {
        let timeouts = Timeouts::start(&*self.clock, None, None);
        let mut wait = Wait { key, timeouts, older: None, late: None, serves_stale: false };
        match self.wait(&mut wait, &waiting, inline, true).await {
            Waited::Ended(Ended::Complete(Ok(result))) => Ok(self.loaded(key, result, true)),
            Waited::Ended(Ended::Complete(Err(error))) => Err(error_of(error, &waiting, true)),
            _ => Err(LoadError::new(LoadErrorKind::Cancelled, key)),
        }
    }

    fn serve_stale(&self, key: &CacheKey, copy: Decoded<V>, kind: AnswerKind) -> Answer<V> {
        count(&self.events.counts.stale_served);
        self.events.tell(|| CacheEvent::StaleServed { key });
        Ok(respond(copy, kind))
    }

    fn serve_fresh(&self, key: &CacheKey, copy: Decoded<V>) -> Answer<V> {
        self.tell_hit(key, copy.freshness);
        Ok(respond(copy, AnswerKind::Hit))
    }

    async fn load_and_wait<'c, 'l>(
        self: &'c Arc<Self>,
        key: &'c CacheKey,
        call: &'c Call,
        looked: Looked<'c, V>,
        absent: bool,
        loader: Loader<'l, V>,
        mut timeouts: Timeouts,
    ) -> Answer<V>
    where
        B: 'l,
    {
        let Looked { copy, late, mut completions } = looked;
        let mut ahead = copy.as_ref().map(|copy| RefreshAhead::of(copy, false));
        let mut older = copy;
        if self.throttle.is_on(key, || self.monotonic()) {
            if older.is_none() {
                older = timeouts.look.bound(Box::pin(self.fallback(key))).await.unwrap_or(None);
            }
            if let Some(older) = older {
                return self.serve_stale(key, older, AnswerKind::StaleOnError);
            }
        }
        let on_stale = self.settings.on_stale;
        let is_detached = matches!(loader, Loader::Detached(_));
        let serves_stale = on_stale == OnStale::Serve || (on_stale == OnStale::ServeAndReload && is_detached);
        let is_unknown = late.is_some();
        let mut wait = Wait { key, timeouts, older, late, serves_stale };
        let mut loader = Some(loader);
        let mut has_waited = false;
        loop {
            let permit = || self.backend.layout().load_permit(key);
            let role = self.flights.join(key, self.last_invalidation(), Joins::Any, permit);
            let (waiting, inline, is_leader) = match role {
                Role::Waiter(waiting) => {
                    if !std::mem::replace(&mut has_waited, true) {
                        count(&self.events.counts.coalesced);
                    }
                    (waiting, None, false)
                }
                Role::Leader(completion, waiting) => {
                    if !is_detached {
                        waiting.flight.set_within_call();
                    }
                    // A load may have been stored since this call looked.
                    if call.mode == Mode::Normal && self.flights.completions(key) != completions {
                        completions = self.flights.completions(key);
                        let look = Box::pin(self.read_if_possible(key, READ_AGAIN.with_absent(absent)));
                        if let Ok(Some(copy)) = wait.timeouts.look.bound(look).await
                            && copy.freshness == Freshness::Fresh
                        {
                            completion.complete(Ok(LoadResult::of(&copy.entry)));
                            return self.serve_fresh(key, copy);
                        }
                    }
                    let Some(loader) = loader.take() else {
                        return Err(LoadError::new(LoadErrorKind::Cancelled, key));
                    };
                    let mut plan = LoadPlan::of(call, ahead.take());
                    plan.may_replace |= is_unknown;
                    let inline = self.start(completion, key, loader, plan, false);
                    (waiting, inline, true)
                }
            };
            // Held while this call waits.
            let _edge =
                cycle::wait_for(waiting.flight.id, key).map_err(|keys| LoadError::of_cycle(key, &keys))?;
            match self.wait(&mut wait, &waiting, inline, is_leader).await {
                Waited::Ended(Ended::Complete(Ok(result))) if self.may_take(key, &waiting, &result) => {
                    return Ok(self.loaded(key, result, is_leader));
                }
                Waited::Ended(Ended::Complete(Ok(_))) => self.flights.leave(key, &waiting.flight),
                Waited::Ended(Ended::Complete(Err(error))) => {
                    return Err(error_of(error, &waiting, is_leader));
                }
                Waited::Ended(Ended::Abandoned) if loader.is_some() => {}
                Waited::Ended(Ended::Abandoned) => {
                    return Err(LoadError::new(LoadErrorKind::Cancelled, key));
                }
                Waited::Found(copy) => {
                    self.touch(key, &copy);
                    return match copy.freshness {
                        Freshness::Fresh => self.serve_fresh(key, copy),
                        _ => self.serve_stale(key, copy, AnswerKind::Stale),
                    };
                }
                Waited::Older(copy) => return self.serve_stale(key, copy, AnswerKind::StaleOnTimeout),
                Waited::TimedOut => return Err(self.timed_out(key)),
            }
        }
    }

    /// Whether a call may have what a load has brought that it has waited for: not if it came after an invalidation of what
    /// that carries.
    pub(crate) fn may_take(
        &self,
        key: &CacheKey,
        waiting: &Waiting<LoadEnd<V>>,
        result: &LoadResult<V>,
    ) -> bool {
        let scopes = result.details.as_ref().map_or(&[][..], |details| &details.scopes);
        !waiting.is_late || !self.backend.layout().is_superseded(key, scopes, waiting.flight.permit())
    }

    pub(crate) fn timed_out(&self, key: &CacheKey) -> LoadError {
        count(&self.events.counts.load_timeouts);
        self.events.tell(|| CacheEvent::TimedOut { key });
        LoadError::new(LoadErrorKind::TimedOut, key)
    }

    fn loaded(&self, key: &CacheKey, result: LoadResult<V>, is_leader: bool) -> Response<Option<V>> {
        let LoadResult { value, expires, is_fallback, details } = result;
        let kind = match (is_fallback, is_leader) {
            (true, _) => {
                count(&self.events.counts.stale_served);
                self.events.tell(|| CacheEvent::StaleServed { key });
                AnswerKind::StaleOnError
            }
            (false, true) => AnswerKind::Loaded,
            (false, false) => AnswerKind::Coalesced,
        };
        Response::new(value, Outcome::new(kind, expires)).with(details)
    }

    /// Waits for a flight, at most as long as this call may. Meanwhile it performs the load, if that is this call's to
    /// do, and reads what may be served instead.
    async fn wait(
        &self,
        wait: &mut Wait<'_, V>,
        waiting: &Waiting<LoadEnd<V>>,
        mut inline: Option<Inline<'_>>,
        is_leader: bool,
    ) -> Waited<V> {
        let Wait { key, timeouts: Timeouts { soft, hard, .. }, older, late, .. } = wait;
        let flight = &waiting.flight;
        let mut ended = std::pin::pin!(waiting.ended());
        let mut loaded = std::pin::pin!(waiting.loaded());
        let mut stands_still = std::pin::pin!(flight.stands_still(&*self.clock));
        let mut fallback: Option<Reading<'_, V>> = None;
        let mut patience = Patience::Soft;
        loop {
            tokio::select! {
                biased;
                end = &mut ended => return Waited::Ended(end),
                () = result_of(&mut inline) => inline = None,
                // A layer that takes long to store it is not waited for.
                result = &mut loaded, if patience == Patience::Over => {
                    flight.go_on();
                    Inline::hand_over(&mut inline, &*self.offload);
                    return Waited::Ended(Ended::Complete(result));
                }
                copy = result_of(late) => {
                    *late = None;
                    match copy {
                        Some(copy) if copy.freshness == Freshness::Fresh || wait.serves_stale => {
                            let is_stale = copy.freshness != Freshness::Fresh;
                            if is_stale && self.settings.on_stale == OnStale::ServeAndReload {
                                flight.go_on();
                                if !Inline::hand_over(&mut inline, &*self.offload) {
                                    *older = Some(copy);
                                    continue;
                                }
                            }
                            return Waited::Found(copy);
                        }
                        Some(copy) if patience == Patience::Over => {
                            flight.go_on();
                            return Waited::Older(copy);
                        }
                        copy => *older = copy,
                    }
                }
                copy = result_of(&mut fallback) => {
                    fallback = None;
                    match copy {
                        Some(copy) if patience == Patience::Over => {
                            flight.go_on();
                            return Waited::Older(copy);
                        }
                        copy => *older = copy.or(older.take()),
                    }
                }
                () = &mut stands_still, if !is_leader => {
                    self.flights.leave(key, flight);
                    return Waited::Ended(Ended::Abandoned);
                }
                () = hard.over() => {
                    if let Some(result) = flight.result() {
                        flight.go_on();
                        return Waited::Ended(Ended::Complete(result));
                    }
                    if self.settings.after_timeout == AfterTimeout::GoOn {
                        flight.go_on();
                        Inline::hand_over(&mut inline, &*self.offload);
                    }
                    // It would have been served at the soft timeout.
                    let copy = older.take().filter(|older| self.is_fallback(older));
                    return match copy.filter(|_| patience == Patience::Hard) {
                        Some(copy) => Waited::Older(copy),
                        None => Waited::TimedOut,
                    };
                }
                () = soft.over(), if patience == Patience::Soft => {
                    patience = Patience::Over;
                    if flight.result().is_some() {
                        continue;
                    }
                    if !Inline::hand_over(&mut inline, &*self.offload) {
                        patience = Patience::Hard;
                    }
                    let mut read = Box::pin(self.read(key, READ_AGAIN.accepting(self.oldest_fallback())));
                    let copy = match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
                        Poll::Ready(Ok(copy)) => copy,
                        // Nobody says that there is none any more.
                        Poll::Ready(Err(error)) => {
                            self.read_failed(key, &error);
                            older.take().filter(|older| self.is_fallback(older))
                        }
                        Poll::Pending => {
                            let known = older.take().filter(|older| self.is_fallback(older));
                            if known.is_none() {
                                fallback = Some(Box::pin(async { self.if_possible(key, read.await) }));
                            }
                            known
                        }
                    };
                    match copy {
                        Some(copy) if patience == Patience::Over => {
                            flight.go_on();
                            return Waited::Older(copy);
                        }
                        copy => *older = copy,
                    }
                }
            }
        }
    }
}
