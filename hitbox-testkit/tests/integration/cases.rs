//! Cases that were reported of caches in production, of backends and the pool: one test each, named after its id.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_backend::operation::Presence;
use hitbox_backend::{Backend, CacheBackend, Compose, Layer, OffloadPool, Requirement, Wrap};
use hitbox_core::{
    CacheContext, CacheKey, CacheValue, Clock, ErrorKind, Lifetime, ManualClock, Offload, Task, TaskKind,
};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation, RedisServer, World};

#[tokio::test]
async fn case_d05_a_panic_in_the_drop_of_a_task_is_its_own() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }
    for cancels in [false, true] {
        let clock = ManualClock::new();
        let builder = OffloadPool::builder().workers(1).clock(Arc::new(clock.clone()));
        let pool = builder.timeout(Some(Duration::from_secs(30))).build();
        let stuck = async {
            let _value = PanicsInDrop;
            std::future::pending::<()>().await;
        };
        pool.register(Task::new(TaskKind::WRITE, stuck)).expect("room");
        tokio::task::yield_now().await;
        let ran = Arc::new(AtomicU64::new(0));
        let register = || {
            for _ in 0..50 {
                let ran = ran.clone();
                let work = async move {
                    ran.fetch_add(1, Ordering::SeqCst);
                };
                pool.register(Task::new(TaskKind::WRITE, work)).expect("room");
            }
        };
        if cancels {
            pool.cancel_all();
            register();
        } else {
            register();
            clock.advance(Duration::from_secs(31));
        }
        pool.wait_all().await;
        assert_eq!(ran.load(Ordering::SeqCst), 50, "cancelled: {cancels}");
    }
}

