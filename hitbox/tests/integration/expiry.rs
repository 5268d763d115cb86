//! BEHAVIOURS *expiry*, over every topology; each check is also run on something that is wrong in the way it is there
//! to find.

use std::sync::Arc;

use crate::common::careless::{Careless, Mistake};
use crate::common::{
    Knobs, Loading, Rig, Source, TOPOLOGIES, Topology, Verdict, World, answer, cache, call, millis, passes,
    seconds,
};
use hitbox::backend::{Backend, CacheBackend, Compose, Jitter, RefillPolicy, Wrap};
use hitbox::core::{CacheContext, Clock, ErrorKind, Timestamp};
use hitbox::{Cache, Loaded, OnStale, ToKey};
use hitbox_testkit::{Fault, Operation};

fn minute() -> Knobs {
    Knobs { ttl: Some(seconds(60)), ..Knobs::default() }
}

/// A mistake is rejected over memory.
async fn rejects<F: Future<Output = Verdict>>(check: impl Fn(Topology, Rig) -> F, knobs: Knobs) {
    let world = World::new();
    let careless = Careless::new(Mistake::Naive, world.backend(Topology::Memory), &knobs);
    assert!(
        check(Topology::Memory, Rig::new(world, careless)).await.is_err(),
        "the check accepts a naive cache"
    );
}

async fn load(rig: &Rig, loaded: Loaded<u64>) -> Result<u64, String> {
    let served = answer(call(rig, 1, Source::open().with(move || Ok(loaded)))).await?;
    let value = served.map(|served| *served).map_err(|error| error.to_string());
    rig.world.pool.wait_all().await;
    value
}

async fn earlier_of_both(_: Topology, rig: Rig) -> Verdict {
    let now = rig.world.clock.now();
    load(&rig, Loaded::new(1).ttl(seconds(60)).expires_at(now + seconds(30))).await?;
    rig.world.clock.advance(millis(29_999));
    ensure!(rig.cache.get(1).await == Some(1), "it ended before either end");
    rig.world.clock.advance(millis(1));
    ensure!(rig.cache.get(1).await.is_none(), "it outlived its absolute end");
    let now = rig.world.clock.now();
    load(&rig, Loaded::new(2).ttl(seconds(30)).expires_at(now + seconds(60))).await?;
    rig.world.clock.advance(seconds(30));
    ensure!(rig.cache.get(1).await.is_none(), "it outlived its TTL");
    Ok(())
}

#[tokio::test]
async fn expiry_01_relative_absolute_or_the_earlier() {
    passes(earlier_of_both, Knobs::default()).await;
}

#[tokio::test]
async fn expiry_01_rejects_one_end_for_all() {
    rejects(earlier_of_both, minute()).await;
}

/// An upper layer with a cap, a lower one without; the upper one's entries end at `cap` at the latest.
async fn capped(upper_cap: impl Fn(hitbox_testkit::MemoryBackend) -> Arc<dyn Backend>) -> Verdict {
    let world = World::new();
    let [upper, lower] = [0, 2].map(|index| world.layers[index].clone());
    let backend =
        upper_cap(upper.clone()).compose(lower, world.pool.shared()).with_refill(RefillPolicy::Always);
    let cache: Cache<u64> = Cache::builder(backend)
        .name("test")
        .offload(world.pool.shared())
        .build()
        .map_err(|e| e.to_string())?;
    cache.insert(1_u64, 7).await.map_err(|error| error.to_string())?;
    let key = 1_u64.to_key("test").into_owned();
    let expire = async || {
        let found = upper.get::<u64>(&key, &mut CacheContext::new()).await.ok().flatten();
        found.and_then(|value| value.lifetime().expire())
    };
    let start = world.clock.now();
    ensure!(
        expire().await == Some(start + seconds(10)),
        "the upper layer's copy ends at {:?}",
        expire().await
    );
    world.clock.advance(seconds(11));
    // The lower one never ends, and fills the upper one anew, under its cap.
    ensure!(cache.get(1_u64).await.ok().flatten() == Some(7), "it is gone everywhere");
    world.pool.wait_all().await;
    ensure!(expire().await == Some(start + seconds(21)), "a refilled copy ends at {:?}", expire().await);
    Ok(())
}

#[tokio::test]
async fn expiry_02_each_layer_has_its_cap() {
    assert_eq!(capped(|upper| Arc::new(upper.ttl_cap(seconds(10)))).await, Ok(()));
    assert_eq!(capped(|upper| Arc::new(upper.ttl_override(Some(seconds(10))))).await, Ok(()));
}

#[tokio::test]
async fn expiry_02_rejects_layers_without_a_cap() {
    assert!(capped(|upper| Arc::new(upper)).await.is_err());
}

fn idle() -> Knobs {
    Knobs { idle: Some(seconds(80)), ..Knobs::default() }
}

