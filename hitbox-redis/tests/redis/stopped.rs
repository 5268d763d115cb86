//! Many writes at once to a server that has stopped: each is cut at its own deadline.

use std::time::{Duration, Instant};

use hitbox_backend::operation::{Condition, Write};
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{BackendResult, BoxFuture, CacheContext, CacheKey, CacheValue, Details, ErrorKind};
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;

use crate::{get, key};

const DEADLINE: Duration = Duration::from_millis(300);

/// One after the other they would take ten times as long.
const LIMIT: Duration = Duration::from_millis(900);

const CALLS: u64 = 40;

fn open(server: &RedisServer) -> RedisBackend {
    RedisBackend::builder(&server.url()).deadline(DEADLINE).build().expect("redis")
}

fn tagged(tag: u64) -> CacheValue<u64> {
    let mut details = Details::default();
    details.scopes = vec![hitbox_core::Scope::tag(format!("t{tag}"))];
    CacheValue::new(tag).with_details(details)
}

type Call = fn(RedisBackend, u64) -> BoxFuture<'static, BackendResult<()>>;

const ONE_KEY: [(&str, Call); 5] = [
    ("write", |redis, n| {
        Box::pin(
            async move { redis.set(&key(1), CacheValue::new(n), &mut CacheContext::new()).await.map(drop) },
        )
    }),
    ("tagged write", |redis, n| {
        Box::pin(async move { redis.set(&key(1), tagged(n), &mut CacheContext::new()).await.map(drop) })
    }),
    ("conditional write", |redis, n| {
        Box::pin(async move { redis.set_if_newer(&key(1), CacheValue::new(n), n + 10).await.map(drop) })
    }),
    ("removal", |redis, _| {
        Box::pin(async move { redis.delete(&key(1), &mut CacheContext::new()).await.map(drop) })
    }),
    ("replacement of metadata", |redis, _| {
        Box::pin(async move { redis.set_metadata(&key(2), Default::default()).await.map(drop) })
    }),
];

/// Every one of them is cut in time.
async fn expect_cut(what: &str, calls: Vec<BoxFuture<'static, BackendResult<()>>>) {
    let timed = calls.into_iter().map(|call| {
        tokio::spawn(async move {
            let started = Instant::now();
            (call.await, started.elapsed())
        })
    });
    let tasks: Vec<_> = timed.collect();
    for task in tasks {
        let (result, elapsed) = task.await.expect("a task");
        let error = result.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{what}: {error}");
        assert!(elapsed < LIMIT, "a {what} took {elapsed:?}");
    }
}

