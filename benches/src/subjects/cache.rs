//! Hits through the typed cache, and what a stale one costs while the source is slow.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use hitbox::{Cache, CacheBuilder, Compose};
use hitbox_backend::CompositionBackend;
use hitbox_core::CacheKey;

use super::memory;
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::{Small, keys, nth, small};

type Users = Cache<Arc<Small>>;

/// A cache over memory over memory, with all entries in it.
fn filled(
    env: &Env,
    set: impl FnOnce(CacheBuilder<Arc<Small>, CompositionBackend>) -> CacheBuilder<Arc<Small>, CompositionBackend>,
) -> (Users, Vec<CacheKey>) {
    let backend = memory().compose(memory(), env.pool.shared());
    let cache =
        set(Cache::builder(backend).name("users")).offload(env.pool.shared()).build().expect("a cache");
    let keys = keys();
    env.block_on(async {
        for (number, key) in (0..).zip(&keys) {
            cache.insert(key, small(number)).await.expect("a write");
        }
    });
    (cache, keys)
}

async fn load(number: u64) -> Result<Arc<Small>, std::convert::Infallible> {
    tokio::time::sleep(Duration::from_millis(400)).await;
    Ok(small(number))
}

fn loads(env: &Env, state: (Users, Vec<CacheKey>)) -> Repeat {
    env.repeat(state, async |(cache, keys), n| {
        black_box(cache.get_or_load(nth(keys, n), move || load(n)).await.expect("a value"));
    })
}

pub(super) fn hits() -> Subject {
    Subject::new("cache", "A hit through the typed cache", Measure::Instructions)
        .operation("moka, its default hasher", super::hit::bare)
        .operation("one composition", |env| {
            super::hit::hits(env, memory().compose(memory(), env.pool.shared()))
        })
        .operation("Cache::get", |env| {
            env.repeat(filled(env, |builder| builder), async |(cache, keys), n| {
                black_box(cache.get(nth(keys, n)).await.expect("a read").expect("a hit"));
            })
        })
        .operation("Cache::entry, get: with its outcome", |env| {
            env.repeat(filled(env, |builder| builder), async |(cache, keys), n| {
                black_box(cache.entry(nth(keys, n)).get().await.expect("a read"));
            })
        })
        .operation("Cache::get_or_load", |env| loads(env, filled(env, |builder| builder)))
        .operation("Cache::get_or_load, with TTL", |env| {
            loads(env, filled(env, |builder| builder.ttl(Duration::from_secs(3_600))))
        })
        .target("Cache::get", "moka, its default hasher", 1.6)
        .target("Cache::entry, get: with its outcome", "moka, its default hasher", 1.6)
}

pub(super) fn stale() -> Subject {
    let hour = Duration::from_secs(3_600);
    Subject::new("stale", "A stale hit while the source takes 400 ms", Measure::Time)
        .operation("fresh", move |env| loads(env, filled(env, |builder| builder.ttl(hour))))
        .operation("stale, reloaded in the background", move |env| {
            let state = filled(env, |builder| builder.ttl(Duration::from_millis(1)).stale(hour));
            std::thread::sleep(Duration::from_millis(2));
            loads(env, state)
        })
        .target("stale, reloaded in the background", "fresh", 100.0)
}
