//! A write into memory.

use hitbox_backend::{Backend, CacheBackend, Compose};
use hitbox_core::{CacheContext, CacheValue};

use super::memory;
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::{keys, nth, small};

fn sets(env: &Env, cache: impl Backend) -> Repeat {
    env.repeat((cache, keys(), small(1)), async |(cache, keys, value), n| {
        let value = CacheValue::new(value.clone());
        cache.set(nth(keys, n), value, &mut CacheContext::new()).await.expect("a write");
    })
}

pub(super) fn subject() -> Subject {
    Subject::new("set", "A write into memory", Measure::Instructions)
        .operation("moka", |env| {
            let cache = moka::sync::Cache::new(1 << 20);
            env.repeat((cache, keys(), small(1)), async |(cache, keys, value), n| {
                cache.insert(nth(keys, n).clone(), value.clone());
            })
        })
        .operation("one leaf", |env| sets(env, memory()))
        .operation("one composition", |env| sets(env, memory().compose(memory(), env.pool.shared())))
        .target("one leaf", "moka", 1.6)
        .target("one composition", "moka", 3.3)
}
