//! Cases that were reported of caches in production: one test each, named after its id.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox::backend::{Backend, CacheBackend, Compose, OffloadPool, Wrap};
use hitbox::core::ManualClock;
use hitbox::moka::MokaBackend;
use hitbox::{Cache, LoadError, LoadErrorKind, Loaded};
use hitbox_testkit::MemoryBackend;

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("a backend")
}

fn two() -> Arc<dyn Backend> {
    moka().compose(moka(), OffloadPool::new().shared()).shared()
}

/// As long as something that must not hang may take.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

/// A cache whose loaders ask it.
fn numbers(backend: Arc<dyn Backend>, name: &str) -> Cache<u64> {
    Cache::builder(backend).name(name).finish_abandoned(true).build().expect("a cache")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_d02_a_load_that_waits_for_itself_is_an_error() {
    for backend in [moka().shared(), two()] {
        let cache = numbers(backend.clone(), "itself");
        // Its own key: detached, within its caller, and as a batch.
        let inner = cache.clone();
        let load = move || async move { inner.get_or_load(1, || ready(Ok::<_, LoadError>(7))).await };
        let error = soon("recursion", cache.get_or_load(1, load)).await.expect_err("a cycle");
        let inner = error.loader_error::<LoadError>().expect("the inner call's error");
        assert_eq!((error.kind(), inner.kind()), (LoadErrorKind::Loader, LoadErrorKind::Cycle));
        assert!(inner.to_string().contains("itself:0:key=1 → itself:0:key=1"), "{inner}");
        assert!(error.to_string().contains("would wait for itself"), "{error}");
        let scoped = cache.get_or_load_scoped(2, || cache.get_or_load(2, || ready(Ok::<_, LoadError>(7))));
        let error = soon("scoped recursion", scoped).await.expect_err("a cycle");
        assert_eq!(error.loader_error::<LoadError>().map(LoadError::kind), Some(LoadErrorKind::Cycle));
        let inner = cache.clone();
        let load = |keys: Vec<u64>| async move {
            let last = *keys.last().expect("a key");
            inner.get_or_load(last, || ready(Ok::<_, LoadError>(7))).await.map(|value| vec![(last, value)])
        };
        let error = soon("a batch", cache.get_or_load_many([3, 4], load)).await.expect_err("a cycle");
        assert!(error.to_string().contains("would wait for itself"), "{error}");
        let one = cache.clone();
        let load = move || async move {
            let load = |keys: Vec<u64>| {
                ready(Ok::<_, LoadError>(keys.into_iter().map(|key| (key, key)).collect::<Vec<_>>()))
            };
            one.get_or_load_many([5, 6], load).await.map(|values| values.len() as u64)
        };
        let error = soon("a batch within a load", cache.get_or_load(6, load)).await.expect_err("a cycle");
        assert!(error.to_string().contains("would wait for itself"), "{error}");
        // Nothing is left behind, and the key can be loaded.
        let ended = async {
            while cache.statistics().loading > 0 {
                tokio::task::yield_now().await;
            }
        };
        soon("what goes on", ended).await;
        assert_eq!(cache.get_or_load(1, || ready(Ok::<_, LoadError>(8))).await.expect("a value"), 8);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_d02_loads_that_wait_for_each_other_are_an_error() {
    let (users, orders) = (numbers(two(), "users"), numbers(moka().shared(), "orders"));
    // a → b → a, over two caches: each loader asks for the other's key once both have begun.
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let load = |own: &Cache<u64>, other: &Cache<u64>| {
        let (own, other, both) = (own.clone(), other.clone(), both.clone());
        async move {
            let load = move || async move {
                both.wait().await;
                other.get_or_load(1, || ready(Ok::<_, LoadError>(7))).await
            };
            own.get_or_load(1, load).await
        }
    };
    let (first, second) =
        soon("a circle of two", futures_util::future::join(load(&users, &orders), load(&orders, &users)))
            .await;
    // One of them is told; the other fails by that.
    let errors: Vec<String> =
        [first, second].into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    assert!(errors.iter().any(|error| error.contains("would wait for itself")), "{errors:?}");
    // What waits for others without a circle goes on.
    let chain = users.clone();
    let load = move || async move { chain.get_or_load(3, || ready(Ok::<_, LoadError>(3))).await };
    assert_eq!(soon("a chain", users.get_or_load(2, load)).await.expect("a value"), 3);
}

static LOADS: AtomicU64 = AtomicU64::new(0);

#[tokio::test]
async fn case_h02_absence_that_a_loader_says_is_remembered() {
    for backend in [moka().shared(), two()] {
        LOADS.store(0, Ordering::SeqCst);
        let cache: Cache<u64> =
            Cache::builder(backend).absent_ttl(Duration::from_secs(60)).build().expect("a cache");
        for _ in 0..3 {
            let load = |_| {
                LOADS.fetch_add(1, Ordering::SeqCst);
                ready(Ok::<_, LoadError>(Loaded::absent().tag("gone")))
            };
            let error = cache.get_or_load_with(1, load).await.expect_err("nothing is there");
            assert_eq!(error.kind(), LoadErrorKind::Absent);
        }
        assert_eq!(LOADS.load(Ordering::SeqCst), 1, "it is asked once");
        // A tag goes with absence; and who can only bring values is asked.
        cache.invalidate_tags(&["gone"]).await.expect("an invalidation");
        let load = |_| ready(Ok::<_, LoadError>(Loaded::new(5)));
        assert_eq!(cache.get_or_load_with(1, load).await.expect("a value"), 5);
        cache.remove(1).await.expect("a delete");
        let absent = cache.get_or_load_optional(1, || ready(Ok::<_, LoadError>(None))).await;
        assert_eq!(absent.expect("absence"), None);
        assert_eq!(cache.get_or_load(1, || ready(Ok::<_, LoadError>(6))).await.expect("a value"), 6);
    }
}

#[derive(Debug)]
struct NotFound;

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no such user")
    }
}

impl std::error::Error for NotFound {}

/// An error that says what it is from, as those of anyhow and thiserror do.
#[derive(Debug)]
struct WhileReading(NotFound);

impl std::fmt::Display for WhileReading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reading the table")
    }
}

