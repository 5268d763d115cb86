//! Hits in memory on two threads at once.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hitbox_backend::{Backend, CacheBackend, Compose};
use hitbox_core::{CacheContext, CacheKey};

use super::{fill, memory};
use crate::measure::{Env, Measure, Repeat, Subject, repeat_in_threads};
use crate::payload::{KEYS, Small, keys, nth, small};

/// The first so many keys.
fn bare(among: u64) -> Repeat {
    let (cache, keys) = (moka::sync::Cache::new(1 << 20), keys());
    (0..KEYS).for_each(|n| cache.insert(nth(&keys, n).clone(), small(n)));
    repeat_in_threads((cache, keys), move |(cache, keys), n| {
        black_box(cache.get(nth(keys, n % among)).expect("a hit"));
    })
}

fn composed(env: &Env, among: u64) -> Repeat {
    let (cache, keys) = (memory().compose(memory(), env.pool.shared()), keys());
    env.block_on(fill(&cache, &keys, small));
    repeat_in_threads((cache, keys), move |(cache, keys), n| at_once(cache, nth(keys, n % among)))
}

/// A hit on a thread that has no runtime.
fn at_once(cache: &impl Backend, key: &CacheKey) {
    let mut context = CacheContext::new();
    let read = pin!(cache.get::<Arc<Small>>(key, &mut context));
    let Poll::Ready(Ok(Some(value))) = read.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a hit in memory is answered at once")
    };
    black_box(value);
}

fn subject(name: &'static str, title: &'static str, among: u64) -> Subject {
    Subject::new(name, title, Measure::Time)
        .operation("moka", move |_| bare(among))
        .operation("one composition", move |env| composed(env, among))
        // A throughput of 0.8 of moka's.
        .target("one composition", "moka", 1.25)
}

pub(super) fn hot() -> Subject {
    subject("threads_hot", "Two threads, one key", 1)
}

pub(super) fn uniform() -> Subject {
    subject("threads_uniform", "Two threads, 1,024 keys", KEYS)
}
