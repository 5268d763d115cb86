//! hitbox 0.2, as it is published: compositions of moka and Redis.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::CacheBackend;
use hitbox_backend::composition::Compose;
use hitbox_backend::format::BincodeFormat;
use hitbox_bench::measure::{Env, Repeat};
use hitbox_bench::payload::KEYS;
use hitbox_core::{
    CacheContext, CacheKey, CachePolicy, CacheValue, CacheableResponse, EntityPolicyConfig, KeyPart,
    Predicate,
};
use hitbox_moka::MokaBackend;
use hitbox_redis::{ConnectionMode, RedisBackend};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What it wants of values.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Response<T>(pub(crate) T);

pub(crate) trait Data: Clone + Send + Sync + Serialize + DeserializeOwned + 'static {}

impl<T: Clone + Send + Sync + Serialize + DeserializeOwned + 'static> Data for T {}

impl<T: Data> CacheableResponse for Response<T> {
    type Cached = Self;
    type Subject = Self;
    type IntoCachedFuture = std::future::Ready<CachePolicy<Self, Self>>;
    type FromCachedFuture = std::future::Ready<Self>;

    async fn cache_policy<P>(self, _: P, _: &EntityPolicyConfig) -> CachePolicy<CacheValue<Self>, Self>
    where
        P: Predicate<Subject = Self> + Send + Sync,
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

/// Runs what is handed to it.
#[derive(Clone, Debug)]
struct Spawn;

impl hitbox_core::Offload<'static> for Spawn {
    fn spawn<F>(&self, _: impl Into<hitbox_core::SmolStr>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(future);
    }
}

fn memory() -> MokaBackend {
    MokaBackend::builder().max_entries(1 << 20).build()
}

fn redis(env: &Env) -> impl CacheBackend + Send + Sync + Clone + 'static + hitbox_backend::Backend {
    let connection = ConnectionMode::single(env.redis().url());
    let builder = RedisBackend::builder().connection(connection);
    let redis = builder.response_timeout(Duration::from_secs(5)).build().expect("Redis");
    // A clone that was made before the first call would connect for itself, at every read of a composition.
    env.block_on(set(&redis, &CacheKey::new("connected", 0, Vec::new()), 1_u8));
    redis
}

pub(crate) fn one_composition() -> impl CacheBackend + Send + Sync + 'static {
    memory().compose(memory(), Spawn)
}

pub(crate) fn three_levels() -> impl CacheBackend + Send + Sync + 'static {
    memory().compose(memory(), Spawn).compose(memory(), Spawn)
}

pub(crate) fn over_redis(env: &Env) -> impl CacheBackend + Send + Sync + 'static {
    memory().compose(redis(env), Spawn)
}

fn keys() -> Vec<CacheKey> {
    let part = |name: &str, value: &str| KeyPart::new(name, Some(value));
    let parts = |n: u64| vec![part("tenant", "acme"), part("id", &n.to_string()), part("lang", "de")];
    (0..KEYS).map(|n| CacheKey::new("user", 0, parts(n))).collect()
}

fn nth(keys: &[CacheKey], number: u64) -> &CacheKey {
    &keys[number as usize % keys.len()]
}

async fn get<T: Data>(cache: &impl CacheBackend, key: &CacheKey) -> Option<CacheValue<Response<T>>> {
    let mut context = CacheContext::default().boxed();
    cache.get::<Response<T>>(key, &mut context).await.expect("a read")
}

async fn set<T: Data>(cache: &impl CacheBackend, key: &CacheKey, value: T) {
    let mut context = CacheContext::default().boxed();
    let value = CacheValue::new(Response(value), None, None);
    cache.set::<Response<T>>(key, &value, &mut context).await.expect("a write");
}

fn fill<T: Data>(env: &Env, cache: &impl CacheBackend, value: impl Fn(u64) -> T) -> Vec<CacheKey> {
    fill_first(env, cache, KEYS, value)
}

fn fill_first<T: Data>(
    env: &Env,
    cache: &impl CacheBackend,
    count: u64,
    value: impl Fn(u64) -> T,
) -> Vec<CacheKey> {
    let mut keys = keys();
    keys.truncate(count as usize);
    env.block_on(async {
        for (number, key) in (0..).zip(&keys) {
            set(cache, key, value(number)).await;
        }
    });
    keys
}

pub(crate) fn hits<T: Data>(
    env: &Env,
    cache: impl CacheBackend + Send + Sync + 'static,
    value: impl Fn(u64) -> T,
) -> Repeat {
    let keys = fill(env, &cache, value);
    env.repeat((cache, keys), async |(cache, keys), n| {
        black_box(get::<T>(cache, nth(keys, n)).await.expect("a hit"));
    })
}

/// Hits of a few large values, in the format that suits bytes best: the default is JSON.
pub(crate) fn body_hits<T: Data>(env: &Env, value: impl Fn(u64) -> T) -> Repeat {
    let memory = || MokaBackend::builder().max_entries(1 << 20).value_format(BincodeFormat).build();
    let cache = memory().compose(memory(), Spawn);
    let keys = fill_first(env, &cache, 16, value);
    env.repeat((cache, keys), async |(cache, keys), n| {
        black_box(get::<T>(cache, nth(keys, n)).await.expect("a hit"));
    })
}

/// The entries are in Redis alone, and stay there alone.
pub(crate) fn redis_hits<T: Data>(env: &Env, value: impl Fn(u64) -> T) -> Repeat {
    let keys = fill(env, &redis(env), value);
    env.repeat((over_redis(env), keys), async |(cache, keys), n| {
        black_box(get::<T>(cache, nth(keys, n)).await.expect("a hit"));
    })
}

/// The same from several tasks at once.
pub(crate) fn redis_hits_in_tasks<T: Data>(env: &Env, tasks: u64, value: impl Fn(u64) -> T) -> Repeat {
    let keys = fill(env, &redis(env), value);
    let state = (Arc::new(over_redis(env)), Arc::new(keys));
    env.repeat_in_tasks(tasks, state, async |(cache, keys), n| {
        black_box(get::<T>(&*cache, nth(&keys, n)).await.expect("a hit"));
    })
}

pub(crate) fn misses<T: Data>(env: &Env, cache: impl CacheBackend + Send + Sync + 'static) -> Repeat {
    env.repeat((cache, keys()), async |(cache, keys), n| {
        assert!(black_box(get::<T>(cache, nth(keys, n)).await).is_none());
    })
}

pub(crate) fn sets<T: Data>(env: &Env, cache: impl CacheBackend + Send + Sync + 'static, value: T) -> Repeat {
    env.repeat((cache, keys(), value), async |(cache, keys, value), n| {
        set(cache, nth(keys, n), value.clone()).await;
    })
}
