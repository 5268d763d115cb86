//! quick_cache: memory alone.

use std::hint::black_box;

use hitbox_bench::measure::{Env, Repeat};
use hitbox_bench::payload::KEYS;

use super::{Value, names, nth};

pub(crate) fn hits<V: Value>(env: &Env, value: impl Fn(u64) -> V) -> Repeat {
    let (cache, names) = (quick_cache::sync::Cache::new(1 << 20), names());
    (0..KEYS).for_each(|n| cache.insert(nth(&names, n).clone(), value(n)));
    env.repeat((cache, names), async |(cache, names), n| {
        black_box(cache.get(nth(names, n)).expect("a hit"));
    })
}

pub(crate) fn misses<V: Value>(env: &Env) -> Repeat {
    let cache = quick_cache::sync::Cache::<String, V>::new(1 << 20);
    env.repeat((cache, names()), async |(cache, names), n| {
        assert!(black_box(cache.get(nth(names, n))).is_none());
    })
}

pub(crate) fn sets<V: Value>(env: &Env, value: V) -> Repeat {
    let cache = quick_cache::sync::Cache::new(1 << 20);
    env.repeat((cache, names(), value), async |(cache, names, value), n| {
        cache.insert(nth(names, n).clone(), value.clone());
    })
}
