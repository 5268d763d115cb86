//! The counters through the `metrics` crate, for a recorder that is installed after the cache was built.

#![cfg(feature = "prometheus")]

use hitbox_backend::doc::Map;
use hitbox_backend::{CacheBackend, Compose, OffloadPool, metrics};
use hitbox_core::{CacheContext, CacheKey, CacheValue};

#[tokio::test]
async fn stats_04_counters_and_durations_under_full_paths() {
    let pool = OffloadPool::new();
    let inner = Map::default().compose(Map::default(), pool.shared()).with_label("inner");
    // Behind `dyn`, as deep as it goes.
    let cache = inner.shared().compose(Map::default(), pool.shared()).with_label("outer").shared();
    let (there, gone) = (CacheKey::new("there"), CacheKey::new("gone"));
    let mut context = CacheContext::new();
    cache.set(&there, CacheValue::new(1_u64), &mut context).await.expect("a write");
    let export = metrics::prometheus().expect("no other recorder");
    for key in [&there, &there, &gone] {
        cache.get::<u64>(key, &mut context).await.expect("a read");
    }
    let text = export.render();
    for series in [
        "hitbox_backend_hit_total{backend=\"outer.inner.backend\"} 2",
        "hitbox_backend_miss_total{backend=\"outer.inner.backend\"} 1",
        "hitbox_backend_miss_total{backend=\"outer.inner.backend2\"} 1",
        "hitbox_backend_read_total{backend=\"outer.inner.backend\"} 3",
        "hitbox_backend_write_total{backend=\"outer.backend\"} 1",
        "hitbox_backend_read_duration_seconds_count{backend=\"outer.inner.backend\"} 3",
        "hitbox_backend_deserialize_duration_seconds_count{backend=\"outer.inner.backend\"}",
        "hitbox_offload_depth 0",
    ] {
        assert!(text.contains(series), "{series} is missing in:\n{text}");
    }
}
