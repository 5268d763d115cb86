//! The peers under a stampede, each by the call that it has for it.

use std::sync::Arc;

use bytes::Bytes;
use hitbox::concurrency::{BroadcastConcurrencyManager, ConcurrencyManager, NoopConcurrencyManager};
use hitbox::offload::OffloadManager;
use hitbox::policy::ConcurrencyLimit;
use hitbox_bench::measure::Env;
use hitbox_bench::stampede::{BoxFuture, Contender, Load, Loads};
use hitbox_fn::prelude::*;
use multi_tier_cache::{CacheManager, CacheStrategy, L1Cache, L2Cache, MokaCacheConfig};
use serde::{Deserialize, Serialize};

use crate::peers::HOUR;

/// Ours and theirs.
pub(crate) fn contenders() -> Vec<Contender> {
    let mut all = hitbox_bench::stampede::contenders();
    all.push(("peer: moka (future)", |_| Arc::new(Moka(moka::future::Cache::new(1 << 20)))));
    all.push(("peer: foyer, memory", |_| Arc::new(Foyer(foyer::CacheBuilder::new(1 << 20).build()))));
    all.push(("peer: cachet, memory, with stampede protection", cachet));
    all.push(("peer: multi-tier-cache", multi_tier));
    all.push(("peer: hitbox 0.2, a cached function", |_| hitbox(NoopConcurrencyManager)));
    all.push(("peer: hitbox 0.2, with its broadcast", |_| hitbox(BroadcastConcurrencyManager::new())));
    all
}

struct Moka(moka::future::Cache<u64, u64>);

impl Loads for Moka {
    fn get(&self, key: u64, load: Load) -> BoxFuture<'static, u64> {
        let cache = self.0.clone();
        Box::pin(async move { cache.get_with(key, load()).await })
    }
}

struct Foyer(foyer::Cache<u64, u64>);

impl Loads for Foyer {
    fn get(&self, key: u64, load: Load) -> BoxFuture<'static, u64> {
        let cache = self.0.clone();
        Box::pin(async move {
            let load = || async move { Ok::<_, std::io::Error>(load().await) };
            *cache.get_or_fetch(&key, load).await.expect("a value").value()
        })
    }
}

/// The type of cachet's caches cannot be spelled.
struct ByCall<F>(F);

impl<F: Fn(u64, Load) -> BoxFuture<'static, u64> + Send + Sync> Loads for ByCall<F> {
    fn get(&self, key: u64, load: Load) -> BoxFuture<'static, u64> {
        (self.0)(key, load)
    }
}

fn cachet(_: &Env) -> Arc<dyn Loads> {
    let clock = tick::Clock::new_tokio();
    let cache = cachet::Cache::builder::<u64, u64>(clock).memory().stampede_protection().build();
    let cache = Arc::new(cache);
    Arc::new(ByCall(move |key, load: Load| -> BoxFuture<'static, u64> {
        let cache = cache.clone();
        Box::pin(async move { *cache.get_or_insert(&key, load).await.expect("a value").value() })
    }))
}

struct MultiTier(Arc<CacheManager>);

impl Loads for MultiTier {
    fn get(&self, key: u64, load: Load) -> BoxFuture<'static, u64> {
        let cache = self.0.clone();
        Box::pin(async move {
            let load = || async move { Ok(Bytes::copy_from_slice(&load().await.to_le_bytes())) };
            let strategy = CacheStrategy::Custom(HOUR);
            let bytes = cache.get_or_compute_with(&key.to_string(), strategy, load).await.expect("a value");
            u64::from_le_bytes(bytes[..].try_into().expect("a number"))
        })
    }
}

fn multi_tier(env: &Env) -> Arc<dyn Loads> {
    let url = env.redis().url();
    let cache = env.handle().clone();
    let made = std::thread::spawn(move || {
        cache.block_on(async {
            let l1 = L1Cache::new(MokaCacheConfig::default()).expect("memory");
            let l2 = L2Cache::with_url(&url).await.expect("Redis");
            CacheManager::new(Arc::new(l1), Arc::new(l2)).await.expect("a cache")
        })
    });
    Arc::new(MultiTier(Arc::new(made.join().expect("no panic"))))
}

/// What the function gives, in a type that hitbox 0.2 can store.
#[derive(Clone, Serialize, Deserialize, CacheableResponse)]
struct Number {
    value: u64,
}

/// A load by a name without lifetimes, which its macro asks for.
struct Ask(Load);

/// A cached function; only the number makes its key.
#[cached(skip(load))]
async fn source(key: u64, load: Ask) -> Number {
    let _ = key;
    Number { value: (load.0)().await }
}

/// With one load of a key allowed at a time, which its broadcast guards; without it nothing does.
fn hitbox<M>(manager: M) -> Arc<dyn Loads>
where
    M: ConcurrencyManager<Number> + Clone + Send + Sync + 'static,
{
    let memory = hitbox_moka::MokaBackend::builder().max_entries(1 << 20).build();
    let one = ConcurrencyLimit::new(1).expect("in bounds");
    let policy = PolicyConfig::builder().ttl(HOUR).concurrency(one).build();
    let cache = hitbox_fn::Cache::builder().backend(memory).policy(policy);
    let cache = cache.concurrency_manager(manager).offload(OffloadManager::with_defaults()).build();
    Arc::new(ByCall(move |key, load: Load| -> BoxFuture<'static, u64> {
        let cache = cache.clone();
        Box::pin(async move { source(key, Ask(load)).cache(&cache).await.value })
    }))
}
