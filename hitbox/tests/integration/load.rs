//! BEHAVIOURS *load*, over every topology; each check is also run on a cache with the mistake that it is there to find.

use crate::common::careless::Mistake;
use crate::common::{
    Knobs, Rig, Source, TOPOLOGIES, Topology, Verdict, World, answer, cache, call, fail, millis, passes,
    rejects, rig, seconds, until,
};
use hitbox::backend::CacheBackend;
use hitbox::core::{CacheContext, Clock};
use hitbox::{AfterTimeout, AnswerKind, Cache, LoadErrorKind, Loaded, OnStale, ToKey};
use hitbox_testkit::{Fault, Operation};

const CALLERS: u64 = 1_000;

fn minute() -> Knobs {
    Knobs { ttl: Some(seconds(60)), ..Knobs::default() }
}

async fn one_load(_: Topology, rig: Rig) -> Verdict {
    let source = Source::closed();
    let calls: Vec<_> = (0..CALLERS).map(|_| call(&rig, 1, source.value(7))).collect();
    rig.waiting(CALLERS).await?;
    until("a load", || source.calls() > 0).await?;
    ensure!(source.calls() == 1, "{} loads", source.calls());
    source.answer(CALLERS as usize);
    let mut loaded = 0;
    for call in calls {
        let served = answer(call).await?.map_err(|error| error.to_string())?;
        ensure!(*served == 7, "{}", *served);
        loaded += u64::from(served.outcome.kind == AnswerKind::Loaded);
        // Stored before the flight ended: nobody ever asks again.
        ensure!(rig.cache.get(1).await == Some(7), "it was answered before it was stored");
    }
    ensure!(loaded == 1 && source.calls() == 1, "{loaded} say that they loaded; {} loads", source.calls());
    ensure!(rig.cache.loading() == 0, "a flight is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_01_a_thousand_misses_cost_one_load() {
    passes(one_load, minute()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_01_rejects_load_and_insert() {
    rejects(one_load, Mistake::Naive, minute()).await;
}

/// The leader goes away once it has begun; whoever is left is served.
async fn leader_leaves(_: Topology, rig: Rig) -> Verdict {
    let source = Source::closed();
    let leader = call(&rig, 1, source.value(7));
    until("a load", || source.calls() == 1).await?;
    let rest: Vec<_> = (0..50).map(|_| call(&rig, 1, source.value(7))).collect();
    rig.waiting(51).await?;
    leader.abort();
    source.answer(100);
    for call in rest {
        let served = answer(call).await?.map_err(|error| error.to_string())?;
        ensure!(*served == 7, "{}", *served);
    }
    ensure!(source.calls() <= 2, "{} loads", source.calls());
    until("no flight is left", || rig.cache.loading() == 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_02_others_finish_when_the_leader_goes() {
    passes(leader_leaves, minute()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_02_rejects_waiting_for_a_leader_that_is_gone() {
    let check = async |topology, rig| {
        // It hangs: that is what is wrong with it.
        let verdict = tokio::time::timeout(seconds(1), leader_leaves(topology, rig)).await;
        verdict.unwrap_or(Err("it hangs".to_owned()))
    };
    rejects(check, Mistake::WaitsForLeader, minute()).await;
}

async fn failed_load(_: Topology, rig: Rig) -> Verdict {
    let source = Source::closed();
    let calls: Vec<_> = (0..50).map(|_| call(&rig, 1, source.error())).collect();
    rig.waiting(50).await?;
    until("a load", || source.calls() > 0).await?;
    source.answer(1_000);
    for call in calls {
        let error = answer(call).await?.err().ok_or("a failed load brought a value")?;
        ensure!(error.kind() == LoadErrorKind::Loader, "{error:?}");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        ensure!(cause.as_deref() == Some("the source is down"), "{cause:?}");
    }
    ensure!(source.calls() == 1, "{} loads for one shared error", source.calls());
    // It is not remembered.
    let again = answer(call(&rig, 1, source.value(8))).await?.map_err(|error| error.to_string())?;
    ensure!(*again == 8 && again.outcome.kind == AnswerKind::Loaded, "{again:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_03_an_error_is_shared_and_not_kept() {
    passes(failed_load, minute()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_03_rejects_an_error_for_each_and_errors_that_are_kept() {
    rejects(failed_load, Mistake::Naive, minute()).await;
    let kept = async |_, rig: Rig| {
        let source = Source::open();
        answer(call(&rig, 1, source.error())).await?.err().ok_or("no error")?;
        answer(call(&rig, 1, source.value(8))).await?.map(drop).map_err(|error| error.to_string())
    };
    passes(kept, minute()).await;
    rejects(kept, Mistake::CachesErrors, minute()).await;
}

fn stale_minute(on_stale: OnStale) -> Knobs {
    Knobs { ttl: Some(seconds(60)), stale: seconds(60), on_stale, ..Knobs::default() }
}

/// A cache with a stale copy of 7.
async fn become_stale(rig: &Rig) -> Verdict {
    answer(call(rig, 1, Source::open().value(7))).await?.map_err(|error| error.to_string())?;
    rig.world.pool.wait_all().await;
    rig.world.clock.advance(seconds(61));
    Ok(())
}

async fn served_while_reloaded(_: Topology, rig: Rig) -> Verdict {
    become_stale(&rig).await?;
    let source = Source::closed();
    for _ in 0..20 {
        let served = answer(call(&rig, 1, source.value(8))).await?.map_err(|error| error.to_string())?;
        ensure!((*served, served.outcome.kind) == (7, AnswerKind::Stale), "{served:?}");
    }
    until("a reload", || source.calls() == 1).await?;
    source.answer(100);
    rig.world.pool.wait_all().await;
    ensure!(source.calls() == 1, "{} reloads for one stale copy", source.calls());
    let served = answer(call(&rig, 1, source.value(9))).await?.map_err(|error| error.to_string())?;
    ensure!((*served, served.outcome.kind) == (8, AnswerKind::Hit), "{served:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_04_stale_is_served_and_reloaded_once_in_the_background() {
    passes(served_while_reloaded, stale_minute(OnStale::ServeAndReload)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_04_stale_is_served_as_it_is() {
    let check = async |_, rig: Rig| {
        become_stale(&rig).await?;
        let source = Source::open();
        let served = answer(call(&rig, 1, source.value(8))).await?.map_err(|error| error.to_string())?;
        ensure!((*served, served.outcome.kind, source.calls()) == (7, AnswerKind::Stale, 0), "{served:?}");
        Ok(())
    };
    passes(check, stale_minute(OnStale::Serve)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_04_stale_is_reloaded_first_and_serves_where_that_fails() {
    let check = async |_, rig: Rig| {
        become_stale(&rig).await?;
        let source = Source::open();
        let served = answer(call(&rig, 1, source.error())).await?.map_err(|error| error.to_string())?;
        ensure!((*served, served.outcome.kind) == (7, AnswerKind::StaleOnError), "{served:?}");
        rig.world.clock.advance(seconds(2));
        let served = answer(call(&rig, 1, source.value(8))).await?.map_err(|error| error.to_string())?;
        ensure!((*served, served.outcome.kind, source.calls()) == (8, AnswerKind::Loaded, 2), "{served:?}");
        Ok(())
    };
    passes(check, stale_minute(OnStale::Reload)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_04_rejects_waiting_for_the_reload() {
    let check = async |topology, rig| {
        let verdict = tokio::time::timeout(seconds(1), served_while_reloaded(topology, rig)).await;
        verdict.unwrap_or(Err("it waits".to_owned()))
    };
    rejects(check, Mistake::Naive, stale_minute(OnStale::ServeAndReload)).await;
}

fn fail_safe() -> Knobs {
    Knobs { fail_safe: seconds(3_600), throttle: Some(seconds(10)), ..minute() }
}

async fn source_outage(_: Topology, rig: Rig) -> Verdict {
    become_stale(&rig).await?;
    let source = Source::open();
    let served = answer(call(&rig, 1, source.error())).await?.map_err(|error| error.to_string())?;
    ensure!((*served, served.outcome.kind) == (7, AnswerKind::StaleOnError), "{served:?}");
    // Throttled: the source is left in peace.
    for _ in 0..20 {
        let served = answer(call(&rig, 1, source.error())).await?.map_err(|error| error.to_string())?;
        ensure!(*served == 7, "{served:?}");
    }
    ensure!(source.calls() == 1, "{} loads within the throttle", source.calls());
    rig.world.clock.advance(seconds(11));
    answer(call(&rig, 1, source.error())).await?.map_err(|error| error.to_string())?;
    ensure!(source.calls() == 2, "{} loads after the throttle", source.calls());
    // A source that is back is asked.
    rig.world.clock.advance(seconds(11));
    let served = answer(call(&rig, 1, source.value(8))).await?.map_err(|error| error.to_string())?;
    ensure!(*served == 8, "{served:?}");
    // From `retain` on there is nothing to serve.
    rig.world.clock.advance(seconds(60 + 3_600));
    let gone = answer(call(&rig, 1, source.error())).await?;
    ensure!(gone.is_err(), "{gone:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_05_expired_values_serve_while_the_source_is_down() {
    passes(source_outage, fail_safe()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_05_rejects_failing_with_the_source() {
    rejects(source_outage, Mistake::Naive, fail_safe()).await;
}

fn timeouts() -> Knobs {
    Knobs { soft: Some(millis(100)), hard: Some(seconds(2)), ..fail_safe() }
}

/// Moves the clock once somebody sleeps on it.
async fn pass(rig: &Rig, time: std::time::Duration) -> Verdict {
    let clock = rig.world.clock.clone();
    until("somebody waits for the time", || clock.sleepers() > 0).await?;
    clock.advance(time);
    Ok(())
}

async fn slow_source(_: Topology, rig: Rig) -> Verdict {
    // Nothing older: the soft timeout has nothing to offer, the hard one cuts.
    let source = Source::closed();
    let cold = call(&rig, 1, source.value(7));
    until("a load", || source.calls() == 1).await?;
    pass(&rig, millis(100)).await?;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    ensure!(!cold.is_finished(), "the soft timeout ended a call that has no older copy");
    rig.world.clock.advance(seconds(2));
    let error = answer(cold).await?.err().ok_or("a load that never ended brought a value")?;
    ensure!(error.kind() == LoadErrorKind::TimedOut, "{error:?}");
    // The load goes on and is stored.
    source.answer(1);
    rig.world.pool.wait_all().await;
    ensure!(rig.cache.get(1).await == Some(7), "what came late was not stored");
    // With an older copy the soft timeout serves it, and the load goes on.
    rig.world.clock.advance(seconds(61));
    let warm = call(&rig, 1, source.value(8));
    until("a load", || source.calls() == 2).await?;
    pass(&rig, millis(100)).await?;
    let served = answer(warm).await?.map_err(|error| error.to_string())?;
    ensure!((*served, served.outcome.kind) == (7, AnswerKind::StaleOnTimeout), "{served:?}");
    source.answer(1);
    rig.world.pool.wait_all().await;
    ensure!(rig.cache.get(1).await == Some(8), "what came late was not stored");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_06_soft_and_hard_timeouts() {
    passes(slow_source, timeouts()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_06_a_load_stops_at_the_hard_timeout_where_that_is_configured() {
    let check = async |_, rig: Rig| {
        let source = Source::closed();
        let cold = call(&rig, 1, source.value(7));
        until("a load", || source.calls() == 1).await?;
        pass(&rig, seconds(3)).await?;
        let error = answer(cold).await?.err().ok_or("a value")?;
        ensure!(error.kind() == LoadErrorKind::TimedOut, "{error:?}");
        // Nobody waits, and it would never end by itself.
        rig.world.pool.wait_all().await;
        until("no flight is left", || rig.cache.loading() == 0).await
    };
    let knobs = Knobs { hard: Some(seconds(2)), after_timeout: AfterTimeout::Stop, ..minute() };
    passes(check, knobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_06_rejects_waiting_for_ever() {
    let check = async |topology, rig| {
        let verdict = tokio::time::timeout(seconds(1), slow_source(topology, rig)).await;
        verdict.unwrap_or(Err("it hangs".to_owned()))
    };
    rejects(check, Mistake::Naive, timeouts()).await;
}

fn early() -> Knobs {
    Knobs { refresh_after: Some(0.8), ..minute() }
}

async fn early_refresh(_: Topology, rig: Rig) -> Verdict {
    let source = Source::open();
    answer(call(&rig, 1, source.value(7))).await?.map_err(|error| error.to_string())?;
    rig.world.clock.advance(seconds(47));
    answer(call(&rig, 1, source.value(8))).await?.map_err(|error| error.to_string())?;
    rig.world.pool.wait_all().await;
    ensure!(source.calls() == 1, "reloaded before its time");
    rig.world.clock.advance(seconds(2));
    let slow = Source::closed();
    for _ in 0..20 {
        let served = answer(call(&rig, 1, slow.value(8))).await?.map_err(|error| error.to_string())?;
        ensure!((*served, served.outcome.kind) == (7, AnswerKind::Hit), "{served:?}");
    }
    until("a reload", || slow.calls() == 1).await?;
    slow.answer(100);
    rig.world.pool.wait_all().await;
    ensure!(slow.calls() == 1, "{} reloads of one copy", slow.calls());
    ensure!(rig.cache.get(1).await == Some(8), "the reload was not stored");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_07_early_refresh_once_per_key() {
    passes(early_refresh, early()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_07_looks_below_before_it_asks_the_source() {
    let rig = rig(Topology::TwoLayers, &early());
    let source = Source::open();
    answer(call(&rig, 1, source.value(7))).await.expect("no hang").expect("a value");
    rig.world.clock.advance(seconds(50));
    // Another process has reloaded it: the lower layer has a newer copy.
    let key = 1_u64.to_key("test").into_owned();
    let now = rig.world.clock.now();
    let newer = hitbox::core::CacheValue::new(8_u64)
        .with_created(Some(now))
        .with_lifetime(hitbox::core::Lifetime::ttl(now, seconds(60)));
    rig.world.layers[2].set(&key, newer, &mut CacheContext::new()).await.expect("a write");
    let served = answer(call(&rig, 1, source.value(9))).await.expect("no hang").expect("a value");
    assert_eq!(*served, 7);
    rig.world.pool.wait_all().await;
    assert_eq!((rig.cache.get(1).await, source.calls()), (Some(8), 1));
    // The upper layer has it, with its instants.
    let mut context = CacheContext::new();
    let upper = rig.world.layers[0].get::<u64>(&key, &mut context).await.expect("a read").expect("a copy");
    assert_eq!(upper.lifetime().expire(), Some(now + seconds(60)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_07_rejects_loads_after_the_end_only() {
    rejects(early_refresh, Mistake::Naive, early()).await;
}

async fn adaptive(_: Topology, rig: Rig) -> Verdict {
    let source = Source::open();
    let load = async |key, loaded: Loaded<u64>| {
        let served = answer(call(&rig, key, source.with(move || Ok(loaded)))).await?;
        served.map_err(|error| error.to_string())
    };
    load(1, Loaded::new(1).ttl(seconds(5))).await?;
    load(2, Loaded::new(2).do_not_store()).await?;
    load(3, Loaded::new(3).ttl(seconds(5)).stale(seconds(100))).await?;
    rig.world.pool.wait_all().await;
    ensure!(rig.cache.get(1).await == Some(1), "it was not stored");
    ensure!(rig.cache.get(2).await.is_none(), "it was stored");
    rig.world.clock.advance(seconds(6));
    ensure!(rig.cache.get(1).await.is_none(), "the loader's TTL was ignored");
    ensure!(rig.cache.get(3).await == Some(3), "the loader's stale time was ignored");
    // "Not modified" starts the life of the older value anew, and keeps its tags.
    let again = load(1, Loaded::not_modified().ttl(seconds(60))).await;
    ensure!(again.is_ok_and(|served| *served == 1), "the older value is still right");
    rig.world.clock.advance(seconds(30));
    ensure!(rig.cache.get(1).await == Some(1), "it was not stored again");
    let nothing = load(9, Loaded::not_modified()).await;
    ensure!(nothing.is_err(), "nothing was not modified: {nothing:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_08_loaders_decide_by_what_they_loaded() {
    passes(adaptive, fail_safe()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_08_absence_has_a_time_of_its_own() {
    for topology in TOPOLOGIES {
        let world = World::new();
        let cache = cache(&world, topology, &Knobs { absent: Some(seconds(5)), ..minute() });
        let (calls, source) = (std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)), Source::open());
        let ask = async |found: Option<u64>| {
            let calls = calls.clone();
            let load = move || async move {
                calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Ok::<_, std::io::Error>(found)
            };
            cache.get_or_load_optional(1_u64, load).await.expect("no error")
        };
        assert_eq!((ask(None).await, ask(None).await), (None, None), "{topology:?}");
        assert_eq!(
            calls.load(std::sync::atomic::Ordering::SeqCst),
            1,
            "absence is remembered over {topology:?}"
        );
        assert_eq!(cache.get(1_u64).await.expect("no error"), None);
        // Whose loader cannot say "absent" asks again; whose can is answered.
        let known = answer(call(&Rig::new(world.clone(), cache.clone()), 1, source.value(7)));
        let error = known.await.expect("no hang").expect_err("absence");
        assert_eq!(error.kind(), hitbox::LoadErrorKind::Absent, "{topology:?}");
        let present = cache.get_or_load(1_u64, || std::future::ready(Ok::<_, std::io::Error>(7)));
        assert_eq!(present.await.expect("a value"), 7, "{topology:?}");
        cache.remove(1_u64).await.ok();
        assert_eq!(ask(None).await, None);
        world.clock.advance(seconds(6));
        assert_eq!(ask(Some(3)).await, Some(3), "absence ends over {topology:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_08_rejects_ignoring_the_loader() {
    rejects(adaptive, Mistake::Naive, fail_safe()).await;
}

async fn broken_cache(_: Topology, rig: Rig) -> Verdict {
    fail(&rig.world.faults);
    let source = Source::open();
    for value in [7, 8] {
        let served =
            answer(call(&rig, value, source.value(value))).await?.map_err(|error| error.to_string())?;
        ensure!(*served == value, "{served:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_09_a_broken_cache_fails_no_load() {
    passes(broken_cache, minute()).await;
    // A value that a layer's format cannot express is not stored, and served.
    let world = World::new();
    let cache = cache(&world, Topology::Memory, &minute());
    world.faults.always(Operation::Write, Fault::Fail(hitbox::core::ErrorKind::Codec));
    let value = cache.get_or_load(1_u64, || async { Ok::<_, std::io::Error>(1) }).await;
    assert_eq!(value.expect("a value"), 1);
    assert_eq!(cache.statistics().write_errors, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_09_rejects_failing_with_the_cache() {
    rejects(broken_cache, Mistake::FailsWithTheCache, minute()).await;
}

async fn panicking_loader(_: Topology, rig: Rig) -> Verdict {
    let source = Source::closed();
    let leader = call(&rig, 1, source.panic());
    until("a load", || source.calls() == 1).await?;
    let rest: Vec<_> = (0..20).map(|_| call(&rig, 1, source.value(7))).collect();
    rig.waiting(21).await?;
    source.answer(100);
    let panic = tokio::time::timeout(seconds(20), leader).await.map_err(|_| "the leader hangs")?;
    ensure!(panic.is_err_and(|error| error.is_panic()), "the panic does not reach who ran the loader");
    for call in rest {
        match answer(call).await? {
            Err(error) => ensure!(error.kind() == LoadErrorKind::Panicked, "{error:?}"),
            Ok(served) => return Err(format!("a panic brought {served:?}")),
        }
    }
    let again = answer(call(&rig, 1, source.value(8))).await?.map_err(|error| error.to_string())?;
    ensure!([7, 8].contains(&*again), "the key is poisoned: {again:?}");
    until("no flight is left", || rig.cache.loading() == 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_10_a_panic_poisons_nothing() {
    passes(panicking_loader, minute()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_10_rejects_a_key_that_stays_taken() {
    let check = async |topology, rig| {
        let verdict = tokio::time::timeout(seconds(1), panicking_loader(topology, rig)).await;
        verdict.unwrap_or(Err("it hangs".to_owned()))
    };
    rejects(check, Mistake::WaitsForLeader, minute()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_loads_what_is_missing_with_one_call() {
    use std::collections::HashMap;
    for topology in TOPOLOGIES {
        let world = World::new();
        let cache: Cache<u64> = cache(&world, topology, &minute());
        cache.insert(2_u64, 20).await.ok();
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = asked.clone();
        let load = move |keys: Vec<u64>| async move {
            seen.lock().expect("no panic").push(keys.clone());
            Ok::<_, std::io::Error>(keys.into_iter().filter(|key| *key != 9).map(|key| (key, key * 10)))
        };
        let found = cache.get_or_load_many([1_u64, 2, 3, 9], load).await.expect("values");
        assert_eq!(found, HashMap::from([(1, 10), (2, 20), (3, 30)]), "{topology:?}");
        let mut calls = asked.lock().expect("no panic").clone();
        calls.iter_mut().for_each(|keys| keys.sort_unstable());
        assert_eq!(calls, [[1, 3, 9]], "{topology:?}");
        let batch: Vec<Option<u64>> =
            cache.get_many(&[3_u64, 1, 9]).await.into_iter().map(|value| value.expect("no error")).collect();
        assert_eq!(batch, [Some(30), Some(10), None], "{topology:?}");
        let failing = cache.get_or_load_many([50_u64, 51], |_| async {
            Err::<HashMap<u64, u64>, _>(std::io::Error::other("down"))
        });
        let error = failing.await.expect_err("the source is down");
        assert!(error.loader_error::<std::io::Error>().is_some(), "{error:?}");
        until("no flight is left", || cache.statistics().loading == 0).await.expect("they land");
    }
}
