//! What is counted, and as what: calls of users once, each layer's part in its row, nothing that nobody asked for.

use std::sync::Arc;

use crate::common::{Knobs, Topology, World, cache, fail, millis, seconds, until};
use hitbox::backend::{
    Backend, CacheBackend, Compose, CompositionPolicy, DeleteStatus, OffloadPool, ParallelReadPolicy,
    RaceReadPolicy, RefillPolicy, SequentialReadPolicy, Wrap,
};
use hitbox::core::{CacheContext, CacheKey, CacheValue, Details, KeyPattern, Scope};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, Loaded, OnStale};
use hitbox_testkit::{MemoryBackend, RedisServer};

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

fn redis(server: &RedisServer, prefix: &str) -> RedisBackend {
    RedisBackend::builder(&server.url()).prefix(prefix).deadline(seconds(5)).build().expect("redis")
}

async fn disk(folder: &tempfile::TempDir) -> DiskBackend {
    DiskBackend::builder(folder.path()).open().await.expect("disk")
}

fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

async fn set(backend: &dyn Backend, number: u64, tag: Option<&str>) {
    let mut details = Details::default();
    details.scopes = tag.map(Scope::tag).into_iter().collect();
    let entry = CacheValue::new(number).with_details(details);
    backend.set(&key(number), entry, &mut CacheContext::new()).await.expect("a write");
}

async fn get(backend: &dyn Backend, number: u64) -> Option<u64> {
    let found = backend.get::<u64>(&key(number), &mut CacheContext::new()).await;
    found.expect("a read").map(CacheValue::into_data)
}

