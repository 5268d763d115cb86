//! Random concurrent runs of caches over layers that fail now and then: loads, writes, removals, invalidations by key,
//! prefix, pattern and tag, ends of freshness and notes of reads. No call that begins after an invalidation has returned
//! sees what was loaded or written before it.
//!
//! `HITBOX_SEED` replays the programs (not the scheduling), `HITBOX_RUNS` sets how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::seconds;
use hitbox::backend::{Backend, CacheBackend, CompositionBackend, OffloadPool};
use hitbox::core::{Clock, ManualClock};
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, OnStale};
use hitbox_testkit::{History, RedisServer, Unsteady, dawdle, number_from, random_policy, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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
    /// A failed insert may have been made or not. What a layer does not take of an invalidation it hides.
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
                    Err(_) => history.failed(version, begin),
                }
            }
            Step::Remove => removed(cache.remove(*key).await.is_ok()),
            Step::Prefix => {
                drop(cache.invalidate_prefix((first,)).await);
                removed(true);
            }
            Step::Pattern => {
                drop(cache.invalidate_matching(&format!("{first}:*")).await);
                removed(true);
            }
            Step::OtherPattern => drop(cache.invalidate_matching("nothing:*").await),
            Step::Tag => {
                drop(cache.invalidate_tags(&["t"]).await);
                removed(true);
            }
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
    let (mut caches, mut policies) = (Vec::new(), Vec::new());
    for upper in 0..2 {
        let (l1, l2) = (leaves[upper].clone(), leaves[1 - upper].clone());
        let policy = random_policy(random);
        let tiers = CompositionBackend::new(l1, l2, pool.shared()).with_policy(&policy);
        policies.push(policy);
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
    let (mut tasks, mut programs) = (Vec::new(), Vec::new());
    for _ in 0..random.random_range(2..5) {
        let steps: Vec<Step> = (0..random.random_range(2..6)).map(|_| random_step(random)).collect();
        let through = random.random_range(0..2);
        programs.push((through, steps.clone()));
        let run = run_of(&caches[through]);
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
    history.check().map_err(|what| {
        format!("{what}; {programs:?} through {:?} with {policies:?}", caches[0].backend().layout())
    })
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
            Unsteady::leaf(&moka, "moka", shared.clone(), &fails),
            Unsteady::leaf(&quick, "quick", shared.clone(), &fails),
            Unsteady::leaf(&redis, "redis", shared.clone(), &fails),
        ];
        let mut random = StdRng::seed_from_u64(seed);
        for number in 0..count {
            if number % 100 == 99 {
                // Listing keys takes time that grows with them.
                for leaf in &leaves {
                    leaf.erase().await.map_err(|error| error.to_string())?;
                }
            }
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