impl std::error::Error for WhileReading {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn case_h07_errors_keep_their_type_and_say_their_cause() {
    let cache = numbers(moka().shared(), "users");
    let error = cache.get_or_load(1, || ready(Err(WhileReading(NotFound)))).await.expect_err("an error");
    assert!(error.loader_error::<WhileReading>().is_some());
    assert!(error.loader_error::<NotFound>().is_some(), "what it is from");
    assert!(error.loader_error::<std::io::Error>().is_none());
    assert_eq!(error.to_string(), "the load of users:0:key=1 failed: reading the table");
    let batch =
        cache.get_or_load_many([1, 2], |_| ready(Err::<Vec<(u64, u64)>, _>(WhileReading(NotFound)))).await;
    assert!(batch.expect_err("an error").loader_error::<NotFound>().is_some());
}

#[tokio::test]
async fn case_c07_an_early_refresh_looks_at_the_entry_and_not_at_a_cap() {
    let clock = ManualClock::new();
    let memory = || MemoryBackend::new(Arc::new(clock.clone()));
    let pool = OffloadPool::builder().clock(Arc::new(clock.clone())).build();
    let backend = memory().ttl_cap(Duration::from_millis(200)).compose(memory(), pool.shared());
    let cache: Cache<u64> = Cache::builder(backend)
        .clock(Arc::new(clock.clone()))
        .offload(pool.shared())
        .ttl(Duration::from_secs(3_600))
        .refresh_after(0.8)
        .build()
        .expect("a cache");
    let loads = Arc::new(AtomicU64::new(0));
    for _ in 0..400 {
        let loads = loads.clone();
        let load = move || {
            loads.fetch_add(1, Ordering::SeqCst);
            ready(Ok::<_, LoadError>(7))
        };
        assert_eq!(cache.get_or_load(1, load).await.expect("a value"), 7);
        pool.wait_all().await;
        clock.advance(Duration::from_millis(10));
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1, "4 s of an hour");
    // Towards the entry's own end it is refreshed.
    clock.advance(Duration::from_secs(3_000));
    for _ in 0..3 {
        let loads = loads.clone();
        let load = move || {
            loads.fetch_add(1, Ordering::SeqCst);
            ready(Ok::<_, LoadError>(8))
        };
        cache.get_or_load(1, load).await.expect("a value");
        pool.wait_all().await;
        clock.advance(Duration::from_millis(10));
    }
    assert_eq!(loads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn case_d16_a_hook_that_panics_harms_nobody() {
    let cache: Cache<u64> = Cache::builder(two()).on_event(|_| panic!("a hook")).build().expect("a cache");
    for _ in 0..2 {
        assert_eq!(cache.get_or_load(1, || ready(Ok::<_, LoadError>(7))).await.expect("a value"), 7);
    }
    assert_eq!(cache.get(2).await.expect("a read"), None);
    cache.insert(2, 8).await.expect("a write");
    assert_eq!(
        cache.get_or_load_many([2], |_| ready(Ok::<_, LoadError>(vec![]))).await.expect("values").len(),
        1
    );
    assert!(cache.statistics().hook_panics > 0);
}

#[tokio::test]
async fn case_d01_a_leader_that_is_not_polled_is_replaced() {
    for backend in [moka().shared(), two()] {
        let clock = ManualClock::new();
        let cache: Cache<u64> = Cache::builder(backend)
            .name("left lying")
            .clock(Arc::new(clock.clone()))
            .build()
            .expect("a cache");
        // Time goes on, a second at a time, while somebody waits for it.
        let pass = async |seconds: u64| {
            for _ in 0..seconds {
                clock.advance(Duration::from_secs(1));
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let gate = tokio::sync::Notify::new();
        let slow = |id: u64, value: u64| {
            let gate = &gate;
            cache.get_or_load_scoped(id, move || async move {
                gate.notified().await;
                Ok::<_, LoadError>(value)
            })
        };
        let mut left = Box::pin(slow(1, 7));
        // It leads, and nobody polls it from here on.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(left.as_mut().poll(&mut context).is_pending());
        let followers = (0..3).map(|_| cache.get_or_load(1, || ready(Ok::<_, LoadError>(8))));
        let followers = futures_util::future::join_all(followers);
        let (values, ()) = soon("followers", futures_util::future::join(followers, pass(5))).await;
        for value in values {
            assert_eq!(value.expect("a value"), 8);
        }
        // Taken up again it ends as it would have, and what it brings is not stored over what is newer.
        gate.notify_one();
        assert_eq!(soon("the first", left).await.expect("a value"), 7);
        assert_eq!(cache.get(1).await.expect("a read"), Some(8));
        assert_eq!(cache.statistics().loading, 0);
        // A load that takes long and is polled is waited for.
        let follower = cache.get_or_load(2, || ready(Ok::<_, LoadError>(2)));
        let end = async {
            pass(10).await;
            gate.notify_one();
        };
        let all = futures_util::future::join3(slow(2, 1), follower, end);
        let (slow, follower, ()) = soon("a slow load", all).await;
        assert_eq!((slow.expect("a value"), follower.expect("a value")), (1, 1));
    }
}

/// A cache that lives longer than the runtime it was made on, as in the tests of a service.
static ACROSS: std::sync::LazyLock<Cache<u64>> =
    std::sync::LazyLock::new(|| Cache::builder(two()).name("across").build().expect("a cache"));

#[test]
fn case_d03_a_static_cache_works_on_every_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let use_it = async |from: u64| {
        for id in from..from + 20 {
            let slow = move || async move {
                tokio::task::yield_now().await;
                Ok::<_, LoadError>(id)
            };
            assert_eq!(soon("a load", ACROSS.get_or_load(id, slow)).await.expect("a value"), id);
        }
        let many = |keys: Vec<u64>| {
            ready(Ok::<_, LoadError>(keys.into_iter().map(|key| (key, key)).collect::<Vec<_>>()))
        };
        let values = soon("a batch", ACROSS.get_or_load_many(from + 100..from + 110, many)).await;
        assert_eq!(values.expect("values").len(), 10);
        ACROSS.insert(from, 1).await.expect("a write");
        ACROSS.clear().await.expect("a clear");
    };
    runtime().block_on(use_it(0));
    // The first has ended; this one stays, and nobody drives it.
    let idle = runtime();
    idle.block_on(use_it(1_000));
    runtime().block_on(use_it(2_000));
    std::thread::scope(|scope| {
        for from in [3_000, 4_000] {
            scope.spawn(move || runtime().block_on(use_it(from)));
        }
    });
    drop(idle);
}

/// A value whose own code panics when it is told to.
#[derive(Clone, Debug, PartialEq)]
struct Fragile {
    text: String,
    panics_in: &'static str,
}

impl Fragile {
    fn new(panics_in: &'static str) -> Self {
        Self { text: "fragile".to_owned(), panics_in }
    }
}

impl serde::Serialize for Fragile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.panics_in, "serialize", "in serialize");
        serializer.serialize_str(&format!("{} {}", self.text, self.panics_in))
    }
}

impl<'de> serde::Deserialize<'de> for Fragile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        assert!(!text.ends_with("deserialize"), "in deserialize");
        Ok(Self::new("nothing"))
    }
}

