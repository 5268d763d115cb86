//! What a cache says of itself: outcomes, events, counts, metrics, advice.

use std::sync::{Arc, Mutex};

use crate::common::{Knobs, Source, Topology, World, cache, export, named_cache, seconds};
use hitbox::backend::{Compose, Wrap};
use hitbox::core::ResponseSource;
use hitbox::{Advice, AnswerKind, Cache, CacheEvent, OnStale};

#[tokio::test]
async fn outcomes_name_the_leaf_and_the_way() {
    let world = World::new();
    let cache = cache(&world, Topology::Nest, &Knobs { ttl: Some(seconds(60)), ..Knobs::default() });
    let path = |outcome: hitbox::Outcome| match outcome.source {
        ResponseSource::Backend(label) => label.to_string(),
        _ => "source".to_owned(),
    };
    let load = || async { Ok::<_, std::io::Error>(7) };
    let served = cache.entry(1_u64).get_or_load(load).await.expect("a value");
    assert_eq!((served.outcome.kind, path(served.outcome).as_str()), (AnswerKind::Loaded, "source"));
    let served = cache.entry(1_u64).get_or_load(load).await.expect("a value");
    assert_eq!((served.outcome.kind, path(served.outcome).as_str()), (AnswerKind::Hit, "composition.upper"));
    world.clock.advance(seconds(20));
    let served = cache.entry(1_u64).get().await.expect("a read");
    use hitbox::core::Clock;
    assert_eq!(served.outcome.remaining(world.clock.now()), Some(seconds(40)));
    let served = cache.entry(2_u64).get().await.expect("a read");
    assert_eq!((served.value, served.outcome.kind), (None, AnswerKind::Miss));
    let served = cache.entry(1_u64).bypass().get_or_load(|| async { Ok::<_, std::io::Error>(8) }).await;
    assert_eq!(served.map(|served| (*served, served.outcome.kind)).ok(), Some((8, AnswerKind::Bypassed)));
    assert_eq!(cache.get(1_u64).await.expect("a read"), Some(7), "nothing was stored past the cache");
    let served = cache.entry(1_u64).reload().get_or_load(|| async { Ok::<_, std::io::Error>(9) }).await;
    assert_eq!(served.map(|served| (*served, served.outcome.kind)).ok(), Some((9, AnswerKind::Loaded)));
    assert_eq!(cache.get(1_u64).await.expect("a read"), Some(9));
}

#[tokio::test]
async fn the_generic_form_keeps_its_backend() {
    let world = World::new();
    let builder = Cache::<u64>::builder(world.layers[0].clone()).offload(world.pool.shared());
    let cache: Cache<u64, hitbox_testkit::MemoryBackend> = builder.build_generic().expect("a cache");
    let value = cache.get_or_load("k", || async { Ok::<_, std::io::Error>(7) }).await;
    assert_eq!(value.expect("a value"), 7);
    assert_eq!((cache.backend().len(), cache.clone().name()), (1, "cache"));
    let shared: Cache<u64, std::sync::Arc<dyn hitbox::backend::Backend>> =
        Cache::builder(world.backend(Topology::Nest))
            .offload(world.pool.shared())
            .build_generic()
            .expect("a cache");
    shared.insert("k", 8).await.expect("a write");
    assert_eq!(shared.get("k").await.expect("a read"), Some(8));
}

#[tokio::test]
async fn the_hook_sees_what_happens() {
    let world = World::new();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let builder = Cache::<u64>::builder(world.backend(Topology::TwoLayers)).name("test");
    let cache = builder
        .offload(world.pool.shared())
        .ttl(seconds(60))
        .fail_safe(seconds(60))
        .on_event(move |event| {
            let name = format!("{event:?}");
            let name = name.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
            log.lock().expect("no panic").push(name);
        })
        .build()
        .expect("a cache");
    let source = Source::open();
    cache.entry(1_u64).get_or_load_with(source.value(7)).await.expect("a value");
    cache.get(1_u64).await.expect("a read");
    world.clock.advance(seconds(60));
    cache.entry(1_u64).get_or_load_with(source.error()).await.expect("the older value");
    crate::common::fail(&world.faults);
    cache.insert(1_u64, 8).await.expect("one layer is enough");
    let events = seen.lock().expect("no panic").join(" ");
    assert_eq!(events, "Miss LoadStarted Loaded Hit Miss LoadStarted LoadFailed StaleServed LayerFailed");
    let event = CacheEvent::Miss { key: &hitbox::core::CacheKey::new("k") };
    assert!(format!("{event:?}").contains('k'));
}

