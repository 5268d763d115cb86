//! Stores that are used with more and more namespaces.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::store::LeafOptions;
use hitbox_backend::{Backend, CacheBackend, Leaf, Wrap, doc::Map};
use hitbox_core::{
    BackendResult, CacheKey, CacheValue, Clock, ErrorKind, KeyPattern, Lifetime, Limits, ManualClock,
};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;

const LIMITS: Limits = Limits { namespaces: 3, ..Limits::DEFAULT };

struct Leaves {
    leaves: Vec<Arc<dyn Backend>>,
    clock: ManualClock,
    /// One of its own: a write that would be refused lists only a part of what others have there too.
    _server: RedisServer,
    _folder: tempfile::TempDir,
}

async fn leaves() -> Leaves {
    let folder = tempfile::tempdir().expect("a folder");
    let manual = ManualClock::new();
    let clock: Arc<dyn Clock> = Arc::new(manual.clone());
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).limits(LIMITS);
    let disk = DiskBackend::builder(folder.path()).limits(LIMITS).clock(clock.clone()).open();
    let leaves = vec![
        MokaBackend::builder().limits(LIMITS).clock(clock.clone()).build().expect("moka").shared(),
        QuickBackend::builder().limits(LIMITS).clock(clock.clone()).build().expect("quick").shared(),
        redis.clock(clock).build().expect("redis").shared(),
        disk.await.expect("disk").shared(),
    ];
    Leaves { leaves, clock: manual, _server: server, _folder: folder }
}

/// An entry of a minute in a namespace.
async fn put(leaf: &Arc<dyn Backend>, clock: &ManualClock, name: &str, id: u64) -> BackendResult<()> {
    let lifetime = Lifetime::ttl(clock.now(), Duration::from_secs(60));
    let key = CacheKey::builder("entry").part("id", id).build();
    let inside = leaf.clone().namespace(name);
    inside.set_one(&key, CacheValue::new(id).with_lifetime(lifetime)).await.map(drop)
}

async fn has_room_for_three(leaf: &Arc<dyn Backend>, clock: &ManualClock, names: [&str; 4]) {
    for name in &names[..3] {
        for id in 0..3 {
            put(leaf, clock, name, id).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let refused = put(leaf, clock, names[3], 0).await.expect_err("a fourth");
    assert_eq!((refused.kind(), refused.exceeded()), (ErrorKind::TooLarge, Some((4, 3))), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f12_a_namespace_is_given_back_with_its_last_entry() {
    let Leaves { leaves, clock, _server, _folder } = leaves().await;
    for leaf in &leaves {
        has_room_for_three(leaf, &clock, ["a", "b", "c", "d"]).await;
        // Two of three entries are removed, which is not the last.
        let inside = |name: &str| leaf.clone().namespace(name);
        let key = |id: u64| CacheKey::builder("entry").part("id", id).build();
        inside("a").delete_one(&key(0)).await.expect("removed");
        inside("a").delete_one(&key(1)).await.expect("removed");
        assert!(put(leaf, &clock, "d", 0).await.is_err(), "one is left in a");
        // The last is removed; a namespace is invalidated; another loses its entries by pattern.
        inside("a").delete_one(&key(2)).await.expect("removed");
        put(leaf, &clock, "d", 0).await.expect("in the place of a");
        inside("b").clear().await.expect("invalidated");
        put(leaf, &clock, "e", 0).await.expect("in the place of b");
        let removed = inside("c").invalidate_matching(KeyPattern::glob("entry:*")).await;
        assert_eq!(removed.expect("removed"), 3);
        put(leaf, &clock, "f", 0).await.expect("in the place of c");
        assert!(put(leaf, &clock, "g", 0).await.is_err());
        // What was there is served all the same, and written again.
        for name in ["d", "e", "f"] {
            assert!(inside(name).get_one::<u64>(&key(0)).await.expect("an answer").is_some(), "{name}");
            put(leaf, &clock, name, 1).await.expect("a known one");
        }
        leaf.clear().await.expect("invalidated");
        has_room_for_three(leaf, &clock, ["g", "h", "i", "j"]).await;
    }
    // All their times are over.
    clock.advance(Duration::from_secs(600));
    for leaf in &leaves {
        has_room_for_three(leaf, &clock, ["k", "l", "m", "n"]).await;
    }
}

/// A store that cannot list what it has gives back by time and by invalidation.
#[tokio::test]
async fn case_f12_stores_that_cannot_list_give_back_by_time() {
    let clock = ManualClock::new();
    let options = LeafOptions::new("map").with_clock(Arc::new(clock.clone())).with_limits(LIMITS);
    let leaf = Leaf::new(Map::default(), options).shared();
    has_room_for_three(&leaf, &clock, ["a", "b", "c", "d"]).await;
    leaf.clone().namespace("c").clear().await.expect("invalidated");
    put(&leaf, &clock, "d", 0).await.expect("in the place of c");
    clock.advance(Duration::from_secs(600));
    has_room_for_three(&leaf, &clock, ["k", "l", "m", "n"]).await;
}

/// Namespaces that are only flushed are forgotten some time; what was invalidated with them stays so, and what is in other
/// namespaces is a miss at worst.
#[tokio::test]
async fn case_f12_what_was_invalidated_stays_so_when_its_name_is_forgotten() {
    let memories: [Arc<dyn Backend>; 2] = [
        MokaBackend::builder().build().expect("moka").shared(),
        QuickBackend::builder().build().expect("quick").shared(),
    ];
    for memory in memories {
        let (early, late) = (memory.clone().namespace("early"), memory.clone().namespace("late"));
        let key = CacheKey::new("key");
        early.set_one(&key, CacheValue::new(1_u64)).await.expect("stored");
        memory.set_one(&key, CacheValue::new(2_u64)).await.expect("stored");
        early.clear().await.expect("invalidated");
        late.set_one(&key, CacheValue::new(3_u64)).await.expect("stored");
        let mut found = HashSet::new();
        for number in 0..300_000 {
            memory.flush_namespace(&format!("tenant {number}")).await.expect("invalidated");
            if number % 1_000 == 0 {
                assert!(early.get_one::<u64>(&key).await.expect("an answer").is_none(), "{number} later");
                found.insert(late.get_one::<u64>(&key).await.expect("an answer").is_some());
            }
        }
        assert_eq!(found.len(), 2, "the names were never forgotten");
        assert!(memory.get_one::<u64>(&key).await.expect("an answer").is_some(), "it is in no namespace");
        for value in 4..6_u64 {
            late.set_one(&key, CacheValue::new(value)).await.expect("stored");
            assert!(late.get_one::<u64>(&key).await.expect("an answer").is_some());
        }
        late.clear().await.expect("invalidated");
        assert!(late.get_one::<u64>(&key).await.expect("an answer").is_none());
    }
}