#[cfg(feature = "disk")]
#[tokio::test]
async fn case_b09_a_panic_in_serde_code_harms_one_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = hitbox::disk::DiskBackend::builder(folder.path()).open().await.expect("disk");
    let bounded = || MokaBackend::builder().max_bytes(1 << 20).build().expect("a backend");
    let pool = OffloadPool::new();
    let backends: [Arc<dyn Backend>; 3] =
        [disk.clone().shared(), bounded().compose(disk.clone(), pool.shared()).shared(), bounded().shared()];
    for (number, backend) in backends.into_iter().enumerate() {
        let keeps_bytes = number == 0;
        let cache: Cache<Fragile> =
            Cache::builder(backend).name(&format!("b09{number}")).build().expect("a cache");
        for panics_in in ["serialize", "deserialize", "nothing"] {
            let load = || ready(Ok::<_, LoadError>(Fragile::new(panics_in)));
            let loaded = soon("a load", cache.get_or_load(panics_in, load)).await.expect("what was loaded");
            assert_eq!(loaded.panics_in, panics_in);
            drop(soon("an insert", cache.insert(panics_in, Fragile::new(panics_in))).await);
        }
        let read = async |key: &str| soon("a read", cache.get(key)).await.expect("a read").is_some();
        assert!(read("nothing").await, "others are unharmed");
        if keeps_bytes {
            assert!(!read("serialize").await && !read("deserialize").await, "misses");
            assert!(cache.statistics().write_errors > 0, "counted");
        }
        assert_eq!(cache.statistics().loading, 0);
    }
    disk.close().await;
}

