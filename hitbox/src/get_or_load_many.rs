//! The way of a call that has one loader for several keys.
//!
//! As with a single key, a layer that does not answer delays neither a timeout nor the loader.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use hitbox_backend::internal::{self, Decoded};
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{BackendResult, BoxFuture, CacheKey, Freshness, Task, TaskKind};

use crate::batch::Batch;
use crate::cache::Cache;
use crate::cycle;
use crate::entry_options::EntryOptions;
use crate::error::{BoxError, LoadError, LoadErrorKind};
use crate::events::{CacheEvent, count};
use crate::flight::{Ended, Flight, Joins, LoadCompletion, Role, Waiting};
use crate::inline::Inline;
use crate::key::ToKey;
use crate::load::{LoadEnd, LoadPlan, LoadResult, RefreshAhead};
use crate::settings::{AfterTimeout, LifetimeOverride, OnStale};
use crate::shared::{READ, READ_AGAIN, Shared};
use crate::timeouts::{Timeouts, result_of};

/// What a read of all keys has come to, in their order.
type Copies<V> = Vec<BackendResult<Option<Decoded<V>>>>;

/// A flight that the call leads, for what reason if there is a copy.
struct Led<'k, V: Cacheable> {
    key: &'k CacheKey,
    completion: LoadCompletion<LoadEnd<V>>,
    ahead: Option<RefreshAhead>,
}

/// A flight that the call waits for.
struct Pending<V: Cacheable> {
    waiting: Arc<Waiting<LoadEnd<V>>>,
    is_leader: bool,
}

/// The values that were asked for, by the keys that the layers know.
struct Values<K, V: Cacheable> {
    keys: HashMap<CacheKey, K>,
    found: HashMap<K, V>,
    pending: HashMap<CacheKey, Pending<V>>,
}

impl<K: Eq + Hash + Clone, V: Cacheable> Values<K, V> {
    fn put(&mut self, key: &CacheKey, value: Option<V>) {
        self.pending.remove(key);
        if let (Some(name), Some(value)) = (self.keys.get(key), value) {
            self.found.insert(name.clone(), value);
        }
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Cache<V, B> {
    /// The values under some keys; those that no layer has are loaded by one call of the loader, which is given their
    /// keys. Keys that are being loaded already are waited for, not loaded again. A key that the loader leaves out is
    /// absent, and missing in the result.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), hitbox::LoadError> {
    /// # use std::collections::HashMap;
    /// # let users: hitbox::Cache<String> = hitbox::Cache::null();
    /// # async fn load_users(ids: Vec<u64>) -> Result<HashMap<u64, String>, std::io::Error> {
    /// #     Ok(ids.into_iter().map(|id| (id, format!("user {id}"))).collect())
    /// # }
    /// let found = users.get_or_load_many([1, 2, 3], load_users).await?;
    /// assert_eq!(found[&2], "user 2");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The first error of any load that it waited for; what others brought is stored nevertheless. The cache's timeouts
    /// hold for the whole call.
    ///
    /// # Cancellation
    /// The batch that was begun goes on.
    pub async fn get_or_load_many<K, L, F, M, E>(
        &self,
        keys: impl IntoIterator<Item = K>,
        loader: L,
    ) -> Result<HashMap<K, V>, LoadError>
    where
        K: ToKey + Eq + Hash + Clone + 'static,
        L: FnOnce(Vec<K>) -> F + Send + 'static,
        F: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, V)>,
        E: Into<BoxError>,
    {
        let shared = &self.shared;
        let (soft, hard) = (shared.settings.soft_timeout, shared.settings.hard_timeout);
        let mut timeouts = Timeouts::start(&*shared.clock, soft, hard);
        let keys: HashMap<CacheKey, K> =
            keys.into_iter().map(|key| (self.key(&key).into_owned(), key)).collect();
        let asked: Vec<CacheKey> = keys.keys().cloned().collect();
        let completions: Vec<u64> = asked.iter().map(|key| shared.flights.completions(key)).collect();
        let mut values = Values { keys, found: HashMap::with_capacity(asked.len()), pending: HashMap::new() };
        let absent = shared.settings.absent.is_some();
        let look: BoxFuture<'_, Copies<V>> = Box::pin(shared.read_many(&asked, READ.with_absent(absent)));
        let (copies, mut late) = match timeouts.look.bound(look).await {
            Ok(copies) => (copies, None),
            Err(late) => (asked.iter().map(|_| Ok(None)).collect(), Some(late)),
        };
        let (mut open, mut behind) = (Vec::new(), Vec::new());
        for ((key, completions), copy) in asked.iter().zip(completions).zip(copies) {
            match shared.if_possible(key, copy) {
                // What is known to be absent is left out.
                Some(copy) if copy.freshness == Freshness::Fresh => {
                    behind.extend(shared.begin_early(key, &copy, completions));
                    values.put(key, copy.entry.into_data());
                }
                Some(copy) if shared.settings.on_stale != OnStale::Reload => {
                    behind.extend(shared.begin_reload(key, &copy));
                    shared.put_stale(&mut values, key, copy);
                }
                copy => match shared.instead_of_load(key, copy, &mut timeouts).await {
                    Some(older) => shared.put_stale(&mut values, key, older),
                    None => open.push((key, completions)),
                },
            }
        }
        let mut loader = Some(loader);
        while !open.is_empty() || !behind.is_empty() {
            // A load that runs within somebody's call may be left, and then the loader is needed, which can be used once.
            open = shared.join_within_calls(open, &mut values);
            if !values.pending.is_empty() {
                let left = shared.wait_for_all(&asked, &mut values, None, late.take(), &mut timeouts).await?;
                let is_left = |key: &&CacheKey| left.contains(*key);
                open.extend(asked.iter().filter(is_left).map(|key| (key, shared.flights.completions(key))));
                continue;
            }
            let led = shared.join_all(open, &mut values);
            let led = shared.loaded_since(led, &mut values, &mut timeouts).await;
            let led: Vec<_> = led.into_iter().chain(behind.drain(..)).collect();
            let inline = match (led.first(), loader.take()) {
                (None, unused) => {
                    loader = unused;
                    None
                }
                (Some(_), Some(loader)) => shared.load_together(led, &values.keys, loader),
                // It has been used for the other keys.
                (Some(led), None) => return Err(LoadError::new(LoadErrorKind::Cancelled, led.key)),
            };
            let left = shared.wait_for_all(&asked, &mut values, inline, late.take(), &mut timeouts).await?;
            let is_left = |key: &&CacheKey| left.contains(*key);
            open = asked.iter().filter(is_left).map(|key| (key, shared.flights.completions(key))).collect();
        }
        Ok(values.found)
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    fn put_stale<K: Eq + Hash + Clone>(&self, values: &mut Values<K, V>, key: &CacheKey, copy: Decoded<V>) {
        count(&self.events.counts.stale_served);
        self.events.tell(|| CacheEvent::StaleServed { key });
        values.put(key, copy.entry.into_data());
    }

    /// The right to reload a key in the background whose stale copy is served, unless that is under way or has just failed.
    fn begin_reload<'k>(self: &Arc<Self>, key: &'k CacheKey, copy: &Decoded<V>) -> Option<Led<'k, V>> {
        let is_wanted = self.settings.on_stale == OnStale::ServeAndReload;
        self.lead_behind(key, copy, is_wanted, false)
    }

