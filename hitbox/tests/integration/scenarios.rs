//! Scenarios that the best multi-level caches are known for, restated; each over memory alone, memory over a second
//! layer, and memory over one that fails.

use std::time::Duration;

use crate::common::{Knobs, Rig, Source, TOPOLOGIES, Topology, answer, call, rig, seconds, until};
use hitbox::core::{Clock, Timestamp};
use hitbox::{AnswerKind, Loaded, OnStale, Response};

async fn ask(rig: &Rig, loader: crate::common::TestLoader) -> Response<u64> {
    let served = answer(call(rig, 1, loader)).await.expect("no hang").expect("a value");
    rig.world.pool.wait_all().await;
    served
}

/// Runs a scenario over every topology.
async fn everywhere<F: Future<Output = ()>>(knobs: Knobs, scenario: impl Fn(Topology, Rig) -> F) {
    for topology in TOPOLOGIES {
        scenario(topology, rig(topology, &knobs)).await;
    }
}

fn minute() -> Knobs {
    Knobs { ttl: Some(seconds(60)), ..Knobs::default() }
}

#[tokio::test]
async fn a_ttl_of_zero_loads_every_time_and_stores_nothing() {
    everywhere(Knobs { ttl: Some(Duration::ZERO), ..Knobs::default() }, async |topology, rig| {
        let source = Source::open();
        assert_eq!(*ask(&rig, source.value(1)).await, 1);
        assert_eq!(*ask(&rig, source.value(2)).await, 2, "over {topology:?}");
        assert_eq!((source.calls(), rig.cache.get(1).await), (2, None));
        // Inserted, it takes away what was there.
        rig.cache.insert(1, 3).await.ok();
        assert_eq!(rig.cache.get(1).await, None);
    })
    .await;
}

