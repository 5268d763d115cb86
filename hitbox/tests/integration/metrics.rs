//! The series of caches and their layers, as Prometheus reads them, and the dashboard that shows them.

use hitbox::backend::{CacheBackend, Compose, OffloadPool};
use hitbox::core::{CacheContext, CacheKey, CacheValue};
use hitbox::{Cache, stacks};
use hitbox_testkit::{Faults, Faulty, MemoryBackend, World};

use crate::common::export;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio")
}

/// Two caches, each over memory of its own, with one path.
#[test]
fn case_h04_caches_have_series_of_their_own() {
    let render = || export().render();
    export();
    let text = runtime().block_on(async {
        let named = |name: &str| {
            let cache: Cache<u64> =
                Cache::builder(stacks::memory(100).expect("memory")).name(name).build().expect("a cache");
            cache
        };
        let (users, orders) = (named("h04-users"), named("h04-orders"));
        users.insert(1, 1).await.expect("a write");
        for _ in 0..5 {
            users.get(1).await.expect("a read");
            orders.get(1).await.expect("a read");
        }
        // Below each other, behind pointers.
        let pool = OffloadPool::new();
        let pair = MemoryBackend::labelled("h04-upper", World::new().shared_clock())
            .shared()
            .compose(MemoryBackend::labelled("h04-lower", World::new().shared_clock()), pool.shared())
            .with_label("h04");
        let over: Cache<u64> = Cache::builder(pair).name("h04-over").build().expect("a cache");
        over.get(1).await.expect("a read");
        // A nest, whose inner composition is only a part of it.
        let inner = stacks::over(stacks::memory(9).expect("memory"), stacks::memory(9).expect("memory"));
        let nest = stacks::over(inner.with_label("h04-inner"), stacks::memory(9).expect("memory"));
        let nest: Cache<u64> =
            Cache::builder(nest.with_label("h04-outer")).name("h04-nest").build().expect("a cache");
        nest.get(1).await.expect("a read");
        render()
    });
    let has = |line: &str| assert!(text.lines().any(|known| known == line), "{line} is missing in:\n{text}");
    has("hitbox_cache_hit_total{cache=\"h04-users\"} 5");
    has("hitbox_cache_miss_total{cache=\"h04-users\"} 0");
    has("hitbox_cache_hit_total{cache=\"h04-orders\"} 0");
    has("hitbox_cache_miss_total{cache=\"h04-orders\"} 5");
    has("hitbox_cache_layer_miss_total{cache=\"h04-over\",backend=\"h04.h04-lower\"} 1");
    has("hitbox_moka_entries{backend=\"h04-outer.h04-inner.moka\"} 0");
    assert!(!text.contains("backend=\"h04-inner"), "a series of what is not there");
    assert!(!text.contains("backend=\"h04-upper\""), "a series of what is not there");
    assert!(!text.contains("backend=\"backend\""), "a series of what is not there");
    // Every series says what it is, and histograms have buckets.
    for line in text.lines().filter(|line| line.starts_with("hitbox_")) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let name = ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| {
            if name.contains("_duration_seconds") { name.strip_suffix(end).unwrap_or(name) } else { name }
        });
        let help = format!("# HELP {name} ");
        let line = text.lines().find(|line| line.starts_with(&help));
        assert!(line.is_some_and(|line| line.len() > help.len() + 10), "{name} has no help");
    }
}

/// Every series of the dashboard and of the chapter is one that is exported.
#[test]
fn case_h04_the_dashboard_shows_what_is_exported() {
    let render = || export().render();
    export();
    let text = runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = hitbox::disk::DiskBackend::builder(folder.path()).open().await.expect("disk");
        let quick = hitbox::quick::QuickBackend::builder().build().expect("quick");
        let moka = hitbox::moka::MokaBackend::builder().build().expect("moka");
        let pool = OffloadPool::new();
        let faults = Faults::default();
        let disk = Faulty::new(disk, &faults, World::new().shared_clock());
        let whole = moka.compose(quick.compose(disk, pool.shared()), pool.shared());
        let cache: Cache<u64> = Cache::builder(whole).name("h04-all").build().expect("a cache");
        cache.insert(1, 1).await.expect("a write");
        cache.get(1).await.expect("a read");
        // Nobody listens there: errors of each kind of call.
        let dead = hitbox::redis::RedisBackend::builder("redis://127.0.0.1:1").build().expect("redis");
        let key = CacheKey::new("k");
        drop(dead.get::<u64>(&key, &mut CacheContext::new()).await);
        drop(dead.set(&key, CacheValue::new(1_u64), &mut CacheContext::new()).await);
        drop(dead.delete(&key, &mut CacheContext::new()).await);
        render()
    });
    let book = include_str!("../../../docs/src/metrics.md");
    for name in text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()) {
        assert!(book.contains(&format!("`{name}`")), "{name} is not in the book");
    }
    let dashboard = include_str!("../../../docs/src/grafana/hitbox.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
    assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() >= 10));
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let alerts = include_str!("../../../docs/src/grafana/alerts.yml");
    let words = dashboard.split(|c| !is_part(c)).chain(alerts.split(|c| !is_part(c)));
    let names = words.filter(|word| word.starts_with("hitbox_"));
    let mut seen = 0;
    for name in names {
        assert!(
            text.contains(&format!("\n{name}{{")) || text.contains(&format!("\n{name} ")),
            "{name} is not exported"
        );
        seen += 1;
    }
    assert!(seen > 30, "only {seen}");
    assert!(text.contains("hitbox_backend_read_duration_seconds_bucket{"), "durations have buckets");
}