#[cfg(all(feature = "redis", feature = "disk"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_b04_caches_of_other_types_share_no_values() {
    #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    struct User {
        id: u64,
    }
    #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    struct Order {
        id: u64,
    }
    let url = hitbox_testkit::RedisServer::shared().url();
    let redis = hitbox::redis::RedisBackend::builder(&url).prefix("b04.caches").build().expect("redis");
    let folder = tempfile::tempdir().expect("a folder");
    let disk = hitbox::disk::DiskBackend::builder(folder.path()).open().await.expect("disk");
    let (memory, pool) = (MokaBackend::builder().build().expect("a backend"), OffloadPool::new());
    let backends: [Arc<dyn Backend>; 4] = [
        memory.clone().shared(),
        redis.clone().shared(),
        disk.clone().shared(),
        memory.compose(redis.compose(disk, pool.shared()), pool.shared()).shared(),
    ];
    for backend in backends {
        let users: Cache<User> = Cache::builder(backend.clone()).build().expect("a cache");
        let orders: Cache<Order> = Cache::builder(backend.clone()).build().expect("a cache");
        users.insert(&1_u64, User { id: 36 }).await.expect("a write");
        assert!(orders.get(&1_u64).await.expect("a read").is_none(), "a user is no order");
        let many = orders.get_many(&[1_u64]).await;
        assert!(matches!(&many[..], [Ok(None)]), "in a batch");
        let loaded = orders.get_or_load(&1_u64, || ready(Ok::<_, LoadError>(Order { id: 7 }))).await;
        assert_eq!(loaded.expect("an order").id, 7);
        assert!(users.get(&1_u64).await.expect("a read").is_none(), "an order is no user");
    }
}

