//! Caches that are built before there is a runtime, and used on several, or on none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::join_all;
use hitbox::core::{Offload, Refusal, Task, TaskKind};
use hitbox::moka::MokaBackend;
use hitbox::{Cache, LoadError, OffloadPool, cached, stacks};
use hitbox_testkit::RedisServer;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("a backend")
}

#[test]
fn caches_are_built_before_there_is_a_runtime() {
    let url = RedisServer::shared().url();
    let redis = || stacks::memory_over_redis(1_000, &url).expect("a stack");
    let caches: Vec<Cache<u64>> = vec![
        Cache::builder(moka()).name("outside").build().expect("a cache"),
        Cache::builder(stacks::over(moka(), moka())).name("outside-two").build().expect("a cache"),
        Cache::builder(redis()).name("outside-redis").build().expect("a cache"),
    ];
    for cache in caches {
        let loads = AtomicU64::new(0);
        for _ in 0..2 {
            // A runtime that ends, and another.
            runtime().block_on(async {
                let call = |key: u64| {
                    let (cache, loads) = (&cache, &loads);
                    cache.get_or_load_scoped(key, async move || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, LoadError>(key)
                    })
                };
                for (key, value) in join_all((0..64).map(call)).await.into_iter().enumerate() {
                    assert_eq!(value.expect("a value"), key as u64);
                }
                let owned = cache.get_or_load(1_000, || async { Ok::<_, LoadError>(7) }).await;
                assert_eq!(owned.expect("a value"), 7);
            });
        }
        assert_eq!(loads.load(Ordering::Relaxed), 64, "{}", cache.name());
        runtime().block_on(cache.clear()).expect("an empty cache");
    }
}

/// Many reads of Redis at once go through a task, which ends with its runtime.
#[test]
fn reads_of_redis_travel_together_on_the_next_runtime_too() {
    let redis =
        hitbox::redis::RedisBackend::builder(&RedisServer::shared().url()).prefix("runtimes:").build();
    let cache: Cache<u64> = Cache::builder(redis.expect("a backend")).name("redis").build().expect("a cache");
    for round in 0..3 {
        runtime().block_on(async {
            for key in 0..256_u64 {
                cache.insert(key, key + round).await.expect("stored");
            }
            let values = join_all((0..256_u64).map(|key| cache.get(key))).await;
            for (key, value) in values.into_iter().enumerate() {
                assert_eq!(value.expect("an answer"), Some(key as u64 + round));
            }
        });
    }
}

#[test]
fn a_pool_without_a_runtime_hands_tasks_back() {
    let pool = OffloadPool::new();
    let task = || Task::new(TaskKind::LOAD, std::future::ready(()));
    let refused = pool.register(task()).expect_err("nothing to run it on");
    assert_eq!((refused.why, pool.statistics().refused_no_runtime), (Refusal::NoRuntime, 1));
    runtime().block_on(async {
        pool.register(task()).expect("it is taken");
        pool.wait_all().await;
    });
    assert_eq!(pool.statistics().completed, 1);
}

static SQUARES: LazyLock<Cache<u64>> = LazyLock::new(|| {
    let builder = Cache::builder(stacks::over(moka(), moka())).name("squares");
    builder.ttl(Duration::from_secs(60)).build().expect("a cache")
});
static CALLS: AtomicU64 = AtomicU64::new(0);

#[cached(cache = SQUARES)]
fn square(number: u64) -> u64 {
    CALLS.fetch_add(1, Ordering::Relaxed);
    number * number
}

#[cached(cache = SQUARES)]
fn slow_square(number: u64) -> u64 {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // The others come while it is at work.
    while WAITING.load(Ordering::Relaxed) < 4 {
        std::thread::yield_now();
    }
    number * number
}

static WAITING: AtomicU64 = AtomicU64::new(0);

static RATIOS: LazyLock<Cache<u64>> = LazyLock::new(|| {
    let builder = Cache::builder(moka()).name("ratios").soft_timeout(Duration::from_secs(5));
    builder.hard_timeout(Duration::from_secs(10)).fail_safe(Duration::from_secs(60)).build().expect("a cache")
});

#[cached(cache = RATIOS)]
fn ratio(of: u64, to: u64) -> Result<u64, NoRatio> {
    of.checked_div(to).ok_or_else(|| NoRatio("no such ratio".to_owned()))
}

#[derive(Debug)]
struct NoRatio(String);

impl std::fmt::Display for NoRatio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoRatio {}

impl From<LoadError> for NoRatio {
    fn from(error: LoadError) -> Self {
        Self(error.to_string())
    }
}

/// Those that have to wait, fail, or have time limits: timers ask for a runtime.
#[test]
fn functions_without_a_runtime_wait_and_fail_as_others() {
    let call = || {
        WAITING.fetch_add(1, Ordering::Relaxed);
        slow_square(7)
    };
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(call)).collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), 49);
    }
    for _ in 0..2 {
        assert_eq!(ratio(6, 3).expect("a ratio"), 2);
        let error = ratio(6, 0).expect_err("no ratio");
        assert!(error.to_string().contains("no such ratio"), "{error}");
    }
}

static SHARED: LazyLock<Cache<u64>> = LazyLock::new(|| {
    let redis = stacks::memory_over_redis(1_000, &RedisServer::shared().url()).expect("a stack");
    Cache::builder(redis).name("shared-squares").build().expect("a cache")
});

#[cached(cache = SHARED)]
fn shared_square(number: u64) -> u64 {
    number * number
}

/// Redis is connected by a function without a runtime, used within one, and again outside, from another thread.
#[test]
fn functions_without_a_runtime_use_redis_and_disk() {
    assert_eq!(shared_square(11), 121);
    runtime().block_on(async {
        SHARED.clear().await.expect("an empty cache");
        assert_eq!(SHARED.get_or_load(3, || async { Ok::<_, LoadError>(9) }).await.expect("a value"), 9);
    });
    let threads: Vec<_> = (0..20).map(|number| std::thread::spawn(move || shared_square(number))).collect();
    for (number, thread) in (0..).zip(threads) {
        assert_eq!(thread.join().expect("no panic"), number * number);
    }
}

#[test]
fn functions_are_cached_without_any_runtime() {
    for _ in 0..3 {
        assert_eq!((square(3), square(4)), (9, 16));
    }
    assert_eq!(CALLS.load(Ordering::Relaxed), 2);
    let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(|| square(5))).collect();
    assert!(threads.into_iter().all(|thread| thread.join().is_ok_and(|square| square == 25)));
    assert_eq!(CALLS.load(Ordering::Relaxed), 3);
}

/// Tasks that wait belong to nobody: when one runtime ends, workers of another go on with them.
#[test]
fn a_runtime_that_ends_takes_no_tasks_of_others_with_it() {
    let pool = OffloadPool::builder().workers(2).queue(100).build();
    let gate = Arc::new(Semaphore::new(0));
    let task = || {
        let gate = gate.clone();
        Task::new(TaskKind::LOAD, async move { drop(gate.acquire().await) })
    };
    let (ends, goes_on) = (runtime(), runtime());
    ends.block_on(async { pool.register(task()).expect("it is taken") });
    goes_on.block_on(async {
        for _ in 0..11 {
            pool.register(task()).expect("it is taken");
        }
    });
    drop(ends);
    gate.add_permits(100);
    goes_on.block_on(pool.wait_all());
    assert_eq!((pool.statistics().cancelled, pool.statistics().completed), (1, 11));
}
