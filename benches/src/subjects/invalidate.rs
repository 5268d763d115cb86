//! What tags cost a hit, and what invalidating costs where there are few entries and many.

use std::hint::black_box;
use std::sync::Arc;

use hitbox_backend::operation::Write;
use hitbox_backend::{Backend, CacheBackend, Compose, Raw, Wrap};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Details, Scope};

use super::memory;
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::{Small, keys, nth, small};

fn carrying(number: u64, tags: u64) -> CacheValue<Arc<Small>> {
    let mut details = Details::default();
    details.scopes = (0..tags).map(|tag| Scope::tag(format!("tag {tag}"))).collect();
    CacheValue::new(small(number)).with_details(details)
}

/// Hits of entries with so many tags, in memory over memory.
fn hits(env: &Env, tags: u64) -> Repeat {
    let cache = memory().compose(memory(), env.pool.shared());
    let keys = keys();
    env.block_on(async {
        for (number, key) in (0..).zip(&keys) {
            let value = carrying(number, tags);
            cache.set(key, value, &mut CacheContext::new()).await.expect("a write");
        }
        // Epochs are not the first ones.
        cache.invalidate_tags(&["another"]).await.expect("an invalidation");
    });
    env.repeat((cache, keys), async |(cache, keys), n| super::hit::<Arc<Small>>(cache, nth(keys, n)).await)
}

pub(super) fn tagged() -> Subject {
    Subject::new("tagged", "A hit of an entry with tags", Measure::Instructions)
        .operation("untagged", |env| hits(env, 0))
        .operation("one tag", |env| hits(env, 1))
        .operation("three tags", |env| hits(env, 3))
        .target("three tags", "untagged", 1.5)
}

/// A backend with so many entries, half of them in a namespace, all with a tag.
fn filled(env: &Env, cache: Arc<dyn Backend>, entries: u64) -> Arc<dyn Backend> {
    let inside = cache.clone().namespace("tenant");
    env.block_on(async {
        let numbers: Vec<u64> = (0..entries).collect();
        for chunk in numbers.chunks(1_000) {
            let item = |number: &u64| {
                let key = CacheKey::builder("entry").part("n", number).build();
                Write::new(key, carrying(*number, 1).map(Raw::live))
            };
            let (outer, inner) = chunk.split_at(chunk.len() / 2);
            for receipt in cache.write(outer.iter().map(item).collect()).await {
                receipt.into_result().expect("a write");
            }
            for receipt in inside.write(inner.iter().map(item).collect()).await {
                receipt.into_result().expect("a write");
            }
        }
    });
    cache
}

fn invalidates(env: &Env, cache: Arc<dyn Backend>, entries: u64) -> Repeat {
    env.repeat(filled(env, cache, entries), async |cache, _| {
        black_box(cache.invalidate_tags(&["tag 0"]).await.expect("an invalidation"));
    })
}

fn flushes(env: &Env, cache: Arc<dyn Backend>, entries: u64) -> Repeat {
    env.repeat(filled(env, cache, entries), async |cache, _| {
        black_box(cache.flush_namespace("tenant").await.expect("an invalidation"));
    })
}

fn over_redis(env: &Env) -> Arc<dyn Backend> {
    Arc::new(memory().compose(super::redis::layer(env), env.pool.shared()))
}

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;

pub(super) fn cost() -> Subject {
    Subject::new("invalidate", "Invalidating many entries", Measure::Time)
        .operation("memory: invalidate_tags, 1,000 entries", |env| invalidates(env, Arc::new(memory()), FEW))
        .operation("memory: invalidate_tags, 1,000,000 entries", |env| {
            invalidates(env, Arc::new(memory()), MANY)
        })
        .operation("memory: flush_namespace, 1,000 entries", |env| flushes(env, Arc::new(memory()), FEW))
        .operation("memory: flush_namespace, 1,000,000 entries", |env| flushes(env, Arc::new(memory()), MANY))
        .operation("memory + Redis: invalidate_tags, 1,000 entries", |env| {
            invalidates(env, over_redis(env), FEW)
        })
        .operation("memory + Redis: invalidate_tags, 1,000,000 entries", |env| {
            invalidates(env, over_redis(env), MANY)
        })
        .operation("memory + Redis: flush_namespace, 1,000 entries", |env| flushes(env, over_redis(env), FEW))
        .operation("memory + Redis: flush_namespace, 1,000,000 entries", |env| {
            flushes(env, over_redis(env), MANY)
        })
        .target("memory: invalidate_tags, 1,000,000 entries", "memory: invalidate_tags, 1,000 entries", 1.2)
        .target("memory: flush_namespace, 1,000,000 entries", "memory: flush_namespace, 1,000 entries", 1.2)
        .target(
            "memory + Redis: invalidate_tags, 1,000,000 entries",
            "memory + Redis: invalidate_tags, 1,000 entries",
            1.2,
        )
        .target(
            "memory + Redis: flush_namespace, 1,000,000 entries",
            "memory + Redis: flush_namespace, 1,000 entries",
            1.2,
        )
}