#[tokio::test]
async fn case_b05_a_raised_schema_finds_nothing_of_the_older_one() {
    let backend = MokaBackend::builder().build().expect("a backend").shared();
    let of = |schema| Cache::<u32>::builder(backend.clone()).schema(schema).build().expect("a cache");
    of(0).insert(&1_u64, 10).await.expect("a write");
    of(1).insert(&1_u64, 11).await.expect("a write");
    assert_eq!(of(2).get(&1_u64).await.expect("a read"), None);
    assert_eq!(of(0).get(&1_u64).await.expect("a read"), Some(10));
    assert_eq!(of(1).get(&1_u64).await.expect("a read"), Some(11));
    of(1).clear().await.expect("a clear");
    assert_eq!(of(1).get(&1_u64).await.expect("a read"), None);
}

/// What a stack of schema 1 has stored is found by it alone, also by a process that has nothing in memory.
#[cfg(all(feature = "redis", feature = "disk"))]
#[tokio::test]
async fn case_b05_a_stack_has_a_schema() {
    use hitbox::stacks;

    let server = hitbox_testkit::RedisServer::start();
    let folders = tempfile::tempdir().expect("a folder");
    let (room, url) = (1 << 20, server.url());
    for shape in ["memory over Redis", "memory over disk", "memory over Redis over disk"] {
        let folder = folders.path().join(shape);
        let of = async |schema| {
            let stack = stacks::schema(schema);
            let backend = match shape {
                "memory over Redis" => stack.memory_over_redis(10, &url),
                "memory over disk" => stack.memory_over_disk(10, &folder, room).await,
                _ => stack.memory_over_redis_over_disk(10, &url, &folder, room).await,
            };
            Cache::<String>::builder(backend.expect("a stack")).name(shape).build().expect("a cache")
        };
        let key = format!("of {shape}");
        let first = of(1).await;
        first.insert(&key, "old".to_owned()).await.expect("a write");
        first.shutdown(Duration::from_secs(10)).await;
        drop(first);
        let again = of(1).await;
        assert_eq!(again.get(&key).await.expect("a read").as_deref(), Some("old"), "{shape}");
        again.shutdown(Duration::from_secs(10)).await;
        drop(again);
        let raised = of(2).await;
        assert_eq!(raised.get(&key).await.expect("a read"), None, "{shape}");
        let loaded = raised.get_or_load(&key, || ready(Ok::<_, LoadError>("new".to_owned()))).await;
        assert_eq!(loaded.expect("a load").as_str(), "new", "{shape}");
        assert_eq!(raised.get(&key).await.expect("a read").as_deref(), Some("new"), "{shape}");
    }
}

