//! Hits in memory of the peers: the small struct as `Arc` where they can hold it, else as they hold values.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hitbox_bench::measure::{Env, Repeat, Subject};
use hitbox_bench::payload::{KEYS, Small, body, small};
use multi_tier_cache::{CacheManager, CacheStrategy, L1Cache, L2Cache, MokaCacheConfig};
use peer_hitbox_backend::CacheBackend;
use peer_hitbox_backend::composition::Compose;
use peer_hitbox_core::{CacheContext, CacheKey, CachePolicy, CacheValue, CacheableResponse, KeyPart};

/// Peers key by text.
fn names() -> Vec<String> {
    (0..KEYS).map(|number| format!("user:0:tenant=acme:id={number}:lang=de")).collect()
}

fn nth(names: &[String], number: u64) -> &String {
    &names[(number % KEYS) as usize]
}

const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn beside(subject: Subject) -> Subject {
    subject
        .operation("peer: quick_cache", quick_cache)
        .operation("peer: foyer, memory", foyer)
        .operation("peer: cachet, memory over memory", cachet)
        .operation("peer: multi-tier-cache, L1 (bytes)", |env| multi_tier(env, None))
        .operation("peer: hitbox 0.2, one composition", |env| {
            let pool = peer_offload();
            hitbox(env, peer_memory().compose(peer_memory(), pool))
        })
        .operation("peer: hitbox 0.2, three levels", |env| {
            let (inner, outer) = (peer_offload(), peer_offload());
            hitbox(env, peer_memory().compose(peer_memory(), inner).compose(peer_memory(), outer))
        })
}

pub(crate) fn bodies_beside(subject: Subject) -> Subject {
    subject.operation("peer: multi-tier-cache, 100 KiB", |env| multi_tier(env, Some(100 << 10)))
}

fn quick_cache(env: &Env) -> Repeat {
    let (cache, names) = (quick_cache::sync::Cache::new(1 << 20), names());
    (0..KEYS).for_each(|n| cache.insert(nth(&names, n).clone(), small(n)));
    env.repeat((cache, names), async |(cache, names), n| {
        black_box(cache.get(nth(names, n)).expect("a hit"));
    })
}

fn foyer(env: &Env) -> Repeat {
    let (cache, names) = (foyer::CacheBuilder::new(1 << 20).build(), names());
    for n in 0..KEYS {
        cache.insert(nth(&names, n).clone(), small(n));
    }
    env.repeat((cache, names), async |(cache, names): &(foyer::Cache<String, Arc<Small>>, _), n| {
        black_box(cache.get(nth(names, n)).expect("a hit").value().clone());
    })
}

fn cachet(env: &Env) -> Repeat {
    let names = names();
    let cache = env.block_on(async {
        let clock = tick::Clock::new_tokio();
        let below = cachet::Cache::builder::<String, Arc<Small>>(clock.clone()).memory();
        let cache = cachet::Cache::builder::<String, Arc<Small>>(clock).memory().fallback(below).build();
        for n in 0..KEYS {
            cache.insert(nth(&names, n).clone(), small(n)).await.expect("a write");
        }
        cache
    });
    env.repeat((cache, names), async |(cache, names), n| {
        black_box(cache.get(nth(names, n)).await.expect("a read").expect("a hit"));
    })
}

/// It holds bytes, and needs a Redis server for its second layer.
fn multi_tier(env: &Env, len: Option<usize>) -> Repeat {
    let (url, names) = (env.redis().url(), names());
    let cache = env.block_on(async {
        let l1 = L1Cache::new(MokaCacheConfig::default()).expect("memory");
        let l2 = L2Cache::with_url(&url).await.expect("Redis");
        let cache = CacheManager::new(Arc::new(l1), Arc::new(l2)).await.expect("a cache");
        for n in 0..KEYS {
            let bytes = match len {
                Some(len) => body(len),
                None => Bytes::from(serde_json::to_vec(&*small(n)).expect("it can be encoded")),
            };
            cache
                .set_with_strategy(nth(&names, n), bytes, CacheStrategy::Custom(HOUR))
                .await
                .expect("a write");
        }
        cache
    });
    env.repeat((cache, names), async |(cache, names), n| {
        black_box(cache.get(nth(names, n)).await.expect("a read").expect("a hit"));
    })
}

/// What it wants of values.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct PeerSmall(Small);

impl CacheableResponse for PeerSmall {
    type Cached = Self;
    type Subject = Self;
    type IntoCachedFuture = std::future::Ready<CachePolicy<Self, Self>>;
    type FromCachedFuture = std::future::Ready<Self>;

    async fn cache_policy<P>(
        self,
        _: P,
        _: &peer_hitbox_core::EntityPolicyConfig,
    ) -> CachePolicy<CacheValue<Self>, Self>
    where
        P: peer_hitbox_core::Predicate<Subject = Self> + Send + Sync,
    {
        CachePolicy::NonCacheable(self)
    }

    fn into_cached(self) -> Self::IntoCachedFuture {
        std::future::ready(CachePolicy::Cacheable(self))
    }

    fn from_cached(cached: Self) -> Self::FromCachedFuture {
        std::future::ready(cached)
    }
}

fn peer_memory() -> peer_hitbox_moka::MokaBackend {
    peer_hitbox_moka::MokaBackend::builder().max_entries(1 << 20).build()
}

/// Runs what is handed to it.
#[derive(Clone, Debug)]
struct PeerOffload;

impl peer_hitbox_core::Offload<'static> for PeerOffload {
    fn spawn<F>(&self, _: impl Into<peer_hitbox_core::SmolStr>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(future);
    }
}

fn peer_offload() -> PeerOffload {
    PeerOffload
}

fn hitbox(env: &Env, cache: impl CacheBackend + Send + Sync + 'static) -> Repeat {
    let keys: Vec<CacheKey> = (0..KEYS)
        .map(|number| {
            let part = |name: &str, value: &str| KeyPart::new(name, Some(value));
            let parts = vec![part("tenant", "acme"), part("id", &number.to_string()), part("lang", "de")];
            CacheKey::new("user", 0, parts)
        })
        .collect();
    env.block_on(async {
        for (number, key) in (0..).zip(&keys) {
            let value = CacheValue::new(PeerSmall((*small(number)).clone()), None, None);
            let mut context = CacheContext::default().boxed();
            cache.set::<PeerSmall>(key, &value, &mut context).await.expect("a write");
        }
    });
    env.repeat((cache, keys), async |(cache, keys), n| {
        let mut context = CacheContext::default().boxed();
        let found = cache.get::<PeerSmall>(&keys[(n % KEYS) as usize], &mut context).await.expect("a read");
        black_box(found.expect("a hit"));
    })
}