#[tokio::test]
async fn case_d15_the_limit_of_a_load_is_its_own() {
    let clock = ManualClock::new();
    let pool = OffloadPool::builder().clock(Arc::new(clock.clone())).build();
    let ended = Arc::new(AtomicU64::new(0));
    for kind in [TaskKind::LOAD, TaskKind::WRITE] {
        let (sleep, ended) = (clock.sleep(Duration::from_secs(40)), ended.clone());
        let work = async move {
            sleep.await;
            ended.fetch_add(1, Ordering::SeqCst);
        };
        pool.register(Task::new(kind, work)).expect("room");
    }
    tokio::task::yield_now().await;
    for _ in 0..50 {
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    pool.wait_all().await;
    assert_eq!(ended.load(Ordering::SeqCst), 1, "the write is cut at 30 s, the load is not");
}

#[tokio::test]
async fn case_e04_no_two_leaves_have_one_path() {
    let pool = OffloadPool::new();
    let moka = |label: &str| MokaBackend::builder().label(label).build().expect("moka");
    let pair = |label: &str, upper: &str, lower: &str| {
        moka(upper).compose(moka(lower), pool.shared()).with_label(label)
    };
    for whole in [
        pair("n.c", "m", "x").compose(pair("n", "c.m", "c"), pool.shared()).with_label("o"),
        pair("n", "c.m", "c_m").compose(pair("n", "c.m", "m"), pool.shared()).with_label("o"),
        pair("a.b", "c", "c").compose(pair("a_b", "c", "c"), pool.shared()).with_label("a.b"),
    ] {
        let paths: Vec<String> = whole.layout().paths().map(|path| path.to_string()).collect();
        let distinct: HashSet<&String> = paths.iter().collect();
        assert_eq!(distinct.len(), 4, "{paths:?}");
        assert!(paths.iter().all(|path| path.split('.').count() == 3), "a part has no dot: {paths:?}");
    }
    assert_eq!(moka("a.b").layout().leaves()[0].path().as_str(), "a_b");
}

/// A live entry and one that is over, for one key, in both orders.
async fn later_of_two(name: &str, cache: &dyn Backend, now: hitbox_core::Timestamp) {
    let key = CacheKey::builder("e12").part("name", name).build();
    let live = || CacheValue::new(1_u64);
    let over = || CacheValue::new(2_u64).with_lifetime(Lifetime::ttl(now, Duration::ZERO));
    for (entries, expected) in [
        (vec![live(), over()], None),
        (vec![over(), live()], Some(1)),
        (vec![live(), over(), live()], Some(1)),
        (vec![over(), live(), over()], None),
    ] {
        let entries = entries.into_iter().map(|entry| (key.clone(), entry)).collect();
        assert!(cache.set_many(entries).await.iter().all(Result::is_ok), "{name}");
        let found = cache.get::<u64>(&key, &mut CacheContext::new()).await.expect("a read");
        assert_eq!(found.map(CacheValue::into_data), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_e12_of_two_entries_of_a_batch_the_later_stays() {
    let world = World::new();
    let now = world.shared_clock().now();
    let folder = tempfile::tempdir().expect("a folder");
    let clock = || world.shared_clock();
    let moka = || MokaBackend::builder().clock(clock()).build().expect("moka");
    let redis = || {
        let builder = RedisBackend::builder(&RedisServer::shared().url()).prefix("e12:").clock(clock());
        builder.deadline(Duration::from_secs(1_000_000)).build().expect("redis")
    };
    let disk = DiskBackend::builder(folder.path()).clock(clock()).open().await.expect("disk");
    let quick = QuickBackend::builder().clock(clock()).build().expect("quick");
    let all: Vec<(&str, Arc<dyn Backend>)> = vec![
        ("moka", moka().shared()),
        ("quick", quick.shared()),
        ("redis", redis().shared()),
        ("disk", disk.clone().shared()),
        ("moka/redis", moka().compose(redis(), world.pool.shared()).shared()),
        (
            "moka/moka/disk",
            moka().compose(moka().compose(disk, world.pool.shared()), world.pool.shared()).shared(),
        ),
        ("namespace", moka().compose(redis().namespace("n"), world.pool.shared()).coalesced().shared()),
    ];
    for (name, cache) in all {
        later_of_two(name, &*cache, now).await;
    }
}

#[tokio::test]
async fn case_g05_a_look_at_a_layer_that_fails_is_a_maybe() {
    let world = World::new();
    let faults = Faults::default();
    let memory = || MemoryBackend::new(world.shared_clock());
    let failing = || Faulty::new(memory(), &faults, world.shared_clock());
    faults.always(Operation::Read, Fault::Fail(ErrorKind::Connection));
    let key = CacheKey::new("k");
    for cache in
        [memory().compose(failing(), world.pool.shared()), failing().compose(memory(), world.pool.shared())]
    {
        assert_eq!(cache.contains(&key).await.expect("no error"), Presence::Maybe);
    }
    let required =
        memory().compose(failing(), world.pool.shared()).with_requirement(Layer::L2, Requirement::Required);
    assert!(required.contains(&key).await.is_err());
}

#[tokio::test]
async fn case_c11_what_cannot_be_decoded_is_a_miss_of_its_layer() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let moka = || MokaBackend::builder().build().expect("moka");
    let all: Vec<(&str, Arc<dyn Backend>, u64)> = vec![
        ("moka", moka().shared(), 1),
        ("disk", disk.clone().shared(), 1),
        ("moka/disk", moka().compose(disk.clone(), world.pool.shared()).shared(), 2),
        (
            "boxed nest",
            moka()
                .shared()
                .compose(moka().compose(moka(), world.pool.shared()), world.pool.shared())
                .shared(),
            3,
        ),
    ];
    for (name, cache, leaves) in all {
        let key = CacheKey::builder("c11").part("name", name).build();
        let context = &mut CacheContext::new();
        cache.set(&key, CacheValue::new("text".to_owned()), context).await.expect("a write");
        let before = cache.snapshot().total;
        for _ in 0..3 {
            assert!(cache.get::<u64>(&key, context).await.expect("a read").is_none(), "{name}");
        }
        let many = cache.get_many::<u64>(std::slice::from_ref(&key)).await;
        assert!(matches!(many[..], [Ok(None)]), "{name}: {many:?}");
        let after = cache.snapshot().total;
        assert_eq!(after.hits, before.hits, "{name}: none of these is a hit");
        assert_eq!(after.misses - before.misses, 4, "{name}: each call once");
        assert_eq!(after.unusable - before.unusable, 4 * leaves, "{name}");
        assert!(cache.get::<String>(&key, context).await.expect("a read").is_some(), "{name}: it stays");
    }
    disk.close().await;
}
