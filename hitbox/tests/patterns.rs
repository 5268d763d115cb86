//! Invalidations by prefix and pattern, which take long in a large store: loads of other keys have nothing to do with them.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use common::{answer, until};
use hitbox::Cache;
use hitbox::backend::store::{Capabilities, DeleteStatus, LeafOptions, Page, Raw};
use hitbox::backend::wrap::Wrapper;
use hitbox::backend::{Backend, CacheBackend, Compose, Leaf, OffloadPool, RefillPolicy, Store, Wrap};
use hitbox::core::{BackendResult, CacheKey, CacheValue};
use hitbox::moka::MokaBackend;
use tokio::sync::Semaphore;

/// A store that lists its keys when it is let.
struct Listed<S> {
    store: Arc<S>,
    gate: Arc<Semaphore>,
    listing: Arc<AtomicU64>,
}

#[async_trait]
impl<S: Store> Store for Listed<S> {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.store.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.store.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.remove(key).await
    }

    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        self.listing.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("it is never closed").forget();
        self.store.keys(cursor, limit).await
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
    pool: OffloadPool,
}

impl World {
    fn leaf(&self) -> Arc<dyn Backend> {
        let moka = MokaBackend::builder().build().expect("moka");
        let (gate, listing) = (self.gate.clone(), self.listing.clone());
        let store = Listed { store: moka.inner().store().clone(), gate, listing };
        Arc::new(Leaf::new(store, LeafOptions::new("listed")))
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
            let world = World {
                gate: Arc::new(Semaphore::new(0)),
                listing: Arc::default(),
                pool: OffloadPool::new(),
            };
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
