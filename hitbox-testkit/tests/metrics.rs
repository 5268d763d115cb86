//! The counters through the `metrics` crate, for a recorder that is installed after the cache was built.

use std::sync::OnceLock;

use hitbox_backend::doc::Map;
use hitbox_backend::{Backend, CacheBackend, Compose, OffloadPool, metrics};
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_testkit::World;
use hitbox_testkit::broken::{Defect, Defective};

/// One write, two hits and a miss on `(upper / map) / map`, which has the label `outer`, behind `dyn` as
/// deep as it goes.
async fn use_it(upper: impl Backend, outer: &str, install: impl FnOnce()) {
    let pool = OffloadPool::new();
    let inner = upper.compose(Map::default(), pool.shared()).with_label("inner");
    let cache = inner.shared().compose(Map::default(), pool.shared()).with_label(outer).shared();
    let (there, gone) = (CacheKey::new("there"), CacheKey::new("gone"));
    let mut context = CacheContext::new();
    cache.set(&there, CacheValue::new(1_u64), &mut context).await.expect("a write");
    install();
    for key in [&there, &there, &gone] {
        cache.get::<u64>(key, &mut context).await.expect("a read");
    }
    metrics::publish();
}

/// What Prometheus would read. There is one recorder per process.
fn exported() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        runtime.block_on(async {
            let mut export = None;
            use_it(Map::default(), "outer", || export = metrics::prometheus().ok()).await;
            let nameless = Defective::new(Defect::ForgetsPath, World::new().shared_clock());
            use_it(nameless, "broken", || ()).await;
            export.expect("no other recorder").render()
        })
    })
}

/// The series of the upper leaf that are missing.
fn missing(outer: &str, leaf: &str) -> Vec<String> {
    let text = exported();
    let wanted = [
        ("hit_total", leaf, " 2"),
        ("miss_total", leaf, " 1"),
        ("read_total", leaf, " 3"),
        ("read_duration_seconds_count", leaf, " 3"),
        ("write_total", leaf, " 1"),
    ];
    let series = wanted.map(|(name, leaf, value)| {
        format!("hitbox_backend_{name}{{backend=\"{outer}.inner.{leaf}\"}}{value}")
    });
    series.into_iter().filter(|series| !text.contains(series)).collect()
}

#[test]
fn stats_04_counters_and_durations_under_full_paths() {
    let text = exported();
    assert!(
        missing("outer", "backend").is_empty(),
        "{:?} are missing in:\n{text}",
        missing("outer", "backend")
    );
    for series in [
        "hitbox_backend_miss_total{backend=\"outer.inner.backend2\"} 1",
        "hitbox_backend_write_total{backend=\"outer.backend\"} 1",
        "hitbox_backend_deserialize_duration_seconds_count{backend=\"outer.inner.backend\"}",
        "hitbox_offload_depth 0",
    ] {
        assert!(text.contains(series), "{series} is missing in:\n{text}");
    }
}

#[test]
fn stats_04_rejects_a_leaf_that_forgets_its_path() {
    assert_eq!(missing("broken", "memory").len(), 5);
}
