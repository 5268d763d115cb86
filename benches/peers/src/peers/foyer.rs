//! foyer: its memory cache.

use std::hint::black_box;

use foyer::Cache;
use hitbox_bench::measure::{Env, Repeat};
use hitbox_bench::payload::KEYS;

use super::{Value, names, nth};

fn cache<V: Value>() -> Cache<String, V> {
    foyer::CacheBuilder::new(1 << 20).build()
}

pub(crate) fn hits<V: Value>(env: &Env, value: impl Fn(u64) -> V) -> Repeat {
    let (cache, names) = (cache(), names());
    for n in 0..KEYS {
        cache.insert(nth(&names, n).clone(), value(n));
    }
    env.repeat((cache, names), async |(cache, names): &(Cache<String, V>, _), n| {
        black_box(cache.get(nth(names, n)).expect("a hit").value().clone());
    })
}

pub(crate) fn misses<V: Value>(env: &Env) -> Repeat {
    env.repeat((cache::<V>(), names()), async |(cache, names), n| {
        assert!(black_box(cache.get(nth(names, n))).is_none());
    })
}

pub(crate) fn sets<V: Value>(env: &Env, value: V) -> Repeat {
    env.repeat((cache(), names(), value), async |(cache, names, value), n| {
        cache.insert(nth(names, n).clone(), value.clone());
    })
}
