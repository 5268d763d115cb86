//! Invalidations by prefix and pattern, which take long in a large store: loads of other keys have nothing to do with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{answer, until};
use async_trait::async_trait;
use hitbox::Cache;
use hitbox::backend::operation::{Maintenance, Presence};
use hitbox::backend::store::{Capabilities, DeleteStatus, LeafOptions, Page, Peek, Raw};
use hitbox::backend::wrap::Wrapper;
use hitbox::backend::{
    Backend, CacheBackend, Compose, Leaf, OffloadPool, RefillPolicy, Store, SystemClock, Wrap,
};
use hitbox::core::{BackendResult, CacheKey, CacheValue, Clock, ManualClock};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use tokio::sync::Semaphore;

/// A store that hands out the keys that it has listed when it is let.
struct Listed<S> {
    store: Arc<S>,
    gate: Arc<Semaphore>,
    listing: Arc<AtomicU64>,
    writes: Arc<Semaphore>,
    writing: Arc<AtomicU64>,
}

#[async_trait]
impl<S: Store> Store for Listed<S> {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.store.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.writing.fetch_add(1, Ordering::SeqCst);
        let _may_write = self.writes.acquire().await.expect("it is never closed");
        self.store.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.remove(key).await
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.store.peek(key).await
    }

    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let listed = self.store.keys(cursor, limit).await;
        self.listing.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("it is never closed").forget();
        listed
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.answers_at_once = false;
        capabilities
    }
}

struct World {
    gate: Arc<Semaphore>,
    listing: Arc<AtomicU64>,
    /// Writes wait while it has no permit.
    writes: Arc<Semaphore>,
    writing: Arc<AtomicU64>,
    pool: OffloadPool,
}

impl World {
    fn new() -> Self {
        let (gate, writes) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1)));
        Self { gate, listing: Arc::default(), writes, writing: Arc::default(), pool: OffloadPool::new() }
    }

    fn leaf(&self) -> Arc<dyn Backend> {
        self.leaf_with(Arc::new(SystemClock))
    }

    fn leaf_with(&self, clock: Arc<dyn Clock>) -> Arc<dyn Backend> {
        let moka = MokaBackend::builder().clock(clock.clone()).build().expect("moka");
        let store = Listed {
            store: moka.inner().store().clone(),
            gate: self.gate.clone(),
            listing: self.listing.clone(),
            writes: self.writes.clone(),
            writing: self.writing.clone(),
        };
        Arc::new(Leaf::new(store, LeafOptions::new("listed").with_clock(clock)))
    }

    fn cache(&self, topology: &str) -> Cache<u64> {
        let backend = match topology {
            "leaf" => self.leaf(),
            "namespace" => self.leaf().namespace("n").shared(),
            "two" => {
                let tiers = self.leaf().compose(self.leaf(), self.pool.shared());
                Arc::new(tiers.with_refill(RefillPolicy::Always))
            }
            _ => {
                let upper = MokaBackend::builder().build().expect("moka");
                let lower = self.leaf().namespace("inner");
                upper.compose(lower, self.pool.shared()).namespace("outer").shared()
            }
        };
        Cache::builder(backend).name("numbers").offload(self.pool.shared()).build().expect("a cache")
    }
}

