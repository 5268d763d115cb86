//! Values that are no bytes and never become any.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox::backend::{Backend, CacheBackend, Compose, OffloadPool, Wrap};
use hitbox::core::{CacheKey, CacheValue, ErrorKind};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, Live, LoadError, cached};

/// What serde knows nothing of.
trait Greeter: Send + Sync {
    fn greet(&self) -> String;
}

struct Polite(AtomicU64);

impl Greeter for Polite {
    fn greet(&self) -> String {
        format!("hello, guest {}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

type Guests = Live<Arc<dyn Greeter>>;

fn guests() -> Guests {
    Live(Arc::new(Polite(AtomicU64::new(1))))
}

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("a backend")
}

fn quick() -> QuickBackend {
    QuickBackend::builder().max_bytes(1 << 20).build().expect("a backend")
}

async fn disk(folder: &tempfile::TempDir, name: &str) -> DiskBackend {
    DiskBackend::builder(folder.path().join(name)).label(name).open().await.expect("a backend")
}

fn in_memory() -> Vec<Arc<dyn Backend>> {
    let pool = OffloadPool::new().shared();
    let nest = quick().compose(moka(), pool.clone()).with_label("inner").shared();
    vec![
        moka().shared(),
        MokaBackend::builder().max_bytes(1 << 20).build().expect("a backend").shared(),
        quick().shared(),
        moka().ttl_cap(Duration::from_secs(60)).namespace("live").coalesced().shared(),
        quick().compose(moka(), pool.clone()).with_label("pair").shared(),
        moka().compose(nest.deadline(Duration::from_secs(1)), pool).with_label("outer").shared(),
    ]
}

#[tokio::test]
async fn case_h01_caches_in_memory_alone_hold_values_of_any_type() {
    for backend in in_memory() {
        let cache: Cache<Guests> = Cache::builder(backend).name("guests").build().expect("a cache");
        let call = || cache.get_or_load("host", || ready(Ok::<_, LoadError>(guests())));
        assert_eq!(call().await.expect("a value").greet(), "hello, guest 1");
        // The same object, not another one like it.
        assert_eq!(call().await.expect("a value").greet(), "hello, guest 2");
        let get = async |key| cache.get(key).await.expect("an answer");
        assert_eq!(get("host").await.expect("it is held").greet(), "hello, guest 3");
        cache.insert("other", guests()).await.expect("stored");
        assert_eq!(get("other").await.expect("it is held").greet(), "hello, guest 1");
        cache.remove("host").await.expect("removed");
        assert!(get("host").await.is_none());
    }
}

#[tokio::test]
async fn case_h01_layers_of_bytes_refuse_them_at_build_and_say_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = OffloadPool::new().shared();
    let redis = RedisBackend::builder("redis://127.0.0.1:1").label("shared").build().expect("a backend");
    let slow = disk(&folder, "bytes").await.deadline(Duration::from_secs(1));
    let (inner, name) = (moka().compose(slow, pool.clone()).with_label("inner"), "outer.inner.bytes");
    for (path, backend) in [
        ("alone", disk(&folder, "alone").await.shared()),
        ("shared", redis.shared()),
        (name, quick().compose(inner, pool.clone()).with_label("outer").shared()),
    ] {
        let refused = Cache::<Guests>::builder(backend).build().expect_err("it stores bytes");
        let message = refused.to_string();
        assert_eq!(refused.kind(), ErrorKind::Configuration, "{message}");
        assert!(message.contains(path) && message.contains("stores bytes"), "{message}");
        assert!(message.contains("dyn") && message.contains("Greeter"), "{message}");
    }
}

#[tokio::test]
async fn case_h01_without_a_cache_the_layer_of_bytes_refuses_each_write() {
    let pool = OffloadPool::new().shared();
    let folder = tempfile::tempdir().expect("a folder");
    let leaf = disk(&folder, "bytes").await;
    let both = moka().compose(leaf.clone(), pool).with_label("both");
    let key = CacheKey::new("host");
    let refused = leaf.set_one(&key, CacheValue::new(guests())).await.expect_err("it stores bytes");
    assert_eq!(refused.kind(), ErrorKind::Codec, "{refused}");
    assert!(refused.to_string().contains("stays in memory"), "{refused}");
    let receipt = both.set_one(&key, CacheValue::new(guests())).await;
    let stored = both.get_one::<Guests>(&key).await.expect("an answer").expect("memory has it");
    assert_eq!(stored.data().greet(), "hello, guest 1", "{receipt:?}");
    // Bytes of something else are no such value, and it is none of another type.
    leaf.set_one(&key, CacheValue::new(7_u64)).await.expect("stored");
    assert!(leaf.get_one::<Guests>(&key).await.expect("an answer").is_none());
    let memory = moka();
    memory.set_one(&key, CacheValue::new(guests())).await.expect("stored");
    assert!(memory.get_one::<Live<u64>>(&key).await.expect("an answer").is_none());
    assert!(memory.get_one::<u64>(&key).await.expect("an answer").is_none());
}

#[tokio::test]
async fn a_bound_in_bytes_counts_the_live_value_itself() {
    let memory = MokaBackend::builder().max_bytes(1 << 20).build().expect("a backend");
    for index in 0..2_000_u64 {
        let key = CacheKey::new(&format!("key {index}"));
        memory.set_one(&key, CacheValue::new(Live([index; 1_024]))).await.expect("stored");
    }
    let held = memory.layout().statistics()[0].occupancy.expect("it counts").entries;
    assert!((64..=128).contains(&held), "{held} entries of 8 KiB within 1 MiB");
}

#[cached(cache = greeters())]
async fn greeter(name: String) -> Result<Guests, LoadError> {
    LOADS.fetch_add(1, Ordering::Relaxed);
    drop(name);
    Ok(guests())
}

static LOADS: AtomicU64 = AtomicU64::new(0);

fn greeters() -> &'static Cache<Guests> {
    static CACHE: std::sync::LazyLock<Cache<Guests>> =
        std::sync::LazyLock::new(|| Cache::builder(moka()).name("greeters").build().expect("a cache"));
    &CACHE
}

#[tokio::test]
async fn case_h01_functions_return_them() {
    for _ in 0..3 {
        greeter("host".to_owned()).await.expect("a value").greet();
    }
    assert_eq!(LOADS.load(Ordering::Relaxed), 1);
}
