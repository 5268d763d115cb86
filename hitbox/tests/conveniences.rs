//! What a newcomer looks for: calls without a context, lifetimes without a clock, limits of one layer.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::seconds;
use hitbox::backend::operation::Presence;
use hitbox::backend::{
    Backend, CacheBackend, Compose, DeleteStatus, OffloadPool, ParallelReadPolicy, RaceReadPolicy,
    RefillPolicy, Wrap,
};
use hitbox::core::{CacheKey, CacheValue, Clock, ErrorKind, ManualClock, Timestamp};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, LoadErrorKind, Loaded};
use hitbox_testkit::RedisServer;

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

#[tokio::test]
async fn case_g10_calls_without_context_clock_and_pool() {
    let backend = moka().over(moka());
    let key = CacheKey::builder("n").build();
    let receipt = backend.set_one(&key, CacheValue::new(7_u64).ttl(seconds(60))).await.expect("a write");
    assert_eq!(receipt.leaves().len(), 2);
    let found = backend.get_one::<u64>(&key).await.expect("a read").expect("a value");
    let life =
        found.lifetime().expire().expect("an end").since(Timestamp::from(std::time::SystemTime::now()));
    assert!(life <= seconds(60) && life > seconds(30), "{life:?}");
    assert_eq!(found.into_data(), 7);
    assert_eq!(backend.delete_one(&key).await.expect("a removal"), DeleteStatus::of(2));
    assert!(backend.get_one::<u64>(&key).await.expect("a read").is_none());
}

#[tokio::test]
async fn case_g10_lives_saturate() {
    let key = CacheKey::builder("n").build();
    let backend = moka();
    backend.set_one(&key, CacheValue::new(1_u64).ttl(Duration::MAX)).await.expect("a write");
    assert!(backend.get_one::<u64>(&key).await.expect("a read").is_some());
    backend.set_one(&key, CacheValue::new(1_u64).ttl(Duration::ZERO)).await.expect("a write");
    assert!(backend.get_one::<u64>(&key).await.expect("a read").is_none());
}

#[tokio::test]
async fn case_g11_errors_of_loads_are_sentences() {
    let cache: Cache<u64> = Cache::null();
    let keep = |_| async { Ok::<_, std::io::Error>(Loaded::not_modified()) };
    let error = cache.get_or_load_with("k", keep).await.expect_err("nothing is there to be kept");
    assert_eq!(error.kind(), LoadErrorKind::NothingToKeep);
    let said = error.to_string();
    assert!(
        said.ends_with("says that nothing was modified, and no older value is there to be kept"),
        "{said}"
    );
}

async fn present(backend: &dyn Backend, key: &CacheKey) -> bool {
    backend.get_one::<u64>(key).await.expect("a read").is_some()
}

/// A look, which counts as no read.
async fn is_held(backend: &dyn Backend, key: &CacheKey) -> bool {
    backend.contains(key).await.expect("a look") != Presence::Absent
}

/// Memory forgets what nobody reads; what is below it has no limit, and fills it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_h11_memory_alone_has_an_idle_time() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    for lower in ["redis", "disk", "moka"] {
        let clock = ManualClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let memory = || MokaBackend::builder().clock(shared.clone()).build().expect("moka");
        let below: Arc<dyn Backend> = match lower {
            "redis" => {
                RedisBackend::builder(&server.url()).clock(shared.clone()).build().expect("redis").shared()
            }
            "disk" => {
                DiskBackend::builder(folder.path()).clock(shared.clone()).open().await.expect("disk").shared()
            }
            _ => memory().shared(),
        };
        let above = memory();
        let tiers = above.clone().idle(seconds(60)).over(below.clone()).with_refill(RefillPolicy::Always);
        let key = CacheKey::builder(lower).build();
        tiers.set_one(&key, CacheValue::new(1_u64)).await.expect("a write");
        // Reads keep it.
        for _ in 0..6 {
            clock.advance(seconds(40));
            assert!(present(&tiers, &key).await);
            assert!(is_held(&above, &key).await, "over {lower}: it was read");
        }
        clock.advance(seconds(61));
        assert!(!is_held(&above, &key).await, "over {lower}: nobody has read it");
        // What is below has no such limit, and fills it anew.
        clock.advance(seconds(100_000));
        assert!(present(&below, &key).await, "{lower}");
        assert!(present(&tiers, &key).await);
        let refilled = async {
            while !is_held(&above, &key).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(seconds(20), refilled).await.expect("a refill");
        let entry = below.get_one::<u64>(&key).await.expect("a read").expect("a value");
        assert!(
            entry.details().is_none_or(|details| details.idle.is_none()),
            "{lower}: it is the upper layer's"
        );
        clock.advance(seconds(59));
        assert!(is_held(&above, &key).await, "over {lower}: the refill began its time anew");
        assert!(present(&tiers, &key).await);
    }
}

