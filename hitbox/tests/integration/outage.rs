//! Layers that fail and come back: what was written or deleted meanwhile stays so, and they are brought up to date.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Knobs, Topology, World, cache, fail, millis, seconds, until};
use hitbox::backend::wrap::Wrapper;
use hitbox::core::{ErrorKind, Lane, Offload, Refusal, Refused, Task};
use hitbox::{Cache, OffloadPool, ToKey};
use hitbox_testkit::{Fault, Operation};

fn minute() -> Knobs {
    Knobs { ttl: Some(seconds(600)), ..Knobs::default() }
}

/// What the lowest layer's store has, behind its faults.
fn stored(world: &World, key: u64) -> Option<u64> {
    let key = key.to_key("test").into_owned();
    let found = world.layers[2].inner().store().get(&key);
    found.map(|value| value.data().decode().expect("a number"))
}

/// Lets the retries go on until none is left.
async fn recover(world: &World, cache: &Cache<u64>) {
    let done = async {
        while cache.statistics().recovering > 0 || world.pool.statistics().daemons > 0 {
            world.clock.advance(millis(100));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(seconds(20), done).await.expect("it recovers");
}

#[tokio::test]
async fn deleted_does_not_come_back_after_an_outage() {
    for topology in [Topology::Memory, Topology::TwoLayers, Topology::Nest] {
        let world = World::new();
        let cache = cache(&world, topology, &minute());
        cache.insert(1_u64, 7).await.expect("a write");
        fail(&world.faults);
        cache.remove(1_u64).await.expect_err("a layer is down");
        assert_eq!(stored(&world, 1), Some(7), "the layer could not delete it");
        world.faults.clear();
        // Before any retry: the old copy is there, and is not served.
        assert_eq!(cache.get(1_u64).await.expect("a read"), None, "over {topology:?}");
        recover(&world, &cache).await;
        assert_eq!(stored(&world, 1), None, "it was not deleted over {topology:?}");
        assert_eq!(cache.get(1_u64).await.expect("a read"), None);
    }
}

#[tokio::test]
async fn a_layer_that_was_down_gets_what_was_written() {
    for topology in [Topology::TwoLayers, Topology::Nest] {
        let world = World::new();
        let cache = cache(&world, topology, &minute());
        for key in 0..20_u64 {
            cache.insert(key, 1).await.expect("a write");
        }
        fail(&world.faults);
        for key in 0..20_u64 {
            cache.insert(key, 2).await.expect("one layer is enough");
            if key % 4 == 0 {
                cache.insert(key, 3).await.expect("one layer is enough");
            }
            if key % 5 == 0 {
                cache.remove(key).await.expect_err("a layer is down");
            }
        }
        assert_eq!(cache.statistics().recovering, 20);
        // Retries meanwhile change nothing.
        for _ in 0..50 {
            world.clock.advance(seconds(1));
            tokio::task::yield_now().await;
        }
        world.faults.clear();
        recover(&world, &cache).await;
        for key in 0..20_u64 {
            let expected = if key % 5 == 0 { None } else { Some(if key % 4 == 0 { 3 } else { 2 }) };
            assert_eq!(stored(&world, key), expected, "{key} over {topology:?}");
            assert_eq!(cache.get(key).await.expect("a read"), expected);
        }
        assert_eq!(cache.statistics().recovered, 20);
    }
}

#[tokio::test]
async fn a_retry_overwrites_nothing_newer() {
    let world = World::new();
    let cache = cache(&world, Topology::TwoLayers, &minute());
    fail(&world.faults);
    cache.insert(1_u64, 1).await.expect("one layer is enough");
    world.faults.clear();
    cache.insert(1_u64, 2).await.expect("a write");
    recover(&world, &cache).await;
    assert_eq!(stored(&world, 1), Some(2));
}

#[tokio::test]
async fn loads_are_stored_where_it_works_and_elsewhere_later() {
    let world = World::new();
    let cache = cache(&world, Topology::TwoLayers, &minute());
    fail(&world.faults);
    let value = cache.get_or_load(1_u64, || async { Ok::<_, std::io::Error>(7) }).await;
    assert_eq!(value.expect("a broken layer fails no load"), 7);
    world.faults.clear();
    recover(&world, &cache).await;
    assert_eq!(stored(&world, 1), Some(7));
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_not_trusted() {
    let world = World::new();
    let cache = cache(&world, Topology::Memory, &minute());
    cache.insert(1_u64, 1).await.expect("a write");
    world.faults.nth(Operation::Write, 1, Fault::FailAfter(ErrorKind::Timeout));
    cache.insert(1_u64, 2).await.expect_err("nobody knows whether it was written");
    // Neither value is served: who has a loader asks the source.
    assert_eq!(cache.get(1_u64).await.expect("a read"), None);
    recover(&world, &cache).await;
    assert_eq!((stored(&world, 1), cache.get(1_u64).await.expect("a read")), (None, None));
}

#[tokio::test]
async fn keys_that_a_layer_missed_are_counted_and_stay_unserved() {
    let world = World::new();
    let backend = world.backend(Topology::Memory);
    let builder = Cache::<u64>::builder(backend).name("test").offload(world.pool.shared());
    let cache = builder.build().expect("a cache");
    for key in 0..10_u64 {
        cache.insert(key, 1).await.expect("a write");
    }
    fail(&world.faults);
    for key in 0..10_u64 {
        cache.remove(key).await.expect_err("it is down");
    }
    assert_eq!(cache.statistics().recovering, 10);
    world.faults.clear();
    for key in 0..10_u64 {
        assert_eq!(cache.get(key).await.expect("a read"), None, "{key} came back before any retry");
    }
    // A write makes it visible again.
    cache.insert(9_u64, 2).await.expect("a write");
    assert_eq!((cache.get(9_u64).await.expect("a read"), cache.statistics().recovering), (Some(2), 9));
    recover(&world, &cache).await;
    for key in 0..9_u64 {
        assert_eq!(cache.get(key).await.expect("a read"), None, "{key} came back");
        assert_eq!(stored(&world, key), None, "{key} was not removed");
    }
    assert_eq!((cache.get(9_u64).await.expect("a read"), cache.statistics().recovered), (Some(2), 9));
}

/// More keys than are told apart: the whole store is dirty, and starts anew once it answers.
#[tokio::test]
async fn a_store_that_missed_too_much_starts_anew() {
    let world = World::new();
    let backend = world.backend(Topology::Memory);
    let builder = Cache::<u64>::builder(backend).name("test").offload(world.pool.shared());
    let cache = builder.build().expect("a cache");
    cache.insert(1_000_000_u64, 1).await.expect("a write");
    fail(&world.faults);
    for key in 0..140_000_u64 {
        cache.remove(key).await.expect_err("it is down");
    }
    world.faults.clear();
    assert_eq!(
        cache.get(1_000_000_u64).await.expect("a read"),
        None,
        "what it has cannot be told apart any more"
    );
    recover(&world, &cache).await;
    cache.insert(1_000_000_u64, 2).await.expect("a write");
    assert_eq!(cache.get(1_000_000_u64).await.expect("a read"), Some(2));
}

#[tokio::test]
async fn recovery_ends_with_the_cache() {
    let world = World::new();
    let cache = cache(&world, Topology::TwoLayers, &minute());
    fail(&world.faults);
    cache.insert(1_u64, 1).await.expect("one layer is enough");
    until("it waits", || world.pool.statistics().daemons == 1).await.expect("a retry");
    drop(cache);
    let ended = async {
        while world.pool.statistics().daemons > 0 {
            world.clock.advance(seconds(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(seconds(20), ended).await.expect("nobody needs it any more");
}

/// Takes no daemon before it is told to.
#[derive(Debug)]
struct Reluctant {
    pool: OffloadPool,
    takes_daemons: AtomicBool,
}

impl Offload for Reluctant {
    fn register(&self, task: Task) -> Result<(), Refused> {
        if task.lane == Lane::Daemon && !self.takes_daemons.load(Ordering::SeqCst) {
            return Err(Refused { task, why: Refusal::Full });
        }
        Offload::register(&self.pool, task)
    }
}

/// What could not be started when a layer failed is started by a read that comes later, of whatever key.
#[tokio::test]
async fn reads_have_layers_brought_up_to_date() {
    for topology in [Topology::Memory, Topology::TwoLayers, Topology::Nest] {
        for read in ["get", "get_many", "get_or_load", "get_or_load_many"] {
            let world = World::new();
            let offload =
                Arc::new(Reluctant { pool: world.pool.clone(), takes_daemons: AtomicBool::new(false) });
            let builder =
                Cache::<u64>::builder(world.backend(topology)).name("test").offload(offload.clone());
            let cache = builder.build().expect("a cache");
            cache.insert(1_u64, 7).await.expect("a write");
            fail(&world.faults);
            cache.remove(1_u64).await.expect_err("a layer is down");
            world.faults.clear();
            assert_eq!((cache.get(2_u64).await.expect("a read"), world.pool.statistics().daemons), (None, 0));
            offload.takes_daemons.store(true, Ordering::SeqCst);
            match read {
                "get" => drop(cache.get(2_u64).await),
                "get_many" => drop(cache.get_many(&[2_u64]).await),
                "get_or_load" => {
                    drop(cache.get_or_load(2_u64, || async { Ok::<_, std::io::Error>(2) }).await)
                }
                _ => {
                    let load = |keys: Vec<u64>| async {
                        Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key, 2)))
                    };
                    drop(cache.get_or_load_many([2_u64], load).await);
                }
            }
            assert_eq!(world.pool.statistics().daemons, 1, "{read} over {topology:?}");
            recover(&world, &cache).await;
            assert_eq!(
                (stored(&world, 1), cache.statistics().recovered),
                (None, 1),
                "{read} over {topology:?}"
            );
        }
    }
}
