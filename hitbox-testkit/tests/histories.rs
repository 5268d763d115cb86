//! Random concurrent runs over real leaves that two compositions share, one of them upside down: no read
//! that starts after a write, delete or clear has returned sees older data.
//!
//! `HITBOX_SEED` replays the programs (not the scheduling), `HITBOX_RUNS` sets how many.

#[allow(dead_code, reason = "other test files use the rest")]
mod common;

use std::sync::Arc;

use async_trait::async_trait;
use hitbox_backend::{
    Adoption, Backend, CacheBackend, Capabilities, CompositionBackend, CompositionPolicy, DeleteStatus, Leaf,
    Loser, OptimisticParallelWritePolicy, ParallelReadPolicy, RaceReadPolicy, RaceWritePolicy, Raw, Receipt,
    RefillPolicy, SequentialReadPolicy, SequentialWritePolicy, Ticket, WriteOptions,
};
use hitbox_core::{BackendResult, CacheContext, CacheKey, CacheValue};
use hitbox_testkit::{History, World, number_from, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A leaf whose calls stand still for a random while before and after they act, so that calls meet.
#[derive(Clone)]
struct Dawdling {
    inner: Arc<dyn Backend>,
    /// Refills are installed whatever was written meanwhile: what the runs must find.
    ignores_tickets: bool,
}

async fn dawdle() {
    let times = rand::rng().random_range(0..4);
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

#[async_trait]
impl Backend for Dawdling {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        dawdle().await;
        let found = self.inner.read(key).await;
        dawdle().await;
        found
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        dawdle().await;
        let written = self.inner.write(key, value).await;
        dawdle().await;
        written
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        dawdle().await;
        let removed = self.inner.remove(key).await;
        dawdle().await;
        removed
    }

    async fn write_if_newer(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        dawdle().await;
        let written = self.inner.write_if_newer(key, value).await;
        dawdle().await;
        written
    }

    async fn erase(&self) -> BackendResult<()> {
        dawdle().await;
        let cleared = self.inner.erase().await;
        dawdle().await;
        cleared
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        if self.ignores_tickets {
            // A write that is no mutation of its own: it waits for nobody.
            let _receipt = Plain(self.clone()).write_with(key, value, &WriteOptions::default()).await;
            return Receipt::default();
        }
        // The leaf's own, around this type's `write`.
        Plain(self.clone()).install_if(key, value, ticket).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.answers_at_once = false;
        capabilities
    }

    fn leaf(&self) -> Option<&Leaf> {
        self.inner.leaf()
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let inner = self.inner.adopted(adoption)?;
        Some(Arc::new(Self { inner, ..self.clone() }))
    }
}

/// The same with the contract's defaults.
struct Plain(Dawdling);

impl Backend for Plain {
    hitbox_backend::forward!(self => self.0; store);

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn leaf(&self) -> Option<&Leaf> {
        self.0.leaf()
    }
}

fn random_policy(random: &mut StdRng) -> CompositionPolicy {
    let policy = CompositionPolicy::new();
    let policy = match random.random_range(0..3) {
        0 => policy.read(SequentialReadPolicy),
        1 => policy.read(RaceReadPolicy::default()),
        _ => policy.read(ParallelReadPolicy),
    };
    let policy = match random.random_range(0..5) {
        0 => policy.write(SequentialWritePolicy::new()),
        1 => policy.write(SequentialWritePolicy::durable_first()),
        2 => policy.write(OptimisticParallelWritePolicy),
        3 => policy.write(RaceWritePolicy { loser: Loser::Finish }),
        _ => policy.write(RaceWritePolicy { loser: Loser::Drop }),
    };
    policy.refill(match random.random_range(0..3) {
        0 => RefillPolicy::Always,
        1 => RefillPolicy::Awaited,
        _ => RefillPolicy::NthHit(2),
    })
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64),
    Delete,
    Clear,
    Read,
}

