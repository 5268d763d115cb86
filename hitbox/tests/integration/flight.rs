//! Loads whose callers go away, at every point where they can.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use crate::common::{Knobs, Topology, World, answer, cache, seconds, until};
use hitbox::Cache;

fn minute() -> Knobs {
    Knobs { ttl: Some(seconds(60)), ..Knobs::default() }
}

/// A loader with this many await points, which counts how often it was begun.
async fn stepwise(
    steps: usize,
    begun: Arc<AtomicU64>,
    panic_at: Option<usize>,
) -> Result<u64, std::io::Error> {
    begun.fetch_add(1, Ordering::SeqCst);
    for step in 0..steps {
        assert_ne!(panic_at, Some(step), "the loader panics at step {step}");
        tokio::task::yield_now().await;
    }
    Ok(7)
}

const STEPS: usize = 6;
const WAITERS: usize = 50;

/// Polls a leader `polls` times, lets 50 others join, and drops it.
async fn drop_leader_after(polls: usize, topology: Topology, is_scoped: bool) {
    let world = World::new();
    let cache: Cache<u64> = cache(&world, topology, &minute());
    let begun = Arc::new(AtomicU64::new(0));
    let load = |begun: &Arc<AtomicU64>| {
        let begun = begun.clone();
        move || stepwise(STEPS, begun, None)
    };
    let mut leader: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = if is_scoped {
        let cache = cache.clone();
        let load = load(&begun);
        Box::pin(async move { cache.get_or_load_scoped(1_u64, load).await })
    } else {
        let cache = cache.clone();
        let load = load(&begun);
        Box::pin(async move { cache.get_or_load(1_u64, load).await })
    };
    let mut context = Context::from_waker(Waker::noop());
    let mut is_done = false;
    for _ in 0..polls {
        is_done = is_done || leader.as_mut().poll(&mut context).is_ready();
        // What runs on its own gets on meanwhile.
        tokio::task::yield_now().await;
    }
    let mut waiters = Vec::new();
    for _ in 0..WAITERS {
        let (cache, load) = (cache.clone(), load(&begun));
        waiters.push(tokio::spawn(async move { cache.get_or_load(1_u64, load).await }));
    }
    tokio::task::yield_now().await;
    drop(leader);
    for waiter in waiters {
        let value = answer(waiter).await.expect("nobody hangs").expect("a value");
        assert_eq!(value, 7);
    }
    let loads = begun.load(Ordering::SeqCst);
    assert!(
        (1..=2).contains(&loads),
        "{loads} loads, the leader dropped after {polls} polls over {topology:?}"
    );
    until("no flight is left", || cache.statistics().loading == 0).await.expect("it lands");
    world.pool.wait_all().await;
    assert_eq!(cache.get(1_u64).await.expect("a read"), Some(7));
}

#[tokio::test]
async fn a_leader_may_go_at_every_await_point() {
    for topology in crate::common::TOPOLOGIES {
        for polls in 0..=STEPS + 4 {
            drop_leader_after(polls, topology, false).await;
            drop_leader_after(polls, topology, true).await;
        }
    }
}

#[tokio::test]
async fn a_loader_may_panic_at_every_await_point() {
    for panic_at in 0..STEPS {
        let world = World::new();
        let cache: Cache<u64> = cache(&world, Topology::TwoLayers, &minute());
        let begun = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..WAITERS)
            .map(|_| {
                let (cache, begun) = (cache.clone(), begun.clone());
                tokio::spawn(async move {
                    cache.get_or_load(1_u64, move || stepwise(STEPS, begun, Some(panic_at))).await
                })
            })
            .collect();
        let (mut panics, mut errors) = (0, 0);
        for caller in callers {
            match caller.await {
                Ok(Ok(value)) => panic!("a panic brought {value}"),
                Ok(Err(error)) => {
                    assert_eq!(error.kind(), hitbox::LoadErrorKind::Panicked);
                    errors += 1;
                }
                Err(_) => panics += 1,
            }
        }
        let loads = begun.load(Ordering::SeqCst);
        assert!(loads <= 2, "{loads} loads that panic at {panic_at}");
        assert_eq!(
            (panics, errors),
            (loads as usize, WAITERS - loads as usize),
            "each panic reaches one caller"
        );
        assert_eq!(cache.statistics().loading, 0);
        let value = cache.get_or_load(1_u64, move || stepwise(STEPS, begun, None)).await;
        assert_eq!(value.expect("the key is not poisoned"), 7);
    }
}