/// Every kind of leaf, and expressions of them.
async fn all(server: &RedisServer, folder: &tempfile::TempDir) -> Vec<(&'static str, Arc<dyn Backend>)> {
    let pool = OffloadPool::new();
    let below = async |name: &str| {
        let builder = DiskBackend::builder(folder.path().join(name));
        builder.open().await.expect("disk")
    };
    vec![
        ("moka", moka().shared()),
        ("quick", QuickBackend::builder().build().expect("quick").shared()),
        ("redis", redis(server, "alone:").shared()),
        ("disk", below("alone").await.shared()),
        ("namespace", moka().namespace("n").shared()),
        ("coalesced", below("coalesced").await.coalesced().shared()),
        ("moka/redis", moka().compose(redis(server, "pair:"), pool.shared()).shared()),
        ("moka/disk", moka().shared().compose(below("pair").await, pool.shared()).shared()),
        (
            "moka/(redis/disk)",
            moka()
                .compose(redis(server, "nest:").compose(below("nest").await, pool.shared()), pool.shared())
                .shared(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_g01_a_call_is_counted_once_in_the_total() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    let pool = OffloadPool::new();
    let policies = || {
        [
            CompositionPolicy::new().read(SequentialReadPolicy),
            CompositionPolicy::new().read(RaceReadPolicy::default()),
            CompositionPolicy::new().read(ParallelReadPolicy),
        ]
    };
    for (round, policy) in policies().into_iter().enumerate() {
        let policy = policy.refill(RefillPolicy::Never);
        let lower: Vec<(&str, Arc<dyn Backend>)> = vec![
            ("moka", moka().shared()),
            ("redis", redis(&server, &format!("g1-{round}:")).shared()),
            ("disk", disk(&folder).await.shared()),
            ("moka/moka", moka().compose(moka(), pool.shared()).shared()),
        ];
        for (name, lower) in lower {
            let said = format!("{round}, {name}");
            lower.erase().await.expect("nothing is left");
            for number in 0..10 {
                set(&*lower, number, None).await;
            }
            let cache = moka().compose_with(lower, pool.shared(), &policy).shared();
            for number in 0..100 {
                assert_eq!(get(&*cache, number % 10).await, Some(number % 10));
            }
            let many = cache.get_many::<u64>(&[key(1), key(2), key(1_000)]).await;
            assert_eq!(many.iter().filter(|found| matches!(found, Ok(Some(_)))).count(), 2);
            for number in 1_000..1_050 {
                assert_eq!(get(&*cache, number).await, None);
            }
            pool.wait_all().await;
            let counted = cache.snapshot();
            let (total, upper) = (&counted.total, &counted.leaves[0]);
            assert_eq!((total.hits, total.stale_hits, total.misses), (102, 0, 51), "{said}");
            assert_eq!(upper.hits, 0, "{said}: each layer's part is in its row");
            assert!(upper.misses <= 153, "{said}");
            let sum: u64 = counted.leaves.iter().map(|leaf| leaf.hits).sum();
            assert_eq!(sum, total.hits, "{said}");
        }
        drop(policy);
    }
}

#[tokio::test]
async fn case_g01_a_cache_counts_its_own_calls() {
    let below: Arc<dyn Backend> =
        moka().compose(moka(), OffloadPool::new().shared()).with_refill(RefillPolicy::Never).shared();
    let named = |name: &str| Cache::<u64>::builder(below.clone()).name(name).build().expect("a cache");
    let (one, other) = (named("one"), named("other"));
    one.insert(1_u64, 1).await.expect("a write");
    for _ in 0..7 {
        assert_eq!(one.get(1_u64).await.expect("a read"), Some(1));
        one.get_or_load(1_u64, || async { Err::<u64, _>("not asked") }).await.expect("a hit");
    }
    for _ in 0..3 {
        assert_eq!(other.get(1_u64).await.expect("a read"), None, "names are parts of keys");
    }
    drop(other.get_many(&[1_u64, 2]).await);
    other.get_or_load(5_u64, || async { Ok::<_, std::io::Error>(5) }).await.expect("a load");
    let counted = one.statistics();
    assert_eq!((counted.hits, counted.stale_hits, counted.misses), (14, 0, 0));
    assert_eq!((counted.layers.total.hits, counted.layers.total.misses), (14, 0));
    let counted = other.statistics();
    assert_eq!((counted.hits, counted.misses, counted.loads), (0, 6, 1));
    assert_eq!((counted.layers.total.hits, counted.layers.total.misses), (0, 6));
    assert_eq!(below.snapshot().total.hits, 14);
}

#[tokio::test]
async fn case_g01_what_nobody_asked_for_is_not_counted() {
    // A layer that was down is brought up to date.
    let world = World::new();
    let cache_below =
        cache(&world, Topology::TwoLayers, &Knobs { ttl: Some(seconds(600)), ..Knobs::default() });
    fail(&world.faults);
    for number in 0..50_u64 {
        cache_below.insert(number, number).await.expect("one layer is enough");
    }
    world.faults.clear();
    until("recovery", || {
        world.clock.advance(millis(100));
        cache_below.statistics().recovering == 0
    })
    .await
    .expect("they are brought up to date");
    let counted = cache_below.backend().snapshot();
    assert!(counted.leaves.iter().all(|leaf| leaf.hits + leaf.stale_hits + leaf.misses == 0), "{counted}");

    // A stale copy is served and loaded anew: one call, one stale hit.
    let world = World::new();
    let upper: Arc<dyn Backend> = Arc::new(MemoryBackend::labelled("upper", Arc::new(world.clock.clone())));
    let builder = Cache::<u64>::builder(upper).name("g1").offload(world.pool.shared());
    let builder = builder.clock(Arc::new(world.clock.clone())).ttl(seconds(1)).stale(seconds(60));
    let cache = builder.on_stale(OnStale::ServeAndReload).load_limit(None).build().expect("a cache");
    cache.insert(1_u64, 1).await.expect("a write");
    world.clock.advance(seconds(2));
    let load = async |load: hitbox::Load<u64>| {
        let older = load.previous().await;
        Ok::<_, std::io::Error>(Loaded::new(older.unwrap_or_default() + 1))
    };
    let served = cache.entry(1_u64).get_or_load_with(load).await.expect("a stale copy");
    assert_eq!(*served, 1);
    world.pool.wait_all().await;
    assert_eq!(cache.get(1_u64).await.expect("a read"), Some(2));
    let counted = cache.statistics();
    assert_eq!((counted.hits, counted.stale_hits, counted.misses), (1, 1, 0));
    let leaf = &counted.layers.leaves[0];
    assert_eq!((leaf.hits, leaf.stale_hits, leaf.misses), (1, 1, 0), "what the loader looked at is its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_g02_what_was_invalidated_is_not_there() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    for (name, backend) in all(&server, &folder).await {
        let missing = DeleteStatus::Missing;
        let remove =
            async |number| backend.delete(&key(number), &mut CacheContext::new()).await.expect("a removal");
        let counts = async || -> Vec<u64> {
            let counts = backend.entry_counts().await.expect("counts");
            counts.into_iter().map(|count| count.entries.expect("a count")).collect()
        };
        let fill = async || {
            for number in 0..8 {
                set(&*backend, number, Some("red")).await;
            }
            set(&*backend, 100, None).await;
        };
        fill().await;
        assert!(matches!(remove(0).await, DeleteStatus::Deleted(_)), "{name}: before");
        backend.invalidate_tags(&["red"]).await.expect("an invalidation");
        assert!(counts().await.iter().all(|count| *count == 1), "{name}: {:?}", counts().await);
        assert_eq!(remove(1).await, missing, "{name}: a tag");
        let many = backend.delete_many(&[key(2), key(3), key(100), key(101)]).await;
        let many: Vec<_> = many.into_iter().map(|removed| removed.expect("a removal")).collect();
        assert!(
            matches!(
                many[..],
                [
                    DeleteStatus::Missing,
                    DeleteStatus::Missing,
                    DeleteStatus::Deleted(_),
                    DeleteStatus::Missing
                ]
            ),
            "{name}: {many:?}"
        );
        set(&*backend, 100, None).await;
        let matched = backend.invalidate_prefix(&CacheKey::new("k")).await.expect("a prefix");
        assert_eq!(matched, 1, "{name}: what a prefix finds");
        fill().await;
        backend.clear().await.expect("a clear");
        assert!(counts().await.iter().all(|count| *count == 0), "{name}: {:?}", counts().await);
        assert_eq!(remove(100).await, missing, "{name}: everything");
        let matched = backend.invalidate_matching(KeyPattern::glob("k:*")).await.expect("a pattern");
        assert_eq!(matched, 0, "{name}: what a pattern finds");
        // What is written after it is there.
        fill().await;
        assert!(counts().await.iter().all(|count| *count == 9), "{name}: {:?}", counts().await);
        assert!(matches!(remove(5).await, DeleteStatus::Deleted(_)), "{name}: after");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_g02_known_absence_is_not_there() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    for (name, backend) in all(&server, &folder).await {
        let builder = Cache::<u64>::builder(backend.clone()).name("g2").absent_ttl(seconds(600));
        let cache = builder.build().expect("a cache");
        for number in 0..3_u64 {
            let absent = cache.get_or_load_optional(number, || async { Ok::<_, std::io::Error>(None) }).await;
            assert_eq!(absent.expect("an answer"), None);
        }
        let known = cache.get_or_load_optional(1_u64, || async { Err::<Option<u64>, _>("not asked") }).await;
        assert_eq!(known.expect("it is known"), None, "{name}");
        let counts = backend.entry_counts().await.expect("counts");
        let counts: Vec<u64> = counts.into_iter().map(|count| count.entries.expect("a count")).collect();
        assert!(counts.iter().all(|count| *count == 0), "{name}: {counts:?}");
        assert_eq!(cache.remove(0_u64).await.expect("a removal"), DeleteStatus::Missing, "{name}");
        let many = cache.remove_many(&[1_u64, 2]).await;
        assert!(many.iter().all(|removed| matches!(removed, Ok(DeleteStatus::Missing))), "{name}: {many:?}");
        let loaded = cache.get_or_load_optional(0_u64, || async { Ok::<_, std::io::Error>(Some(5)) }).await;
        assert_eq!(loaded.expect("an answer"), Some(5), "{name}: it is not known any more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_g03_own_records_are_nobodys_entries() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    for (name, backend) in all(&server, &folder).await {
        for number in 0..20 {
            set(&*backend, number, Some(&format!("tag-{number}"))).await;
        }
        let counted = backend.snapshot();
        let leaves = counted.leaves.len() as u64;
        assert_eq!((counted.total.writes, counted.total.removes), (20 * leaves, 0), "{name}");
        let bytes: Vec<u64> = counted.leaves.iter().map(|leaf| leaf.bytes_written).collect();
        backend.invalidate_tags(&["tag-1", "tag-2"]).await.expect("an invalidation");
        backend.flush_namespace("other").await.expect("a flush");
        for number in 0..20 {
            get(&*backend, number).await;
        }
        let counted = backend.snapshot();
        assert_eq!(counted.total.writes, 20 * leaves, "{name}: records of scopes are no writes");
        assert_eq!((counted.total.hits, counted.total.misses), (18, 2), "{name}");
        for (leaf, bytes) in counted.leaves.iter().zip(bytes) {
            assert_eq!(leaf.bytes_written, bytes, "{name}");
            if let Some(held) = leaf.occupancy {
                assert_eq!(held.entries, 20, "{name}: {}", leaf.label);
            }
        }
        let counts = backend.entry_counts().await.expect("counts");
        assert!(counts.iter().all(|count| matches!(count.entries, Ok(18))), "{name}: {counts:?}");
        let mut listed = Vec::new();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = backend.list_keys(from, 7).await.expect("a page");
            listed.extend(page.keys);
            cursor = page.next;
        }
        assert!(listed.iter().all(|key| key.prefix() == "k"), "{name}: {listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_g04_what_a_filter_answers_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let backends: Vec<(&str, Arc<dyn Backend>)> = vec![
        ("moka", moka().negative_filter(1_000).await.expect("a filter").shared()),
        ("disk", disk(&folder).await.negative_filter(1_000).await.expect("a filter").shared()),
        ("coalesced", moka().coalesced().negative_filter(1_000).await.expect("a filter").shared()),
    ];
    for (name, backend) in backends {
        for number in 0..10 {
            set(&*backend, number, None).await;
            backend.delete(&key(number), &mut CacheContext::new()).await.expect("a removal");
        }
        // They pass the filter, and nothing is there.
        for number in 0..10 {
            assert_eq!(get(&*backend, number).await, None);
        }
        drop(backend.get_many::<u64>(&[key(0), key(1)]).await);
        let unknown: Vec<CacheKey> = (1_000..1_100).map(key).collect();
        drop(backend.get_many::<u64>(&unknown).await);
        for key in &unknown {
            backend.contains(key).await.expect("a look");
        }
        let total = backend.snapshot().total;
        assert_eq!(total.misses, 112, "{name}");
        assert_eq!(total.absent, 100, "{name}");
        // Some of a hundred unknown keys may pass: 0.8 % do.
        assert!(total.filtered >= 90 && total.filtered + total.false_positives == 112, "{name}: {total:?}");
        assert!(total.false_positives >= 12, "{name}: {total:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_g06_a_namespace_counts_its_own() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    let stores: Vec<(&str, Arc<dyn Backend>)> = vec![
        ("moka", moka().shared()),
        ("quick", QuickBackend::builder().build().expect("quick").shared()),
        ("redis", redis(&server, "g6:").shared()),
        ("disk", disk(&folder).await.shared()),
    ];
    for (name, store) in stores {
        let count = async |backend: &dyn Backend| {
            let counts = backend.entry_counts().await.expect("counts");
            counts[0].entries.clone().expect("a count")
        };
        let red: Arc<dyn Backend> = store.clone().namespace("red").shared();
        let (blue, within) = (store.clone().namespace("blue"), red.clone().namespace("within"));
        for number in 0..5 {
            set(&*store, number, None).await;
            set(&*red, number, None).await;
        }
        set(&blue, 1, None).await;
        set(&within, 1, None).await;
        assert_eq!(count(&*store).await, 12, "{name}: all of the store");
        assert_eq!(count(&*red).await, 6, "{name}: with those within it");
        assert_eq!((count(&blue).await, count(&within).await), (1, 1), "{name}");
        red.clear().await.expect("a clear");
        assert_eq!((count(&*red).await, count(&blue).await, count(&*store).await), (0, 1, 6), "{name}");
    }
}
