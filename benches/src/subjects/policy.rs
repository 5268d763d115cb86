//! Hits in memory by read policy.

use std::hint::black_box;

use hitbox_backend::{Compose, ParallelReadPolicy, RaceReadPolicy};

use super::hit::{bare, hits};
use super::memory;
use crate::measure::{Measure, Subject};
use crate::payload::{KEYS, keys, nth, small};

pub(super) fn subject() -> Subject {
    Subject::new("policy", "A hit in memory by read policy", Measure::Instructions)
        .operation("moka", bare)
        .operation("moka, two gets", |env| {
            let caches = [(); 2].map(|()| moka::sync::Cache::new(1 << 20));
            let keys = keys();
            for cache in &caches {
                (0..KEYS).for_each(|n| cache.insert(nth(&keys, n).clone(), small(n)));
            }
            env.repeat((caches, keys), async |(caches, keys), n| {
                for cache in caches {
                    black_box(cache.get(nth(keys, n)).expect("a hit"));
                }
            })
        })
        .operation("sequential", |env| hits(env, memory().compose(memory(), env.pool.shared())))
        .operation("race", |env| {
            hits(env, memory().compose(memory(), env.pool.shared()).with_read(RaceReadPolicy::default()))
        })
        .operation("parallel", |env| {
            hits(env, memory().compose(memory(), env.pool.shared()).with_read(ParallelReadPolicy))
        })
        .target("race", "sequential", 1.1)
        .target("parallel", "moka, two gets", 1.5)
}
