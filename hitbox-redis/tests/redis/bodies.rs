//! Bodies: short ones are values, longer ones are in parts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hitbox_backend::operation::{Batch, BodyWriter, Presence, TimeChange, Write, WriteOptions};
use hitbox_backend::{
    Backend, Body, CacheBackend, Compose, LeafOutcome, OffloadPool, ReadOptions, RefillPolicy,
};
use hitbox_core::{
    BackendResult, CacheContext, CacheKey, CacheValue, Details, ErrorKind, Freshness, Lifetime,
};
use hitbox_moka::MokaBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;

use crate::now;

const PART: usize = 256 * 1024;

fn key() -> CacheKey {
    CacheKey::new("film")
}

fn redis(server: &RedisServer) -> RedisBackend {
    RedisBackend::builder(&server.url()).deadline(Duration::from_secs(20)).build().expect("redis")
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let byte = |at: usize| (at as u64 + (seed << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    (0..len).map(|at| byte(at) as u8).collect()
}

async fn begin(cache: &dyn Backend) -> Box<dyn BodyWriter> {
    cache.open_writer(&key(), CacheValue::new(()), WriteOptions::default()).await.expect("a writer")
}

/// Chunks of a size that no part is a multiple of.
async fn feed(writer: &mut dyn BodyWriter, body: &[u8]) -> BackendResult<()> {
    for chunk in body.chunks(70_001) {
        writer.chunk(Bytes::copy_from_slice(chunk)).await?;
    }
    Ok(())
}

async fn store(cache: &dyn Backend, body: &[u8]) {
    let mut writer = begin(cache).await;
    feed(&mut *writer, body).await.expect("taken");
    writer.finish().await.into_result().expect("stored");
}

async fn open(cache: &dyn Backend) -> Option<Body> {
    cache.open_reader(&key(), &ReadOptions::default()).await.expect("an answer").map(Body::from)
}

async fn rest_of(body: &mut Body) -> BackendResult<Vec<u8>> {
    let mut read = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

async fn read(cache: &dyn Backend) -> Vec<u8> {
    rest_of(&mut open(cache).await.expect("a body")).await.expect("all of it")
}

/// What the server answers to the first command, without its kind.
fn first_line(answer: &str) -> &str {
    answer.lines().next().expect("an answer").split_at(1).1
}

fn type_of(server: &RedisServer) -> String {
    first_line(&server.ask("TYPE hitbox:film:0")).to_owned()
}

/// Keys of bodies that are being written.
fn under_way(server: &RedisServer) -> Vec<String> {
    let keys = server.ask("KEYS hitbox:!body*");
    keys.lines().filter(|line| line.starts_with("hitbox:")).map(str::to_owned).collect()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn short_bodies_are_values_and_longer_ones_are_in_parts() {
    let server = RedisServer::start();
    let cache = redis(&server);
    for (seed, len) in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 5].into_iter().enumerate() {
        let body = bytes(seed as u64, len);
        store(&cache, &body).await;
        assert_eq!(type_of(&server), if len <= PART { "string" } else { "hash" }, "{len}");
        assert!(read(&cache).await == body, "{len}");
        let mut reader = open(&cache).await.expect("a body");
        assert_eq!(reader.len(), Some(len as u64));
        for (from, to) in [(0, len), (len / 2, len), (len.saturating_sub(1), len), (len / 3, len / 3 + 10)] {
            if from < len {
                let end = to.min(len);
                reader.seek(from as u64..to as u64).expect("a range");
                assert!(
                    rest_of(&mut reader).await.expect("a part") == body[from..end],
                    "{from}..{to} of {len}"
                );
            }
        }
        assert_eq!(cache.contains(&key()).await.expect("an answer"), Presence::Present, "{len}");
        let listed = cache.list_keys(0, 100).await.expect("a page").keys;
        assert_eq!(listed, [key()], "{len}");
        let counts = cache.entry_counts().await.expect("counts");
        assert_eq!(counts[0].entries.as_ref().expect("a count"), &1, "{len}");
        assert!(under_way(&server).is_empty());
    }
    // It is a value to nobody, and is replaced by one.
    let mut context = CacheContext::new();
    assert!(cache.get::<Bytes>(&key(), &mut context).await.expect("an answer").is_none());
    let two = cache.get_many::<Bytes>(&[key(), CacheKey::new("other")]).await;
    assert!(two.into_iter().all(|read| read.expect("an answer").is_none()));
    cache.set(&key(), CacheValue::new(5_u64), &mut context).await.expect("stored");
    assert_eq!(type_of(&server), "string");
    store(&cache, &bytes(9, 2 * PART)).await;
    assert_eq!(type_of(&server), "hash");
    cache.delete(&key(), &mut context).await.expect("removed");
    assert!(open(&cache).await.is_none());
    store(&cache, &bytes(9, 2 * PART)).await;
    cache.erase().await.expect("erased");
    assert_eq!(type_of(&server), "none");
}

#[tokio::test]
async fn who_reads_a_body_that_is_replaced_reads_nothing_of_another() {
    let server = RedisServer::start();
    let cache = redis(&server);
    let (first, second) = (bytes(1, 4 * PART), bytes(2, 4 * PART));
    for is_removed in [false, true] {
        store(&cache, &first).await;
        let mut reader = open(&cache).await.expect("a body");
        let chunk = reader.chunk().await.expect("a part").expect("some");
        if is_removed {
            cache.delete(&key(), &mut CacheContext::new()).await.expect("removed");
        } else {
            store(&cache, &second).await;
        }
        let error = rest_of(&mut reader).await.map(drop).expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(chunk[..] == first[..chunk.len()]);
        assert_eq!(open(&cache).await.is_some(), !is_removed, "a reader who comes late removes nothing");
    }
    let short = bytes(3, 1000);
    store(&cache, &first).await;
    let mut reader = open(&cache).await.expect("a body");
    store(&cache, &short).await;
    assert_eq!(rest_of(&mut reader).await.map(drop).expect_err("it is gone").kind(), ErrorKind::Conflict);
    assert!(read(&cache).await == short);
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing() {
    let server = RedisServer::start();
    let cache = redis(&server);
    store(&cache, &bytes(1, 10)).await;
    let mut writer = begin(&cache).await;
    feed(&mut *writer, &bytes(2, 3 * PART)).await.expect("taken");
    let parts = under_way(&server);
    assert_eq!(parts.len(), 1);
    let left: i64 = first_line(&server.ask(&format!("PTTL {}", parts[0]))).parse().expect("a time");
    assert!((1..=600_000).contains(&left), "the server ends it if nobody does: {left}");
    writer.abort().await;
    assert!(under_way(&server).is_empty(), "an end that was waited for");
    let mut writer = begin(&cache).await;
    feed(&mut *writer, &bytes(2, 3 * PART)).await.expect("taken");
    drop(writer);
    until("it is removed", || under_way(&server).is_empty()).await;
    assert!(read(&cache).await == bytes(1, 10));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let server = RedisServer::start();
    let cache = RedisBackend::builder(&server.url()).body_limit(PART as u64).build().expect("redis");
    store(&cache, &bytes(1, PART)).await;
    assert_eq!(type_of(&server), "string");
    let mut writer = begin(&cache).await;
    let refused = feed(&mut *writer, &bytes(2, PART + 1)).await.expect_err("too large");
    assert_eq!(refused.exceeded(), Some((PART as u64 + 1, PART as u64)));
    assert!(refused.to_string().contains(&PART.to_string()), "{refused}");
    assert!(!writer.finish().await.is_ok());
    assert!(read(&cache).await == bytes(1, PART));
}

#[tokio::test]
async fn what_a_body_says_is_replaced_without_it() {
    let server = RedisServer::start();
    let cache = redis(&server);
    let body = bytes(1, 3 * PART);
    store(&cache, &body).await;
    let sent = || crate::info(&server, "stats", "total_net_input_bytes");
    let mut reader = open(&cache).await.expect("a body");
    let before = sent();
    let metadata = std::iter::once(("kind".to_owned(), Bytes::from("x".repeat(5_000)))).collect();
    let receipt =
        cache.write(Batch::one(Write::metadata(key(), metadata))).await.into_one().expect("a receipt");
    receipt.into_result().expect("replaced");
    assert!(sent() - before < 50_000, "the body stays where it is");
    assert!(rest_of(&mut reader).await.expect("all of it") == body, "it is the same body");
    let opened = open(&cache).await.expect("a body");
    assert_eq!(opened.entry().details().expect("details").metadata["kind"].len(), 5_000);
    let end = now() + Duration::from_secs(1_000);
    let entry = CacheValue::new(()).with_lifetime(Lifetime::ttl(now(), Duration::from_secs(1_000)));
    let mut writer = cache.open_writer(&key(), entry, WriteOptions::default()).await.expect("a writer");
    feed(&mut *writer, &body).await.expect("taken");
    writer.finish().await.into_result().expect("stored");
    let left = || first_line(&server.ask("PTTL hitbox:film:0")).parse::<i64>().expect("a time");
    assert!((900_000..=1_100_000).contains(&left()), "{} {end:?}", left());
    let write = Write::times(key(), TimeChange::stale_from(now()));
    cache.write(Batch::one(write)).await.into_one().expect("a receipt").into_result().expect("changed");
    assert!(read(&cache).await == body);
    assert_eq!(type_of(&server), "hash");
}

#[tokio::test]
async fn parts_that_are_lost_or_damaged_are_no_body() {
    let server = RedisServer::start();
    let cache = redis(&server);
    let mut writer = begin(&cache).await;
    feed(&mut *writer, &bytes(1, 3 * PART)).await.expect("taken");
    server.ask(&format!("DEL {}", under_way(&server)[0]));
    feed(&mut *writer, &bytes(1, 3 * PART)).await.expect("taken");
    let receipt = writer.finish().await;
    assert!(receipt.error().is_some_and(|error| error.to_string().contains("lost parts")), "{receipt:?}");
    assert!(open(&cache).await.is_none());
    until("it is removed", || under_way(&server).is_empty()).await;
    for damage in ["HSET hitbox:film:0 1 x", "HDEL hitbox:film:0 1"] {
        store(&cache, &bytes(1, 3 * PART)).await;
        server.ask(damage);
        let mut reader = open(&cache).await.expect("a body");
        let error = rest_of(&mut reader).await.map(drop).expect_err("a part is of no use");
        assert_eq!(error.kind(), ErrorKind::Codec, "{error}");
        assert!(open(&cache).await.is_none(), "it has been removed");
    }
    // Each part has its place.
    store(&cache, &bytes(1, 3 * PART)).await;
    let swap = "local one = redis.call('HGET',KEYS[1],'1') redis.call('HSET',KEYS[1],'0',one)";
    server.ask(&format!("EVAL \"{swap}\" 1 hitbox:film:0"));
    let mut reader = open(&cache).await.expect("a body");
    assert_eq!(rest_of(&mut reader).await.map(drop).expect_err("another part").kind(), ErrorKind::Codec);
}

#[tokio::test]
async fn values_of_others_are_no_bodies() {
    let server = RedisServer::start();
    let cache = redis(&server);
    for other in [
        "LPUSH hitbox:film:0 x",
        "HSET hitbox:film:0 a b",
        "HSET hitbox:film:0 start b len 5",
        "SET hitbox:film:0 x",
    ] {
        server.ask("DEL hitbox:film:0");
        server.ask(other);
        let before = type_of(&server);
        assert!(open(&cache).await.is_none(), "{other}");
        assert_eq!(cache.contains(&key()).await.expect("an answer"), Presence::Absent, "{other}");
        assert!(cache.list_keys(0, 100).await.expect("a page").keys.is_empty(), "{other}");
        cache.delete(&key(), &mut CacheContext::new()).await.expect("an answer");
        cache.erase().await.expect("erased");
        assert_eq!(type_of(&server), before, "{other}");
        store(&cache, &bytes(1, 2 * PART)).await;
        assert!(read(&cache).await == bytes(1, 2 * PART), "{other}");
    }
}

fn versioned(version: u64) -> CacheValue<()> {
    let mut details = Details::default();
    details.version = Some(version);
    CacheValue::new(()).with_details(details)
}

#[tokio::test]
async fn versions_of_bodies_count() {
    let server = RedisServer::start();
    let cache = redis(&server);
    let options = WriteOptions::default;
    let mut writer = cache.open_writer(&key(), versioned(5), options()).await.expect("a writer");
    feed(&mut *writer, &bytes(1, 2 * PART)).await.expect("taken");
    writer.finish().await.into_result().expect("stored");
    let older = cache.set_if_newer(&key(), CacheValue::new(1_u64), 5).await.expect_err("not newer");
    assert_eq!(older.kind(), ErrorKind::VersionMismatch);
    assert_eq!(type_of(&server), "hash");
    cache.set_if_newer(&key(), CacheValue::new(1_u64), 6).await.expect("newer");
    assert_eq!(type_of(&server), "string");
}

/// A layer that others share is filled from below, unless one of them has written meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_is_refilled_unless_another_process_was_faster() {
    let server = RedisServer::start();
    let below = MokaBackend::builder().build().expect("moka");
    let (pool, body) = (OffloadPool::new(), bytes(1, 5 * PART));
    let two = redis(&server).compose(below.clone(), pool.shared()).with_refill(RefillPolicy::Always);
    store(&below, &body).await;
    assert!(read(&two).await == body);
    until("it is refilled", || type_of(&server) == "hash").await;
    assert!(read(&redis(&server)).await == body);
    server.ask("FLUSHALL");

    let another = redis(&server);
    let newer = bytes(2, 2 * PART);
    let slow = hitbox_testkit::Troubled::new(
        Arc::new(redis(&server)),
        hitbox_testkit::Trouble::IsSlow(Duration::from_millis(50)),
    );
    let two = slow.compose(below.clone(), pool.shared()).with_refill(RefillPolicy::Always);
    assert!(read(&two).await == body);
    store(&another, &newer).await;
    pool.wait_all().await;
    assert!(read(&another).await == newer, "the refill gave way");
    until("nothing is left", || under_way(&server).is_empty()).await;
}

/// Who lags reads what the server has, also when the body has been committed or given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_read_while_more_are_written() {
    let server = RedisServer::start();
    let cache = redis(&server);
    let body = bytes(1, 20 * PART + 77);
    for is_stored in [true, false] {
        let mut sink = cache.write_body(&key(), CacheValue::new(())).await.expect("a sink");
        let mut follower = sink.follow();
        let mut late = sink.follow();
        for chunk in body.chunks(70_001) {
            sink.chunk(Bytes::copy_from_slice(chunk)).await.expect("taken");
        }
        follower.seek(0..body.len() as u64 / 2).expect("a range");
        assert!(rest_of(&mut follower).await.expect("half of it") == body[..body.len() / 2]);
        if is_stored {
            let receipt = sink.finish().await.expect("stored");
            assert!(matches!(receipt.leaves()[0].outcome, LeafOutcome::Stored));
            assert!(rest_of(&mut late).await.expect("all of it") == body);
        } else {
            sink.abort().await;
            assert!(rest_of(&mut late).await.is_err(), "it was given up");
            drop((late, follower));
            until("nothing is left", || under_way(&server).is_empty()).await;
        }
    }
}

/// A server that dies takes what was on its way with it, and nothing else goes wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_the_middle_is_an_error_of_the_write() {
    let server = RedisServer::start();
    let cache = RedisBackend::builder(&server.url()).build().expect("redis");
    let memory = MokaBackend::builder().build().expect("moka");
    let two = memory.clone().compose(cache.clone(), OffloadPool::new().shared());
    let body = bytes(1, 8 * PART);
    let (mut alone, mut both) = (begin(&cache).await, begin(&two).await);
    feed(&mut *alone, &body[..3 * PART]).await.expect("taken");
    feed(&mut *both, &body[..3 * PART]).await.expect("taken");
    drop(server);
    assert!(feed(&mut *alone, &body[3 * PART..]).await.is_err(), "there is nobody");
    feed(&mut *both, &body[3 * PART..]).await.expect("memory takes it");
    let receipt = both.finish().await;
    assert!(receipt.is_ok() && receipt.leaves()[1].outcome.error().is_some(), "{receipt:?}");
    assert!(read(&memory).await == body);
}

/// What other processes have stored is theirs, also where this one does not know what became of its own calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_of_a_generation_takes_nothing_else_in_an_outage() {
    let server = RedisServer::start();
    let hasty = || {
        let redis = RedisBackend::builder(&server.url()).deadline(Duration::from_millis(100)).build();
        let memory = MokaBackend::builder().build().expect("moka");
        memory.compose(redis.expect("redis"), OffloadPool::new().shared())
    };
    let another = redis(&server);
    let generation = async || open(&another).await.expect("a body").generation();
    // A write whose outcome is unknown comes before it.
    let one = hasty();
    store(&one, &bytes(1, 100)).await;
    server.freeze();
    let receipt = one.set_one(&key(), CacheValue::new(5_u64)).await;
    server.thaw();
    assert!(receipt.expect("memory has it").leaves().iter().any(|leaf| leaf.outcome.error().is_some()));
    store(&another, &bytes(2, 3 * PART)).await;
    one.delete_generation(&key(), generation().await ^ 1).await.expect("an answer");
    assert!(read(&another).await == bytes(2, 3 * PART));
    // Its own outcome is unknown.
    let two = hasty();
    store(&two, &bytes(3, 3 * PART)).await;
    two.evict(&key()).await.expect("evicted");
    let other = generation().await ^ 1;
    server.freeze();
    two.delete_generation(&key(), other).await.expect_err("nobody answers");
    server.thaw();
    assert!(read(&two).await == bytes(3, 3 * PART));
    assert!(read(&another).await == bytes(3, 3 * PART));
}

