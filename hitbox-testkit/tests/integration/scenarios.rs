//! Scenarios in which compositions of caches are known to go wrong (hitbox 0.2 does in each of them), over
//! real leaves.

use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::doc::Map;
use hitbox_backend::policy::Loser;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::{
    Backend, CacheBackend, Compose, CompositionPolicy, Leaf, ParallelReadPolicy, RaceReadPolicy,
    RaceWritePolicy, RefillPolicy, SequentialWritePolicy,
};
use hitbox_core::{
    CacheContext, CacheKey, CacheStatus, CacheValue, Clock, ErrorKind, Lifetime, ReadMode, ResponseSource,
};
use hitbox_redis::RedisBackend;
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation, RedisServer, World};

fn key() -> CacheKey {
    CacheKey::builder("scenario").part("id", 1).build()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn set(cache: &dyn Backend, value: u64, lifetime: Lifetime) {
    let value = CacheValue::new(value).with_lifetime(lifetime);
    cache.set(&key(), value, &mut CacheContext::new()).await.expect("a write");
}

async fn get(cache: &dyn Backend) -> Option<CacheValue<u64>> {
    cache.get(&key(), &mut CacheContext::new()).await.expect("a read")
}

async fn number(cache: &dyn Backend) -> Option<u64> {
    get(cache).await.map(CacheValue::into_data)
}

/// Moka, Redis and disk as trait objects.
async fn three(world: &World) -> [Arc<dyn Backend>; 3] {
    [
        crate::common::moka(world.clone()).await.shared(),
        crate::common::redis(world.clone()).await.shared(),
        crate::common::disk(world.clone()).await.shared(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_survives_nests_and_dyn() {
    let world = World::new();
    let [a, b, c] = three(&world).await;
    let pool = || world.pool.shared();
    let left = a.clone().compose(b.clone(), pool()).shared().compose(c.clone(), pool()).shared();
    let right = a.clone().compose(b.clone().compose(c.clone(), pool()).shared(), pool()).shared();
    let now = world.clock.now();
    let at = |after| Some(now + millis(after));
    let lifetime = Lifetime::new(at(100), at(1_000), at(5_000));
    for cache in [left, right] {
        set(&*cache, 1, lifetime).await;
        for leaf in [&cache, &a, &b, &c] {
            assert_eq!(get(&**leaf).await.expect("a hit").lifetime(), &lifetime);
        }
    }
    world.advance_millis(1_000);
    for leaf in [&a, &b, &c] {
        assert!(get(&**leaf).await.is_none(), "past its end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refill_survives_dyn() {
    let world = World::new();
    let [a, _, c] = three(&world).await;
    let cache = a.clone().compose(c.clone(), world.pool.shared()).with_refill(RefillPolicy::Always).shared();
    let lifetime = Lifetime::ttl(world.clock.now(), millis(700));
    set(&*c, 1, lifetime).await;
    let mut context = CacheContext::new();
    let read = cache.get::<u64>(&key(), &mut context).await.expect("a read");
    assert_eq!((read.map(CacheValue::into_data), context.read_mode()), (Some(1), ReadMode::Refill));
    world.pool.wait_all().await;
    assert_eq!(get(&*a).await.expect("it was filled").lifetime(), &lifetime);
}

/// On the machine's clock, since the server drops entries by its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_under_a_second_ends_in_redis() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).skew_margin(Duration::ZERO).build().expect("redis");
    let now = hitbox_backend::SystemClock.now();
    set(&redis, 1, Lifetime::ttl(now, millis(300))).await;
    let left: i64 = {
        let answer = server.ask("EVAL \"return redis.call('PTTL', redis.call('KEYS', '*id=*')[1])\" 0");
        answer.lines().find_map(|line| line.strip_prefix(':')?.parse().ok()).expect("a time to live")
    };
    assert!((1..=300).contains(&left), "{left} ms are left of 300");
    let started = std::time::Instant::now();
    while number(&redis).await.is_some() {
        assert!(started.elapsed() < Duration::from_secs(20), "it is still served");
    }
    assert!(hitbox_backend::SystemClock.now() >= now + millis(300), "it went early");
    while !server.ask("DBSIZE").starts_with(":1") {
        assert!(started.elapsed() < Duration::from_secs(20), "it is still stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overwrite_keeps_no_old_ttl_and_no_old_stale_time() {
    let world = World::new();
    let [a, b, c] = three(&world).await;
    let pool = || world.pool.shared();
    let cache = a.clone().compose(b.clone(), pool()).compose(c.clone(), pool());
    let now = world.clock.now();
    set(&cache, 1, Lifetime::new(Some(now + millis(10)), Some(now + millis(20)), None)).await;
    set(&cache, 2, Lifetime::FOREVER).await;
    world.advance_millis(1_000_000);
    for leaf in [&a, &b, &c] {
        let mut context = CacheContext::new();
        let read = leaf.get::<u64>(&key(), &mut context).await.expect("a read");
        assert_eq!((read.map(CacheValue::into_data), context.status()), (Some(2), CacheStatus::Hit));
    }
}

/// Real Redis too: the key's own time to live goes with the entry that had it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overwrite_leaves_no_time_to_live_on_the_server() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    set(&redis, 1, Lifetime::ttl(hitbox_backend::SystemClock.now(), millis(60_000))).await;
    set(&redis, 2, Lifetime::FOREVER).await;
    let answer = server.ask("EVAL \"return redis.call('PTTL', redis.call('KEYS', '*')[1])\" 0");
    assert!(answer.starts_with(":-1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_copy_never_beats_a_usable_one() {
    let world = World::new();
    let [a, b, _] = three(&world).await;
    for (expired, fresh) in [(&a, &b), (&b, &a)] {
        let now = world.clock.now();
        let long_expired = Lifetime::new(None, Some(now + millis(10)), Some(now + millis(1_000_000)));
        set(&**expired, 1, long_expired).await;
        set(&**fresh, 2, Lifetime::ttl(now, millis(500))).await;
        world.advance_millis(100);
        let pool = || world.pool.shared();
        let parallel = || a.clone().compose(b.clone(), pool()).with_read(ParallelReadPolicy);
        assert_eq!(number(&parallel()).await, Some(2), "in parallel");
        let race = a.clone().compose(b.clone(), pool()).with_read(RaceReadPolicy::default());
        assert_eq!(number(&race).await, Some(2), "in a race");
        assert_eq!(number(&a.clone().compose(b.clone(), pool())).await, Some(2), "one after the other");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_reports_the_layer_that_failed_and_serves_its_copy_no_more() {
    let world = World::new();
    let [a, b, _] = three(&world).await;
    let faults = Faults::default();
    let failing = Faulty::new(b.clone(), &faults, world.shared_clock());
    let cache = a.clone().compose(failing, world.pool.shared()).with_label("outer");
    set(&cache, 1, Lifetime::FOREVER).await;
    faults.always(Operation::Remove, Fault::Fail(ErrorKind::Connection));
    let error = cache.delete(&key(), &mut CacheContext::new()).await.expect_err("Redis failed");
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.to_string().contains("outer.redis"), "{error}");
    assert_eq!(number(&cache).await, None, "what Redis still has is dirty");
    world.pool.wait_all().await;
    assert_eq!(number(&cache).await, None, "and stays so");
    faults.clear();
    world.advance_millis(1_000);
    assert_eq!(number(&cache).await, None, "also while it is reconciled");
    world.pool.wait_all().await;
    assert!(number(&*b).await.is_none() && !b.layout().has_dirty(), "the copy is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loser_of_a_race_does_not_resurrect_what_was_deleted() {
    for loser in [Loser::Finish, Loser::Drop] {
        let world = World::new();
        let [a, b, _] = three(&world).await;
        let faults = Faults::default();
        let slow = Faulty::new(b.clone(), &faults, world.shared_clock());
        let cache = a
            .clone()
            .compose(slow, world.pool.shared())
            .with_write(RaceWritePolicy { loser })
            .with_refill(RefillPolicy::Always);
        faults.nth(Operation::Write, 1, Fault::Delay(millis(500)));
        set(&cache, 1, Lifetime::FOREVER).await;
        // The delete waits for the write that is still under way, and is cut off from its effects.
        let deleting = {
            let cache = cache.clone();
            tokio::spawn(async move { cache.delete(&key(), &mut CacheContext::new()).await })
        };
        while !deleting.is_finished() {
            world.advance_millis(500);
            tokio::task::yield_now().await;
        }
        deleting.await.expect("no panic").expect("a delete");
        for _ in 0..3 {
            assert_eq!(number(&cache).await, None, "{loser:?}");
            world.pool.wait_all().await;
        }
        assert_eq!((number(&*a).await, number(&*b).await), (None, None), "{loser:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_in_a_left_nest_fill_every_level() {
    let world = World::new();
    let [a, b, c] = three(&world).await;
    let pool = || world.pool.shared();
    let inner = a.clone().compose(b.clone(), pool()).with_refill(RefillPolicy::Always).with_label("inner");
    let cache =
        inner.compose(c.clone(), pool()).with_refill(RefillPolicy::Always).with_label("outer").shared();
    set(&*c, 1, Lifetime::FOREVER).await;
    let source = async || {
        let mut context = CacheContext::new();
        let read = cache.get::<u64>(&key(), &mut context).await.expect("a read");
        assert_eq!(read.map(CacheValue::into_data), Some(1));
        world.pool.wait_all().await;
        match *context.source() {
            ResponseSource::Backend(label) => label.to_string(),
            ResponseSource::Upstream => "upstream".to_owned(),
        }
    };
    assert_eq!(source().await, "outer.disk");
    assert_eq!((number(&*a).await, number(&*b).await), (Some(1), Some(1)), "both are filled");
    assert_eq!(source().await, "outer.inner.moka");
}

/// Equal keys share a ticket. A layer that had written the first of them took the second for written where a repair of the
/// key was waiting.
#[tokio::test]
async fn of_equal_keys_in_a_batch_the_last_stays_in_every_layer() {
    let world = World::new();
    let pool = || world.pool.shared();
    let memory: Vec<_> = (0..3).map(|_| MemoryBackend::new(world.shared_clock())).collect();
    let bytes = Leaf::new(Map::default(), LeafOptions::new("bytes").with_clock(world.shared_clock()));
    let faults = Faults::default();
    let race = CompositionPolicy::new().write(RaceWritePolicy { loser: Loser::Finish });
    let in_order = CompositionPolicy::new().write(SequentialWritePolicy::new());
    let all = Faulty::new(memory[0].clone(), &faults, world.shared_clock())
        .compose_with(memory[1].clone(), pool(), &race)
        .compose_with(memory[2].clone(), pool(), &in_order)
        .compose_with(bytes.clone(), pool(), &in_order);
    let entry = |value: u64| (key(), CacheValue::new(value));
    faults.always(Operation::Read, Fault::Fail(ErrorKind::Connection));
    assert!(all.set_many(vec![entry(10)]).await.iter().all(Result::is_ok));
    assert!(all.get_many::<u64>(&[key()]).await.iter().all(Result::is_ok));
    faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
    let receipts = all.set_many(vec![entry(40), entry(41)]).await;
    assert_eq!(receipts.len(), 2);
    assert!(receipts.iter().all(Result::is_ok), "{receipts:?}");
    world.pool.wait_all().await;
    let mut context = CacheContext::new();
    for (number, leaf) in memory[1..].iter().enumerate() {
        let found = leaf.get::<u64>(&key(), &mut context).await.expect("a read");
        assert_eq!(found.map(CacheValue::into_data), Some(41), "memory {number}");
    }
    let found = bytes.get::<u64>(&key(), &mut context).await.expect("a read");
    assert_eq!(found.map(CacheValue::into_data), Some(41), "bytes");
}
