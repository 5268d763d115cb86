//! Building a key of three parts, alone and before a hit.

use std::hint::black_box;
use std::sync::Arc;

use hitbox_backend::Compose;

use super::{fill, hit, memory};
use crate::measure::{Measure, Subject};
use crate::payload::{KEYS, Small, key, keys, nth, small};

pub(super) fn subject() -> Subject {
    Subject::new("key", "A hit in memory with a key built for it", Measure::Instructions)
        .operation("moka, key built", |env| {
            let cache = moka::sync::Cache::new(1 << 20);
            let keys = keys();
            (0..KEYS).for_each(|n| cache.insert(nth(&keys, n).clone(), small(n)));
            env.repeat(cache, async |cache, n| {
                black_box(cache.get(&key(n % KEYS)).expect("a hit"));
            })
        })
        .operation("one composition, key built", |env| {
            let cache = memory().compose(memory(), env.pool.shared());
            env.block_on(fill(&cache, &keys(), small));
            env.repeat(cache, async |cache, n| hit::<Arc<Small>>(cache, &key(n % KEYS)).await)
        })
        .operation("the key alone", |env| {
            env.repeat((), async |(), n| {
                black_box(key(n % KEYS));
            })
        })
        .target("one composition, key built", "moka, key built", 1.35)
}
