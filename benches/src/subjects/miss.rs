//! A miss in all layers.

use std::hint::black_box;
use std::sync::Arc;

use hitbox_backend::{Backend, CacheBackend, Compose};
use hitbox_core::{CacheContext, CacheKey};

use super::memory;
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::{Small, keys, nth};

fn misses(env: &Env, cache: impl Backend) -> Repeat {
    env.repeat((cache, keys()), async |(cache, keys), n| {
        let found = cache.get::<Arc<Small>>(nth(keys, n), &mut CacheContext::new()).await.expect("a read");
        assert!(black_box(found).is_none());
    })
}

pub(super) fn subject() -> Subject {
    Subject::new("miss", "A miss in memory", Measure::Instructions)
        .operation("moka", |env| {
            let cache = moka::sync::Cache::<CacheKey, Arc<Small>>::new(1 << 20);
            env.repeat((cache, keys()), async |(cache, keys), n| {
                assert!(black_box(cache.get(nth(keys, n))).is_none());
            })
        })
        .operation("one layer", |env| misses(env, memory()))
        .operation("two layers", |env| misses(env, memory().compose(memory(), env.pool.shared())))
        .operation("three layers", |env| {
            let inner = memory().compose(memory(), env.pool.shared());
            misses(env, inner.compose(memory(), env.pool.shared()))
        })
        .target("one layer", "moka", 1.5)
        .target("two layers", "moka", 3.0)
        .target("three layers", "moka", 4.5)
}