    /// The right to reload a key ahead of need whose copy is fresh still, unless that has been done.
    fn begin_early<'k>(
        self: &Arc<Self>,
        key: &'k CacheKey,
        copy: &Decoded<V>,
        completions: u64,
    ) -> Option<Led<'k, V>> {
        let is_wanted = self.settings.is_early(&copy.entry, self.now());
        let led = self.lead_behind(key, copy, is_wanted, true)?;
        // The copy may be of yesterday.
        (self.flights.completions(key) == completions).then_some(led)
    }

    fn lead_behind<'k>(
        self: &Arc<Self>,
        key: &'k CacheKey,
        copy: &Decoded<V>,
        is_wanted: bool,
        is_early: bool,
    ) -> Option<Led<'k, V>> {
        if !is_wanted || self.throttle.is_on(key, || self.monotonic()) {
            return None;
        }
        let permit = || self.backend.layout().load_permit(key);
        let completion = self.flights.lead_unless_under_way(key, self.last_invalidation(), permit)?;
        Some(Led { key, completion, ahead: Some(RefreshAhead::of(copy, is_early)) })
    }

    /// Joins flights that run within somebody's call. Says which keys are left.
    fn join_within_calls<'k, K: Eq + Hash + Clone>(
        &self,
        open: Vec<(&'k CacheKey, u64)>,
        values: &mut Values<K, V>,
    ) -> Vec<(&'k CacheKey, u64)> {
        let mut left = Vec::with_capacity(open.len());
        for (key, completions) in open {
            match self.flights.join_within_call(key, self.last_invalidation()) {
                Some(waiting) => {
                    count(&self.events.counts.coalesced);
                    let waiting = Arc::new(waiting);
                    values.pending.insert(key.clone(), Pending { waiting, is_leader: false });
                }
                None => left.push((key, completions)),
            }
        }
        left
    }

    /// The older copy that is served since a load has failed just now.
    async fn instead_of_load(
        &self,
        key: &CacheKey,
        copy: Option<Decoded<V>>,
        timeouts: &mut Timeouts,
    ) -> Option<Decoded<V>> {
        if !self.throttle.is_on(key, || self.monotonic()) {
            return None;
        }
        match copy {
            Some(copy) => Some(copy),
            None => timeouts.look.bound(Box::pin(self.fallback(key))).await.unwrap_or(None),
        }
    }

    /// Joins or leads the flights of these keys. Says which it leads.
    fn join_all<'k, K: Eq + Hash + Clone>(
        self: &Arc<Self>,
        open: Vec<(&'k CacheKey, u64)>,
        values: &mut Values<K, V>,
    ) -> Vec<(&'k CacheKey, LoadCompletion<LoadEnd<V>>, u64)> {
        let mut led = Vec::new();
        for (key, completions) in open {
            let permit = || self.backend.layout().load_permit(key);
            // The loader is called once: a flight that may turn out to be of no use is not joined.
            let role = self.flights.join(key, self.last_invalidation(), Joins::InTime, permit);
            let (waiting, is_leader) = match role {
                Role::Waiter(waiting) => {
                    count(&self.events.counts.coalesced);
                    (waiting, false)
                }
                Role::Leader(completion, waiting) => {
                    led.push((key, completion, completions));
                    (waiting, true)
                }
            };
            values.pending.insert(key.clone(), Pending { waiting: Arc::new(waiting), is_leader });
        }
        led
    }

    /// Completes those of the flights whose value has been stored since the batch was read. The others are to be loaded.
    async fn loaded_since<'k, K: Eq + Hash + Clone>(
        self: &Arc<Self>,
        led: Vec<(&'k CacheKey, LoadCompletion<LoadEnd<V>>, u64)>,
        values: &mut Values<K, V>,
        timeouts: &mut Timeouts,
    ) -> Vec<Led<'k, V>> {
        let mut open = Vec::with_capacity(led.len());
        for (key, completion, completions) in led {
            if self.flights.completions(key) != completions
                && let Ok(Some(copy)) =
                    timeouts.look.bound(Box::pin(self.read_if_possible(key, READ_AGAIN))).await
                && copy.entry.data().is_some()
            {
                completion.complete(Ok(LoadResult::of(&copy.entry)));
                values.put(key, copy.entry.into_data());
            } else {
                open.push(Led { key, completion, ahead: None });
            }
        }
        open
    }

    /// One call of a loader for several flights. Each of them then goes the way of a single load, with its part of
    /// what was brought. They run together in the background; if there is no room they are returned, to run within the call.
    fn load_together<K, L, F, M, E>(
        self: &Arc<Self>,
        led: Vec<Led<'_, V>>,
        names: &HashMap<CacheKey, K>,
        loader: L,
    ) -> Option<Inline<'static>>
    where
        K: ToKey + Eq + Hash + Clone + 'static,
        L: FnOnce(Vec<K>) -> F + Send + 'static,
        F: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, V)>,
        E: Into<BoxError>,
    {
        let first = led.first()?.key.clone();
        let keys: Vec<K> = led.iter().filter_map(|led| names.get(led.key).cloned()).collect();
        let batch = Batch::new(first, keys, loader);
        let (mut parts, mut flights) = (Vec::with_capacity(led.len()), Vec::with_capacity(led.len()));
        for Led { key, completion, ahead } in led {
            let Some(name) = names.get(key).cloned() else { continue };
            completion.flight.go_on();
            flights.push(completion.flight.clone());
            let (lifetime, options) = (LifetimeOverride::NONE, EntryOptions::NONE);
            let plan = LoadPlan { lifetime, options, ahead, may_replace: false, bypasses: false };
            parts.push(self.work(completion, key, batch.part(key.clone(), name), plan));
        }
        let all = join_all(parts);
        let task = Task::new(TaskKind::LOAD, async move { drop(all.await) }).interactive();
        let refused = self.offload.register(task).err()?;
        Some(Inline::Owned(Flight::run_all_within_call(flights, refused.task.work)))
    }

    /// Waits for all flights, at most as long as the call may. Meanwhile it performs the loads that are this call's to
    /// do, and reads what may be served instead. Says whose leader went away.
    async fn wait_for_all<K: Eq + Hash + Clone>(
        self: &Arc<Self>,
        asked: &[CacheKey],
        values: &mut Values<K, V>,
        mut inline: Option<Inline<'_>>,
        mut late: Option<BoxFuture<'_, Copies<V>>>,
        timeouts: &mut Timeouts,
    ) -> Result<Vec<CacheKey>, LoadError> {
        let mut left = Vec::new();
        let mut ends: FuturesUnordered<_> = FuturesUnordered::new();
        // Held while this call waits.
        let mut edges = Vec::new();
        for (key, Pending { waiting, is_leader }) in &values.pending {
            let edge = cycle::wait_for(waiting.flight.id, key);
            edges.push(edge.map_err(|keys| LoadError::of_cycle(key, &keys))?);
            let (key, waiting, is_leader) = (key.clone(), waiting.clone(), *is_leader);
            ends.push(async move {
                if is_leader {
                    return (key, waiting.ended().await);
                }
                let stands_still = pin!(waiting.flight.stands_still(&*self.clock));
                let end = match select(pin!(waiting.ended()), stands_still).await {
                    Either::Left((end, _)) => end,
                    // Its caller has left it lying.
                    Either::Right(_) => {
                        self.flights.leave(&key, &waiting.flight);
                        Ended::Abandoned
                    }
                };
                (key, end)
            });
        }
        let mut fallback: Option<BoxFuture<'_, (Vec<CacheKey>, Copies<V>)>> = None;
        let mut is_patient = true;
        while !values.pending.is_empty() {
            tokio::select! {
                biased;
                Some((key, end)) = ends.next() => {
                    let Some(Pending { waiting, is_leader }) = values.pending.remove(&key) else { continue };
                    match end {
                        Ended::Complete(Ok(result)) => values.put(&key, result.value),
                        Ended::Complete(Err(error)) => {
                            if is_leader && let Some(panic) = waiting.flight.take_panic() {
                                std::panic::resume_unwind(panic);
                            }
                            return Err(error);
                        }
                        Ended::Abandoned => left.push(key),
                    }
                }
                () = result_of(&mut inline) => inline = None,
                copies = result_of(&mut late) => {
                    late = None;
                    self.put_copies(values, asked, copies, !is_patient);
                }
                (keys, copies) = result_of(&mut fallback) => {
                    fallback = None;
                    self.put_copies(values, &keys, copies, true);
                }
                () = timeouts.hard.over() => {
                    self.put_results(values)?;
                    let Some((key, _)) = values.pending.iter().next() else { break };
                    let error = self.timed_out(key);
                    if self.settings.after_timeout == AfterTimeout::GoOn {
                        values.pending.values().for_each(|pending| pending.waiting.flight.go_on());
                        Inline::hand_over(&mut inline, &*self.offload);
                    }
                    return Err(error);
                }
                () = timeouts.soft.over(), if is_patient => {
                    is_patient = false;
                    Inline::hand_over(&mut inline, &*self.offload);
                    self.put_results(values)?;
                    let keys: Vec<CacheKey> = values.pending.keys().cloned().collect();
                    let options = READ_AGAIN.accepting(self.oldest_fallback());
                    fallback = Some(Box::pin(async move {
                        let copies = internal::read_many(&*self.backend, &keys, &options).await;
                        (keys, copies)
                    }));
                }
            }
        }
        // All have been answered with older copies, or with what is not stored yet.
        if !Inline::hand_over(&mut inline, &*self.offload) {
            select(pin!(result_of(&mut inline)), pin!(timeouts.hard.over())).await;
        }
        Ok(left)
    }

    /// Copies that a read has found while the keys were being loaded.
    fn put_copies<K: Eq + Hash + Clone>(
        &self,
        values: &mut Values<K, V>,
        keys: &[CacheKey],
        copies: Copies<V>,
        is_fallback: bool,
    ) {
        for (key, copy) in keys.iter().zip(copies) {
            let Some(copy) = self.if_possible(key, copy) else { continue };
            // A stale copy that is to be replaced first serves only who has waited long enough.
            let is_stale = copy.freshness != Freshness::Fresh;
            if is_stale && !is_fallback && self.settings.on_stale == OnStale::Reload {
                continue;
            }
            let Some(value) = copy.entry.into_data() else { continue };
            if let Some(pending) = values.pending.get(key) {
                if is_fallback || is_stale {
                    count(&self.events.counts.stale_served);
                    self.events.tell(|| CacheEvent::StaleServed { key });
                    pending.waiting.flight.go_on();
                }
                values.put(key, Some(value));
            }
        }
    }

    /// What has been loaded and takes long to be stored.
    fn put_results<K: Eq + Hash + Clone>(&self, values: &mut Values<K, V>) -> Result<(), LoadError> {
        let known = values.pending.iter().filter_map(|(key, Pending { waiting, .. })| {
            let result = waiting.flight.result()?;
            waiting.flight.go_on();
            Some((key.clone(), result))
        });
        for (key, result) in known.collect::<Vec<_>>() {
            values.put(&key, result?.value);
        }
        Ok(())
    }
}
