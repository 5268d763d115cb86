//! The bounds of the in-memory backends.

use std::sync::Arc;

use bytes::Bytes;
use hitbox_backend::store::Occupancy;
use hitbox_backend::wrap::Placement;
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{CacheContext, CacheKey, CacheValue, ErrorKind};
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use hitbox_testkit::World;
use hitbox_testkit::broken::{Defect, Defective};
use hitbox_testkit::suite::Verdict;

fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

fn occupancy(cache: &dyn Backend) -> Result<Occupancy, String> {
    let [leaf] = cache.layout().leaves() else { return Err("it is no leaf".to_owned()) };
    leaf.statistics().occupancy.ok_or("it does not say what it holds".to_owned())
}

/// Ten times and more of what the backend may hold, a thousand bytes each.
async fn stays_within(cache: &dyn Backend) -> Verdict {
    for number in 0..1_000 {
        let value = CacheValue::new(Bytes::from(vec![7; 1_000]));
        cache.set(&key(number), value, &mut CacheContext::new()).await.map_err(|error| error.to_string())?;
        cache.sweep(usize::MAX).await.map_err(|error| error.to_string())?;
        let held = occupancy(cache)?;
        let over = held.max_entries.is_some_and(|max| held.entries > max)
            || held.max_bytes.is_some_and(|max| held.bytes > max);
        if over || (held.max_entries, held.max_bytes) == (None, None) {
            return Err(format!("after {number} writes: {held:?}"));
        }
    }
    let held = occupancy(cache)?;
    if held.entries > 10 && held.evictions > 800 { Ok(()) } else { Err(format!("at the end: {held:?}")) }
}

#[tokio::test]
async fn value_13_memory_stays_within_its_bound() {
    let bounded: [(&str, Arc<dyn Backend>); 4] = [
        ("moka, entries", Arc::new(MokaBackend::builder().max_entries(100).build().expect("a bound"))),
        ("moka, bytes", Arc::new(MokaBackend::builder().max_bytes(64 * 1024).build().expect("a bound"))),
        ("quick, entries", Arc::new(QuickBackend::builder().max_entries(100).build().expect("a bound"))),
        ("quick, bytes", Arc::new(QuickBackend::builder().max_bytes(64 * 1024).build().expect("a bound"))),
    ];
    for (name, cache) in bounded {
        stays_within(&*cache).await.unwrap_or_else(|what| panic!("{name}: {what}"));
        let adopted = cache.adopt(&Placement::new("outer".into(), 3));
        stays_within(&*adopted).await.unwrap_or_else(|what| panic!("{name}, adopted: {what}"));
        if name.ends_with("bytes") {
            let large = CacheValue::new(Bytes::from(vec![7; 65 * 1024]));
            let refused = cache.set(&key(1), large, &mut CacheContext::new()).await.expect_err("too large");
            assert_eq!(refused.kind(), ErrorKind::TooLarge, "{name}");
        }
    }
}

/// An entry that is replaced is not evicted.
#[tokio::test]
async fn overwriting_evicts_nothing() {
    let bounded: [(&str, Arc<dyn Backend>); 2] = [
        ("moka", Arc::new(MokaBackend::builder().max_bytes(64 * 1024).build().expect("a bound"))),
        ("quick", Arc::new(QuickBackend::builder().max_bytes(64 * 1024).build().expect("a bound"))),
    ];
    for (name, cache) in bounded {
        for _ in 0..100 {
            let value = CacheValue::new(Bytes::from(vec![7; 1_000]));
            cache.set(&key(1), value, &mut CacheContext::new()).await.expect("a write");
        }
        cache.sweep(usize::MAX).await.expect("a sweep");
        let held = occupancy(&*cache).expect("it says what it holds");
        assert_eq!((held.entries, held.evictions), (1, 0), "{name}: {held:?}");
    }
}

#[tokio::test]
async fn value_13_rejects_a_map_that_only_states_a_bound() {
    let cache = Defective::new(Defect::IgnoresBound, World::new().shared_clock());
    stays_within(&cache).await.expect_err("it holds everything");
}