#[tokio::test]
async fn counts_are_exported_under_the_caches_name() {
    let export = export();
    let world = World::new();
    let knobs =
        Knobs { ttl: Some(seconds(60)), stale: seconds(60), on_stale: OnStale::Reload, ..Knobs::default() };
    let cache = named_cache("exported", &world, Topology::TwoLayers, &knobs);
    let source = Source::open();
    cache.entry(1_u64).get_or_load_with(source.value(7)).await.expect("a value");
    cache.entry(2_u64).get_or_load_with(source.error()).await.expect_err("no value");
    world.clock.advance(seconds(61));
    cache.entry(1_u64).get_or_load_with(source.error()).await.expect("the stale value");
    let statistics = cache.statistics();
    assert_eq!((statistics.loads, statistics.load_failures, statistics.stale_served), (3, 2, 1));
    assert_eq!(statistics.layers.leaves.len(), 2);
    let text = export.render();
    for line in [
        "hitbox_load_started_total{cache=\"exported\"} 3",
        "hitbox_load_failed_total{cache=\"exported\"} 2",
        "hitbox_load_stale_served_total{cache=\"exported\"} 1",
        "hitbox_load_coalesced_total{cache=\"exported\"} 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_builder_warns_of_settings_that_contradict_each_other() {
    let world = World::new();
    let build = || Cache::<u64>::builder(world.layers[0].clone()).offload(world.pool.shared());
    let advice = |builder: hitbox::CacheBuilder<u64, _>| builder.build().expect("a cache").advice().to_vec();
    assert_eq!(advice(build().ttl(seconds(60)).stale(seconds(5)).jitter(0.1)), []);
    assert_eq!(advice(build().stale(seconds(5))), [Advice::StaleWithoutTtl]);
    assert_eq!(
        advice(build().ttl(seconds(5)).stale(seconds(5)).on_stale(OnStale::Serve)),
        [Advice::StaleNeverReloaded]
    );
    assert_eq!(advice(build().fail_safe(seconds(5))), [Advice::FailSafeWithoutTtl]);
    assert_eq!(advice(build().soft_timeout(seconds(1))), [Advice::SoftTimeoutWithoutOlderCopy]);
    let slow = build().ttl(seconds(5)).stale(seconds(5)).soft_timeout(seconds(2)).hard_timeout(seconds(1));
    assert_eq!(advice(slow), [Advice::SoftTimeoutAfterHard]);
    assert_eq!(advice(build().jitter(0.5)), [Advice::JitterWithoutTtl]);
    assert_eq!(advice(build().refresh_after(0.5)), [Advice::EarlyRefreshWithoutTtl]);
    assert_eq!(advice(build().ttl(seconds(5)).refresh_after(0.0)), [Advice::RefreshAtOnce]);
    assert_eq!(advice(build().ttl(seconds(5)).idle(seconds(9))), [Advice::IdleBeyondTtl]);
    assert_eq!(advice(build().ttl(seconds(0))), [Advice::NothingStored]);
    let capped =
        Cache::<u64>::builder(world.layers[0].clone().ttl_cap(seconds(9))).offload(world.pool.shared());
    assert_eq!(advice_of(capped.ttl(seconds(5))), [Advice::LayerBeyondTtl]);
    let unfilled = world.layers[0].clone().compose(world.layers[1].clone(), world.pool.shared());
    assert_eq!(advice_of(Cache::builder(unfilled).offload(world.pool.shared())), [Advice::NoRefill]);
    for advice in [Advice::NoRefill, Advice::StaleWithoutTtl] {
        assert!(!advice.to_string().is_empty());
    }
    build().refresh_after(7.0).build().expect_err("no share");
    build().refresh_by_chance(f64::NAN).build().expect_err("no number");
    build().idle(seconds(0)).build().expect_err("nothing would ever be found");
}

fn advice_of<B: hitbox::backend::Backend>(builder: hitbox::CacheBuilder<u64, B>) -> Vec<Advice> {
    builder.build().expect("a cache").advice().to_vec()
}
