//! Random concurrent runs over real leaves that two compositions share, one of them upside down: no read
//! that starts after a write, delete or clear has returned sees older data.
//!
//! `HITBOX_SEED` replays the programs (not the scheduling), `HITBOX_RUNS` sets how many.

use std::sync::Arc;

use hitbox_backend::doc::Map;
use hitbox_backend::operation::{Condition, Write, WriteOptions};
use hitbox_backend::store::LeafOptions;
use hitbox_backend::{Backend, CacheBackend, CompositionBackend, Leaf, Wrap};
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_disk::DiskBackend;
use hitbox_testkit::broken::Rewrites;
use hitbox_testkit::{History, Unsteady, World, number_from, random_policy, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The ticket of a write somewhere else, which has no slot here.
fn foreign_ticket(key: &CacheKey) -> WriteOptions {
    let elsewhere = Leaf::new(Map::default(), LeafOptions::new("elsewhere"));
    WriteOptions::of(&elsewhere.layout().begin_write(key))
}

/// Refills are stored whatever was written meanwhile, and wait for nobody: what the runs must find.
fn ignore_permits(write: &mut Write) {
    if write.condition.is_refill() {
        write.condition = Condition::Always;
        write.options = foreign_ticket(&write.key);
    }
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
        // Reads that meet may share a call: each composition has its own sharers of the leaves.
        let mut layer = |leaf: &Arc<dyn Backend>| -> Arc<dyn Backend> {
            if random.random_bool(0.3) { leaf.clone().coalesced().shared() } else { leaf.clone() }
        };
        let (l1, l2) = (layer(&leaves[upper]), layer(&leaves[1 - upper]));
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
            cache.erase().await.map_err(failed)?;
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
fn runs(count: u64, ignores_permits: bool) -> Result<(), String> {
    let seed = seed();
    eprintln!("{count} runs with HITBOX_SEED={seed}");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let world = World::new();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk =
            DiskBackend::builder(folder.path()).clock(world.shared_clock()).open().await.expect("disk");
        // Calls meet, and do not fail.
        let steady = Arc::default();
        let leaves = [
            Unsteady::leaf(&crate::common::moka(world.clone()).await, "moka", world.shared_clock(), &steady),
            Unsteady::leaf(
                &crate::common::quick(world.clone()).await,
                "quick",
                world.shared_clock(),
                &steady,
            ),
            Unsteady::leaf(
                &crate::common::redis(world.clone()).await,
                "redis",
                world.shared_clock(),
                &steady,
            ),
            Unsteady::leaf(&disk, "disk", world.shared_clock(), &steady),
        ];
        let leaves = leaves.map(|leaf| -> Arc<dyn Backend> {
            if ignores_permits { Arc::new(Rewrites::new(leaf, ignore_permits)) } else { leaf }
        });
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
fn runs_over_real_leaves_find_refills_that_ignore_permits() {
    runs(10_000, true).expect_err("refills that ignore permits resurrect");
}
