//! The bounds of the in-memory backend.

use std::sync::Arc;

use bytes::Bytes;
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{CacheContext, CacheKey, CacheValue, ErrorKind};
use hitbox_moka::MokaBackend;
use hitbox_testkit::World;
use hitbox_testkit::broken::{Defect, Defective};
use hitbox_testkit::suite::Verdict;

fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

/// Ten times and more of what the backend may hold, a thousand bytes each.
async fn stays_within(cache: &dyn Backend) -> Verdict {
    for number in 0..1_000 {
        let value = CacheValue::new(Bytes::from(vec![7; 1_000]));
        cache.set(&key(number), value, &mut CacheContext::new()).await.map_err(|error| error.to_string())?;
        cache.sweep(usize::MAX).await.map_err(|error| error.to_string())?;
        let held = cache.occupancy().ok_or("it does not say what it holds")?;
        let over = held.max_entries.is_some_and(|max| held.entries > max)
            || held.max_bytes.is_some_and(|max| held.bytes > max);
        if over || (held.max_entries, held.max_bytes) == (None, None) {
            return Err(format!("after {number} writes: {held:?}"));
        }
    }
    let held = cache.occupancy().ok_or("it does not say what it holds")?;
    if held.entries > 10 && held.evictions > 800 { Ok(()) } else { Err(format!("at the end: {held:?}")) }
}

#[tokio::test]
async fn value_13_memory_stays_within_its_bound() {
    let by_entries = MokaBackend::builder().max_entries(100).build().expect("a bound in entries");
    let by_bytes = MokaBackend::builder().max_bytes(64 * 1024).build().expect("a bound in bytes");
    stays_within(&by_entries).await.expect("a bound in entries");
    stays_within(&by_bytes).await.expect("a bound in bytes");
    let (mine, boxed): (Arc<dyn Backend>, _) =
        (Arc::new(by_bytes.clone()), Box::new(by_bytes.clone()) as Box<dyn Backend>);
    stays_within(&mine).await.expect("shared");
    stays_within(&boxed).await.expect("boxed");
    let large = CacheValue::new(Bytes::from(vec![7; 65 * 1024]));
    let refused = by_bytes.set(&key(1), large, &mut CacheContext::new()).await.expect_err("too large");
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn value_13_rejects_a_map_that_only_states_a_bound() {
    let cache = Defective::new(Defect::IgnoresBound, World::new().shared_clock());
    stays_within(&cache).await.expect_err("it holds everything");
}
