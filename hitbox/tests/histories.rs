//! Random concurrent runs of caches over layers that fail now and then: loads, writes, removals, invalidations by key,
//! prefix, pattern and tag, ends of freshness and notes of reads. No call that begins after an invalidation has returned
//! sees what was loaded or written before it.
//!
//! `HITBOX_SEED` replays the programs (not the scheduling), `HITBOX_RUNS` sets how many.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use common::seconds;
use hitbox::backend::operation::TimeChange;
use hitbox::backend::policy::Loser;
use hitbox::backend::store::{
    Capabilities, Conditional, DeleteStatus, LeafOptions, Page, Peek, Raw, StoreCondition,
};
use hitbox::backend::wrap::Wrapper;
use hitbox::backend::{
    Backend, CompositionBackend, CompositionPolicy, Leaf, OffloadPool, OptimisticParallelWritePolicy,
    ParallelReadPolicy, RaceReadPolicy, RaceWritePolicy, RefillPolicy, SequentialReadPolicy,
    SequentialWritePolicy, Store,
};
use hitbox::core::{BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, ManualClock};
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, OnStale};
use hitbox_testkit::{History, RedisServer, number_from, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A store whose calls stand still for a random while before and after they act, and now and then fail, before or after.
struct Unsteady<S> {
    store: Arc<S>,
    fails: Arc<AtomicBool>,
}

async fn dawdle() {
    let times = rand::rng().random_range(0..4);
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

impl<S: Store> Unsteady<S> {
    async fn pass<T>(&self, call: impl Future<Output = BackendResult<T>>) -> BackendResult<T> {
        dawdle().await;
        let fault = if self.fails.load(Ordering::SeqCst) { rand::rng().random_range(0..40) } else { 40 };
        if fault == 0 {
            return Err(BackendError::new(ErrorKind::Connection, "an injected fault"));
        }
        let answer = call.await;
        dawdle().await;
        if fault == 1 {
            return Err(BackendError::new(ErrorKind::Timeout, "an injected fault"));
        }
        answer
    }
}

#[async_trait]
impl<S: Store> Store for Unsteady<S> {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.pass(self.store.read(key)).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.pass(self.store.write(key, value)).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.pass(self.store.remove(key)).await
    }

    async fn write_if(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        self.pass(self.store.write_if(key, value, condition)).await
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.pass(self.store.peek(key)).await
    }

    async fn change_times(&self, key: &CacheKey, change: &TimeChange) -> BackendResult<Peek> {
        self.pass(self.store.change_times(key, change)).await
    }

    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        self.pass(self.store.keys(cursor, limit)).await
    }

    async fn erase(&self) -> BackendResult<()> {
        self.pass(self.store.erase()).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.answers_at_once = false;
        capabilities
    }
}

/// The store of a leaf, made unsteady, in a leaf of its own.
fn unsteady<S: Store>(
    leaf: &impl Wrapper<Inner = Leaf<S>>,
    label: &str,
    clock: &Arc<dyn Clock>,
    fails: &Arc<AtomicBool>,
) -> Arc<dyn Backend> {
    let store = Unsteady { store: leaf.inner().store().clone(), fails: fails.clone() };
    Arc::new(Leaf::new(store, LeafOptions::new(label).with_clock(clock.clone())))
}

fn random_policy(random: &mut StdRng) -> CompositionPolicy {
    let policy = CompositionPolicy::new();
    let policy = match random.random_range(0..3) {
        0 => policy.read(SequentialReadPolicy),
        1 => policy.read(RaceReadPolicy::default()),
        _ => policy.read(ParallelReadPolicy),
    };
    let policy = match random.random_range(0..4) {
        0 => policy.write(SequentialWritePolicy::new()),
        1 => policy.write(SequentialWritePolicy::durable_first()),
        2 => policy.write(OptimisticParallelWritePolicy),
        _ => policy.write(RaceWritePolicy { loser: Loser::Finish }),
    };
    policy.refill(match random.random_range(0..3) {
        0 => RefillPolicy::Always,
        1 => RefillPolicy::Awaited,
        _ => RefillPolicy::Never,
    })
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert,
    Remove,
    Prefix,
    Pattern,
    /// One that no key of the run matches.
    OtherPattern,
    Tag,
    Expire,
    Get,
    Load,
    /// Time goes by, so that reads are noted and entries grow stale.
    Later(u64),
}

fn random_step(random: &mut StdRng) -> Step {
    match random.random_range(0..100) {
        0..12 => Step::Insert,
        12..18 => Step::Remove,
        18..26 => Step::Prefix,
        26..32 => Step::Pattern,
        32..36 => Step::OtherPattern,
        36..42 => Step::Tag,
        42..48 => Step::Expire,
        48..68 => Step::Get,
        68..95 => Step::Load,
        _ => Step::Later(random.random_range(1..20)),
    }
}

#[derive(Clone)]
struct Run {
    cache: Cache<u64>,
    clock: ManualClock,
    /// Its one key, and what it begins with.
    key: (u64, u64),
    version: Arc<AtomicU64>,
    history: Arc<History>,
    /// Invalidations of other keys are taken for those of this one: what the runs must find.
    misses: bool,
}