async fn idle_time(topology: Topology, rig: Rig) -> Verdict {
    load(&rig, Loaded::new(7)).await?;
    // Read often, it lives on: ten times as long.
    for _ in 0..80 {
        rig.world.clock.advance(seconds(10));
        ensure!(rig.cache.get(1).await == Some(7), "it died while it was read over {topology:?}");
        rig.world.pool.wait_all().await;
    }
    // At most an eighth early.
    rig.world.clock.advance(seconds(69));
    ensure!(rig.cache.get(1).await == Some(7), "it died early over {topology:?}");
    rig.world.pool.wait_all().await;
    // A clock that goes back does not count as idle.
    let now = rig.world.clock.now();
    rig.world.clock.set_wall(now - seconds(3_600));
    ensure!(rig.cache.get(1).await == Some(7), "a clock that went back killed it");
    rig.world.clock.set_wall(now);
    rig.world.clock.advance(seconds(80));
    ensure!(rig.cache.get(1).await.is_none(), "unread for its idle time, it lives over {topology:?}");
    Ok(())
}

#[tokio::test]
async fn expiry_03_dead_when_unread() {
    passes(idle_time, idle()).await;
}

#[tokio::test]
async fn expiry_03_reads_of_the_upper_layer_reach_the_lower_one() {
    let world = World::new();
    let cache = cache(&world, Topology::TwoLayers, &idle());
    cache.insert(1_u64, 7).await.expect("a write");
    for _ in 0..40 {
        world.clock.advance(seconds(10));
        cache.get(1_u64).await.expect("a read").expect("a hit");
        world.pool.wait_all().await;
    }
    let key = 1_u64.to_key("test").into_owned();
    let below = world.layers[2].get::<u64>(&key, &mut CacheContext::new()).await.expect("a read");
    assert!(below.is_some(), "the lower layer's copy died while the upper one's was read");
    let touches = cache.statistics().touched;
    assert!((38..=40).contains(&touches), "{touches} touches in 400 s of an idle time of 80 s");
}

/// A note of a read, or a retry, does not give a lower layer the shorter life of a capped upper one.
#[tokio::test]
async fn upkeep_moves_no_window() {
    let world = World::new();
    let capped = world.layers[0].clone().ttl_cap(seconds(10));
    let backend =
        capped.compose(world.layers[2].clone(), world.pool.shared()).with_refill(RefillPolicy::Always);
    let builder = Cache::<u64>::builder(backend).name("test").offload(world.pool.shared());
    let cache = builder.ttl(seconds(600)).idle(seconds(80)).build().expect("a cache");
    cache.insert(1_u64, 7).await.expect("a write");
    let end = world.clock.now() + seconds(600);
    let key = 1_u64.to_key("test").into_owned();
    for _ in 0..20 {
        world.clock.advance(seconds(9));
        assert_eq!(cache.get(1_u64).await.expect("a read"), Some(7));
        world.pool.wait_all().await;
        let below = world.layers[2].get::<u64>(&key, &mut CacheContext::new()).await.expect("a read");
        assert_eq!(below.expect("a copy").lifetime().expire(), Some(end));
    }
}

#[tokio::test]
async fn expiry_03_rejects_living_for_ever() {
    rejects(idle_time, idle()).await;
}

fn with_all_ends() -> Knobs {
    Knobs { stale: seconds(30), on_stale: OnStale::Serve, fail_safe: seconds(100), ..minute() }
}

async fn three_ends(_: Topology, rig: Rig) -> Verdict {
    load(&rig, Loaded::new(7)).await?;
    let start = rig.world.clock.now();
    let source = Source::open();
    let ask = async || answer(call(&rig, 1, source.error())).await;
    rig.world.clock.advance(seconds(60));
    let served = ask().await?.map_err(|error| format!("stale: {error}"))?;
    ensure!(served.outcome.kind == hitbox::AnswerKind::Stale, "{served:?}");
    ensure!(served.outcome.remaining(rig.world.clock.now()) == Some(seconds(30)), "{served:?}");
    rig.world.clock.advance(millis(29_999));
    ensure!(rig.cache.get(1).await == Some(7), "it ended early");
    rig.world.clock.advance(millis(1));
    ensure!(rig.cache.get(1).await.is_none(), "a normal read sees an expired copy");
    // Fail-safe reads see it until `retain`.
    let served = ask().await?.map_err(|error| format!("fail-safe: {error}"))?;
    ensure!(*served == 7 && served.outcome.kind == hitbox::AnswerKind::StaleOnError, "{served:?}");
    rig.world.clock.advance((start + seconds(190)).since(rig.world.clock.now()));
    ensure!(ask().await?.is_err(), "a fail-safe read sees what is over");
    Ok(())
}

