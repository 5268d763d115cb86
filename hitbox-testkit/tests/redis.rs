//! Redis itself: round trips, connections, outages.

#[allow(dead_code, reason = "other test files use the rest")]
mod common;

use std::time::{Duration, Instant};

use common::RedisServer;
use hitbox_backend::{CacheBackend, Compose, OffloadPool, RefillPolicy};
use hitbox_core::{CacheContext, CacheKey, CacheValue, ErrorKind, Lifetime};
use hitbox_moka::MokaBackend;
use hitbox_redis::RedisBackend;

fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

/// A number in the answer to INFO.
fn info(server: &RedisServer, section: &str, name: &str) -> u64 {
    let answer = server.ask(&format!("INFO {section}"));
    let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.and_then(|value| value.trim().parse().ok()).expect("a number")
}

#[tokio::test]
async fn redis_02_one_round_trip_per_read_and_per_write() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    redis.ping().await.expect("an answer");
    let before = info(&server, "stats", "total_commands_processed");
    for number in 0..100 {
        let value = CacheValue::new(number).with_lifetime(Lifetime::ttl(now(), Duration::from_secs(60)));
        redis.set(&key(number), value, &mut CacheContext::new()).await.expect("a write");
        let read = redis.get::<u64>(&key(number), &mut CacheContext::new()).await.expect("a read");
        assert_eq!(read.map(CacheValue::into_data), Some(number));
    }
    // Beside them the QUIT of the first question and the INFO of the second.
    assert_eq!(info(&server, "stats", "total_commands_processed") - before, 200 + 2);
}

fn now() -> hitbox_core::Timestamp {
    std::time::SystemTime::now().into()
}

#[tokio::test]
async fn redis_03_one_connection_for_all_clones_and_compositions() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    let pool = OffloadPool::new();
    let compose = || {
        let memory = MokaBackend::builder().build().expect("moka");
        memory.compose(redis.clone(), pool.shared()).compose(redis.clone(), pool.shared())
    };
    let compositions = [compose(), compose(), compose()];
    for number in 0..1_000 {
        for cache in &compositions {
            cache.get::<u64>(&key(number), &mut CacheContext::new()).await.expect("a read");
        }
    }
    // The one that asks counts too.
    assert_eq!(info(&server, "clients", "connected_clients"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_04_killed_frozen_and_restarted_under_load() {
    const DEADLINE: Duration = Duration::from_millis(100);
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).deadline(DEADLINE).build().expect("redis");
    let pool = OffloadPool::new();
    let memory = MokaBackend::builder().build().expect("moka");
    let cache = memory.compose(redis.clone(), pool.shared()).with_refill(RefillPolicy::Always);
    for number in 0..50 {
        cache.set(&key(number), CacheValue::new(number), &mut CacheContext::new()).await.expect("a write");
    }
    // Every call is cut, and what lives in memory is served.
    let through_an_outage = async |kinds: &[ErrorKind]| {
        for number in 0..10 {
            let asked = Instant::now();
            let read = cache.get::<u64>(&key(number), &mut CacheContext::new()).await.expect("memory has it");
            assert_eq!(read.map(CacheValue::into_data), Some(number));
            cache
                .set(&key(number), CacheValue::new(number), &mut CacheContext::new())
                .await
                .expect("memory takes it");
            let alone = redis.get::<u64>(&key(number), &mut CacheContext::new()).await;
            // What was written meanwhile is hidden without asking the server.
            let fails_as_expected = alone.as_ref().err().is_none_or(|error| kinds.contains(&error.kind()));
            assert!(fails_as_expected && !matches!(alone, Ok(Some(_))), "{alone:?}");
            assert!(asked.elapsed() < DEADLINE * 10 * 3, "a call hung");
        }
    };
    let recovers = async || {
        let started = Instant::now();
        while redis.ping().await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "it does not come back");
        }
        let value = CacheValue::new(77_u64);
        let receipt = cache.set(&key(77), value, &mut CacheContext::new()).await.expect("a write");
        assert_eq!(receipt.stored(), 2, "{receipt:?}");
        let read = redis.get::<u64>(&key(77), &mut CacheContext::new()).await.expect("a read");
        assert_eq!(read.map(CacheValue::into_data), Some(77));
    };
    server.freeze();
    through_an_outage(&[ErrorKind::Timeout]).await;
    server.thaw();
    recovers().await;
    server.kill();
    through_an_outage(&[ErrorKind::Connection, ErrorKind::Timeout]).await;
    server.restart();
    recovers().await;
}

#[tokio::test]
async fn redis_01_passwords_work_and_never_appear() {
    const SECRET: &str = "open-sesame-7";
    let server = RedisServer::start();
    server.ask(&format!("CONFIG SET requirepass {SECRET}"));
    let address = |password: &str| format!("redis://:{password}@127.0.0.1:{}/1", server.port());
    let builder = RedisBackend::builder(&address(SECRET));
    let shown = format!("{builder:?}");
    let redis = builder.build().expect("redis");
    redis.ping().await.expect("the right password");
    redis.set(&key(1), CacheValue::new(1_u64), &mut CacheContext::new()).await.expect("a write");
    let wrong = RedisBackend::builder(&address("wrong-sesame")).build().expect("redis");
    let refused = wrong.ping().await.expect_err("the wrong password");
    server.kill();
    let down = redis.ping().await.expect_err("no server");
    let malformed =
        RedisBackend::builder(&format!("redis://:{SECRET}@:x/y")).build().expect_err("no address");
    for text in [
        shown,
        format!("{redis:?}"),
        format!("{refused:?} {refused}"),
        format!("{down:?} {down}"),
        format!("{malformed:?} {malformed}"),
    ] {
        assert!(!text.contains("sesame"), "{text}");
    }
    assert_eq!(malformed.kind(), ErrorKind::Configuration);
}