impl Run {
    /// A failed change may have been made or not: it is over with the first one that has returned.
    async fn play(&self, step: Step) {
        let Self { cache, key, history, .. } = self;
        let begin = history.begin();
        let next = || self.version.fetch_add(1, Ordering::SeqCst);
        let removed = |is_done: bool| {
            if is_done {
                history.wrote(None, begin)
            }
        };
        let first = if self.misses { key.0 + 1_000_000 } else { key.0 };
        match step {
            Step::Insert => {
                let version = next();
                match cache.entry(*key).tag("t").insert(version).await {
                    Ok(_) => history.wrote(Some(version), begin),
                    Err(_) => history.loads(version, begin),
                }
            }
            Step::Remove => removed(cache.remove(*key).await.is_ok()),
            Step::Prefix => removed(cache.invalidate_prefix((first,)).await.is_ok()),
            Step::Pattern => removed(cache.invalidate_matching(&format!("{first}:*")).await.is_ok()),
            Step::OtherPattern => drop(cache.invalidate_matching("nothing:*").await),
            Step::Tag => removed(cache.invalidate_tags(&["t"]).await.is_ok()),
            Step::Expire => drop(cache.expire(*key).await),
            Step::Get => {
                if let Ok(Some(version)) = cache.get(*key).await {
                    history.read(version, begin);
                }
            }
            Step::Load => {
                let (history, version) = (history.clone(), next());
                let load = move || async move {
                    history.loads(version, history.begin());
                    for _ in 0..3 {
                        dawdle().await;
                    }
                    Ok::<_, std::io::Error>(version)
                };
                if let Ok(response) = cache.entry(*key).tag("t").get_or_load(load).await {
                    self.history.read(response.value, begin);
                }
            }
            Step::Later(by) => self.clock.advance(seconds(by)),
        }
    }
}

/// A few tasks, each with a few steps through one of two caches over the same two layers.
async fn run(
    leaves: &[Arc<dyn Backend>; 2],
    clock: &ManualClock,
    fails: &AtomicBool,
    random: &mut StdRng,
    number: u64,
    misses: bool,
) -> Result<(), String> {
    let pool = OffloadPool::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let mut caches = Vec::new();
    for upper in 0..2 {
        let (l1, l2) = (leaves[upper].clone(), leaves[1 - upper].clone());
        let tiers = CompositionBackend::new(l1, l2, pool.shared()).with_policy(&random_policy(random));
        let on_stale = if random.random_bool(0.5) { OnStale::Reload } else { OnStale::ServeAndReload };
        let builder =
            Cache::<u64>::builder(tiers).name("history").clock(shared.clone()).offload(pool.shared());
        let builder = builder.ttl(seconds(30)).stale(seconds(30)).idle(seconds(40)).on_stale(on_stale);
        caches.push(builder.build().map_err(|error| error.to_string())?);
    }
    let (history, version) = (Arc::new(History::default()), Arc::new(AtomicU64::new(1)));
    let run_of = |cache: &Cache<u64>| Run {
        cache: cache.clone(),
        clock: clock.clone(),
        key: (number, 7),
        version: version.clone(),
        history: history.clone(),
        misses,
    };
    fails.store(random.random_bool(0.5), Ordering::SeqCst);
    let mut tasks = Vec::new();
    for _ in 0..random.random_range(2..5) {
        let steps: Vec<Step> = (0..random.random_range(2..6)).map(|_| random_step(random)).collect();
        let run = run_of(&caches[random.random_range(0..2)]);
        tasks.push(tokio::spawn(async move {
            for step in steps {
                run.play(step).await;
            }
        }));
    }
    for task in tasks {
        task.await.map_err(|error| error.to_string())?;
    }
    pool.wait_all().await;
    for round in 0..2 {
        for cache in &caches {
            run_of(cache).play(Step::Get).await;
        }
        fails.store(false, Ordering::SeqCst);
        if round == 0 {
            pool.wait_all().await;
        }
    }
    pool.shutdown().await;
    history.check().map_err(|what| format!("{what}; {:?}", caches[0].backend().layout()))
}

/// Over every pair of leaves.
fn runs(count: u64, misses: bool) -> Result<(), String> {
    let seed = seed();
    eprintln!("{count} runs with HITBOX_SEED={seed}");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let (clock, fails, server) = (ManualClock::new(), Arc::default(), RedisServer::start());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let moka = MokaBackend::builder().clock(shared.clone()).build().expect("moka");
        let quick = QuickBackend::builder().clock(shared.clone()).build().expect("quick");
        let redis = RedisBackend::builder(&server.url()).clock(shared.clone()).build().expect("redis");
        let leaves = [
            unsteady(&moka, "moka", &shared, &fails),
            unsteady(&quick, "quick", &shared, &fails),
            unsteady(&redis, "redis", &shared, &fails),
        ];
        let mut random = StdRng::seed_from_u64(seed);
        for number in 0..count {
            let first = random.random_range(0..leaves.len());
            let second = (first + random.random_range(1..leaves.len())) % leaves.len();
            let pair = [leaves[first].clone(), leaves[second].clone()];
            let verdict = run(&pair, &clock, &fails, &mut random, number, misses).await;
            verdict.map_err(|what| format!("run {number} with HITBOX_SEED={seed}: {what}"))?;
        }
        Ok(())
    })
}

#[test]
fn case_d19_no_call_sees_what_was_invalidated() {
    runs(number_from("HITBOX_RUNS").unwrap_or(2_000), false).expect("nothing comes back");
}

#[test]
fn runs_find_invalidations_that_miss_their_keys() {
    runs(2_000, true).expect_err("what was not invalidated is seen");
}
