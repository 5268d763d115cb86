//! How often a load asks for memory.

use std::convert::Infallible;
use std::sync::Arc;

use hitbox::{Cache, Compose};
use hitbox_backend::Backend;
use hitbox_core::CacheKey;
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

/// moka asks seven times for a new entry; seven more are the call, its flight, the loader, the task that runs it, the
/// ticket of its write and the entry.
#[tokio::test]
async fn a_load_asks_for_memory_a_dozen_times_a_leaf() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let pool = hitbox::OffloadPool::new();
    let one = of_a_load(memory()).await;
    let two = of_a_load(memory().compose(memory(), pool.shared())).await;
    let three = of_a_load(memory().compose(memory(), pool.shared()).compose(memory(), pool.shared())).await;
    for (leaves, count, limit) in [(1, one, 14.0), (2, two, 24.0), (3, three, 36.0)] {
        assert!(count <= limit, "{count:.1} allocations over {leaves} leaves");
    }
}