/// The shorter one counts.
#[tokio::test]
async fn case_h11_entries_keep_a_shorter_idle_time() {
    let clock = ManualClock::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let memory = || MokaBackend::builder().clock(shared.clone()).build().expect("moka");
    for (own, layer, ends) in [(10, 60, 10), (60, 10, 10)] {
        let backend = memory().idle(seconds(layer));
        let cache: Cache<u64> =
            Cache::builder(backend).clock(shared.clone()).idle(seconds(own)).build().expect("a cache");
        cache.insert("k", 1).await.expect("a write");
        clock.advance(seconds(ends - 1));
        assert!(cache.contains("k").await.expect("a look") != Presence::Absent);
        clock.advance(seconds(2));
        assert!(cache.get("k").await.expect("a read").is_none(), "{own} s of {layer} s");
    }
}

/// Less than what times are kept in would end everything at once.
#[tokio::test]
async fn case_h11_an_idle_time_under_a_millisecond_is_refused() {
    let short = Duration::from_micros(999);
    let refused = Cache::<u64>::builder(moka()).idle(short).build().expect_err("nothing would be found");
    assert_eq!(refused.kind(), ErrorKind::Configuration);
    let wrapped = std::panic::catch_unwind(|| moka().idle(short));
    assert!(wrapped.is_err(), "nothing would be found");
    let backend = moka().idle(Duration::MAX);
    let key = CacheKey::builder("n").build();
    backend.set_one(&key, CacheValue::new(1_u64)).await.expect("a write");
    assert!(present(&backend, &key).await);
}

/// All that is done with entries is done with those of such a layer, and every way to read counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_h11_a_layer_with_an_idle_time_does_what_others_do() {
    let clock = ManualClock::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let memory = || MokaBackend::builder().clock(shared.clone()).build().expect("moka");
    let (upper, lower, pool) = (memory(), memory(), OffloadPool::new());
    for policy in ["sequential", "race", "parallel"] {
        let tiers = upper.clone().idle(seconds(60)).over(lower.clone()).with_refill(RefillPolicy::Awaited);
        let tiers = match policy {
            "race" => tiers.with_read(RaceReadPolicy::default()),
            "parallel" => tiers.with_read(ParallelReadPolicy),
            _ => tiers,
        };
        let cache: Cache<u64> =
            Cache::builder(tiers.clone()).name(policy).offload(pool.shared()).build().expect("a cache");
        cache.entry("k").tag("t").insert(1).await.expect("a write");
        let key = cache.key(&"k").into_owned();
        for way in 0..3 {
            for _ in 0..3 {
                clock.advance(seconds(40));
                match way {
                    0 => assert_eq!(cache.get("k").await.expect("a read"), Some(1)),
                    1 => {
                        let found = tiers.get_many::<u64>(std::slice::from_ref(&key)).await;
                        assert!(matches!(&found[0], Ok(Some(_))));
                    }
                    _ => assert!(present(&tiers, &key).await),
                }
                // A note of a cache goes through its pool.
                tokio::time::timeout(seconds(20), pool.wait_all()).await.expect("it is noted");
                assert!(is_held(&upper, &key).await, "{policy}, {way}: it was read");
            }
        }
        cache.invalidate_tags(&["t"]).await.expect("an invalidation");
        assert_eq!(cache.get("k").await.expect("a read"), None);
        let absent = |_| async { Ok::<_, std::io::Error>(Loaded::absent()) };
        let _ = cache.get_or_load_with("gone", absent).await.expect_err("nothing is there");
        assert!(cache.insert_if_newer("v", 1, 5).await.is_ok());
        assert!(cache.insert_if_newer("v", 2, 4).await.is_err());
        assert_eq!(cache.get("v").await.expect("a read"), Some(1));
    }
}
