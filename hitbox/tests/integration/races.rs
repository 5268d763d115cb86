//! Loads beside writes, deletes and expiries of the same key, over real leaves: no read that starts after one of those
//! has returned sees what a load brought that had begun before.
//!
//! `HITBOX_RUNS` sets how many runs (10,000 by default), `HITBOX_SEED` replays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox::backend::{Backend, CacheBackend, Compose, OffloadPool, RefillPolicy};
use hitbox::core::{CacheContext, CacheValue};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, ToKey};
use hitbox_testkit::{History, RedisServer, number_from, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A cache as histories use it.
#[derive(Clone)]
enum Subject {
    Cache(Cache<u64>),
    /// Looks, loads, and writes what it has loaded. Wrong.
    Naive(Arc<dyn Backend>),
}

impl Subject {
    fn backend(&self) -> &dyn Backend {
        match self {
            Self::Cache(cache) => &**cache.backend(),
            Self::Naive(backend) => &**backend,
        }
    }

    async fn load(&self, key: u64, run: Arc<Run>, pause: u32) -> u64 {
        let load = move || async move {
            let begin = run.history.begin();
            let version = run.next.fetch_add(1, Ordering::SeqCst);
            run.history.loads(version, begin);
            for _ in 0..pause {
                tokio::task::yield_now().await;
            }
            Ok::<_, std::io::Error>(version)
        };
        match self {
            Self::Cache(cache) => cache.get_or_load(key, load).await.expect("a value"),
            Self::Naive(backend) => {
                let key = key.to_key("cache").into_owned();
                let mut context = CacheContext::new();
                if let Ok(Some(found)) = backend.get::<u64>(&key, &mut context).await {
                    return found.into_data();
                }
                let version = load().await.expect("a value");
                backend.set(&key, CacheValue::new(version), &mut context).await.expect("a write");
                version
            }
        }
    }

    async fn write(&self, key: u64, version: Option<u64>) {
        match (self, version) {
            (Self::Cache(cache), Some(version)) => drop(cache.insert(key, version).await.expect("a write")),
            (Self::Cache(cache), None) => drop(cache.remove(key).await.expect("a delete")),
            (Self::Naive(backend), version) => {
                let (key, mut context) = (key.to_key("cache").into_owned(), CacheContext::new());
                match version {
                    Some(version) => {
                        drop(
                            backend.set(&key, CacheValue::new(version), &mut context).await.expect("a write"),
                        );
                    }
                    None => drop(backend.delete(&key, &mut context).await.expect("a delete")),
                }
            }
        }
    }
}

#[derive(Default)]
struct Run {
    history: History,
    next: AtomicU64,
}

/// One run: a few tasks on one key.
async fn run(subject: &Subject, key: u64, random: &mut StdRng) -> Result<(), String> {
    let run = Arc::new(Run::default());
    let mut tasks = Vec::new();
    for _ in 0..random.random_range(4..9) {
        let (subject, run) = (subject.clone(), run.clone());
        let (what, pause) = (random.random_range(0..10), random.random_range(0..6));
        tasks.push(tokio::spawn(async move {
            for _ in 0..pause {
                tokio::task::yield_now().await;
            }
            let begin = run.history.begin();
            match what {
                0..5 => {
                    let version = subject.load(key, run.clone(), pause).await;
                    run.history.read(version, begin);
                }
                5..7 => {
                    subject.write(key, None).await;
                    run.history.wrote(None, begin);
                }
                7..9 => {
                    let version = run.next.fetch_add(1, Ordering::SeqCst);
                    subject.write(key, Some(version)).await;
                    run.history.wrote(Some(version), begin);
                }
                _ => {
                    let key = key.to_key("cache").into_owned();
                    if let Ok(Some(found)) =
                        subject.backend().get::<u64>(&key, &mut CacheContext::new()).await
                    {
                        run.history.read(found.into_data(), begin);
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.map_err(|error| error.to_string())?;
    }
    let begin = run.history.begin();
    let last = subject.load(key, run.clone(), 0).await;
    run.history.read(last, begin);
    run.history.check()
}

async fn runs(name: &str, subject: Subject, count: u64, seed: u64) -> Result<(), String> {
    for number in 0..count {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
        run(&subject, number, &mut random).await.map_err(|what| format!("{name}, run {number}: {what}"))?;
    }
    Ok(())
}

fn over(upper: impl Backend, lower: impl Backend, pool: &OffloadPool) -> Arc<dyn Backend> {
    Arc::new(upper.compose(lower, pool.shared()).with_refill(RefillPolicy::Always))
}

fn moka() -> MokaBackend {
    MokaBackend::builder().max_entries(1_000).build().expect("moka")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_load_over_real_leaves_brings_back_what_is_over() {
    let (seed, count) = (seed(), number_from("HITBOX_RUNS").unwrap_or(10_000));
    eprintln!("{count} runs with HITBOX_SEED={seed}");
    let pool = OffloadPool::new();
    let server = RedisServer::start();
    let redis =
        || RedisBackend::builder(&server.url()).deadline(Duration::from_secs(10)).build().expect("redis");
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("a disk");
    let quick = QuickBackend::builder().max_entries(1_000).build().expect("quick");
    let backends: [(&str, Arc<dyn Backend>); 5] = [
        ("moka", Arc::new(moka())),
        ("moka over quick", over(moka(), quick, &pool)),
        ("moka over redis", over(moka(), redis(), &pool)),
        ("moka over disk", over(moka(), disk.clone(), &pool)),
        ("moka over redis over disk", over(moka(), over(redis(), disk, &pool), &pool)),
    ];
    let share = count / backends.len() as u64;
    for (name, backend) in backends {
        let cache = Cache::builder(backend).name("cache").build().expect("a cache");
        runs(name, Subject::Cache(cache), share, seed).await.expect("no read sees what is over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_find_loads_that_are_stored_whatever_was_written() {
    let pool = OffloadPool::new();
    let subject = Subject::Naive(over(moka(), moka(), &pool));
    runs("naive", subject, 20_000, seed()).await.expect_err("it resurrects");
}
