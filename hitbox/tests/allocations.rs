//! How often loads and hits ask for memory.

use std::convert::Infallible;
use std::sync::Arc;

use hitbox::{Cache, Compose};
use hitbox_backend::{Backend, CacheBackend, Wrap};
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_moka::MokaBackend;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Allocations of one load whose entry is in no layer, with all that is done for it in the background.
async fn of_a_load(backend: impl Backend) -> f64 {
    let cache: Cache<Arc<u64>> = Cache::builder(backend).name("numbers").build().expect("a cache");
    let value = Arc::new(7);
    let load = async |keys: &[CacheKey]| {
        for key in keys {
            let value = value.clone();
            let loaded = cache.get_or_load(key, move || async move { Ok::<_, Infallible>(value) }).await;
            assert_eq!(*loaded.expect("a value"), 7);
        }
    };
    let keys: Vec<CacheKey> =
        (0..4_000_u64).map(|id| CacheKey::builder("n").part("id", id).build()).collect();
    let (warm, measured) = keys.split_at(2_000);
    load(warm).await;
    let before = dhat::HeapStats::get().total_blocks;
    load(measured).await;
    (dhat::HeapStats::get().total_blocks - before) as f64 / measured.len() as f64
}

fn memory() -> MokaBackend {
    MokaBackend::builder().max_entries(1 << 20).build().expect("a backend")
}

/// One test measures at a time.
static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// moka asks seven times for a new entry; five more are the flight, the loader, the load, the ticket of its write and the
/// entry.
#[tokio::test]
async fn a_load_asks_for_memory_a_dozen_times_a_leaf() {
    let _alone = MEASURING.lock().await;
    let _profiler = dhat::Profiler::builder().testing().build();
    let pool = hitbox::OffloadPool::new();
    let one = of_a_load(memory()).await;
    let two = of_a_load(memory().compose(memory(), pool.shared())).await;
    let three = of_a_load(memory().compose(memory(), pool.shared()).compose(memory(), pool.shared())).await;
    // moka asks for more now and then.
    for (leaves, count, limit) in [(1, one, 12.2), (2, two, 20.2), (3, three, 31.2)] {
        assert!(count <= limit, "{count:.2} allocations over {leaves} leaves");
    }
}

/// Allocations of a hit, of keys that are read again and again.
async fn of_a_hit(backend: impl Backend) -> f64 {
    let keys: Vec<CacheKey> = (0..20_u64).map(|id| CacheKey::builder("n").part("id", id).build()).collect();
    for key in &keys {
        backend.set_one(key, CacheValue::new(7_u64)).await.expect("a write");
    }
    let read = async || {
        for key in &keys {
            let found = backend.get::<u64>(key, &mut CacheContext::new()).await.expect("a read");
            assert_eq!(found.map(CacheValue::into_data), Some(7));
        }
    };
    read().await;
    let before = dhat::HeapStats::get().total_blocks;
    for _ in 0..100 {
        read().await;
    }
    (dhat::HeapStats::get().total_blocks - before) as f64 / (100 * keys.len()) as f64
}

#[tokio::test]
async fn case_f26_a_hit_in_a_namespace_asks_for_no_memory() {
    let _alone = MEASURING.lock().await;
    let _profiler = dhat::Profiler::builder().testing().build();
    let pool = hitbox::OffloadPool::new();
    let counts = [
        ("bare", of_a_hit(memory()).await),
        ("namespace", of_a_hit(memory().namespace("n")).await),
        ("a name that is escaped", of_a_hit(memory().namespace("a/b%c")).await),
        ("two namespaces", of_a_hit(memory().namespace("in").namespace("out")).await),
        ("layers", of_a_hit(memory().namespace("n").compose(memory(), pool.shared()).namespace("m")).await),
    ];
    for (what, count) in counts {
        // moka tidies up now and then.
        assert!(count < 0.3, "{what}: {count:.2} allocations a hit");
    }
}
