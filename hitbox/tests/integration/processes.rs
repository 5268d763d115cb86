//! Several processes over one Redis: each is a cache with a connection and memory of its own. What scopes cost there, and
//! what each hears of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::{millis, seconds, until};
use hitbox::backend::{
    Backend, CacheBackend, Compose, CompositionPolicy, OffloadPool, RaceWritePolicy, RefillPolicy,
};
use hitbox::core::{Clock, ManualClock};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, Loaded, Wrap};
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation, RedisServer};

fn redis(server: &RedisServer, bound: Duration) -> RedisBackend {
    let builder = RedisBackend::builder(&server.url()).deadline(seconds(5)).staleness_bound(bound);
    builder.build().expect("redis")
}

fn over(backend: Arc<dyn Backend>) -> Cache<u64> {
    Cache::builder(backend).name("p").ttl(seconds(600)).build().expect("a cache")
}

/// A process that has nothing in memory.
fn process(server: &RedisServer) -> Cache<u64> {
    over(redis(server, seconds(1)).shared())
}

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c02_first_epochs_are_agreed_on() {
    let server = RedisServer::start();
    for round in 0..100 {
        if round % 10 == 0 {
            // Not even "everything" has an epoch.
            server.ask("FLUSHALL");
        }
        let writers: Vec<_> = (0..4).map(|_| process(&server)).collect();
        let tag = format!("t{round}");
        let written = writers.iter().zip(0_u64..).map(|(cache, key)| cache.entry(key).tag(&tag).insert(key));
        for written in futures_util::future::join_all(written).await {
            written.expect("a write");
        }
        let reader = process(&server);
        for key in 0..4 {
            assert_eq!(
                reader.get(key).await.expect("a read"),
                Some(key),
                "round {round}: acknowledged and lost"
            );
        }
    }
}

/// A process that has asked for a scope that had no epoch finds what another has stored with its first, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c02_who_came_before_the_first_entry_finds_it() {
    let server = RedisServer::start();
    let inside = || over(redis(&server, seconds(3600)).namespace("tenant").shared());
    for process in [&(|| over(redis(&server, seconds(3600)).shared())) as &dyn Fn() -> Cache<u64>, &inside] {
        let (early, writer) = (process(), process());
        for key in 0..3 {
            assert_eq!(early.get(key).await.expect("a read"), None);
            writer.entry(key).tag("first").insert(key).await.expect("a write");
            assert_eq!(early.get(key).await.expect("a read"), Some(key));
        }
    }
}

