//! The turns of keys: no write waits behind work that has nothing to do with it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use crate::common::gated::Gated;
use crate::common::{millis, seconds};
use hitbox::backend::core::{CacheKey, CacheValue, Task, TaskKind};
use hitbox::backend::{
    Backend, CacheBackend, Compose, CompositionBackend, OffloadPool, OptimisticParallelWritePolicy,
    RaceReadPolicy, RaceWritePolicy, RefillPolicy, SequentialWritePolicy, SystemClock,
};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::redis::RedisBackend;
use hitbox_testkit::{Fault, Faults, Faulty, Operation, RedisServer};
use tokio::sync::Semaphore;

fn key(name: &str) -> CacheKey {
    CacheKey::builder(name).build()
}

/// A pool whose only worker has something else to do until the semaphore has a permit.
fn busy_pool() -> (OffloadPool, Arc<Semaphore>) {
    let pool = OffloadPool::builder().workers(1).build();
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let task = Task::new(TaskKind::REFILL, async move {
        let _permit = held.acquire().await;
    });
    pool.shared().register(task).expect("room");
    (pool, gate)
}

fn policies(whole: impl Fn() -> CompositionBackend) -> Vec<(&'static str, CompositionBackend)> {
    vec![
        ("parallel", whole().with_write(OptimisticParallelWritePolicy)),
        ("sequential", whole().with_write(SequentialWritePolicy::new())),
        ("race", whole().with_write(RaceWritePolicy::default())),
    ]
}

/// The stores that a write may be waiting for when its caller leaves.
async fn lowers(server: &RedisServer, folder: &std::path::Path) -> Vec<(&'static str, Arc<dyn Backend>)> {
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    let disk = DiskBackend::builder(folder).open().await.expect("disk");
    let memory = MokaBackend::builder().build().expect("moka");
    vec![("moka", memory.shared()), ("redis", redis.shared()), ("disk", disk.shared())]
}

/// Polls a call once: whether it goes on.
async fn is_pending(mut call: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await
}

/// Begins a write and leaves it.
async fn leave(write: impl Future, what: &str) {
    assert!(is_pending(pin!(write)).await, "{what}: the write was to wait for its layer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_d04_a_write_whose_caller_left_waits_for_no_worker() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    for (name, lower) in lowers(&server, folder.path()).await {
        let (pool, gate) = busy_pool();
        let faults = Faults::default();
        let slow = Arc::new(Faulty::new(lower, &faults, Arc::new(SystemClock)));
        let upper = MokaBackend::builder().build().expect("moka");
        for (policy, tiers) in policies(|| upper.clone().compose(slow.clone(), pool.shared())) {
            let what = format!("{policy} over {name}");
            faults.always(Operation::Write, Fault::Delay(millis(20)));
            match policy {
                // The upper layer answers at once; the rest is the pool's.
                "race" => tiers.set_one(&key("k"), CacheValue::new(1_u64)).await.map(drop).expect("a write"),
                _ => leave(tiers.set_one(&key("k"), CacheValue::new(1_u64)), &what).await,
            }
            faults.clear();
            let k = key("k");
            let next = tiers.set_one(&k, CacheValue::new(2_u64));
            tokio::time::timeout(seconds(20), next).await.expect(&what).expect("a write");
            let removed = tiers.delete_one(&k);
            tokio::time::timeout(seconds(20), removed).await.expect(&what).expect("a removal");
        }
        gate.add_permits(1);
        pool.wait_all().await;
    }
}

/// A batch has the turn of one key and waits for that of another. The write that has it is left by its caller when writes that
/// wait for the batch have all workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_e15_batches_and_busy_workers_do_not_wait_for_each_other() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    for (name, lower) in lowers(&server, folder.path()).await {
        let pool = OffloadPool::builder().workers(2).queue(30).build();
        let faults = Faults::default();
        let slow = Arc::new(Faulty::new(lower.clone(), &faults, Arc::new(SystemClock)));
        let upper = MokaBackend::builder().build().expect("moka");
        let tiers = upper.clone().compose(slow, pool.shared());
        let write = |name: &str, value: u64| {
            let (tiers, key) = (tiers.clone(), key(name));
            async move { tiers.set_one(&key, CacheValue::new(value)).await.map(drop) }
        };
        faults.always(Operation::Write, Fault::Delay(millis(20)));
        let mut of_b = Box::pin(write("b", 1));
        assert!(is_pending(of_b.as_mut()).await, "{name}");
        let batch = ["a", "b"].map(|name| (key(name), CacheValue::new(2_u64)));
        let mut batch = pin!(lower.set_many(batch.into()));
        assert!(is_pending(batch.as_mut()).await, "{name}: it was to wait for the write of b");
        for number in 10..30 {
            leave(write("a", number), name).await;
        }
        drop(of_b);
        faults.clear();
        let last = async {
            batch.await.into_iter().for_each(|receipt| drop(receipt.expect("a write")));
            write("b", 3).await.expect("a write");
            write("a", 3).await.expect("a write");
            pool.wait_all().await;
        };
        tokio::time::timeout(seconds(20), last).await.unwrap_or_else(|_| panic!("{name}: nothing is done"));
        for key in ["a", "b"].map(key) {
            for (place, layer) in [("above", &upper as &dyn Backend), ("below", &*lower)] {
                let found = layer.get_one::<u64>(&key).await.expect("a read").map(CacheValue::into_data);
                assert_eq!(found, Some(3), "{key} {place}, {name}");
            }
        }
    }
}

/// A read that lost a race may be filling its upper layer, and has the turn of its key: it waits for no worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_lost_its_race_keeps_no_turn_from_others() {
    let (pool, _gate) = busy_pool();
    let (store, lower, faults) =
        (Gated::default(), MokaBackend::builder().build().expect("moka"), Faults::default());
    let filled = store.clone().compose(lower.clone(), pool.shared()).with_refill(RefillPolicy::Awaited);
    let other = MokaBackend::builder().build().expect("moka");
    let slow = Faulty::new(other.clone(), &faults, Arc::new(SystemClock));
    let tiers = filled.compose(slow, pool.shared()).with_read(RaceReadPolicy::default());
    let key = key("k");
    lower.set_one(&key, CacheValue::new(1_u64)).await.expect("a write");
    other.set_one(&key, CacheValue::new(1_u64)).await.expect("a write");
    let (gate, before) = (store.gate(&key, false), store.waiting());
    faults.nth(Operation::Read, 1, Fault::Delay(millis(20)));
    let found = tokio::time::timeout(seconds(20), tiers.get_one::<u64>(&key)).await.expect("no hang");
    assert_eq!(found.expect("a read").map(CacheValue::into_data), Some(1));
    assert_eq!(store.waiting(), before + 1, "the loser was to be filling its layer");
    gate.open();
    let write = tiers.set_one(&key, CacheValue::new(2_u64));
    let written = tokio::time::timeout(seconds(20), write).await.expect("it waits for a worker");
    assert_eq!(written.expect("a write").stored(), 3);
}
