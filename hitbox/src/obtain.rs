//! The way of a call that has a loader: a copy, somebody else's load, or its own.

use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::{Backend, Cacheable, LeafSet, ReadOptions, claim};
use hitbox_core::{BoxFuture, CacheKey, Freshness};

use crate::call::{Call, Mode};
use crate::error::{LoadError, LoadErrorKind};
use crate::events::{CacheEvent, count};
use crate::flight::{Ended, Role, Waiting};
use crate::load::{Ahead, Delivered, End, Loader, Plan};
use crate::loaded::{Load, Payload};
use crate::outcome::{How, Outcome, Served};
use crate::settings::{AfterTimeout, OnStale};
use crate::shared::{Copy, Shared};

type Answer<V> = Result<Served<Option<V>>, LoadError>;

/// What a call has found before it asks for a load.
struct Before<V> {
    copy: Option<Copy<V>>,
    landings: u64,
}

/// What waiting for a flight has come to.
enum Attended<V> {
    Ended(Ended<End<V>>),
    /// It takes long, and there is an older copy.
    Instead(Copy<V>),
    TimedOut,
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// A value, by whatever way. With `absent` what is known to be absent is an answer too.
    pub(crate) async fn obtain<'l>(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        absent: bool,
        loader: impl FnOnce() -> Loader<'l, V> + Send,
    ) -> Answer<V>
    where
        B: 'l,
    {
        let landings = self.flights.landings(key);
        let first = match call.mode {
            Mode::Normal => self.try_look(key, &ReadOptions { absent, ..ReadOptions::NORMAL }),
            Mode::Reload | Mode::Bypass => Ok(None),
        };
        match first {
            Ok(Some(copy)) if self.is_plain_hit(&copy) => {
                self.tell_hit(key, copy.freshness);
                Ok(copy.served(How::Hit))
            }
            // Nothing of what follows is part of a plain hit's future.
            first => Box::pin(self.obtain_by_all_means(key, call, absent, landings, first, loader)).await,
        }
    }

    /// Whether there is nothing to do for a copy but to serve it.
    #[inline]
    fn is_plain_hit(&self, copy: &Copy<V>) -> bool {
        copy.freshness == Freshness::Fresh && self.settings.early.is_none() && copy.entry.details().is_none()
    }

    async fn obtain_by_all_means<'l>(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        absent: bool,
        landings: u64,
        first: Result<Option<Copy<V>>, LeafSet>,
        loader: impl FnOnce() -> Loader<'l, V> + Send,
    ) -> Answer<V>
    where
        B: 'l,
    {
        if call.mode == Mode::Bypass {
            return self.bypass(key, loader()).await;
        }
        let copy = match first {
            Ok(copy) => copy,
            Err(skip) => {
                self.look_if_possible(key, ReadOptions { skip, absent, ..ReadOptions::NORMAL }).await
            }
        };
        let Some(copy) = copy else {
            self.events.tell(|| CacheEvent::Miss { key });
            return self.obtain_by_load(key, call, Before { copy: None, landings }, absent, loader()).await;
        };
        self.touch(key, &copy);
        let ahead = |is_early| Some(Ahead { created: copy.entry.created(), leaf: copy.leaf, is_early });
        match copy.freshness {
            Freshness::Fresh => {
                if self.settings.is_early(&copy.entry, self.now())
                    && !self.throttle.is_on(key, self.clock.monotonic())
                    && let Loader::Detached(loader) = loader()
                {
                    self.start_in_background(key, landings, loader, Plan::of(call, ahead(true)));
                }
                self.tell_hit(key, copy.freshness);
                Ok(copy.served(How::Hit))
            }
            _ if self.settings.on_stale == OnStale::Serve => self.serve_stale(key, copy, How::Stale),
            _ if self.settings.on_stale == OnStale::ServeAndReload => match loader() {
                Loader::Detached(loader) => {
                    if !self.throttle.is_on(key, self.clock.monotonic()) {
                        self.start_in_background(key, landings, loader, Plan::of(call, ahead(false)));
                    }
                    self.serve_stale(key, copy, How::Stale)
                }
                loader => {
                    self.obtain_by_load(key, call, Before { copy: Some(copy), landings }, absent, loader)
                        .await
                }
            },
            _ => {
                self.obtain_by_load(key, call, Before { copy: Some(copy), landings }, absent, loader()).await
            }
        }
    }

    fn serve_stale(&self, key: &CacheKey, copy: Copy<V>, how: How) -> Answer<V> {
        count(&self.events.counts.stale_served);
        self.events.tell(|| CacheEvent::StaleServed { key });
        Ok(copy.served(how))
    }

    async fn obtain_by_load<'l>(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        before: Before<V>,
        absent: bool,
        loader: Loader<'l, V>,
    ) -> Answer<V>
    where
        B: 'l,
    {
        let Before { mut copy, mut landings } = before;
        if self.throttle.is_on(key, self.clock.monotonic()) {
            let older = match copy.take() {
                Some(copy) => Some(copy),
                None => self.fallback(key).await,
            };
            if let Some(older) = older {
                return self.serve_stale(key, older, How::StaleOnError);
            }
        }
        let mut loader = Some(loader);
        let mut has_followed = false;
        loop {
            let (waiting, inline, leads) =
                match self.flights.join(key, self.moment(key), || claim(&*self.backend, key)) {
                    Role::Follows(waiting) => {
                        if !std::mem::replace(&mut has_followed, true) {
                            count(&self.events.counts.coalesced);
                        }
                        (waiting, None, false)
                    }
                    Role::Leads(landing, waiting) => {
                        // A load may have been stored since this call looked.
                        if call.mode == Mode::Normal && self.flights.landings(key) != landings {
                            landings = self.flights.landings(key);
                            let options = ReadOptions { absent, ..ReadOptions::NORMAL };
                            if let Some(copy) = self.look_if_possible(key, options).await
                                && copy.freshness == Freshness::Fresh
                            {
                                landing.land(Ok(Delivered::of(&copy.entry)));
                                self.tell_hit(key, copy.freshness);
                                return Ok(copy.served(How::Hit));
                            }
                        }
                        let Some(loader) = loader.take() else {
                            return Err(LoadError::new(LoadErrorKind::Cancelled, key));
                        };
                        let ahead = copy.as_ref().map(|copy| Ahead {
                            created: copy.entry.created(),
                            leaf: copy.leaf,
                            is_early: false,
                        });
                        let plan = Plan::of(call, ahead);
                        (waiting, self.start(landing, key, loader, plan), true)
                    }
                };
            match self.attend(&waiting, inline, key, call).await {
                Attended::Ended(Ended::Landed(Ok(delivered))) => {
                    return Ok(self.delivered(key, delivered, leads));
                }
                Attended::Ended(Ended::Landed(Err(error))) => {
                    if leads && let Some(panic) = waiting.flight.take_panic() {
                        std::panic::resume_unwind(panic);
                    }
                    return Err(error);
                }
                Attended::Ended(Ended::Abandoned) if loader.is_some() => {}
                Attended::Ended(Ended::Abandoned) => {
                    return Err(LoadError::new(LoadErrorKind::Cancelled, key));
                }
                Attended::Instead(copy) => return self.serve_stale(key, copy, How::StaleOnTimeout),
                Attended::TimedOut => {
                    count(&self.events.counts.load_timeouts);
                    self.events.tell(|| CacheEvent::TimedOut { key });
                    return Err(LoadError::new(LoadErrorKind::TimedOut, key));
                }
            }
        }
    }

    fn delivered(&self, key: &CacheKey, delivered: Delivered<V>, leads: bool) -> Served<Option<V>> {
        let Delivered { value, expires, is_fallback, details } = delivered;
        let how = match (is_fallback, leads) {
            (true, _) => {
                count(&self.events.counts.stale_served);
                self.events.tell(|| CacheEvent::StaleServed { key });
                How::StaleOnError
            }
            (false, true) => How::Loaded,
            (false, false) => How::Coalesced,
        };
        Served::new(value, Outcome::of_source(how, expires)).with(details)
    }

    /// Waits for a flight, at most as long as this call may; performs the load meanwhile, if that is this call's to
    /// do.
    async fn attend(
        &self,
        waiting: &Waiting<End<V>>,
        inline: Option<BoxFuture<'_, ()>>,
        key: &CacheKey,
        call: &Call,
    ) -> Attended<V> {
        let soft = call.soft_timeout.or(self.settings.soft_timeout);
        let hard = call.hard_timeout.or(self.settings.hard_timeout);
        let mut soft = std::pin::pin!(self.after(soft));
        let mut hard = std::pin::pin!(self.after(hard));
        let mut is_impatient = true;
        let mut inline = inline;
        let mut ended = std::pin::pin!(waiting.ended());
        loop {
            tokio::select! {
                biased;
                end = &mut ended => return Attended::Ended(end),
                () = async { if let Some(work) = &mut inline { work.await } }, if inline.is_some() => inline = None,
                () = &mut hard => {
                    if self.settings.after_timeout == AfterTimeout::GoOn {
                        waiting.flight.go_on();
                    }
                    return Attended::TimedOut;
                }
                () = &mut soft, if is_impatient => {
                    is_impatient = false;
                    if let Some(copy) = self.fallback(key).await {
                        waiting.flight.go_on();
                        return Attended::Instead(copy);
                    }
                }
            }
        }
    }

    /// Ends after so long, or never.
    pub(crate) async fn after(&self, time: Option<Duration>) {
        match time {
            Some(time) => self.clock.sleep(time).await,
            None => std::future::pending().await,
        }
    }

    /// Past the cache: nothing is read, joined or stored.
    async fn bypass(self: &Arc<Self>, key: &CacheKey, loader: Loader<'_, V>) -> Answer<V> {
        let load = Load { key: key.clone(), previous: Arc::new(|| Box::pin(std::future::ready(None))) };
        count(&self.events.counts.loads);
        let loaded = match loader {
            Loader::Detached(loader) => loader(load).await,
            Loader::Scoped(loader) => loader(load).await,
        };
        let loaded = loaded.map_err(|error| LoadError::of_loader(key, error))?;
        let value = match loaded.payload {
            Payload::Value(value) => Some(value),
            Payload::Absent => None,
            Payload::NotModified => return Err(LoadError::new(LoadErrorKind::NothingToKeep, key)),
        };
        let details = loaded.remarks.details();
        Ok(Served::new(value, Outcome::of_source(How::Bypassed, None)).with(details))
    }
}