/// Releases with two schemas on one store: neither ends the entries of the other, and both obey an invalidation.
#[cfg(all(feature = "redis", feature = "disk"))]
#[tokio::test]
async fn case_b05_releases_with_two_schemas_share_epochs() {
    let server = hitbox_testkit::RedisServer::start();
    let release = |schema| {
        let builder = hitbox::redis::RedisBackend::builder(&server.url()).schema(schema);
        let redis = builder.staleness_bound(Duration::ZERO).build().expect("redis");
        Cache::<u64>::builder(redis).name("b5").build().expect("a cache")
    };
    let (old, new) = (release(1), release(2));
    for round in 0..3 {
        old.entry(1_u64).tag("t").insert(round).await.expect("a write");
        new.entry(2_u64).tag("t").insert(round).await.expect("a write");
        assert_eq!(old.get(&1_u64).await.expect("a read"), Some(round), "the new release has ended it");
        assert_eq!(new.get(&2_u64).await.expect("a read"), Some(round), "the old release has ended it");
        assert_eq!(new.get(&1_u64).await.expect("a read"), None, "it is of another schema");
        old.entry(1_u64).tag("t").insert(round).await.expect("a write");
        if round == 0 {
            old.invalidate_tags(&["t"]).await.expect("an invalidation");
        } else {
            new.clear().await.expect("a clear");
        }
        assert_eq!(old.get(&1_u64).await.expect("a read"), None, "{round}");
        assert_eq!(new.get(&2_u64).await.expect("a read"), None, "{round}");
    }
    // The same after a restart over a folder.
    let folder = tempfile::tempdir().expect("a folder");
    let open = async |schema| {
        let disk = hitbox::disk::DiskBackend::builder(folder.path()).schema(schema).open().await;
        Cache::<u64>::builder(disk.expect("disk")).name("b5").build().expect("a cache")
    };
    for (schema, key) in [(1, 1_u64), (2, 2)] {
        let cache = open(schema).await;
        cache.entry(key).tag("t").insert(7).await.expect("a write");
        cache.shutdown(Duration::from_secs(10)).await;
    }
    let cache = open(1).await;
    assert_eq!(cache.get(&1_u64).await.expect("a read"), Some(7), "its epochs are there");
    cache.invalidate_tags(&["t"]).await.expect("an invalidation");
    cache.shutdown(Duration::from_secs(10)).await;
    drop(cache);
    let cache = open(2).await;
    assert_eq!(cache.get(&2_u64).await.expect("a read"), None, "another release has invalidated it");
}

#[tokio::test]
async fn case_e06_names_are_no_parts_of_other_names() {
    let backend = moka().shared();
    let named = |name: &str| Cache::<u64>::builder(backend.clone()).name(name).build().expect("a cache");
    let names = ["a", "a:b", "a:b:c", "a*", "?", "a%3Ab", "a/b", "a\\"];
    for name in names {
        for pattern in ["**", "b:**", "*:**", "1", "*"] {
            for other in names {
                named(other).insert(&1_u64, 1).await.expect("a write");
                named(other).insert(("b", 1_u64), 1).await.expect("a write");
            }
            let removed = named(name).invalidate_matching(pattern).await.expect("an invalidation");
            let expected = match pattern {
                "**" => 2,
                "*:**" => 2,
                _ => 1,
            };
            assert_eq!(removed, expected, "{pattern} in {name}");
            for other in names.into_iter().filter(|other| *other != name) {
                let cache = named(other);
                let one = cache.get(&1_u64).await.expect("a read");
                let two = cache.get(("b", 1_u64)).await.expect("a read");
                assert_eq!((one, two), (Some(1), Some(1)), "{pattern} in {name} concerns {other}");
            }
        }
    }
}

#[tokio::test]
async fn case_e05_an_invalidation_counts_distinct_keys() {
    let pool = OffloadPool::new();
    let lower = moka().namespace("n").shared();
    let backends: [Arc<dyn Backend>; 3] = [
        moka().compose(lower.clone(), pool.shared()).shared(),
        moka().compose(moka().compose(lower, pool.shared()).namespace("m"), pool.shared()).shared(),
        moka().namespace("x").compose(moka().namespace("y"), pool.shared()).shared(),
    ];
    for (number, backend) in backends.into_iter().enumerate() {
        let cache = numbers(backend, "e05");
        for id in 0..3_u64 {
            cache.insert(("user", id), id).await.expect("a write");
        }
        assert_eq!(cache.invalidate_prefix(("user",)).await.expect("an invalidation"), 3, "{number}");
        cache.insert(("user", 1), 1).await.expect("a write");
        assert_eq!(cache.invalidate_matching("user:*").await.expect("an invalidation"), 1, "{number}");
    }
}