#[tokio::test]
async fn expiry_04_stale_expire_retain() {
    passes(three_ends, with_all_ends()).await;
}

#[tokio::test]
async fn expiry_04_rejects_one_end() {
    rejects(three_ends, with_all_ends()).await;
}

/// Jitter reaches every layer: all have the same instant.
async fn jittered(jitter: f64) -> Verdict {
    let world = World::new();
    let builder =
        Cache::builder(world.backend(Topology::TwoLayers)).name("test").offload(world.pool.shared());
    let cache: Cache<u64> = builder.ttl(seconds(100)).jitter(jitter).build().map_err(|e| e.to_string())?;
    let now = world.clock.now();
    let mut ends = std::collections::HashSet::new();
    for number in 0..200_u64 {
        cache.insert(number, number).await.map_err(|error| error.to_string())?;
        let key = number.to_key("test").into_owned();
        let end = async |layer: usize| {
            let found = world.layers[layer].get::<u64>(&key, &mut CacheContext::new()).await.ok().flatten();
            found.and_then(|value| value.lifetime().expire())
        };
        let (upper, lower) = (end(0).await, end(2).await);
        ensure!(upper == lower, "layers end at {upper:?} and {lower:?}");
        let life = upper.ok_or("no end")?.since(now);
        ensure!((seconds(100)..=seconds(150)).contains(&life), "it lives for {life:?}");
        ends.insert(life);
    }
    ensure!(ends.len() > 150, "200 entries end at {} instants", ends.len());
    Ok(())
}

#[tokio::test]
async fn expiry_05_jitter_spreads_ends_alike_in_every_layer() {
    assert_eq!(jittered(0.5).await, Ok(()));
    // A layer's own cap is spread too.
    let world = World::new();
    let capped = world.layers[0].clone().ttl_cap(seconds(10)).jitter(Jitter::new(1.0));
    let cache: Cache<u64> =
        Cache::builder(capped).name("test").offload(world.pool.shared()).build().expect("a cache");
    let mut ends = std::collections::HashSet::new();
    for number in 0..50_u64 {
        let found = cache.insert(number, 1).await.map(|_| cache.entry(number));
        let served = found.expect("a write").get().await.expect("a read");
        let life = served.outcome.remaining(world.clock.now()).expect("an end");
        assert!((seconds(10)..=seconds(20)).contains(&life), "{life:?}");
        ends.insert(life);
    }
    assert!(ends.len() > 30, "{} of 50", ends.len());
}

#[tokio::test]
async fn expiry_05_rejects_ends_that_are_all_alike() {
    assert!(jittered(0.0).await.is_err());
}

/// A clock that counts how often it is asked.
#[derive(Debug, Default)]
struct CountingClock(std::sync::atomic::AtomicU64);

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Timestamp::from_millis(1_000_000)
    }

    fn monotonic(&self) -> std::time::Duration {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        seconds(1)
    }

    fn sleep(&self, _: std::time::Duration) -> hitbox::core::BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn is_real(&self) -> bool {
        false
    }
}

/// AnswerKind often the clock is asked by a hundred hits.
async fn clock_readings(
    build: impl Fn(hitbox::CacheBuilder<u64, hitbox_testkit::MemoryBackend>) -> Cache<u64>,
) -> u64 {
    let clock = Arc::new(CountingClock::default());
    let cache = build(Cache::builder(hitbox_testkit::MemoryBackend::new(clock.clone())).name("test"));
    cache.insert(1_u64, 7).await.expect("a write");
    let before = clock.0.load(std::sync::atomic::Ordering::SeqCst);
    for _ in 0..100 {
        let value = cache.get_or_load(1_u64, || async { Ok::<_, std::io::Error>(8) }).await;
        assert_eq!(value.expect("a hit"), 7);
    }
    clock.0.load(std::sync::atomic::Ordering::SeqCst) - before
}

#[tokio::test]
async fn expiry_06_costs_nothing_when_unused() {
    assert_eq!(clock_readings(|builder| builder.build().expect("a cache")).await, 0, "without ends");
    let with_ttl = clock_readings(|builder| builder.ttl(seconds(60)).jitter(0.5).build().expect("a cache"));
    assert_eq!(with_ttl.await, 100, "with an end: one reading per hit");
}

#[tokio::test]
async fn expiry_06_rejects_features_that_look_at_the_clock() {
    let all = |builder: hitbox::CacheBuilder<u64, _>| {
        builder.ttl(seconds(600)).refresh_after(0.9).idle(seconds(60)).build().expect("a cache")
    };
    assert!(clock_readings(all).await > 100);
}

