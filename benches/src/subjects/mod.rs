//! The subjects, one file each.

mod batch;
mod bodies;
mod cache;
mod disk;
mod format;
mod hit;
pub mod http;
mod http_sockets;
mod invalidate;
mod key;
mod load;
mod miss;
mod payload;
mod policy;
mod redis;
mod refilled;
mod set;
mod threads;

use std::hint::black_box;

use hitbox_backend::{Backend, CacheBackend, Cacheable};
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_moka::MokaBackend;

pub use self::redis::TASKS;
use crate::measure::Subject;

/// Every subject.
pub fn all() -> Vec<Subject> {
    vec![
        hit::subject(),
        hit::timed(),
        cache::hits(),
        cache::stale(),
        load::subject(),
        invalidate::tagged(),
        invalidate::cost(),
        key::subject(),
        payload::subject(),
        format::encode(),
        format::decode(),
        refilled::subject(),
        policy::subject(),
        miss::subject(),
        set::subject(),
        batch::subject(),
        threads::hot(),
        threads::uniform(),
        redis::one_task(),
        redis::many_tasks(),
        redis::set(),
        disk::subject(),
        bodies::on_disk(),
        bodies::in_memory(),
        http::subject(),
        http_sockets::subject(),
    ]
}

/// A memory layer with room for everything.
fn memory() -> MokaBackend {
    MokaBackend::builder().max_entries(1 << 20).build().expect("a backend in memory")
}

/// A hit through a backend.
async fn hit<T: Cacheable>(cache: &(impl Backend + ?Sized), key: &CacheKey) {
    let mut context = CacheContext::new();
    let found = cache.get::<T>(key, &mut context).await;
    assert!(matches!(found, Ok(Some(_))), "a miss");
    // Looked at where it is: a move of what has just been written is a wait of its own, which no reference has.
    black_box((&found, &context));
}

/// Fills a backend.
async fn fill<T: Cacheable>(cache: &(impl Backend + ?Sized), keys: &[CacheKey], value: impl Fn(u64) -> T) {
    for (number, key) in (0..).zip(keys) {
        let written = cache.set(key, CacheValue::new(value(number)), &mut CacheContext::new()).await;
        assert!(written.expect("a write").stored() > 0, "it was stored");
    }
}
