//! A copy that came by refill is hit like one that was set.

use std::sync::Arc;

use hitbox_backend::{CacheBackend, Compose, IntoBackend, RefillPolicy, doc::Map};
use hitbox_core::CacheContext;

use super::hit::{hits, hits_of};
use super::{fill, memory};
use crate::measure::{Measure, Subject};
use crate::payload::{Small, keys, small};

pub(super) fn subject() -> Subject {
    Subject::new("refilled", "A hit of a refilled copy", Measure::Instructions)
        .operation("set", |env| hits(env, memory().compose(Map::default(), env.pool.shared())))
        .operation("refilled", |env| {
            let (lower, keys) = (Map::default().into_shared(), keys());
            // The lower layer stores bytes, as one outside the process would.
            env.block_on(fill(&lower, &keys, small));
            let cache = memory().compose(lower, env.pool.shared()).with_refill(RefillPolicy::Awaited);
            env.block_on(async {
                for key in &keys {
                    // Once to fill, once to decode.
                    for _ in 0..2 {
                        let found = cache.get::<Arc<Small>>(key, &mut CacheContext::new()).await;
                        assert!(found.expect("a read").is_some());
                    }
                }
            });
            hits_of(env, cache, keys)
        })
        .target("refilled", "set", 1.05)
}