/// A load that ends when it is let.
fn load(cache: &Cache<u64>, key: (&'static str, u64), gate: &Arc<Semaphore>) -> tokio::task::JoinHandle<u64> {
    let (cache, gate) = (cache.clone(), gate.clone());
    tokio::spawn(async move {
        let loader = move || async move {
            gate.acquire().await.expect("it is never closed").forget();
            Ok::<_, std::io::Error>(1)
        };
        cache.get_or_load(key, loader).await.expect("a value")
    })
}

#[tokio::test]
async fn case_d21_loads_of_other_keys_are_stored() {
    for topology in ["leaf", "namespace", "two", "mixed"] {
        for by_prefix in [true, false] {
            let what = format!("{topology}, by prefix: {by_prefix}");
            let world = World::new();
            let cache = world.cache(topology);
            let source = Arc::new(Semaphore::new(0));
            let begun = [("kept", 1), ("gone", 1)].map(|key| load(&cache, key, &source));
            until("both load", || cache.statistics().loading == 2).await.expect("they do");
            let invalidation = tokio::spawn({
                let cache = cache.clone();
                async move {
                    if by_prefix {
                        cache.invalidate_prefix(("gone",)).await
                    } else {
                        cache.invalidate_matching("gone:*").await
                    }
                }
            });
            until("keys are listed", || world.listing.load(Ordering::SeqCst) > 0).await.expect("they are");
            let during = [("kept", 2), ("gone", 2)].map(|key| load(&cache, key, &source));
            source.add_permits(100);
            for call in begun.into_iter().chain(during) {
                answer(call).await.expect("a load");
            }
            for key in [("kept", 1), ("kept", 2)] {
                for _ in 0..20 {
                    answer(load(&cache, key, &source)).await.expect("a value");
                }
            }
            let loads = cache.statistics().loads;
            assert_eq!(loads, 4, "{what}: loads of a key that is not meant were not stored");
            world.gate.add_permits(1_000);
            answer(invalidation).await.expect("no hang").expect("an invalidation");
            for key in [("gone", 1), ("gone", 2)] {
                assert_eq!(cache.get(key).await.expect("a read"), None, "{what}: {key:?}");
            }
            for key in [("kept", 1), ("kept", 2)] {
                assert_eq!(cache.get(key).await.expect("a read"), Some(1), "{what}: {key:?}");
            }
        }
    }
}

/// Puts a file in the place of a folder: what is open goes on being read, and nothing can be changed.
struct Broken<'f> {
    folder: &'f Path,
    away: PathBuf,
}

impl<'f> Broken<'f> {
    fn new(folder: &'f Path) -> Self {
        let away = folder.with_extension("away");
        std::fs::rename(folder, &away).expect("renamed");
        std::fs::write(folder, "").expect("a file");
        Self { folder, away }
    }
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        std::fs::remove_file(self.folder).expect("removed");
        std::fs::rename(&self.away, self.folder).expect("renamed");
    }
}

