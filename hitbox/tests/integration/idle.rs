//! Idle times: of entries, and of one layer alone. Every read of a user counts, and no reader waits for a note of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::gated::Gated;
use crate::common::{answer, seconds, until};
use hitbox::backend::operation::{Presence, ReadOptions};
use hitbox::backend::store::LeafOptions;
use hitbox::backend::{
    Backend, CacheBackend, Compose, Leaf, OffloadPool, ParallelReadPolicy, RaceReadPolicy, RefillPolicy, Wrap,
};
use hitbox::core::{CacheContext, CacheKey, CacheValue, Clock, ErrorKind, ManualClock};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, Loaded};
use hitbox_testkit::RedisServer;

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

/// A layer by its name.
async fn layer(name: &str, server: &RedisServer, folder: &Path, clock: &Arc<dyn Clock>) -> Arc<dyn Backend> {
    let clock = clock.clone();
    let memory = || MokaBackend::builder().clock(clock.clone()).build().expect("moka");
    match name {
        "redis" => RedisBackend::builder(&server.url()).clock(clock).build().expect("redis").shared(),
        "disk" => DiskBackend::builder(folder).clock(clock).open().await.expect("disk").shared(),
        "nest" => Arc::new(memory().over(memory())),
        _ => memory().shared(),
    }
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
        let below = layer(lower, &server, folder.path(), &shared).await;
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

/// An entry of a cache that gives all of its entries an idle time of 80 s, in memory over a store that can be made to wait.
struct OverGate {
    clock: ManualClock,
    pool: OffloadPool,
    store: Gated,
    lower: Arc<dyn Backend>,
    cache: Cache<u64>,
    key: CacheKey,
}

impl OverGate {
    async fn new() -> Self {
        let (clock, pool, store) = (ManualClock::new(), OffloadPool::new(), Gated::default());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let upper = MokaBackend::builder().clock(shared.clone()).build().expect("moka");
        let lower: Arc<dyn Backend> =
            Arc::new(Leaf::new(store.clone(), LeafOptions::new("gated").with_clock(shared.clone())));
        let tiers = upper.compose(lower.clone(), pool.shared());
        let cache: Cache<u64> = Cache::builder(tiers)
            .clock(shared)
            .idle(seconds(80))
            .offload(pool.shared())
            .build()
            .expect("a cache");
        cache.insert("k", 7).await.expect("a write");
        let key = cache.key(&"k").into_owned();
        Self { clock, pool, store, lower, cache, key }
    }

    /// Reads in all ways, each when a note is due.
    async fn read(&self, way: usize) -> Option<u64> {
        self.clock.advance(seconds(20));
        let (backend, key) = (self.cache.backend(), &self.key);
        let value = |entry: Option<CacheValue<u64>>| entry.map(CacheValue::into_data);
        match way {
            0 => self.cache.get("k").await.expect("a read"),
            1 => value(backend.get::<u64>(key, &mut CacheContext::new()).await.expect("a read")),
            2 => {
                let found = backend.get_with::<u64>(key, ReadOptions::NORMAL, &mut CacheContext::new()).await;
                value(found.expect("a read"))
            }
            _ => value(backend.get_many::<u64>(std::slice::from_ref(key)).await.remove(0).expect("a read")),
        }
    }
}

/// A hit in memory is answered though the layer below hangs; when that is back, it has the note.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_waits_for_a_note() {
    for way in 0..4 {
        let world = Arc::new(OverGate::new().await);
        let before = world.store.waiting();
        let gate = world.store.gate(&world.key, false);
        let reader = tokio::spawn({
            let world = world.clone();
            async move { world.read(way).await }
        });
        assert_eq!(answer(reader).await.expect("it waits for the layer below"), Some(7), "{way}");
        until("the layer below is told of the read", || world.store.waiting() > before).await.expect("it is");
        gate.open();
        tokio::time::timeout(seconds(20), world.pool.wait_all()).await.expect("it is noted");
        // The lower copy would have died ten seconds ago.
        world.clock.advance(seconds(70));
        assert!(present(&*world.lower, &world.key).await, "{way}: it died though it was read");
    }
}

/// A note brings no new value: an entry stays what it is if nobody takes the note.
#[tokio::test]
async fn notes_that_are_not_taken_make_nothing_dirty() {
    for way in 0..4 {
        let world = OverGate::new().await;
        world.pool.shutdown().await;
        for _ in 0..3 {
            assert_eq!(world.read(way).await, Some(7), "{way}");
        }
        assert_eq!(world.cache.statistics().recovering, 0, "{way}: nothing is out of date");
        let store = world.store.gate(&world.key, true);
        store.open();
        assert_eq!(world.read(way).await, Some(7), "{way}: the store refuses the note");
        assert_eq!(world.cache.statistics().recovering, 0, "{way}: nothing is out of date");
    }
}

async fn write_body(backend: &dyn Backend, key: &CacheKey, between: impl FnOnce()) {
    let entry = CacheValue::new(()).ttl(seconds(100_000));
    let mut writer = backend.open_writer(key, entry, Default::default()).await.expect("a writer");
    writer.chunk("a ".into()).await.expect("a chunk");
    between();
    writer.chunk("body".into()).await.expect("a chunk");
    assert!(writer.finish().await.is_ok());
}

async fn read_body(backend: &dyn Backend, key: &CacheKey) -> bool {
    let Some(mut reader) = backend.open_reader(key, &ReadOptions::NORMAL).await.expect("a look") else {
        return false;
    };
    assert_eq!(reader.chunk().await.expect("a chunk").expect("the body"), "a body");
    true
}

/// The time of a body begins when it is complete, and whoever reads it has read it.
#[tokio::test]
async fn bodies_are_kept_for_as_long_as_they_are_read() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    for name in ["moka", "redis", "disk", "nest"] {
        let clock = ManualClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let backend = layer(name, &server, folder.path(), &shared).await.idle(seconds(60));
        let key = CacheKey::builder(name).build();
        write_body(&backend, &key, || clock.advance(seconds(61))).await;
        for _ in 0..3 {
            clock.advance(seconds(40));
            assert!(read_body(&backend, &key).await, "{name}: it was read");
        }
        clock.advance(seconds(61));
        assert!(!read_body(&backend, &key).await, "{name}: nobody has read it");
    }
}

/// A policy that asks both layers reads both copies, whichever is served.
#[tokio::test]
async fn a_copy_that_is_read_and_not_served_is_kept() {
    let clock = ManualClock::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let memory = || MokaBackend::builder().clock(shared.clone()).build().expect("moka");
    let (upper, lower) = (memory(), memory());
    let tiers =
        upper.clone().ttl_cap(seconds(1_000)).idle(seconds(60)).over(lower).with_read(ParallelReadPolicy);
    let key = CacheKey::builder("k").build();
    tiers.set_one(&key, CacheValue::new(1_u64).ttl(seconds(100_000))).await.expect("a write");
    for _ in 0..10 {
        clock.advance(seconds(40));
        let mut context = CacheContext::new();
        assert!(tiers.get::<u64>(&key, &mut context).await.expect("a read").is_some());
        assert!(is_held(&upper, &key).await, "it was read, served from {:?}", context.source());
    }
}
