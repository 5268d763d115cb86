//! The counters through the `metrics` crate, for a recorder that is installed after the cache was built.

use std::sync::OnceLock;

use hitbox_backend::doc::Map;
use hitbox_backend::envelope::wire;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::{DeleteStatus, Peek, Raw, Store};
use hitbox_backend::wrap::AdmissionRule;
use hitbox_backend::{
    Backend, CacheBackend, Codec, Compose, Compressor, IntoBackend, Leaf, OffloadPool, ParallelReadPolicy,
    RefillPolicy, Wrap, metrics,
};
use hitbox_core::{BackendResult, CacheContext, CacheKey, CacheValue};
use hitbox_testkit::broken::{Defect, Defective};
use hitbox_testkit::{MemoryBackend, World};

/// One write, two hits and a miss on `(upper / map) / map`, which has the label `outer`, behind `dyn` as
/// deep as it goes.
async fn use_it<Kind>(upper: impl IntoBackend<Kind>, outer: &str, install: impl FnOnce()) {
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
    &export().1
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio")
}

/// The export, and what it said first.
fn export() -> &'static (metrics::PrometheusExport, String) {
    static EXPORT: OnceLock<(metrics::PrometheusExport, String)> = OnceLock::new();
    EXPORT.get_or_init(|| {
        runtime().block_on(async {
            let mut export = None;
            use_it(Map::default(), "outer", || export = metrics::prometheus().ok()).await;
            let nameless = Defective::new(Defect::ForgetsPath, World::new().shared_clock());
            use_it(nameless, "broken", || ()).await;
            let export = export.expect("no other recorder");
            let text = export.render();
            (export, text)
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
    assert!(missing("outer", "store").is_empty(), "{:?} are missing in:\n{text}", missing("outer", "store"));
    for series in [
        "hitbox_backend_miss_total{backend=\"outer.inner.store2\"} 1",
        "hitbox_backend_write_total{backend=\"outer.store\"} 1",
        "hitbox_backend_deserialize_duration_seconds_count{backend=\"outer.inner.store\"}",
        // Of all pools of the process.
        "hitbox_offload_depth ",
    ] {
        assert!(text.contains(series), "{series} is missing in:\n{text}");
    }
}

#[test]
fn stats_04_rejects_a_leaf_that_forgets_its_path() {
    assert_eq!(missing("broken", "memory").len(), 5);
}

/// One of everything that a leaf counts.
#[test]
fn the_snapshot_and_the_export_agree() {
    let (export, _) = export();
    runtime().block_on(async {
        let world = World::new();
        let upper = MemoryBackend::new(world.shared_clock());
        let zstd = Codec { compressor: Compressor::Zstd(1), ..Codec::default() };
        let options = LeafOptions::new("zipped").with_codec(zstd).with_clock(world.shared_clock());
        let lower = Leaf::new(Zipped::default(), options);
        let cache = upper
            .admission(AdmissionRule::UpTo(5_000))
            .compose(lower, world.pool.shared())
            .with_label("agree")
            .with_read(ParallelReadPolicy)
            .with_refill(RefillPolicy::Awaited);
        let key = |name: &str| CacheKey::new(name);
        let mut context = CacheContext::new();
        for (name, len) in [("small", 1), ("large", 10_000)] {
            cache.set(&key(name), CacheValue::new("x".repeat(len)), &mut context).await.expect("a write");
            for _ in 0..2 {
                assert!(cache.get::<String>(&key(name), &mut context).await.expect("a read").is_some());
            }
        }
        cache.get::<String>(&key("none"), &mut context).await.expect("a read");
        cache.contains(&key("small")).await.expect("a look");
        cache.contains(&key("none")).await.expect("a look");
        cache.set_if_newer(&key("v"), CacheValue::new(1_u64), 2).await.expect("a write");
        cache.set_if_newer(&key("v"), CacheValue::new(1_u64), 1).await.expect_err("an older version");
        cache.delete(&key("v"), &mut context).await.expect("a delete");
        cache.clear().await.expect("an invalidation");
        cache.get::<String>(&key("small"), &mut context).await.expect("a read");
        let text = export.render();
        let mut seen = 0;
        for leaf in cache.snapshot().leaves {
            let shown = |name: &str, label: &str| -> u64 {
                let series = format!("hitbox_{name}{{backend=\"{}\"{label}}} ", leaf.label);
                let line = text.lines().find_map(|line| line.strip_prefix(&series));
                line.unwrap_or_else(|| panic!("{series} is missing in:\n{text}")).parse().expect("a count")
            };
            let expected = [
                ("backend_hit_total", "", leaf.hits),
                ("backend_stale_total", "", leaf.stale_hits),
                ("backend_miss_total", "", leaf.misses),
                ("backend_unserved_total", "", leaf.unserved),
                ("backend_unusable_total", ",reason=\"invalidated\"", leaf.invalidated),
                ("backend_remove_total", "", leaf.removes),
                ("backend_version_mismatch_total", "", leaf.version_mismatches),
                ("backend_not_admitted_total", "", leaf.not_admitted),
                ("backend_lookup_total", ",presence=\"present\"", leaf.present),
                ("backend_lookup_total", ",presence=\"absent\"", leaf.absent),
                ("backend_lookup_total", ",presence=\"maybe\"", leaf.maybe),
                ("backend_read_bytes_total", "", leaf.bytes_read),
                ("backend_write_bytes_total", "", leaf.bytes_written),
                ("backend_compress_input_bytes_total", "", leaf.compress_in),
                ("backend_compress_output_bytes_total", "", leaf.compress_out),
                ("backend_compress_skipped_total", "", leaf.compress_skipped),
                ("filter_answered_total", "", leaf.filtered),
                ("filter_false_positive_total", "", leaf.false_positives),
                ("invalidation_total", "", leaf.invalidations),
                ("refill_installed_total", "", leaf.refills),
                ("refill_superseded_total", "", leaf.refills_superseded),
            ];
            for (name, label, count) in expected {
                assert_eq!(shown(name, label), count, "{name} of {}", leaf.label);
                seen += u64::from(count > 0);
            }
        }
        assert!(seen > 20, "only {seen} counts are not zero");
    });
}

/// Stores bytes, by its leaf's codec, and can be looked at.
#[derive(Default)]
struct Zipped(std::sync::Mutex<std::collections::HashMap<CacheKey, bytes::Bytes>>);

impl Zipped {
    fn get(&self, key: &CacheKey) -> Option<bytes::Bytes> {
        self.0.lock().expect("no panic").get(key).cloned()
    }
}

#[async_trait::async_trait]
impl Store for Zipped {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.get(key).map(Raw::record))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let record = Raw::to_record(key, &value)?;
        self.0.lock().expect("no panic").insert(key.clone(), record.into());
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let removed = self.0.lock().expect("no panic").remove(key);
        Ok(DeleteStatus::of(u32::from(removed.is_some())))
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        let Some(record) = self.get(key) else { return Ok(Peek::Absent) };
        Ok(wire::peek(&record).and_then(Result::ok).map_or(Peek::Unknown, Peek::Entry))
    }
}
