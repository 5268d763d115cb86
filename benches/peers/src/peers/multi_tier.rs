//! multi-tier-cache: it holds bytes, and needs a Redis server for its second layer.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use hitbox_bench::measure::{Env, Repeat};
use hitbox_bench::payload::KEYS;
use multi_tier_cache::{CacheManager, CacheStrategy, L1Cache, L2Cache, MokaCacheConfig};

use super::{HOUR, names, nth};

pub(crate) fn hits(env: &Env, value: impl Fn(u64) -> Bytes) -> Repeat {
    let (url, names) = (env.redis().url(), names());
    let cache = env.block_on(async {
        let l1 = L1Cache::new(MokaCacheConfig::default()).expect("memory");
        let l2 = L2Cache::with_url(&url).await.expect("Redis");
        let cache = CacheManager::new(Arc::new(l1), Arc::new(l2)).await.expect("a cache");
        for n in 0..KEYS {
            let strategy = CacheStrategy::Custom(HOUR);
            cache.set_with_strategy(nth(&names, n), value(n), strategy).await.expect("a write");
        }
        cache
    });
    env.repeat((cache, names), async |(cache, names), n| {
        black_box(cache.get(nth(names, n)).await.expect("a read").expect("a hit"));
    })
}

pub(crate) fn sets(env: &Env, value: Bytes) -> Repeat {
    let url = env.redis().url();
    let cache = env.block_on(async {
        let l1 = L1Cache::new(MokaCacheConfig::default()).expect("memory");
        let l2 = L2Cache::with_url(&url).await.expect("Redis");
        CacheManager::new(Arc::new(l1), Arc::new(l2)).await.expect("a cache")
    });
    env.repeat((cache, names(), value), async |(cache, names, value), n| {
        let strategy = CacheStrategy::Custom(HOUR);
        cache.set_with_strategy(nth(names, n), value.clone(), strategy).await.expect("a write");
    })
}