/// Keys of ours that never end.
fn endless(server: &RedisServer) -> String {
    let script = "local n = 0 for _, key in ipairs(redis.call('KEYS', 'hitbox:*')) do \
                  if redis.call('TTL', key) == -1 then n = n + 1 end end return n";
    server.ask(&format!("EVAL \"{script}\" 0")).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c06_records_of_scopes_end_in_redis() {
    let server = RedisServer::start();
    let cache = process(&server);
    for key in 0..300_u64 {
        cache
            .entry(key)
            .tag(&format!("user-{key}"))
            .depends_on(&format!("row-{key}"))
            .insert(key)
            .await
            .expect("a write");
    }
    for number in 0..50 {
        cache.flush_namespace(&format!("never-{number}")).await.expect("a flush");
        cache.invalidate_tags(&[&format!("unknown-{number}")]).await.expect("an invalidation");
    }
    assert_eq!(endless(&server), ":1", "only \"everything\" has no end");
    // Without an end of its own an entry keeps its scopes.
    let forever: Cache<u64> = Cache::builder(redis(&server, seconds(1))).name("f").build().expect("a cache");
    forever.entry(1).tag("user-1").insert(1).await.expect("a write");
    assert_eq!(endless(&server), ":3", "the entry and its tag");
}

/// Objects in the folder of a disk layer: files in folders within it that are not empty.
fn objects(folder: &std::path::Path) -> usize {
    let within = |folder: &std::path::Path| {
        std::fs::read_dir(folder)
            .expect("a folder")
            .map(|found| found.expect("an entry").path())
            .collect::<Vec<_>>()
    };
    let mut open: Vec<_> = within(folder).into_iter().filter(|path| path.is_dir()).collect();
    let mut count = 0;
    while let Some(folder) = open.pop() {
        for path in within(&folder) {
            if path.is_dir() {
                open.push(path);
            } else {
                count += usize::from(path.metadata().expect("a file").len() > 0);
            }
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c06_records_of_scopes_end_on_disk_and_live_as_long_as_entries() {
    let (folder, clock) = (tempfile::tempdir().expect("a folder"), ManualClock::new());
    let open = async || {
        let disk =
            DiskBackend::builder(folder.path()).clock(Arc::new(clock.clone())).open().await.expect("disk");
        let cache: Cache<u64> =
            Cache::builder(disk.clone()).name("p").clock(Arc::new(clock.clone())).build().expect("a cache");
        (disk, cache)
    };
    let (disk, cache) = open().await;
    for key in 0..100_u64 {
        cache.entry(key).ttl(seconds(10)).tag(&format!("user-{key}")).insert(key).await.expect("a write");
        // Written later, it lives much longer than the record was to.
        if key % 10 == 0 {
            cache
                .entry(1_000 + key)
                .ttl(seconds(5_000))
                .tag(&format!("user-{key}"))
                .insert(key)
                .await
                .expect("a write");
        }
        if key == 50 {
            cache.entry(2_000).tag("user-50").insert(50).await.expect("a write without an end");
        }
    }
    for rest in [900, 4_000] {
        clock.advance(seconds(rest));
        disk.sweep(10_000).await.expect("a sweep");
        for key in (0..100_u64).step_by(10) {
            assert_eq!(cache.get(1_000 + key).await.expect("a read"), Some(key), "{rest}");
        }
    }
    drop((disk, cache));
    let (disk, cache) = open().await;
    assert_eq!(cache.get(1_000_u64).await.expect("a read"), Some(0), "after a restart");
    clock.advance(seconds(20_000));
    disk.sweep(10_000).await.expect("a sweep");
    assert_eq!(cache.get(2_000).await.expect("a read"), Some(50));
    cache.invalidate_tags(&["user-50", "never"]).await.expect("an invalidation");
    assert_eq!(cache.get(2_000).await.expect("a read"), None);
    // Its record goes, and what carried the older epoch does not come back.
    clock.advance(seconds(20_000));
    disk.sweep(10_000).await.expect("a sweep");
    assert_eq!(cache.get(2_000).await.expect("a read"), None);
    cache.entry(2_001).tag("user-50").insert(51).await.expect("a write");
    assert_eq!(cache.get(2_000).await.expect("a read"), None);
    assert_eq!(cache.get(2_001).await.expect("a read"), Some(51));
    // The entry that was invalidated, the new one, its tag and "everything".
    assert_eq!(objects(folder.path()), 4);
    assert_eq!(disk.snapshot().total.occupancy.map(|held| held.entries), Some(2), "those of users");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c13_epochs_that_were_there_are_no_change() {
    let server = RedisServer::start();
    let first = process(&server);
    for key in 0..100_u64 {
        first.entry(key).tag(&format!("t{key}")).insert(key).await.expect("a write");
    }
    let (second, loads) = (process(&server), Arc::new(AtomicU64::new(0)));
    let load = async |key: u64, reload: bool| {
        let entry = second.entry(1_000 + key);
        let entry = if reload { entry.reload() } else { entry };
        let loads = loads.clone();
        let loader = move |_| async move {
            loads.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Loaded::new(key).tag(&format!("t{key}")))
        };
        entry.get_or_load_with(loader).await.expect("a load").value
    };
    for _ in 0..3 {
        for key in 0..100 {
            assert_eq!(load(key, false).await, key);
        }
    }
    let counts = second.statistics();
    assert_eq!((loads.load(Ordering::SeqCst), counts.load_superseded), (100, 0));
    for key in 0..100 {
        load(key, true).await;
        assert_eq!(second.get(1_000 + key).await.expect("a read"), Some(key), "a reload removed it");
    }
}

/// What began before another process's invalidation is not stored, though its epoch was not known here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c13_epochs_that_were_renewed_meanwhile_are_a_change() {
    let server = RedisServer::start();
    let (loading, other) = (process(&server), process(&server));
    let (begun, may_end) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let task = {
        let (cache, begun, may_end) = (loading.clone(), begun.clone(), may_end.clone());
        tokio::spawn(async move {
            let loader = move |_| async move {
                begun.store(true, Ordering::SeqCst);
                may_end.notified().await;
                Ok::<_, std::io::Error>(Loaded::new(1).tag("unknown here"))
            };
            cache.entry(1).get_or_load_with(loader).await
        })
    };
    until("a load", || begun.load(Ordering::SeqCst)).await.expect("it begins");
    other.invalidate_tags(&["unknown here"]).await.expect("an invalidation");
    may_end.notify_one();
    task.await.expect("a call").expect("a load");
    for cache in [&loading, &other, &process(&server)] {
        assert_eq!(cache.get(1).await.expect("a read"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c14_a_load_after_an_acknowledged_write_is_stored() {
    let (clock, faults) = (ManualClock::new(), Faults::default());
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let lower = MemoryBackend::labelled("lower", shared.clone());
    let slow = Faulty::new(lower, &faults, shared);
    let policy = CompositionPolicy::new().write(RaceWritePolicy::default());
    let pool = OffloadPool::new();
    let cache = over(moka().compose_with(slow, pool.shared(), &policy).shared());
    for round in 0..20 {
        faults.always(Operation::Write, Fault::Delay(millis(100)));
        cache.insert(1, round).await.expect("the upper layer has it");
        let value = 1_000 + round;
        let load = tokio::spawn({
            let cache = cache.clone();
            async move {
                cache
                    .entry(1)
                    .reload()
                    .get_or_load(move || async move { Ok::<_, std::io::Error>(value) })
                    .await
            }
        });
        until("the lower layer is written", || {
            clock.advance(millis(100));
            load.is_finished() && faults.held_up() == 0 && pool.statistics().depth == 0
        })
        .await
        .expect("it ends");
        load.await.expect("a call").expect("a load");
        assert_eq!(cache.get(1).await.expect("a read"), Some(value), "round {round}");
        assert_eq!(cache.statistics().load_superseded, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn case_c16_a_bound_of_zero_serves_nothing_that_others_have_cleared() {
    let server = RedisServer::start();
    let (reading, clearing) = (over(redis(&server, Duration::ZERO).shared()), process(&server));
    let floor = Arc::new(AtomicU64::new(0));
    let has_ended = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (cache, floor, has_ended) = (reading.clone(), floor.clone(), has_ended.clone());
            tokio::spawn(async move {
                while !has_ended.load(Ordering::SeqCst) {
                    let at_least = floor.load(Ordering::SeqCst);
                    let found = cache.get(1).await.expect("a read");
                    assert!(
                        found.is_none_or(|value| value >= at_least),
                        "{found:?} after a clear at {at_least}"
                    );
                }
            })
        })
        .collect();
    for round in 1..=150 {
        clearing.insert(1, round).await.expect("a write");
        let seen = reading.get(1).await.expect("a read");
        assert!(seen.is_none_or(|seen| seen >= round), "{seen:?} in round {round}");
        clearing.clear().await.expect("a clear");
        floor.store(round + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    has_ended.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.expect("no older value");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c17_who_only_writes_hears_of_a_clear() {
    let server = RedisServer::start();
    let bound = millis(50);
    let (writing, other) = (over(redis(&server, bound).shared()), over(redis(&server, bound).shared()));
    for round in 0..10 {
        writing.insert(1, round).await.expect("a write");
        other.clear().await.expect("a clear");
        let cleared = Instant::now();
        // Liveness: within the bound, and some time for a loaded machine.
        loop {
            let receipt = writing.insert(2, round).await.expect("a write");
            assert_eq!(receipt.stored(), 1, "what begins after the clear is stored: {receipt:?}");
            if other.get(2).await.expect("a read") == Some(round) {
                break;
            }
            assert!(cleared.elapsed() < seconds(10), "what it writes is never readable");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_d11_invalidations_of_other_tags_leave_a_load_alone() {
    let server = RedisServer::start();
    for backend in
        [moka().shared(), moka().compose(redis(&server, seconds(1)), OffloadPool::new().shared()).shared()]
    {
        let cache = over(backend);
        let (loads, may_end) = (Arc::new(AtomicU64::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
        let mut callers = Vec::new();
        for number in 0..50_u64 {
            let (calling, loading, may_end) = (cache.clone(), loads.clone(), may_end.clone());
            callers.push(tokio::spawn(async move {
                let loader = move |_| async move {
                    loading.fetch_add(1, Ordering::SeqCst);
                    drop(may_end.acquire().await);
                    Ok::<_, std::io::Error>(Loaded::new(7).tag("mine"))
                };
                calling.entry(1).get_or_load_with(loader).await
            }));
            until("it waits", || cache.statistics().coalesced == number && loads.load(Ordering::SeqCst) == 1)
                .await
                .expect("it joins");
            cache.invalidate_tags(&[&format!("other-{number}")]).await.expect("an invalidation");
        }
        may_end.add_permits(1_000);
        for caller in callers {
            assert_eq!(caller.await.expect("a call").expect("a load").value, 7);
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        assert_eq!(cache.get(1).await.expect("a read"), Some(7));
    }
}

/// Proof line of the outage at scale: reads keep their deadline, and all is recorded soon after the server is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f02_a_quarter_of_a_million_invalidations_in_an_outage() {
    const CALLS: usize = 250;
    const EACH: usize = 1_000;
    let server = RedisServer::start();
    let deadline = millis(500);
    let redis = RedisBackend::builder(&server.url()).deadline(deadline).build().expect("redis");
    let pool = OffloadPool::new();
    let policy = CompositionPolicy::new().refill(RefillPolicy::Always);
    let cache = over(moka().compose_with(redis, pool.shared(), &policy).shared());
    cache.entry(1).tag("t0-0").insert(1).await.expect("a write");
    server.kill();
    for call in 0..CALLS {
        let names: Vec<String> = (0..EACH).map(|number| format!("t{call}-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        cache.invalidate_tags(&names).await.expect_err("the server is down");
    }
    server.restart();
    let back = Instant::now();
    let recorded = || {
        let answer = server.ask("DBSIZE");
        answer.lines().next().and_then(|line| line.strip_prefix(':')?.parse::<usize>().ok()).unwrap_or(0)
    };
    let (mut slowest, mut reads) = (Duration::ZERO, 0);
    while recorded() < CALLS * EACH {
        let began = Instant::now();
        // Its own error is no matter here: the connection may be just coming back.
        drop(cache.get(2 + reads).await);
        slowest = slowest.max(began.elapsed());
        reads += 1;
        // A limit of liveness.
        assert!(back.elapsed() < seconds(10), "{} of {} recorded", recorded(), CALLS * EACH);
        tokio::task::yield_now().await;
    }
    assert!(slowest < deadline * 2, "a read took {slowest:?}");
    assert_eq!(cache.get(1).await.expect("a read"), None);
}