#[tokio::test]
async fn case_d10_durations_saturate() {
    for backend in [moka().shared(), two()] {
        let longest = Cache::<u64>::builder(backend.clone())
            .name("d10")
            .ttl(Duration::MAX)
            .stale(Duration::MAX)
            .fail_safe(Duration::MAX)
            .idle(Duration::MAX)
            .absent_ttl(Duration::MAX)
            .throttle(Duration::MAX)
            .jitter(0.5)
            .soft_timeout(Duration::MAX)
            .hard_timeout(Duration::MAX)
            .load_limit(Some(Duration::MAX))
            .build()
            .expect("a cache");
        longest.insert(1, 10).await.expect("a write");
        assert_eq!(longest.get(1).await.expect("a read"), Some(10));
        let load = || ready(Ok::<_, LoadError>(7));
        assert_eq!(longest.get_or_load(2, load).await.expect("a load"), 7);
        let load = |_| ready(Ok::<_, LoadError>(Loaded::new(8).ttl(Duration::MAX).stale(Duration::MAX)));
        assert_eq!(longest.get_or_load_with(3, load).await.expect("a load"), 8);
        longest.expire(1).await.expect("an expiry");
        // It is over at once, and takes the older entry with it.
        let ended = || {
            Cache::<u64>::builder(backend.clone()).name("d10").ttl(Duration::ZERO).build().expect("a cache")
        };
        ended().insert(2, 9).await.expect("a write");
        assert_eq!(longest.get(2).await.expect("a read"), None);
        assert_eq!(ended().get_or_load(3, || ready(Ok::<_, LoadError>(11))).await.expect("a load"), 8);
    }
}

#[tokio::test]
async fn case_c15_tags_are_the_stores_and_everything_is_the_namespaces() {
    for store in [moka().shared(), two()] {
        let one = numbers(store.clone().namespace("one").shared(), "c15");
        let two = numbers(store.clone().namespace("two").shared(), "c15");
        for cache in [&one, &two] {
            cache.entry(1).tag("red").insert(7).await.expect("a write");
        }
        one.clear().await.expect("a clear");
        assert_eq!(one.get(1).await.expect("a read"), None);
        assert_eq!(two.get(1).await.expect("a read"), Some(7), "everything of another namespace");
        one.invalidate_tags(&["red"]).await.expect("an invalidation");
        assert_eq!(two.get(1).await.expect("a read"), None, "a tag of the store");
    }
}

#[tokio::test]
async fn case_c15_a_namespace_without_a_name_is_the_whole_store() {
    for (at, backend) in [
        moka().namespace("").shared(),
        moka().namespace("").namespace("x").shared(),
        moka().namespace("x").namespace("").shared(),
        two().namespace("").shared(),
    ]
    .into_iter()
    .enumerate()
    {
        let cache = numbers(backend.clone(), "unnamed");
        for _ in 0..2 {
            cache.insert(1, 7).await.expect("a write");
            cache.clear().await.expect("a clear");
            assert_eq!(cache.get(1).await.expect("a read"), None);
        }
        cache.insert(1, 7).await.expect("a write");
        assert_eq!(cache.invalidate_matching("*").await.expect("an invalidation"), 1, "of the {at}. backend");
    }
    // Names are escaped, so that one with a slash is no path.
    let store = moka().shared();
    let cache = numbers(store.clone().namespace("a/b").shared(), "unnamed");
    cache.insert(1, 7).await.expect("a write");
    store.flush_namespace("a/b").await.expect("a flush");
    assert_eq!(cache.get(1).await.expect("a read"), Some(7));
    store.flush_namespace("a%2Fb").await.expect("a flush");
    assert_eq!(cache.get(1).await.expect("a read"), None);
}
