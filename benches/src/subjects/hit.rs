//! A hit in memory: what a service does a million times a second.

use std::hash::BuildHasherDefault;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::{Backend, CacheBackend, Compose, Wrap};
use hitbox_core::{CacheContext, CacheKey, KeyHasher};
use hitbox_quick::QuickBackend;

use super::{fill, memory};
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::{KEYS, Small, keys, nth, small};

/// moka alone, over our keys.
pub(super) fn bare(env: &Env) -> Repeat {
    let cache = moka::sync::Cache::new(1 << 20);
    let keys = keys();
    (0..KEYS).for_each(|n| cache.insert(nth(&keys, n).clone(), small(n)));
    env.repeat((cache, keys), async |(cache, keys), n| {
        black_box(cache.get(nth(keys, n)).expect("a hit"));
    })
}

fn bare_with_our_hasher(env: &Env) -> Repeat {
    let builder = moka::sync::Cache::builder().max_capacity(1 << 20);
    let cache = builder.build_with_hasher(BuildHasherDefault::<KeyHasher>::default());
    let keys = keys();
    (0..KEYS).for_each(|n| cache.insert(nth(&keys, n).clone(), small(n)));
    env.repeat((cache, keys), async |(cache, keys): &(moka::sync::Cache<CacheKey, Arc<Small>, _>, _), n| {
        black_box(cache.get(nth(keys, n)).expect("a hit"));
    })
}

/// Hits of small values in a backend that is filled first.
pub(super) fn hits(env: &Env, cache: impl Backend) -> Repeat {
    let keys = keys();
    env.block_on(fill(&cache, &keys, small));
    hits_of(env, cache, keys)
}

/// Hits of small values in a backend that has them all.
pub(super) fn hits_of(env: &Env, cache: impl Backend, keys: Vec<CacheKey>) -> Repeat {
    env.repeat((cache, keys), async |(cache, keys), n| {
        // Within the caller's own future, as a handler makes it: one more future around it costs as much as a level.
        let mut context = CacheContext::new();
        let found = cache.get::<Arc<Small>>(nth(keys, n), &mut context).await;
        assert!(matches!(found, Ok(Some(_))), "a miss");
        black_box((&found, &context));
    })
}

fn quick() -> QuickBackend {
    QuickBackend::builder().max_entries(1 << 20).build().expect("a backend in memory")
}

fn three(env: &Env) -> impl Backend {
    let inner = memory().compose(memory(), env.pool.shared()).with_label("inner");
    inner.compose(memory(), env.pool.shared()).with_label("outer")
}

const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn subject() -> Subject {
    const DEFAULT: &str = "moka, its default hasher";
    const OURS: &str = "moka, our hasher";
    Subject::new("hit", "A hit in memory", Measure::Instructions)
        .operation(DEFAULT, bare)
        .operation(OURS, bare_with_our_hasher)
        .operation("one leaf", |env| hits(env, memory()))
        .operation("one composition", |env| hits(env, memory().compose(memory(), env.pool.shared())))
        .operation("one composition, with TTL", |env| {
            hits(env, memory().ttl_override(Some(HOUR)).compose(memory(), env.pool.shared()))
        })
        .operation("three levels", |env| hits(env, three(env)))
        .operation("three levels, dyn", |env| {
            let inner = memory().shared().compose(memory().shared(), env.pool.shared()).shared();
            hits(env, inner.compose(memory().shared(), env.pool.shared()).shared())
        })
        .operation("quick, one leaf", |env| hits(env, quick()))
        .operation("quick, one composition", |env| hits(env, quick().compose(memory(), env.pool.shared())))
        .target("quick, one composition", "one composition", 0.5)
        .target("one composition", DEFAULT, 1.35)
        .target("one composition", OURS, 1.5)
        .target("three levels", DEFAULT, 1.40)
        .target("three levels, dyn", DEFAULT, 1.50)
        .target("one composition, with TTL", DEFAULT, 1.3)
}

/// The same in time: copies and waits that instructions do not show.
pub(super) fn timed() -> Subject {
    const DEFAULT: &str = "moka, its default hasher";
    Subject::new("hit_time", "A hit in memory, in time", Measure::Time)
        .operation(DEFAULT, bare)
        .operation("one leaf", |env| hits(env, memory()))
        .operation("one composition", |env| hits(env, memory().compose(memory(), env.pool.shared())))
        .operation("three levels", |env| hits(env, three(env)))
        .target("one composition", DEFAULT, 1.45)
}