/// A load that nobody waits for.
async fn abandoned(finish: bool) -> (u64, Option<u64>) {
    let world = World::new();
    let knobs = Knobs { finish_abandoned: finish, ..minute() };
    let cache: Cache<u64> = cache(&world, Topology::TwoLayers, &knobs);
    let source = crate::common::Source::closed();
    {
        let mut call = pin!(cache.entry(1_u64).get_or_load_with(source.value(7)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(call.as_mut().poll(&mut context), Poll::Pending));
        until("a load", || source.calls() == 1).await.expect("it begins");
    }
    source.answer(1);
    world.pool.wait_all().await;
    let value = cache.get(1_u64).await.expect("a read");
    (cache.statistics().loading, value)
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_is_cancelled_or_finished_as_configured() {
    assert_eq!(abandoned(false).await, (0, None));
    assert_eq!(abandoned(true).await, (0, Some(7)));
}

#[tokio::test]
async fn a_source_that_never_answers_does_not_keep_its_key() {
    let world = World::new();
    let builder = Cache::<u64>::builder(world.backend(Topology::TwoLayers)).offload(world.pool.shared());
    let cache = builder.finish_abandoned(true).load_limit(Some(seconds(60))).build().expect("a cache");
    let call = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load("k", std::future::pending::<Result<u64, std::io::Error>>).await }
    });
    until("the load waits", || world.clock.sleepers() > 0).await.expect("it begins");
    world.clock.advance(seconds(60));
    let error = answer(call).await.expect("no hang").expect_err("it was cut");
    assert_eq!(error.kind(), hitbox::LoadErrorKind::TimedOut);
    assert_eq!(cache.statistics().loading, 0);
    let value = cache.get_or_load("k", || async { Ok::<_, std::io::Error>(7) }).await;
    assert_eq!(value.expect("the source is back"), 7);
}

#[tokio::test]
async fn loads_within_loads_do_not_wait_for_each_other() {
    // More of them than the pool has workers.
    let pool = hitbox::OffloadPool::builder().workers(1).queue(1).interactive(2).build();
    let backend = hitbox::stacks::memory(100).expect("memory");
    let cache: Cache<u64> = Cache::builder(backend).offload(pool.shared()).build().expect("a cache");
    fn nested(
        cache: Cache<u64>,
        depth: u64,
    ) -> hitbox::core::BoxFuture<'static, Result<u64, hitbox::LoadError>> {
        Box::pin(async move {
            let inner = cache.clone();
            let load = move || async move {
                if depth == 0 { Ok(1) } else { nested(inner, depth - 1).await.map(|value| value + 1) }
            };
            cache.get_or_load(depth, load).await
        })
    }
    let value = tokio::time::timeout(seconds(20), nested(cache, 20)).await;
    assert_eq!(value.expect("they do not wait for each other").expect("a value"), 21);
}

#[tokio::test]
async fn a_shutdown_within_a_deadline_ends_loads_and_their_callers() {
    let world = World::new();
    let cache: Cache<u64> = cache(&world, Topology::Memory, &minute());
    let source = crate::common::Source::closed();
    let loader = source.value(7);
    let call = tokio::spawn({
        let cache = cache.clone();
        async move { cache.entry(1_u64).get_or_load_with(loader).await.map(|served| *served) }
    });
    until("a load", || source.calls() == 1).await.expect("it begins");
    let shutdown = tokio::spawn({
        let pool = world.pool.clone();
        async move { pool.shutdown_within(seconds(5)).await }
    });
    until("the shutdown waits", || world.clock.sleepers() > 0).await.expect("it waits");
    world.clock.advance(seconds(5));
    assert_eq!(answer(shutdown).await, Ok(1), "one task was cancelled");
    let error = answer(call).await.expect("the caller is answered").expect_err("the load was cancelled");
    assert_eq!(error.kind(), hitbox::LoadErrorKind::Cancelled);
    // Nothing is taken any more: callers load by themselves.
    let value = cache.get_or_load(2_u64, || async { Ok::<_, std::io::Error>(8) }).await;
    assert_eq!(value.expect("a value"), 8);
}

/// A thousand callers, one cold key, a source that takes 50 ms, on real time and real threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stampede_costs_one_load() {
    let cache: Cache<u64> =
        Cache::builder(hitbox::stacks::memory(100).expect("memory")).build().expect("a cache");
    let begun = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let (cache, begun) = (cache.clone(), begun.clone());
            tokio::spawn(async move {
                let load = move || async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(crate::common::millis(50)).await;
                    Ok::<_, std::io::Error>(7)
                };
                cache.get_or_load("key", load).await
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.expect("no panic").expect("a value"), 7);
    }
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}
