//! Tags that loaders and writers give to entries.

use crate::common::{Knobs, Source, TOPOLOGIES, Topology, World, answer, cache, seconds, until};
use hitbox::backend::DeleteStatus;
use hitbox::backend::wrap::Wrapper;
use hitbox::{Cache, Loaded, ToKey};

fn minute() -> Knobs {
    Knobs { ttl: Some(seconds(60)), ..Knobs::default() }
}

#[tokio::test]
async fn load_08_loaders_and_writers_tag_what_they_store() {
    for topology in TOPOLOGIES {
        let world = World::new();
        let cache: Cache<u64> = cache(&world, topology, &minute());
        let load = || async { Ok::<_, std::io::Error>(Loaded::new(1).tag("books").tag("new")) };
        cache.get_or_load_with(1_u64, move |_| load()).await.expect("a value");
        cache.entry(2_u64).tag("books").insert(2).await.ok();
        cache.entry(3_u64).tag("films").insert(3).await.ok();
        cache.insert(4_u64, 4).await.ok();
        world.pool.wait_all().await;
        let found = async || -> Vec<u64> {
            let mut found = Vec::new();
            for key in 1..=4_u64 {
                found.extend(cache.get(key).await.expect("a read"));
            }
            let batch = cache.get_many(&[1_u64, 2, 3, 4]).await;
            let batch: Vec<u64> = batch.into_iter().filter_map(|value| value.expect("a read")).collect();
            assert_eq!(batch, found, "batches see what single reads see");
            found
        };
        assert_eq!(found().await, [1, 2, 3, 4], "over {topology:?}");
        cache.invalidate_tags(&["unknown"]).await.ok();
        assert_eq!(found().await, [1, 2, 3, 4]);
        cache.invalidate_tags(&["books"]).await.ok();
        assert_eq!(found().await, [3, 4], "over {topology:?}");
        // Written anew it is seen; written without its tag it is out of it.
        cache.entry(1_u64).tag("books").insert(10).await.ok();
        cache.insert(3_u64, 30).await.ok();
        cache.invalidate_tags(&["films"]).await.ok();
        assert_eq!(found().await, [10, 30, 4], "over {topology:?}");
    }
}

#[tokio::test]
async fn a_tag_is_invalid_in_layers_that_memory_has_lost() {
    for topology in [Topology::TwoLayers, Topology::Nest] {
        let world = World::new();
        let cache: Cache<u64> = cache(&world, topology, &minute());
        cache.entry(1_u64).tag("books").insert(1).await.expect("a write");
        let key = 1_u64.to_key("test").into_owned();
        assert_eq!(world.layers[0].inner().store().take(&key), DeleteStatus::Deleted(1), "evicted");
        cache.invalidate_tags(&["books"]).await.ok();
        assert_eq!(cache.get(1_u64).await.expect("a read"), None, "over {topology:?}");
        // Another cache over the same layers shares their tags.
        cache.entry(1_u64).tag("books").insert(2).await.expect("a write");
        let other: Cache<u64> = Cache::builder(cache.backend().clone())
            .name("test")
            .offload(world.pool.shared())
            .build()
            .expect("a cache");
        assert_eq!(other.get(1_u64).await.expect("a read"), Some(2));
        other.invalidate_tags(&["books"]).await.expect("an invalidation");
        assert_eq!(cache.get(1_u64).await.expect("a read"), None);
    }
}

#[tokio::test]
async fn an_invalidation_reaches_loads_that_are_under_way() {
    for topology in TOPOLOGIES {
        let world = World::new();
        let cache: Cache<u64> = cache(&world, topology, &minute());
        let source = Source::closed();
        let loader = source.with(|| Ok(Loaded::new(1).tag("books")));
        let early = tokio::spawn({
            let cache = cache.clone();
            async move { cache.entry(1_u64).get_or_load_with(loader).await }
        });
        until("a load", || source.calls() == 1).await.expect("it begins");
        cache.invalidate_tags(&["books"]).await.ok();
        // Who comes now cannot know yet whether that load brings what is invalid, and does not take it if so.
        let late = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get_or_load(1_u64, || async { Ok::<_, std::io::Error>(2) }).await }
        });
        until("it waits", || cache.statistics().coalesced == 1).await.expect("it joins");
        source.answer(1);
        assert_eq!(*answer(early).await.expect("no hang").expect("a value"), 1);
        assert_eq!(late.await.expect("a call").expect("a value"), 2, "over {topology:?}");
        assert_eq!(cache.get(1_u64).await.expect("a read"), Some(2), "over {topology:?}");
    }
}
