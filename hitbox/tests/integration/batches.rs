//! `get_or_load_many` does what `get_or_load` does, in every setting; and the clean end of a cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{Knobs, Topology, World, cache, fail, millis, seconds, until};
use hitbox::backend::{Backend, CacheBackend};
use hitbox::core::{CacheContext, CacheKey, CacheValue, ErrorKind};
use hitbox::disk::DiskBackend;
use hitbox::{Cache, LoadErrorKind, OnStale, stacks};

type Found = Result<HashMap<u64, u64>, std::io::Error>;

/// What the source has: the key's hundredfold and the number of the call; nothing for odd keys.
fn answer(keys: Vec<u64>, call: u64) -> Found {
    Ok(keys.into_iter().filter(|key| key % 2 == 0).map(|key| (key, key * 100 + call)).collect())
}

/// Asks for these keys; says what came and how many keys the source was asked for.
async fn ask(cache: &Cache<u64>, keys: &[u64], call: u64) -> (Vec<(u64, u64)>, u64) {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let load = move |keys: Vec<u64>| async move {
        counted.fetch_add(keys.len() as u64, Ordering::SeqCst);
        answer(keys, call)
    };
    let mut found: Vec<_> =
        cache.get_or_load_many(keys.iter().copied(), load).await.expect("values").into_iter().collect();
    found.sort_unstable();
    (found, asked.load(Ordering::SeqCst))
}

/// Lets time pass until a call has ended.
async fn run_out<T>(world: &World, call: &tokio::task::JoinHandle<T>) {
    let ended = until("its time is over", || {
        world.clock.advance(millis(10));
        call.is_finished()
    });
    ended.await.expect("it is cut");
}

#[tokio::test]
async fn case_d12_known_absence_is_not_loaded_again() {
    for topology in [Topology::Memory, Topology::Moka, Topology::Nest] {
        let world = World::new();
        let knobs = Knobs { ttl: Some(seconds(60)), absent: Some(seconds(10)), ..Knobs::default() };
        let cache = cache(&world, topology, &knobs);
        let keys = [1, 2, 3, 4];
        let expected = vec![(2, 201), (4, 401)];
        assert_eq!(ask(&cache, &keys, 1).await, (expected.clone(), 4));
        world.pool.wait_all().await;
        assert_eq!(ask(&cache, &keys, 2).await, (expected.clone(), 0), "over {topology:?}");
        world.clock.advance(seconds(10));
        assert_eq!(ask(&cache, &keys, 3).await, (expected, 2), "absence has ended over {topology:?}");
    }
}

#[tokio::test]
async fn case_d12_stale_copies_are_served_or_reloaded_as_the_settings_say() {
    for on_stale in [OnStale::Serve, OnStale::ServeAndReload, OnStale::Reload] {
        let world = World::new();
        let knobs = Knobs { ttl: Some(seconds(10)), stale: seconds(60), on_stale, ..Knobs::default() };
        let cache = cache(&world, Topology::TwoLayers, &knobs);
        let keys = [2, 4];
        ask(&cache, &keys, 1).await;
        world.pool.wait_all().await;
        world.clock.advance(seconds(10));
        let (first, _) = ask(&cache, &keys, 2).await;
        world.pool.wait_all().await;
        let (then, _) = ask(&cache, &keys, 3).await;
        let calls = |found: &[(u64, u64)]| found.iter().map(|(_, value)| value % 100).collect::<Vec<_>>();
        let expected = match on_stale {
            OnStale::Serve => ([1, 1], [1, 1]),
            OnStale::ServeAndReload => ([1, 1], [2, 2]),
            _ => ([2, 2], [2, 2]),
        };
        assert_eq!((calls(&first), calls(&then)), (expected.0.to_vec(), expected.1.to_vec()), "{on_stale:?}");
    }
}

#[tokio::test]
async fn case_d12_a_leader_that_leaves_is_replaced() {
    let world = World::new();
    let cache = cache(&world, Topology::Moka, &Knobs { ttl: Some(seconds(60)), ..Knobs::default() });
    let leader = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load_scoped(2_u64, std::future::pending::<Result<u64, std::io::Error>>).await }
    });
    until("a load", || cache.statistics().loading == 1).await.expect("it begins");
    let follower = tokio::spawn({
        let cache = cache.clone();
        async move { ask(&cache, &[2], 7).await }
    });
    until("it waits", || cache.statistics().coalesced == 1).await.expect("it joins");
    leader.abort();
    assert_eq!(follower.await.expect("it leads"), (vec![(2, 207)], 1));
}