#[tokio::test]
async fn durations_without_end_last_for_ever() {
    let knobs = Knobs {
        ttl: Some(Duration::MAX),
        stale: Duration::MAX,
        fail_safe: Duration::MAX,
        throttle: Some(Duration::MAX),
        soft: Some(seconds(1)),
        ..Knobs::default()
    };
    everywhere(knobs, async |topology, rig| {
        assert_eq!(*ask(&rig, Source::open().value(1)).await, 1);
        rig.world.clock.advance(seconds(1_000_000_000_000));
        assert_eq!(rig.cache.get(1).await, Some(1), "over {topology:?}");
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_goes_back_loses_nothing() {
    everywhere(minute(), async |topology, rig| {
        assert_eq!(*ask(&rig, Source::open().value(1)).await, 1);
        let now = rig.world.clock.now();
        // An end that would lie before the beginning.
        rig.world.clock.set_wall(now - seconds(3_600));
        assert_eq!(rig.cache.get(1).await, Some(1), "over {topology:?}");
        rig.world.clock.set_wall(Timestamp::from_millis(0));
        assert_eq!(*ask(&rig, Source::open().value(2)).await, 1);
        rig.world.clock.set_wall(now + seconds(60));
        assert_eq!(rig.cache.get(1).await, None);
    })
    .await;
}

#[tokio::test]
async fn an_end_in_the_past_stores_nothing() {
    everywhere(minute(), async |topology, rig| {
        let past = rig.world.clock.now() - seconds(1);
        let source = Source::open();
        let served = ask(&rig, source.with(move || Ok(Loaded::new(1).expires_at(past)))).await;
        assert_eq!((*served, rig.cache.get(1).await), (1, None), "over {topology:?}");
    })
    .await;
}

#[tokio::test]
async fn a_throttle_of_zero_tries_every_time() {
    let knobs = Knobs { fail_safe: seconds(3_600), throttle: Some(Duration::ZERO), ..minute() };
    everywhere(knobs, async |topology, rig| {
        ask(&rig, Source::open().value(1)).await;
        rig.world.clock.advance(seconds(61));
        let source = Source::open();
        for calls in 1..4 {
            let served = ask(&rig, source.error()).await;
            assert_eq!(
                (*served, served.outcome.kind, source.calls()),
                (1, AnswerKind::StaleOnError, calls),
                "{topology:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn an_eager_refresh_that_fails_is_not_tried_again_at_once() {
    let knobs =
        Knobs { refresh_after: Some(0.5), fail_safe: seconds(600), throttle: Some(seconds(10)), ..minute() };
    everywhere(knobs, async |topology, rig| {
        ask(&rig, Source::open().value(1)).await;
        rig.world.clock.advance(seconds(40));
        let source = Source::open();
        for _ in 0..5 {
            let served = ask(&rig, source.error()).await;
            assert_eq!((*served, served.outcome.kind), (1, AnswerKind::Hit), "over {topology:?}");
        }
        assert_eq!(source.calls(), 1, "over {topology:?}");
        rig.world.clock.advance(seconds(11));
        ask(&rig, source.value(2)).await;
        assert_eq!((source.calls(), rig.cache.get(1).await), (2, Some(2)), "over {topology:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_removed_while_it_is_reloaded_stays_away() {
    let knobs = Knobs { stale: seconds(60), on_stale: OnStale::ServeAndReload, ..minute() };
    everywhere(knobs, async |topology, rig| {
        ask(&rig, Source::open().value(1)).await;
        rig.world.clock.advance(seconds(61));
        let source = Source::closed();
        let served = answer(call(&rig, 1, source.value(2))).await.expect("no hang").expect("a value");
        assert_eq!((*served, served.outcome.kind), (1, AnswerKind::Stale));
        until("a reload", || source.calls() == 1).await.expect("it begins");
        rig.cache.remove(1).await.ok();
        source.answer(1);
        rig.world.pool.wait_all().await;
        assert_eq!(rig.cache.get(1).await, None, "the reload brought it back over {topology:?}");
    })
    .await;
}

#[tokio::test]
async fn who_comes_after_a_remove_does_not_wait_for_the_load_before_it() {
    everywhere(minute(), async |topology, rig| {
        let (before, after) = (Source::closed(), Source::open());
        let early = call(&rig, 1, before.value(1));
        until("a load", || before.calls() == 1).await.expect("it begins");
        rig.cache.remove(1).await.ok();
        let late = answer(call(&rig, 1, after.value(2))).await.expect("it does not wait").expect("a value");
        assert_eq!(*late, 2, "over {topology:?}");
        before.answer(1);
        assert_eq!(*answer(early).await.expect("no hang").expect("a value"), 1, "its own load");
        assert_eq!(rig.cache.get(1).await, Some(2), "the older load was stored over {topology:?}");
    })
    .await;
}

#[tokio::test]
async fn a_failed_reload_within_the_stale_time_serves_the_stale_value() {
    let knobs =
        Knobs { stale: seconds(60), on_stale: OnStale::Reload, throttle: Some(seconds(5)), ..minute() };
    everywhere(knobs, async |topology, rig| {
        ask(&rig, Source::open().value(1)).await;
        rig.world.clock.advance(seconds(61));
        let source = Source::open();
        for _ in 0..3 {
            let served = ask(&rig, source.error()).await;
            assert_eq!((*served, served.outcome.kind), (1, AnswerKind::StaleOnError), "over {topology:?}");
        }
        assert_eq!(source.calls(), 1, "throttled over {topology:?}");
        rig.world.clock.advance(seconds(60));
        let gone = answer(call(&rig, 1, source.error())).await.expect("no hang");
        assert!(gone.is_err(), "it was served beyond its stale time over {topology:?}");
    })
    .await;
}

#[tokio::test]
async fn an_insert_ends_the_throttle() {
    let knobs = Knobs { fail_safe: seconds(3_600), throttle: Some(seconds(1_000)), ..minute() };
    everywhere(knobs, async |topology, rig| {
        ask(&rig, Source::open().value(1)).await;
        rig.world.clock.advance(seconds(61));
        ask(&rig, Source::open().error()).await;
        rig.cache.insert(1, 5).await.ok();
        rig.world.clock.advance(seconds(61));
        assert_eq!(*ask(&rig, Source::open().value(6)).await, 6, "over {topology:?}");
    })
    .await;
}