/// Entries whose time is over while the process is down do not come back, and their bytes are released.
async fn after_restart(sweep: bool) -> Verdict {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let clock = hitbox::core::ManualClock::new();
    let open = async || {
        let builder = hitbox::disk::DiskBackend::builder(folder.path()).clock(Arc::new(clock.clone()));
        builder.open().await.map_err(|error| error.to_string())
    };
    let build = |disk: &hitbox::disk::DiskBackend| {
        Cache::<Vec<u8>>::builder(disk.clone())
            .name("test")
            .ttl(seconds(60))
            .build()
            .map_err(|e| e.to_string())
    };
    let disk = open().await?;
    let cache = build(&disk)?;
    for number in 0..20_u64 {
        cache.insert(number, vec![7; 10_000]).await.map_err(|error| error.to_string())?;
    }
    drop(cache);
    disk.close().await;
    clock.advance(seconds(61));
    let disk = open().await?;
    let cache = build(&disk)?;
    for number in 0..20_u64 {
        let found = cache.get(number).await.map_err(|error| error.to_string())?;
        ensure!(found.is_none(), "{number} came back");
    }
    if sweep {
        disk.sweep(1_000).await.map_err(|error| error.to_string())?;
    }
    let bytes: u64 = walk(folder.path());
    ensure!(bytes < 10_000, "{bytes} bytes of expired entries are left");
    Ok(())
}

fn walk(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(facts) if facts.is_dir() => walk(&entry.path()),
            Ok(facts) => facts.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test]
async fn expiry_07_expired_entries_stay_away_after_a_restart() {
    assert_eq!(after_restart(true).await, Ok(()));
}

#[tokio::test]
async fn expiry_07_rejects_keeping_the_bytes() {
    // What recovery itself drops is right; entries that expire later need a sweep.
    let folder = tempfile::tempdir().expect("a folder");
    let clock = hitbox::core::ManualClock::new();
    let builder = hitbox::disk::DiskBackend::builder(folder.path()).clock(Arc::new(clock.clone()));
    let disk = builder.open().await.expect("a disk");
    let cache = Cache::<Vec<u8>>::builder(disk).name("test").ttl(seconds(60)).build().expect("a cache");
    cache.insert(1_u64, vec![7; 10_000]).await.expect("a write");
    clock.advance(seconds(61));
    assert_eq!(cache.get(1_u64).await.expect("a read"), None);
    assert!(walk(folder.path()) >= 10_000, "nothing was there to be swept");
}

async fn expired_by_hand(topology: Topology, keep: bool) -> Verdict {
    let world = World::new();
    let cache = cache(&world, topology, &Knobs { stale: seconds(30), fail_safe: seconds(100), ..minute() });
    cache.insert(1_u64, 7).await.ok();
    let start = world.clock.now();
    world.clock.advance(seconds(10));
    if keep {
        ensure!(cache.expire(1_u64).await.unwrap_or(true), "there was nothing");
    } else {
        cache.remove(1_u64).await.ok();
    }
    let served = cache.entry(1_u64).get().await.map_err(|error| error.to_string())?;
    ensure!(served.value == Some(7), "its body is gone");
    ensure!(served.outcome.kind == hitbox::AnswerKind::Stale, "{served:?}");
    ensure!(served.outcome.expires == Some(start + seconds(90)), "another window was moved: {served:?}");
    ensure!(!cache.expire(2_u64).await.unwrap_or(false), "there is no such entry");
    // A source that is back is asked.
    let reloaded = cache.entry(1_u64).get_or_load(|| async { Ok::<_, std::io::Error>(8) }).await;
    ensure!(reloaded.is_ok_and(|served| *served == 7), "it is served while it is reloaded");
    world.pool.wait_all().await;
    ensure!(cache.get(1_u64).await.ok().flatten() == Some(8), "it was not reloaded");
    // What a layer failed to do is reported.
    if topology == Topology::Memory {
        world.faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
        let reported = cache.expire(1_u64).await;
        ensure!(reported.is_err(), "a layer failed: {reported:?}");
    }
    Ok(())
}

#[tokio::test]
async fn expiry_08_expire_makes_stale_and_nothing_else() {
    for topology in TOPOLOGIES {
        assert_eq!(expired_by_hand(topology, true).await, Ok(()), "over {topology:?}");
    }
}

#[tokio::test]
async fn expiry_08_rejects_removing_the_entry() {
    assert!(expired_by_hand(Topology::Memory, false).await.is_err());
}

#[tokio::test]
async fn entries_without_ends_stay() {
    for topology in TOPOLOGIES {
        let world = World::new();
        let cache = cache(&world, topology, &Knobs::default());
        cache.insert(1_u64, 7).await.ok();
        world.clock.advance(seconds(1_000_000_000));
        assert_eq!(Loading::get(&cache, 1).await, Some(7), "over {topology:?}");
        let served = cache.entry(1_u64).get().await.expect("a read");
        assert_eq!(served.outcome.expires, None);
    }
}