#[tokio::test]
async fn case_d12_a_soft_timeout_serves_what_is_older() {
    let world = World::new();
    let knobs =
        Knobs { ttl: Some(seconds(10)), fail_safe: seconds(600), soft: Some(millis(50)), ..Knobs::default() };
    let cache = cache(&world, Topology::TwoLayers, &knobs);
    ask(&cache, &[2, 4], 1).await;
    world.pool.wait_all().await;
    world.clock.advance(seconds(20));
    let call = tokio::spawn({
        let cache = cache.clone();
        let load = |_: Vec<u64>| std::future::pending::<Found>();
        async move { cache.get_or_load_many([2, 4], load).await }
    });
    run_out(&world, &call).await;
    let found = call.await.expect("a call").expect("the older values");
    assert_eq!((found[&2], found[&4]), (201, 401));
}

#[tokio::test]
async fn case_d06_a_hard_timeout_cuts_a_batch_and_others_go_on() {
    let world = World::new();
    let knobs = Knobs { ttl: Some(seconds(10)), hard: Some(millis(100)), ..Knobs::default() };
    let cache = cache(&world, Topology::TwoLayers, &knobs);
    let (hanging, panicking) = (cache.clone(), cache.clone());
    let hangs = tokio::spawn(async move {
        hanging.get_or_load_many([2], |_: Vec<u64>| std::future::pending::<Found>()).await
    });
    let panics = tokio::spawn(async move {
        let load = |keys: Vec<u64>| async move {
            assert!(keys.is_empty(), "the loader panics");
            Found::Ok(HashMap::new())
        };
        panicking.get_or_load_many([4], load).await
    });
    assert!(panics.await.expect_err("the caller's own panic").is_panic());
    assert_eq!(ask(&cache, &[6, 8], 1).await.0, [(6, 601), (8, 801)], "others go on");
    run_out(&world, &hangs).await;
    let error = hangs.await.expect("a call").expect_err("a timeout");
    assert_eq!(error.kind(), LoadErrorKind::TimedOut);
    assert_eq!(ask(&cache, &[4], 2).await.0, [(4, 402)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_e12_of_equal_keys_in_a_batch_the_last_write_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let moka = || hitbox::moka::MokaBackend::builder().build().expect("moka");
    let disk = async |name: &str| DiskBackend::builder(folder.path().join(name)).open().await.expect("disk");
    let backends: [(&str, Arc<dyn Backend>); 4] = [
        ("moka", moka().shared()),
        ("disk", disk("alone").await.shared()),
        ("two", stacks::over(moka(), moka()).shared()),
        ("moka/disk", stacks::over(moka(), disk("under").await).shared()),
    ];
    for (name, backend) in backends {
        let key = CacheKey::new("k");
        let over = || CacheValue::new(2_u64).with_lifetime(hitbox::core::Lifetime::ENDED);
        for (entries, expected) in [
            (vec![CacheValue::new(1_u64), over()], None),
            (vec![over(), CacheValue::new(3)], Some(3)),
            (vec![CacheValue::new(4), over(), CacheValue::new(5)], Some(5)),
        ] {
            let entries = entries.into_iter().map(|entry| (key.clone(), entry)).collect();
            for written in backend.set_many(entries).await {
                written.expect("a write");
            }
            let found = backend.get::<u64>(&key, &mut CacheContext::new()).await.expect("a read");
            assert_eq!(found.map(CacheValue::into_data), expected, "over {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_h03_a_shutdown_closes_the_layers_and_says_what_was_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = async || stacks::memory_over_disk(100, folder.path(), 1 << 20).await;
    let cache: Cache<u64> = Cache::builder(open().await.expect("a stack")).build().expect("a cache");
    for key in 0..50_u64 {
        cache.insert(key, key).await.expect("a write");
    }
    open().await.expect_err("it is in use");
    // Clones live on, and so does a load for a while.
    let clone = cache.clone();
    let load = tokio::spawn(async move {
        clone.get_or_load(1_000_u64, || async { Ok::<_, std::io::Error>(7) }).await.expect("a load")
    });
    assert_eq!(load.await.expect("a call"), 7);
    let shutdown = cache.shutdown(seconds(20)).await;
    assert!(shutdown.is_clean(), "{shutdown:?}");
    let again: Cache<u64> = Cache::builder(open().await.expect("it is free")).build().expect("a cache");
    for key in 0..50_u64 {
        assert_eq!(again.get(key).await.expect("a read"), Some(key));
    }
    // The closed one writes nothing there any more.
    let disk = cache.backend().layout().leaves()[1].path();
    let receipt = cache.insert(1, 99).await.expect("memory takes it");
    let line = receipt.leaves().iter().find(|line| line.label == disk).expect("the disk's line");
    assert_eq!(line.outcome.error().map(hitbox::core::BackendError::kind), Some(ErrorKind::Closed));
    assert_eq!(again.get(1).await.expect("a read"), Some(1));
    assert!(cache.shutdown(seconds(20)).await.recovering > 0, "what the disk did not take");
    // A load that never ends is left behind.
    let stuck = again.clone();
    let call = tokio::spawn(async move {
        stuck.get_or_load(2_000_u64, std::future::pending::<Result<u64, std::io::Error>>).await
    });
    until("a load", || again.statistics().loading == 1).await.expect("it begins");
    let cut = again.shutdown(millis(50)).await;
    assert!(cut.is_cut && cut.loading == 1, "{cut:?}");
    open().await.expect("the folder is free though a load is left behind");
    call.abort();
}

#[tokio::test]
async fn case_h03_a_shutdown_offers_layers_what_they_have_missed() {
    let world = World::new();
    let cache = cache(&world, Topology::TwoLayers, &Knobs { ttl: Some(seconds(600)), ..Knobs::default() });
    fail(&world.faults);
    for key in 0..100_u64 {
        cache.insert(key, key).await.expect("one layer is enough");
    }
    // Nothing answers: it is not waited for.
    let ending = tokio::spawn({
        let cache = cache.clone();
        async move { cache.shutdown(seconds(3_600)).await }
    });
    run_out(&world, &ending).await;
    let left = ending.await.expect("a call");
    assert_eq!((left.recovering, left.is_cut, left.is_clean()), (100, false, false), "{left:?}");
    world.faults.clear();
    let ending = tokio::spawn({
        let cache = cache.clone();
        async move { cache.shutdown(seconds(3_600)).await }
    });
    run_out(&world, &ending).await;
    let left = ending.await.expect("a call");
    assert!(left.is_clean(), "{left:?}");
    assert_eq!(world.layers[2].len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_h03_closing_waits_for_no_handles() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = async || DiskBackend::builder(folder.path()).open().await;
    let disk = open().await.expect("disk");
    let (clone, key) = (disk.clone(), CacheKey::new("k"));
    disk.set(&key, CacheValue::new(1_u64), &mut CacheContext::new()).await.expect("a write");
    let writers: Vec<_> = (0..20_u64)
        .map(|number| {
            let disk = clone.clone();
            let key = CacheKey::builder("w").part("n", number).build();
            tokio::spawn(async move {
                disk.set(&key, CacheValue::new(number), &mut CacheContext::new()).await.is_ok()
            })
        })
        .collect();
    disk.close().await;
    let next = open().await.expect("it is free");
    for (writer, number) in writers.into_iter().zip(0_u64..) {
        let key = CacheKey::builder("w").part("n", number).build();
        let found = next.get::<u64>(&key, &mut CacheContext::new()).await.expect("a read").is_some();
        assert!(found || !writer.await.expect("a task"), "an acknowledged write is lost");
    }
    assert!(clone.get::<u64>(&key, &mut CacheContext::new()).await.expect("a read").is_none());
    let error = clone.set(&key, CacheValue::new(2_u64), &mut CacheContext::new()).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
    for closed in [
        clone.delete(&key, &mut CacheContext::new()).await.map(drop),
        clone.sweep(10).await.map(drop),
        clone.erase().await,
    ] {
        assert_eq!(closed.expect_err("closed").kind(), ErrorKind::Closed);
    }
    clone.close().await;
    let found = next.get::<u64>(&key, &mut CacheContext::new()).await.expect("a read");
    assert_eq!(found.map(CacheValue::into_data), Some(1));
}
