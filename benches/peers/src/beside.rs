//! The peers' rows of each subject: the same keys and values, in the same run.

use std::sync::Arc;

use bytes::Bytes;
use hitbox_bench::measure::Subject;
use hitbox_bench::payload::{Small, body, small};
use hitbox_bench::subjects::TASKS;

use crate::peers::{cachet, foyer, hitbox, http, multi_tier, quick_cache};

/// A subject with the peers that can do what it measures.
pub(crate) fn beside(subject: Subject) -> Subject {
    match subject.name {
        "hit" => hits(subject),
        "payload" => bodies(subject),
        "http" => subject
            .operation("peer: hitbox-tower 0.2", http::hitbox)
            .operation("peer: tower-http-cache", http::tower_http_cache)
            .operation("peer: http-cache-tower", http::http_cache_tower),
        "miss" => misses(subject),
        "set" => sets(subject),
        "redis" => subject.operation("peer: hitbox 0.2", |env| hitbox::redis_hits(env, owned)),
        "redis_tasks" => {
            subject.operation("peer: hitbox 0.2", |env| hitbox::redis_hits_in_tasks(env, TASKS, owned))
        }
        "redis_set" => subject
            .operation("peer: hitbox 0.2", |env| hitbox::sets(env, hitbox::over_redis(env), owned(1)))
            .operation("peer: multi-tier-cache", |env| multi_tier::sets(env, encoded(1))),
        _ => subject,
    }
}

/// Peers that clone values and encode them have no use for an `Arc`.
fn owned(number: u64) -> Small {
    (*small(number)).clone()
}

fn encoded(number: u64) -> Bytes {
    Bytes::from(serde_json::to_vec(&*small(number)).expect("it can be encoded"))
}

fn hits(subject: Subject) -> Subject {
    subject
        .operation("peer: quick_cache", |env| quick_cache::hits(env, small))
        .operation("peer: foyer, memory", |env| foyer::hits(env, small))
        .operation("peer: cachet, memory over memory", |env| cachet::hits(env, small))
        .operation("peer: multi-tier-cache, L1 (bytes)", |env| multi_tier::hits(env, encoded))
        .operation("peer: hitbox 0.2, one composition", |env| {
            hitbox::hits(env, hitbox::one_composition(), owned)
        })
        .operation("peer: hitbox 0.2, three levels", |env| hitbox::hits(env, hitbox::three_levels(), owned))
}

fn bodies(subject: Subject) -> Subject {
    [("4 KiB", 4 << 10), ("100 KiB", 100 << 10)].into_iter().fold(subject, |subject, (name, len)| {
        let shared = move || {
            let body = body(len);
            move |_| body.clone()
        };
        subject
            .operation(&format!("peer: quick_cache, {name}"), move |env| quick_cache::hits(env, shared()))
            .operation(&format!("peer: foyer, memory, {name}"), move |env| foyer::hits(env, shared()))
            .operation(&format!("peer: cachet, {name}"), move |env| cachet::hits(env, shared()))
            .operation(&format!("peer: multi-tier-cache, {name}"), move |env| multi_tier::hits(env, shared()))
            .operation(&format!("peer: hitbox 0.2, {name}"), move |env| hitbox::body_hits(env, shared()))
    })
}

fn misses(subject: Subject) -> Subject {
    subject
        .operation("peer: quick_cache", quick_cache::misses::<Arc<Small>>)
        .operation("peer: foyer, memory", foyer::misses::<Arc<Small>>)
        .operation("peer: cachet, memory over memory", cachet::misses::<Arc<Small>>)
        .operation("peer: hitbox 0.2, one composition", |env| {
            hitbox::misses::<Small>(env, hitbox::one_composition())
        })
        .operation("peer: hitbox 0.2, three levels", |env| {
            hitbox::misses::<Small>(env, hitbox::three_levels())
        })
}

fn sets(subject: Subject) -> Subject {
    subject
        .operation("peer: quick_cache", |env| quick_cache::sets(env, small(1)))
        .operation("peer: foyer, memory", |env| foyer::sets(env, small(1)))
        .operation("peer: cachet, memory over memory", |env| cachet::sets(env, small(1)))
        .operation("peer: hitbox 0.2, one composition", |env| {
            hitbox::sets(env, hitbox::one_composition(), owned(1))
        })
}
