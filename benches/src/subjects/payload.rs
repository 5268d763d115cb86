//! A hit in memory costs the same whatever the size of the value is.

use bytes::Bytes;
use hitbox_backend::Compose;

use super::{fill, hit, hit::hits, memory};
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::{body, keys, nth};

fn bodies(env: &Env, len: usize) -> Repeat {
    let (cache, keys, body) = (memory().compose(memory(), env.pool.shared()), keys(), body(len));
    env.block_on(fill(&cache, &keys, |_| body.clone()));
    env.repeat((cache, keys), async |(cache, keys), n| hit::<Bytes>(cache, nth(keys, n)).await)
}

pub(super) fn subject() -> Subject {
    Subject::new("payload", "A hit in memory by the size of the value", Measure::Instructions)
        .operation("small struct", |env| hits(env, memory().compose(memory(), env.pool.shared())))
        .operation("16 B", |env| bodies(env, 16))
        .operation("4 KiB", |env| bodies(env, 4 << 10))
        .operation("100 KiB", |env| bodies(env, 100 << 10))
        .target("100 KiB", "16 B", 1.05)
}