/// One run: a few tasks, each with a few steps through one of the two compositions.
async fn run(
    world: &World,
    leaves: &[Arc<dyn Backend>; 2],
    random: &mut StdRng,
    number: u64,
) -> Result<(), String> {
    let mut compose = |upper: usize| {
        let (l1, l2) = (leaves[upper].clone(), leaves[1 - upper].clone());
        let policy = random_policy(random);
        Arc::new(CompositionBackend::new(l1, l2, world.pool.shared()).with_policy(&policy))
    };
    let compositions = [compose(0), compose(1)];
    let key = CacheKey::builder("history").part("run", number).build();
    let history = Arc::new(History::default());
    let mut version = 0;
    let mut tasks = Vec::new();
    for _ in 0..random.random_range(2..5) {
        let steps: Vec<Step> = (0..random.random_range(1..5))
            .map(|_| match random.random_range(0..100) {
                0..30 => {
                    version += 1;
                    Step::Write(version)
                }
                30..45 => Step::Delete,
                45..47 => Step::Clear,
                _ => Step::Read,
            })
            .collect();
        let (cache, key, history) =
            (compositions[random.random_range(0..2)].clone(), key.clone(), history.clone());
        tasks.push(tokio::spawn(async move {
            for step in steps {
                play(&cache, &key, &history, step).await?;
            }
            Ok::<(), String>(())
        }));
    }
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    for _ in 0..2 {
        for cache in &compositions {
            play(cache, &key, &history, Step::Read).await?;
        }
        world.pool.wait_all().await;
    }
    history.check().map_err(|what| format!("{what}; {compositions:?}"))
}

async fn play(
    cache: &CompositionBackend,
    key: &CacheKey,
    history: &History,
    step: Step,
) -> Result<(), String> {
    let mut context = CacheContext::new();
    let failed = |error: hitbox_core::BackendError| format!("{step:?} fails: {error}");
    let begin = history.begin();
    match step {
        Step::Write(version) => {
            cache.set(key, CacheValue::new(version), &mut context).await.map_err(failed)?;
            history.wrote(Some(version), begin);
        }
        Step::Delete => {
            cache.delete(key, &mut context).await.map_err(failed)?;
            history.wrote(None, begin);
        }
        Step::Clear => {
            cache.erase_with().await.map_err(failed)?;
            history.wrote(None, begin);
        }
        Step::Read => {
            if let Some(value) = cache.get::<u64>(key, &mut context).await.map_err(failed)? {
                history.read(*value.data(), begin);
            }
        }
    }
    Ok(())
}

/// Runs over every pair of leaves.
fn runs(count: u64, ignores_tickets: bool) -> Result<(), String> {
    let seed = seed();
    eprintln!("{count} runs with HITBOX_SEED={seed}");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let world = World::new();
        let dawdling =
            |inner: Arc<dyn Backend>| -> Arc<dyn Backend> { Arc::new(Dawdling { inner, ignores_tickets }) };
        let leaves: Vec<Arc<dyn Backend>> = vec![
            dawdling(Arc::new(common::moka(world.clone()).await)),
            dawdling(Arc::new(common::quick(world.clone()).await)),
            dawdling(Arc::new(common::redis(world.clone()).await)),
            dawdling(Arc::new(common::disk(world.clone()).await)),
        ];
        let mut random = StdRng::seed_from_u64(seed);
        for number in 0..count {
            let first = random.random_range(0..leaves.len());
            let second = (first + random.random_range(1..leaves.len())) % leaves.len();
            let pair = [leaves[first].clone(), leaves[second].clone()];
            run(&world, &pair, &mut random, number)
                .await
                .map_err(|what| format!("run {number} with HITBOX_SEED={seed}: {what}"))?;
        }
        Ok(())
    })
}

#[test]
fn no_read_over_real_leaves_sees_what_is_over() {
    runs(number_from("HITBOX_RUNS").unwrap_or(10_000), false).expect("nothing is resurrected");
}

#[test]
fn runs_over_real_leaves_find_refills_that_ignore_tickets() {
    runs(10_000, true).expect_err("refills that ignore tickets resurrect");
}
