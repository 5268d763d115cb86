//! A batch of a hundred hits in memory.

use std::hint::black_box;
use std::sync::Arc;

use hitbox_backend::{CacheBackend, Compose};

use super::{fill, hit, memory};
use crate::measure::{Measure, Subject};
use crate::payload::{KEYS, Small, keys, nth, small};

const BATCH: usize = 100;

pub(super) fn subject() -> Subject {
    Subject::new("batch", "A batch of 100 hits in memory", Measure::Time)
        .operation("moka, 100 gets", |env| {
            let cache = moka::sync::Cache::new(1 << 20);
            let keys = keys();
            (0..KEYS).for_each(|n| cache.insert(nth(&keys, n).clone(), small(n)));
            env.repeat((cache, keys), async |(cache, keys), _| {
                let values: Vec<_> = keys[..BATCH].iter().map(|key| cache.get(key)).collect();
                assert!(black_box(values).iter().all(Option::is_some));
            })
        })
        .operation("one composition, 100 gets", |env| {
            let (cache, keys) = (memory().compose(memory(), env.pool.shared()), keys());
            env.block_on(fill(&cache, &keys, small));
            env.repeat((cache, keys), async |(cache, keys), _| {
                for key in &keys[..BATCH] {
                    hit::<Arc<Small>>(cache, key).await;
                }
            })
        })
        .operation("one composition", |env| {
            let (cache, keys) = (memory().compose(memory(), env.pool.shared()), keys());
            env.block_on(fill(&cache, &keys, small));
            env.repeat((cache, keys), async |(cache, keys), _| {
                let values = cache.get_many::<Arc<Small>>(&keys[..BATCH]).await;
                assert!(black_box(values).iter().all(|value| matches!(value, Ok(Some(_)))));
            })
        })
        .target("one composition", "one composition, 100 gets", 1.5)
}