/// Changes of what a body says do not undo each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_and_times_are_changed_at_once() {
    let server = RedisServer::start();
    let (one, two) = (redis(&server), redis(&server));
    for round in 0..80 {
        let len = if round % 2 == 0 { 2 * PART } else { 1_000 };
        let entry = CacheValue::new(()).with_lifetime(Lifetime::ttl(now(), Duration::from_secs(1_000)));
        let mut writer = one.open_writer(&key(), entry, WriteOptions::default()).await.expect("a writer");
        feed(&mut *writer, &bytes(1, len)).await.expect("taken");
        writer.finish().await.into_result().expect("stored");
        let metadata = std::iter::once(("kind".to_owned(), Bytes::from("film"))).collect();
        let write = Write::times(key(), TimeChange::stale_from(now()));
        let film = key();
        let (said, ended) = tokio::join!(one.set_metadata(&film, metadata), two.write(Batch::one(write)));
        said.expect("said");
        ended.into_one().expect("a receipt").into_result().expect("ended");
        let body = open(&two).await.expect("a body");
        assert_eq!(body.freshness(), Freshness::Stale, "round {round}");
        assert!(
            body.entry().details().is_some_and(|details| details.metadata.contains_key("kind")),
            "round {round}"
        );
    }
}

/// A body that comes after its end replaces what was there with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_late() {
    let server = RedisServer::start();
    let cache = RedisBackend::builder(&server.url())
        .deadline(Duration::from_secs(20))
        .skew_margin(Duration::ZERO)
        .build()
        .expect("redis");
    store(&cache, &bytes(1, 2 * PART)).await;
    let end = now() + Duration::from_millis(300);
    let entry = CacheValue::new(()).with_lifetime(Lifetime::new(None, Some(end), Some(end)));
    let mut writer = cache.open_writer(&key(), entry, WriteOptions::default()).await.expect("a writer");
    feed(&mut *writer, &bytes(2, 3 * PART)).await.expect("taken");
    server.freeze();
    let finish = tokio::spawn(writer.finish());
    until("it is over", || now() > end + Duration::from_millis(50)).await;
    server.thaw();
    finish.await.expect("no panic").into_result().expect("in order");
    assert_eq!(type_of(&server), "none");
}