/// Whether all of these are misses.
async fn are_gone(cache: &Cache<u64>, keys: &[(&'static str, u64)], what: &str) {
    for key in keys {
        assert_eq!(cache.get(*key).await.expect("a read"), None, "{what}: {key:?}");
        assert_eq!(cache.contains(*key).await.expect("a look"), Presence::Absent, "{what}: {key:?}");
    }
}

/// A layer that refuses to remove serves nothing of what was meant, and removes it once it can; also after a restart.
#[tokio::test]
async fn what_a_failing_layer_did_not_remove_is_not_served() {
    let parent = tempfile::tempdir().expect("a folder");
    for alone in [true, false] {
        let folder = parent.path().join(format!("store-{alone}"));
        let open = async || DiskBackend::builder(&folder).open().await.expect("disk");
        let disk = open().await;
        let builder = if alone {
            Cache::<u64>::builder(disk.clone().shared())
        } else {
            let memory = MokaBackend::builder().build().expect("moka");
            Cache::builder(memory.over(disk.clone()).shared())
        };
        let cache = builder.name("numbers").build().expect("a cache");
        for key in [("glob", 1), ("prefix", 1), ("prefix", 2), ("kept", 1)] {
            cache.insert(key, 1).await.expect("a write");
        }
        let gone = [("glob", 1), ("prefix", 1), ("prefix", 2)];
        let broken = Broken::new(&folder);
        cache.invalidate_matching("glob:*").await.expect_err("the folder is a file");
        cache.invalidate_prefix(("prefix",)).await.expect_err("the folder is a file");
        are_gone(&cache, &gone, "while it fails").await;
        drop(broken);
        are_gone(&cache, &gone, "when it is back").await;
        // What is written from the next millisecond on stays.
        let before = SystemClock.now();
        until("time goes by", || SystemClock.now() > before).await.expect("it does");
        cache.insert(("prefix", 2), 2).await.expect("a write");
        until("it is removed", || !Backend::layout(&disk).has_unrecorded()).await.expect("it is");
        are_gone(&cache, &gone[..2], "when it was removed").await;
        for (key, value) in [(("prefix", 2), 2), (("kept", 1), 1)] {
            assert_eq!(cache.get(key).await.expect("a read"), Some(value), "{key:?}");
        }
        drop(cache);
        disk.close().await;
        let cache = Cache::<u64>::builder(open().await).name("numbers").build().expect("a cache");
        are_gone(&cache, &gone[..2], "after a restart").await;
        assert_eq!(cache.get(("prefix", 2)).await.expect("a read"), Some(2));
    }
}

/// A leaf alone whose call is given up hides what was meant.
#[tokio::test]
async fn what_a_call_meant_that_was_given_up_is_not_served() {
    let world = World::new();
    let cache = world.cache("leaf");
    for key in [("gone", 1), ("kept", 1)] {
        cache.insert(key, 1).await.expect("a write");
    }
    let call = tokio::spawn({
        let cache = cache.clone();
        async move { cache.invalidate_prefix(("gone",)).await }
    });
    until("keys are listed", || world.listing.load(Ordering::SeqCst) > 0).await.expect("they are");
    call.abort();
    call.await.expect_err("it was given up");
    are_gone(&cache, &[("gone", 1)], "given up").await;
    assert_eq!(cache.get(("kept", 1)).await.expect("a read"), Some(1));
    // Whoever repeats it need not wait for the background.
    world.gate.add_permits(1_000);
    cache.invalidate_prefix(("gone",)).await.expect("an invalidation");
    assert!(!cache.backend().layout().has_unrecorded(), "it was carried out");
}

/// One that fails is held, although another that means the same, and listed the keys before, comes to its end in the same millisecond.
#[tokio::test]
async fn an_earlier_call_does_not_carry_out_a_later_one() {
    let world = World::new();
    let clock = ManualClock::new();
    let cache = Cache::<u64>::builder(world.leaf_with(Arc::new(clock))).build().expect("a cache");
    let listed = async |calls| {
        until("keys are listed", || world.listing.load(Ordering::SeqCst) == calls).await.expect("they are");
    };
    let call = || {
        let cache = cache.clone();
        tokio::spawn(async move { cache.invalidate_prefix(("gone",)).await })
    };
    let earlier = call();
    listed(1).await;
    cache.insert(("gone", 1), 1).await.expect("a write");
    let later = call();
    listed(2).await;
    later.abort();
    later.await.expect_err("it was given up");
    are_gone(&cache, &[("gone", 1)], "given up").await;
    world.gate.add_permits(1);
    assert_eq!(earlier.await.expect("a task").expect("an invalidation"), 0);
    are_gone(&cache, &[("gone", 1)], "the earlier has ended").await;
}

/// What a load was writing when a call was given up is removed with the rest: keys are listed when it is there.
#[tokio::test]
async fn what_was_being_written_when_a_call_was_given_up_is_removed() {
    let world = World::new();
    let cache = world.cache("leaf");
    let closed = world.writes.clone().acquire_owned().await.expect("it is never closed");
    let load = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load(("gone", 1), || async { Ok::<_, std::io::Error>(1) }).await }
    });
    until("it is being stored", || world.writing.load(Ordering::SeqCst) > 0).await.expect("it is");
    let call = cache.invalidate_prefix(("gone",));
    tokio::time::timeout(std::time::Duration::from_millis(1), call)
        .await
        .expect_err("it waits for the write");
    world.gate.add_permits(1_000);
    let record = tokio::spawn({
        let backend = cache.backend().clone();
        async move { backend.maintain(&Maintenance::Record { limit: 1_000 }).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(closed);
    record.await.expect("a task").expect("it is recorded");
    load.await.expect("a task").expect("a value");
    are_gone(&cache, &[("gone", 1)], "it was invalidated").await;
}

/// More patterns than are told apart: nothing of the store is served that was there before.
#[tokio::test]
async fn too_many_patterns_that_fail_end_everything() {
    let world = World::new();
    let cache = world.cache("leaf");
    let keys: Vec<_> = (0..100_u64).map(|number| ("gone", number)).chain([("kept", 1)]).collect();
    for key in &keys {
        cache.insert(*key, 1).await.expect("a write");
    }
    for number in 0..100_u64 {
        let call = cache.invalidate_prefix(("gone", number));
        let given_up = tokio::time::timeout(std::time::Duration::ZERO, call).await;
        given_up.expect_err("its list waits");
    }
    are_gone(&cache, &keys, "too many").await;
    cache.insert(("kept", 1), 2).await.expect("a write");
    assert_eq!(cache.get(("kept", 1)).await.expect("a read"), Some(2));
}
