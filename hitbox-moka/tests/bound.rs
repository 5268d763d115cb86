//! The bounds of the in-memory backend.

use bytes::Bytes;
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{CacheContext, CacheKey, CacheValue, ErrorKind};
use hitbox_moka::MokaBackend;

fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

#[tokio::test]
async fn value_13_memory_stays_within_its_bound() {
    let by_entries = MokaBackend::builder().max_entries(100).build().expect("a bound in entries");
    let by_bytes = MokaBackend::builder().max_bytes(64 * 1024).build().expect("a bound in bytes");
    for number in 0..1_000 {
        for cache in [&by_entries, &by_bytes] {
            let value = CacheValue::new(Bytes::from(vec![7; 1_000]));
            cache.set(&key(number), value, &mut CacheContext::new()).await.expect("a write");
            cache.sweep(usize::MAX).await.expect("maintenance");
            let held = cache.occupancy().expect("it knows what it holds");
            assert!(held.max_entries.is_none_or(|max| held.entries <= max), "{held:?}");
            assert!(held.max_bytes.is_none_or(|max| held.bytes <= max), "{held:?}");
        }
    }
    for cache in [&by_entries, &by_bytes] {
        let held = cache.occupancy().expect("it knows what it holds");
        assert!(held.entries > 10 && held.evictions > 800, "{held:?}");
    }
    let large = CacheValue::new(Bytes::from(vec![7; 65 * 1024]));
    let refused = by_bytes.set(&key(1), large, &mut CacheContext::new()).await.expect_err("too large");
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
}