/// Who follows a body that was given up gets nothing of it any more, and keeps nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_follower_keeps_no_parts() {
    let server = RedisServer::start();
    let cache = redis(&server);
    let mut sink = cache.write_body(&key(), CacheValue::new(())).await.expect("a sink");
    let mut follower = sink.follow();
    sink.chunk(bytes(1, 3 * PART)).await.expect("taken");
    sink.abort().await;
    until("nothing is left", || under_way(&server).is_empty()).await;
    assert_eq!(rest_of(&mut follower).await.map(drop).expect_err("given up").kind(), ErrorKind::Closed);
}

/// A removal of which nobody knows whether it was carried out is made up for, and takes nothing that another process has stored since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_is_made_up_for_spares_what_is_newer() {
    let server = RedisServer::start();
    let another = redis(&server);
    for len in [1_000, 3 * PART] {
        for is_replaced in [true, false] {
            let hasty = RedisBackend::builder(&server.url()).deadline(Duration::from_millis(100)).build();
            let (memory, pool) = (MokaBackend::builder().build().expect("moka"), OffloadPool::new());
            let cache = memory.compose(hasty.expect("redis"), pool.shared());
            store(&cache, &bytes(1, len)).await;
            server.freeze();
            cache.delete_one(&key()).await.expect_err("nobody answers");
            server.thaw();
            if is_replaced {
                store(&another, &bytes(2, len)).await;
            } else {
                // The removal itself may have been kept, and carried out now.
                store(&another, &bytes(1, len)).await;
                server.freeze();
                cache.delete_one(&key()).await.expect_err("nobody answers");
                server.thaw();
            }
            drop(open(&cache).await);
            pool.wait_all().await;
            let is_left = open(&another).await.is_some();
            assert_eq!(is_left, is_replaced, "{len}");
            if is_replaced {
                assert!(read(&another).await == bytes(2, len) && read(&cache).await == bytes(2, len));
            }
        }
    }
}
