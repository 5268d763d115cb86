//! Redis through a composition, beside the bare client: one connection each, real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_backend::{CacheBackend, Compose, CompositionBackend, Format};
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_redis::RedisBackend;
use redis::AsyncCommands;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use super::{fill, hit, memory};
use crate::measure::{Env, Measure, Subject};
use crate::payload::{Small, keys, nth, small};

/// Tasks that ask at once.
pub const TASKS: u64 = 64;

async fn client(env_url: String) -> ConnectionManager {
    let client = redis::Client::open(env_url).expect("an address");
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
    ConnectionManager::new_with_config(client, config).await.expect("a connection")
}

/// Bytes as large as the record of a small value, under keys as long.
async fn filled_client(url: String) -> (ConnectionManager, Vec<String>) {
    let mut client = client(url).await;
    let names: Vec<String> = keys().iter().map(|key| format!("bare:{key}")).collect();
    for name in &names {
        let _: () = client.set(name, vec![7_u8; 160]).await.expect("a write");
    }
    (client, names)
}

async fn get(mut client: ConnectionManager, name: &str) {
    let found: Option<Vec<u8>> = client.get(name).await.expect("a read");
    assert!(found.is_some());
}

/// The entries are in Redis alone, and stay there alone.
/// An empty layer of its own on the shared server.
pub(super) fn layer(env: &Env) -> RedisBackend {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("layer{}:", NEXT.fetch_add(1, Ordering::Relaxed));
    let builder = RedisBackend::builder(&env.redis().url()).prefix(&prefix);
    env.block_on(async { builder.deadline(Duration::from_secs(5)).build().expect("redis") })
}

fn below_memory(env: &Env) -> (CompositionBackend, Vec<CacheKey>) {
    let url = env.redis().url();
    env.block_on(async {
        let redis = RedisBackend::builder(&url).deadline(Duration::from_secs(5)).build().expect("redis");
        let keys = keys();
        fill(&redis, &keys, small).await;
        (memory().compose(redis, env.pool.shared()), keys)
    })
}

pub(super) fn one_task() -> Subject {
    Subject::new("redis", "A hit in Redis, one task", Measure::Time)
        .operation("redis-rs GET", |env| {
            let state = env.block_on(filled_client(env.redis().url()));
            env.repeat(state, async |(client, names), n| {
                get(client.clone(), &names[n as usize % names.len()]).await;
            })
        })
        .operation("memory over Redis", |env| {
            env.repeat(below_memory(env), async |(cache, keys), n| {
                hit::<Arc<Small>>(cache, nth(keys, n)).await;
            })
        })
        .target("memory over Redis", "redis-rs GET", 1.05)
}

/// Bytes of a small value as a user of the bare client would store it.
async fn filled_with_values(url: String) -> (ConnectionManager, Vec<String>) {
    let mut client = client(url).await;
    let names: Vec<String> = keys().iter().map(|key| format!("value:{key}")).collect();
    for (number, name) in (0..).zip(&names) {
        let bytes = Format::default().encode(&*small(number)).expect("it can be encoded");
        let _: () = client.set(name, bytes).await.expect("a write");
    }
    (client, names)
}

async fn get_and_decode(mut client: ConnectionManager, name: &str) {
    let found: Option<Vec<u8>> = client.get(name).await.expect("a read");
    let value: Small = Format::default().decode(&found.expect("a value")).expect("a value");
    std::hint::black_box(Arc::new(value));
}

pub(super) fn many_tasks() -> Subject {
    Subject::new("redis_tasks", "Hits in Redis, 64 tasks", Measure::Time)
        .operation("redis-rs GET", |env| {
            let (client, names) = env.block_on(filled_client(env.redis().url()));
            env.repeat_in_tasks(TASKS, (client, Arc::new(names)), async |(client, names), n| {
                get(client, &names[n as usize % names.len()]).await;
            })
        })
        .operation("redis-rs GET, decoded", |env| {
            let (client, names) = env.block_on(filled_with_values(env.redis().url()));
            env.repeat_in_tasks(TASKS, (client, Arc::new(names)), async |(client, names), n| {
                get_and_decode(client, &names[n as usize % names.len()]).await;
            })
        })
        .operation("memory over Redis", |env| {
            let (cache, keys) = below_memory(env);
            env.repeat_in_tasks(TASKS, (cache, Arc::new(keys)), async |(cache, keys), n| {
                hit::<Arc<Small>>(&cache, nth(&keys, n)).await;
            })
        })
        .target("memory over Redis", "redis-rs GET", 1.15)
}

pub(super) fn set() -> Subject {
    Subject::new("redis_set", "A write into memory and Redis", Measure::Time)
        .operation("redis-rs SET", |env| {
            let state = env.block_on(filled_client(env.redis().url()));
            env.repeat(state, async |(client, names), n| {
                let mut client = client.clone();
                let name = &names[n as usize % names.len()];
                let _: () = client.set(name, vec![7_u8; 160]).await.expect("a write");
            })
        })
        .operation("Redis alone", |env| {
            let url = env.redis().url();
            let redis = env.block_on(async { RedisBackend::builder(&url).build().expect("redis") });
            env.repeat((redis, keys()), async |(cache, keys), n| {
                let value = CacheValue::new(small(n));
                cache.set(nth(keys, n), value, &mut CacheContext::new()).await.expect("a write");
            })
        })
        .operation("memory over Redis", |env| {
            env.repeat(below_memory(env), async |(cache, keys), n| {
                let value = CacheValue::new(small(n));
                cache.set(nth(keys, n), value, &mut CacheContext::new()).await.expect("a write");
            })
        })
        .target("memory over Redis", "redis-rs SET", 1.1)
}
