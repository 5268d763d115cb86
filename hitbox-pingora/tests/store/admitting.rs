//! Eviction managers of Pingora's after a restart.

use std::time::{Duration, SystemTime};

use hitbox_backend::{CacheBackend, Compose, OffloadPool};
use hitbox_pingora::BackendStorage;
use pingora_cache::Storage;
use pingora_cache::eviction::{CacheEntryKey, EvictionManager, lru, simple_lru};
use pingora_cache::key::CacheKey;

use crate::common::{bytes, case, disk, key, meta, meta_for, moka, span, variant};

#[tokio::test]
async fn a_manager_is_told_of_what_the_disk_has() {
    let first = case("moka over disk").await;
    let user = CacheKey::new("/of/a/user", "somebody");
    let mut sizes = Vec::new();
    for (n, key) in [key("/one"), key("/two"), variant("/two", 7), user.clone()].into_iter().enumerate() {
        let fresh = Duration::from_secs(100 * (n as u64 + 1));
        let mut meta = meta_for("a", fresh);
        if let Some(variance) = key.get_variance_key() {
            meta.set_variance_key(*variance);
        }
        let size = first.store(&key, &meta, &bytes(10_000 * (n + 1))).await;
        sizes.push((key, size, meta.fresh_until()));
    }
    first.storage.close().await.expect("a clean end");

    let pool = OffloadPool::new();
    let layers = moka().compose(disk(&first.folder).await, pool.shared());
    let builder = BackendStorage::builder(layers.shared()).name(first.storage.name());
    let again = builder.offload(pool.shared()).build().leak();
    let manager = Watching::default();
    let admitted = again.admit_stored(&manager).await.expect("the keys can be listed");
    let total: usize = sizes.iter().map(|(_, size, _)| size).sum();
    assert_eq!((admitted.responses, admitted.bytes), (4, total as u64));
    for (key, size, fresh_until) in &sizes {
        let (_, hit) = again.lookup(key, &span()).await.expect("a lookup").expect("it is stored");
        let entry = CacheEntryKey::from_entry_id(key.to_compact(), hit.entry_id());
        assert!(manager.inner.peek(&entry), "{entry}: by its own identity, with the user's tag");
        assert_eq!(hit.get_eviction_weight(), *size, "{entry}");
        let told = manager.told.lock().expect("a lock");
        let (_, fresh) = told.iter().find(|(known, _)| *known == entry).expect("it was told");
        let apart = fresh.duration_since(*fresh_until).unwrap_or_else(|error| error.duration());
        assert!(apart < Duration::from_millis(2), "{entry}: {apart:?}");
    }
    assert_eq!(manager.inner.total_size(), total);
    // Once more changes nothing, and the kept ones go by their age.
    let once_more = again.admit_stored(&manager).await.expect("the keys can be listed");
    assert_eq!((once_more.responses, once_more.bytes), (0, 0));
    let other = lru::Manager::<4>::with_capacity(1 << 30, 100);
    assert_eq!(again.admit_stored(&other).await.expect("the keys can be listed").responses, 4);
    assert_eq!(other.total_items(), 4);
}

/// A manager that remembers what it was told.
struct Watching {
    inner: simple_lru::Manager,
    told: std::sync::Mutex<Vec<(CacheEntryKey, SystemTime)>>,
}

impl Default for Watching {
    fn default() -> Self {
        Self { inner: simple_lru::Manager::new(1 << 30), told: std::sync::Mutex::default() }
    }
}

#[async_trait::async_trait]
impl EvictionManager for Watching {
    fn total_size(&self) -> usize {
        self.inner.total_size()
    }
    fn total_items(&self) -> usize {
        self.inner.total_items()
    }
    fn evicted_size(&self) -> usize {
        self.inner.evicted_size()
    }
    fn evicted_items(&self) -> usize {
        self.inner.evicted_items()
    }
    fn admit(&self, item: CacheEntryKey, size: usize, fresh_until: SystemTime) -> Vec<CacheEntryKey> {
        self.inner.admit(item, size, fresh_until)
    }
    fn increment_weight(&self, item: &CacheEntryKey, delta: usize, max: Option<usize>) -> Vec<CacheEntryKey> {
        self.inner.increment_weight(item, delta, max)
    }
    fn remove(&self, item: pingora_cache::eviction::CacheEntryKeyRef<'_>) {
        self.inner.remove(item);
    }
    fn access(&self, item: &CacheEntryKey, size: usize, fresh_until: SystemTime) -> bool {
        self.told.lock().expect("a lock").push((item.clone(), fresh_until));
        self.inner.access(item, size, fresh_until)
    }
    fn peek(&self, item: &CacheEntryKey) -> bool {
        self.inner.peek(item)
    }
    async fn save(&self, folder: &str) -> pingora_error::Result<()> {
        self.inner.save(folder).await
    }
    async fn load(&self, folder: &str) -> pingora_error::Result<()> {
        self.inner.load(folder).await
    }
}

#[tokio::test]
async fn entries_that_are_nothing_of_pingoras_are_left_out() {
    let case = case("moka over disk").await;
    case.store(&key("/one"), &meta("a"), b"one").await;
    let others = hitbox_core::CacheKey::builder("somebody else").part("primary", "x").build();
    let value = hitbox_core::CacheValue::new("a value".to_owned());
    case.storage.backend().set_one(&others, value).await.expect("a write");
    let manager = simple_lru::Manager::new(1 << 30);
    let admitted = case.storage.admit_stored(&manager).await.expect("the keys can be listed");
    assert_eq!((admitted.responses, manager.total_items()), (1, 1));
}
