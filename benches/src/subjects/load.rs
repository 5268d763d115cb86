//! A load: the entry is in no layer, and the source answers at once.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use hitbox::Cache;
use hitbox_backend::{Backend, Compose};

use super::memory;
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::{Small, key, small};

/// Loads of ever new keys.
fn loads(env: &Env, backend: impl Backend) -> Repeat {
    let cache: Cache<Arc<Small>> =
        Cache::builder(backend).name("users").offload(env.pool.shared()).build().expect("a cache");
    let started = std::cell::Cell::new(0);
    env.repeat((cache, small(1), started), async |(cache, value, started), _| {
        let key = key(started.replace(started.get() + 1));
        let value = value.clone();
        let loaded = cache.get_or_load(&key, move || async move { Ok::<_, Infallible>(value) }).await;
        black_box(loaded.expect("a value"));
    })
}

pub(super) fn subject() -> Subject {
    Subject::new("load", "A load into memory, with its key", Measure::Instructions)
        .operation("moka, get_with", |env| {
            let cache = moka::sync::Cache::new(1 << 20);
            let started = std::cell::Cell::new(0);
            env.repeat((cache, small(1), started), async |(cache, value, started), _| {
                let key = key(started.replace(started.get() + 1));
                black_box(cache.get_with(key, || value.clone()));
            })
        })
        .operation("one leaf", |env| loads(env, memory()))
        .operation("two leaves", |env| loads(env, memory().compose(memory(), env.pool.shared())))
        .operation("three leaves", |env| {
            let inner = memory().compose(memory(), env.pool.shared());
            loads(env, inner.compose(memory(), env.pool.shared()))
        })
}