async fn recovers(server: &RedisServer, redis: &RedisBackend) {
    server.thaw();
    while redis.ping().await.is_err() {}
    redis.set(&key(1), CacheValue::new(1_u64), &mut CacheContext::new()).await.expect("a write");
    assert_eq!(get(redis, 1).await.expect("a read"), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c18_writes_of_one_key_are_cut_at_their_deadlines() {
    let server = RedisServer::start();
    for (what, call) in ONE_KEY {
        // What all entries carry is known, or it is not.
        for is_warm in [true, false] {
            let redis = open(&server);
            redis.ping().await.expect("an answer");
            if is_warm {
                for number in 1..=2 {
                    let (key, mut context) = (key(number), CacheContext::new());
                    redis.set(&key, CacheValue::new(1_u64), &mut context).await.expect("a write");
                }
            }
            server.freeze();
            expect_cut(what, (0..CALLS).map(|n| call(redis.clone(), n)).collect()).await;
            recovers(&server, &redis).await;
        }
    }
}

fn batch_of(redis: RedisBackend, what: &'static str) -> BoxFuture<'static, BackendResult<()>> {
    Box::pin(async move {
        let keys: Vec<CacheKey> = (0..CALLS).map(key).collect();
        let plain = || keys.iter().map(|key| (key.clone(), CacheValue::new(1_u64))).collect();
        let versioned = |key: &CacheKey| {
            let mut details = Details::default();
            details.version = Some(9);
            let value = CacheValue::new(hitbox_backend::envelope::Raw::live(1_u64)).with_details(details);
            Write::new(key.clone(), value).with_condition(Condition::IfNewer(9))
        };
        let results: Vec<BackendResult<()>> = match what {
            "batch" => redis.set_many::<u64>(plain()).await.into_iter().map(|r| r.map(drop)).collect(),
            "tagged batch" => {
                let entries = (0..CALLS).map(|n| (key(n), tagged(n))).collect();
                redis.set_many::<u64>(entries).await.into_iter().map(|r| r.map(drop)).collect()
            }
            "conditional batch" => {
                let receipts = redis.write(keys.iter().map(versioned).collect()).await;
                receipts.into_iter().map(|receipt| receipt.into_result().map(drop)).collect()
            }
            "batch of nothing" => {
                let over =
                    |key: CacheKey| (key, CacheValue::new(1_u64).with_lifetime(hitbox_core::Lifetime::ENDED));
                let entries = keys.into_iter().map(over).collect();
                redis.set_many::<u64>(entries).await.into_iter().map(|r| r.map(drop)).collect()
            }
            _ => redis.delete_many(&keys).await.into_iter().map(|r| r.map(drop)).collect(),
        };
        assert_eq!(results.len(), CALLS as usize);
        assert!(results.iter().all(Result::is_err), "nobody answers");
        results.into_iter().collect()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c18_batches_are_cut_at_their_deadlines() {
    let server = RedisServer::start();
    for what in ["batch", "tagged batch", "conditional batch", "batch of nothing", "batch of removals"] {
        for has_unrecorded in [false, true] {
            let redis = open(&server);
            redis.set(&key(1), tagged(1), &mut CacheContext::new()).await.expect("a write");
            server.freeze();
            if has_unrecorded {
                redis.invalidate_tags(&["t1", "t2"]).await.expect_err("it is not recorded");
            }
            expect_cut(what, vec![batch_of(redis.clone(), what), batch_of(redis.clone(), what)]).await;
            recovers(&server, &redis).await;
        }
    }
}

/// A call that is held while it has the store record an invalidation keeps nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_held_beside_an_unrecorded_invalidation_hold_nobody() {
    for holds_a_write in [false, true] {
        let server = RedisServer::start();
        let redis = open(&server);
        redis.set(&key(1), tagged(1), &mut CacheContext::new()).await.expect("a write");
        server.freeze();
        // It is given up, and so its record is open.
        let invalidation = async { redis.invalidate_tags(&["t1"]).await };
        tokio::time::timeout(DEADLINE / 10, invalidation).await.expect_err("nobody answers");
        let held = redis.clone();
        let mut held = Box::pin(async move {
            let mut context = CacheContext::new();
            if holds_a_write {
                held.set(&key(7), tagged(7), &mut context).await.map(drop)
            } else {
                held.get::<u64>(&key(7), &mut context).await.map(drop)
            }
        });
        tokio::time::timeout(DEADLINE / 10, &mut held).await.expect_err("nobody answers");
        server.thaw();
        let started = Instant::now();
        // Longer than the store is left alone with what it has not recorded.
        while started.elapsed() < Duration::from_secs(1) {
            let (other, mut context) = (key(2), CacheContext::new());
            let read = redis.get::<u64>(&other, &mut context);
            drop(tokio::time::timeout(DEADLINE * 3, read).await.expect("a read ends"));
            let write = redis.set(&other, tagged(2), &mut context);
            drop(tokio::time::timeout(DEADLINE * 3, write).await.expect("a write ends"));
        }
        let read = redis.get::<u64>(&key(2), &mut CacheContext::new()).await.expect("the server is back");
        assert_eq!(read.map(CacheValue::into_data), Some(2));
        // Others are told of the invalidation, though who was at it is held still.
        while redis.layout().has_unrecorded() {
            assert!(started.elapsed() < Duration::from_secs(30), "it is not recorded");
            drop(redis.get::<u64>(&key(2), &mut CacheContext::new()).await);
            tokio::time::sleep(DEADLINE / 10).await;
        }
        drop(held);
    }
}
