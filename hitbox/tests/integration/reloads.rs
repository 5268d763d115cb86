//! Reloads of many keys, loads whose callers leave, and memory of others over one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{millis, seconds, until};
use hitbox::backend::operation::{Invalidation, InvalidationTarget};
use hitbox::backend::{Backend, Compose, OffloadPool};
use hitbox::core::{Clock, ManualClock, Scope};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::{Cache, LoadErrorKind, OnStale};
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation};

type Loaded = Result<u64, std::io::Error>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_d14_each_of_many_stale_keys_is_reloaded_once() {
    const KEYS: u64 = 2_000;
    let clock = ManualClock::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let faults = Faults::default();
    let pool = OffloadPool::builder().clock(shared.clone()).build();
    let slow = Faulty::new(MemoryBackend::new(shared.clone()), &faults, shared.clone());
    let builder = Cache::<u64>::builder(slow).name("d14").clock(shared).offload(pool.shared());
    // Time runs fast here: what has been reloaded stays fresh.
    let builder = builder.ttl(seconds(100_000_000)).stale(seconds(100_000_000));
    let builder = builder.on_stale(OnStale::ServeAndReload);
    let cache = builder.build().expect("a cache");
    for key in 0..KEYS {
        cache.entry(key).ttl(seconds(10)).insert(1).await.expect("a write");
    }
    clock.advance(seconds(20));
    for operation in [Operation::Read, Operation::Write] {
        faults.always(operation, Fault::Delay(millis(1)));
    }
    let loads: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let readers: Vec<_> = (0..64_u64)
        .map(|reader| {
            let (cache, loads) = (cache.clone(), loads.clone());
            tokio::spawn(async move {
                // Each begins elsewhere, and goes through all of them twice.
                for step in 0..2 * KEYS {
                    let key = (reader * 31 + step) % KEYS;
                    let loads = loads.clone();
                    let load = move || async move {
                        loads[key as usize].fetch_add(1, Ordering::SeqCst);
                        Loaded::Ok(2)
                    };
                    cache.get_or_load(key, load).await.expect("a copy");
                }
            })
        })
        .collect();
    // A watchdog: time passes as long as somebody waits for it.
    let all = async {
        while readers.iter().any(|reader| !reader.is_finished()) {
            clock.advance(millis(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(seconds(100), all).await.expect("they end");
    until("reloads", || {
        clock.advance(millis(1));
        cache.statistics().loading == 0
    })
    .await
    .expect("they end");
    let never = loads.iter().filter(|loads| loads.load(Ordering::SeqCst) == 0).count();
    let total: u64 = loads.iter().map(|loads| loads.load(Ordering::SeqCst)).sum();
    assert_eq!(never, 0, "of {KEYS} keys were never reloaded");
    assert!(total <= KEYS + KEYS / 10, "{total} loads of {KEYS} keys");
}

#[tokio::test]
async fn case_d18_a_load_that_waits_for_itself_is_gone_with_its_caller() {
    let moka = || MokaBackend::builder().build().expect("moka");
    let cache: Cache<u64> = Cache::builder(moka()).name("d18").build().expect("a cache");
    // It is told at once.
    let inner = cache.clone();
    let outer = cache.get_or_load(1_u64, move || async move {
        let nested = inner.get_or_load(1_u64, || async { Loaded::Ok(1) }).await;
        assert_eq!(nested.expect_err("a cycle").kind(), LoadErrorKind::Cycle);
        Loaded::Ok(2)
    });
    assert_eq!(outer.await.expect("a load"), 2);
    // The caller leaves while the load is under way, and nobody else waits.
    let (inner, begun) = (cache.clone(), Arc::new(AtomicU64::new(0)));
    let counting = begun.clone();
    let call = tokio::spawn({
        let cache = cache.clone();
        async move {
            let load = move || async move {
                counting.fetch_add(1, Ordering::SeqCst);
                drop(inner.get_or_load(2_u64, || async { Loaded::Ok(1) }).await);
                std::future::pending::<Loaded>().await
            };
            cache.get_or_load(2_u64, load).await
        }
    });
    until("a load", || begun.load(Ordering::SeqCst) == 1).await.expect("it begins");
    call.abort();
    until("its end", || cache.statistics().loading == 0).await.expect("it is cancelled");
    assert_eq!(cache.get_or_load(2_u64, || async { Loaded::Ok(5) }).await.expect("a load"), 5);
}

/// As the chapter "Invalidation" says: memory of others is told by `observe`.
#[tokio::test]
async fn case_e03_memory_of_others_over_one_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let pool = OffloadPool::new();
    let over = |memory: MokaBackend| -> Cache<u64> {
        let whole = memory.compose(disk.clone(), pool.shared());
        Cache::builder(whole).name("e03").build().expect("a cache")
    };
    let moka = || MokaBackend::builder().build().expect("moka");
    let memory = moka();
    let (one, same, other) = (over(memory.clone()), over(memory), over(moka()));
    one.insert(1_u64, 1).await.expect("a write");
    for cache in [&one, &same, &other] {
        assert_eq!(cache.get(1_u64).await.expect("a read"), Some(1));
    }
    // A read from below does not fill memory here: the other one has it by a write of its own.
    other.insert(2_u64, 2).await.expect("a write");
    one.clear().await.expect("a clear");
    for key in [1_u64, 2] {
        assert_eq!(one.get(key).await.expect("a read"), None);
        assert_eq!(same.get(key).await.expect("a read"), None, "handles of the same layers");
    }
    assert_eq!(other.get(2_u64).await.expect("a read"), Some(2), "what the book says");
    let change = Invalidation::elsewhere(InvalidationTarget::Scopes(vec![Scope::everything()]));
    other.backend().observe(&change).await;
    // It is under way for as long as it is there.
    drop(change);
    assert_eq!(other.get(2_u64).await.expect("a read"), None, "it has been told");
    // What is written after it stays.
    let receipt = other.insert(3_u64, 3).await.expect("a write");
    assert_eq!(receipt.stored(), 2, "{receipt:?}");
    assert_eq!(one.get(3_u64).await.expect("a read"), Some(3));
}
