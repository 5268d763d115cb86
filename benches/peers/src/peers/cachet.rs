//! cachet: memory over memory.

use std::hint::black_box;

use hitbox_bench::measure::{Env, Repeat};
use hitbox_bench::payload::KEYS;

use super::{Value, names, nth};

/// An asynchronous operation on a new cache whose type cannot be spelled.
macro_rules! on_two_tiers {
    ($env:ident, $value:ty, |$cache:ident, $names:ident| $fill:block, $operation:expr) => {{
        let $names = names();
        let cache = $env.block_on(async {
            let clock = tick::Clock::new_tokio();
            let below = cachet::Cache::builder::<String, $value>(clock.clone()).memory();
            let $cache = cachet::Cache::builder::<String, $value>(clock).memory().fallback(below).build();
            $fill
            $cache
        });
        $env.repeat((cache, $names), $operation)
    }};
}

pub(crate) fn hits<V: Value>(env: &Env, value: impl Fn(u64) -> V) -> Repeat {
    on_two_tiers!(
        env,
        V,
        |cache, names| {
            for n in 0..KEYS {
                cache.insert(nth(&names, n).clone(), value(n)).await.expect("a write");
            }
        },
        async |(cache, names), n| {
            black_box(cache.get(nth(names, n)).await.expect("a read").expect("a hit"));
        }
    )
}

pub(crate) fn misses<V: Value>(env: &Env) -> Repeat {
    on_two_tiers!(env, V, |cache, names| {}, async |(cache, names), n| {
        assert!(black_box(cache.get(nth(names, n)).await.expect("a read")).is_none());
    })
}

pub(crate) fn sets<V: Value>(env: &Env, value: V) -> Repeat {
    on_two_tiers!(env, V, |cache, names| {}, async move |(cache, names), n| {
        cache.insert(nth(names, n).clone(), value.clone()).await.expect("a write");
    })
}
