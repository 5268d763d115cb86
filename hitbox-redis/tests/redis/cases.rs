//! Cases of the field: keys of others, connections that go deaf, users without rights.

use std::time::Duration;

use hitbox_backend::operation::Presence;
use hitbox_backend::{Backend, CacheBackend, DeleteStatus};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Details, KeyPattern, Lifetime, Scope};
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;

use crate::{get, key, now};

fn entry<T>(value: T) -> CacheValue<T> {
    CacheValue::new(value).with_lifetime(Lifetime::ttl(now(), Duration::from_secs(60)))
}

/// Other types of values under keys of ours, and a string that is no record.
const FOREIGN: [(u64, &str, &str, &str); 5] = [
    (1, "RPUSH", "theirs", "list"),
    (2, "HSET", "field theirs", "hash"),
    (3, "SADD", "theirs", "set"),
    (4, "ZADD", "1 theirs", "zset"),
    (5, "SET", "theirs", "string"),
];

fn put_foreign(server: &RedisServer) {
    for (number, command, value, _) in FOREIGN {
        let answer = server.ask(&format!("{command} hitbox:k:0:n={number} {value}"));
        assert!(!answer.starts_with('-'), "{answer}");
    }
}

/// Every one of them is what it was.
fn expect_foreign(server: &RedisServer, after: &str) {
    for (number, _, _, kind) in FOREIGN {
        let found = server.ask(&format!("TYPE hitbox:k:0:n={number}"));
        assert!(found.contains(kind), "the {kind} is a {found} after {after}");
    }
    assert!(server.ask("GET hitbox:k:0:n=5").contains("theirs"), "the string has changed after {after}");
}

async fn fill(redis: &RedisBackend) {
    for number in 10..15 {
        redis.set(&key(number), entry(number), &mut CacheContext::new()).await.expect("a write");
    }
}

async fn count(redis: &RedisBackend) -> u64 {
    let counts = redis.entry_counts().await.expect("counts");
    counts.into_iter().map(|count| count.entries.expect("a count")).sum()
}

/// One of theirs, one of ours, and so on.
fn mixed() -> Vec<CacheKey> {
    (1..=5).flat_map(|number| [key(number), key(number + 9)]).collect()
}

#[tokio::test]
async fn case_c05_foreign_types_are_misses_and_are_not_counted() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    put_foreign(&server);
    fill(&redis).await;
    for number in 1..=5 {
        assert_eq!(get(&redis, number).await.expect("a read"), None);
        let there = redis.contains(&key(number)).await;
        assert!(matches!(there, Ok(Presence::Absent)), "key {number}: {there:?}");
    }
    let values = redis.get_many::<u64>(&mixed()).await;
    for (index, value) in values.into_iter().enumerate() {
        let expected = (index % 2 == 1).then_some(index as u64 / 2 + 10);
        assert_eq!(value.expect("a read").map(CacheValue::into_data), expected);
    }
    assert_eq!(count(&redis).await, 5);
    let mut listed = redis.list_keys(0, 100).await.expect("a list").keys;
    listed.sort_by_key(ToString::to_string);
    assert_eq!(listed, (10..15).map(key).collect::<Vec<_>>());
    expect_foreign(&server, "reading");
}

#[tokio::test]
async fn case_c05_removing_leaves_foreign_types() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    put_foreign(&server);
    fill(&redis).await;
    for number in 1..=5 {
        let removed = redis.delete(&key(number), &mut CacheContext::new()).await;
        assert_eq!(removed.expect("a removal"), DeleteStatus::Missing);
    }
    expect_foreign(&server, "remove");
    let removed = redis.delete_many(&mixed()).await;
    for (index, status) in removed.into_iter().enumerate() {
        assert_eq!(status.expect("a removal"), DeleteStatus::of(index as u32 % 2));
    }
    expect_foreign(&server, "remove_many");
    assert_eq!(count(&redis).await, 0);

    fill(&redis).await;
    let removed = redis.invalidate_prefix(&CacheKey::builder("k").build()).await;
    assert_eq!(removed.expect("an invalidation"), 5);
    expect_foreign(&server, "invalidate_prefix");
    fill(&redis).await;
    let removed = redis.invalidate_matching(KeyPattern::glob("k:*")).await;
    assert_eq!(removed.expect("an invalidation"), 5);
    expect_foreign(&server, "invalidate_matching");
    fill(&redis).await;
    redis.erase().await.expect("an erasure");
    assert_eq!(count(&redis).await, 0);
    expect_foreign(&server, "erase");
    // An entry past its time replaces what was there with nothing.
    let over = CacheValue::new(0_u64).with_lifetime(Lifetime::ENDED);
    redis.set(&key(1), over, &mut CacheContext::new()).await.expect("a write");
    expect_foreign(&server, "a write of nothing");
}

#[tokio::test]
async fn case_c05_writes_replace_what_is_foreign() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    put_foreign(&server);
    for number in [1, 3] {
        redis.set(&key(number), entry(number), &mut CacheContext::new()).await.expect("a write");
        redis.set_if_newer(&key(number + 1), entry(number + 1), 7).await.expect("a write");
    }
    for number in 1..=4 {
        assert_eq!(get(&redis, number).await.expect("a read"), Some(number));
    }
    server.ask("FLUSHALL");
    put_foreign(&server);
    let written = redis.set_many(mixed().into_iter().map(|key| (key, entry(1_u64))).collect()).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    assert_eq!(count(&redis).await, mixed().len() as u64);
    // A string that is no record is an old copy of the user's own, or of another format: it is replaced.
    redis.set(&key(5), entry(50_u64), &mut CacheContext::new()).await.expect("a write");
    assert_eq!(get(&redis, 5).await.expect("a read"), Some(50));
    server.ask("SET hitbox:k:0:n=5 theirs");
    redis.set_if_newer(&key(5), entry(51_u64), 1).await.expect("a write");
    assert_eq!(get(&redis, 5).await.expect("a read"), Some(51));
}

#[tokio::test]
async fn case_c04_a_prefix_within_another_has_records_of_its_own() {
    let server = RedisServer::start();
    let with = |prefix: &str| RedisBackend::builder(&server.url()).prefix(prefix).build().expect("redis");
    let (outer, inner) = (with("shop:"), with("shop:eu:2:"));
    for redis in [&outer, &inner] {
        redis.set(&key(1), entry(1_u64), &mut CacheContext::new()).await.expect("a write");
    }
    assert_eq!((count(&outer).await, count(&inner).await), (1, 1));
    let removed = outer.invalidate_matching(KeyPattern::glob("**")).await;
    assert_eq!(removed.expect("an invalidation"), 1);
    outer.set(&key(1), entry(1_u64), &mut CacheContext::new()).await.expect("a write");
    outer.erase().await.expect("an erasure");
    assert_eq!(get(&outer, 1).await.expect("a read"), None);
    assert_eq!(get(&inner, 1).await.expect("a read"), Some(1));
}

/// How often the server has carried out each of these commands.
fn calls(server: &RedisServer) -> [u64; 3] {
    let all = server.ask("INFO commandstats");
    ["get", "set", "eval"].map(|command| {
        let line = all.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number"))
    })
}

fn tagged(number: u64, tag: &str) -> CacheValue<u64> {
    let mut details = Details::default();
    details.scopes = vec![Scope::tag(tag)];
    entry(number).with_details(details)
}

/// A script sets what it sets by one more command of its own.
#[tokio::test]
async fn case_e14_first_epochs_travel_with_their_entry() {
    let server = RedisServer::start();
    let open = || RedisBackend::builder(&server.url()).build().expect("redis");
    let first = open();
    first.set(&key(1), entry(1_u64), &mut CacheContext::new()).await.expect("a write");
    // The store is not asked before; the record of everything and the entry go together.
    assert_eq!(calls(&server), [0, 2, 1], "the first write of a store's life");
    first.set(&key(2), tagged(2, "new"), &mut CacheContext::new()).await.expect("a write");
    assert_eq!(calls(&server), [0, 4, 2], "the first write with a tag");
    first.set(&key(3), tagged(3, "new"), &mut CacheContext::new()).await.expect("a write");
    assert_eq!(calls(&server), [0, 5, 2], "the second");
    // Another process sends the entry again, with the epochs that there are.
    let second = open();
    second.set(&key(4), tagged(4, "new"), &mut CacheContext::new()).await.expect("a write");
    assert_eq!(calls(&server), [0, 7, 4], "the first write of another process");
    for (name, redis) in [("first", &first), ("second", &second), ("third", &open())] {
        for number in 1..5 {
            assert_eq!(get(redis, number).await.expect("a read"), Some(number), "{number} by the {name}");
        }
    }
    first.invalidate_tags(&["new"]).await.expect("an invalidation");
    for (number, expected) in [(1, Some(1)), (2, None), (3, None), (4, None)] {
        assert_eq!(get(&open(), number).await.expect("a read"), expected, "{number}");
    }
}

#[tokio::test]
async fn case_e14_a_batch_asks_once_for_all_its_epochs() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    let entries = (0..50).map(|number| (key(number), tagged(number, &format!("tag {}", number % 40))));
    assert!(redis.set_many(entries.collect()).await.iter().all(Result::is_ok));
    // The records of 40 tags and of everything, each set by a script, and 50 entries.
    assert_eq!(calls(&server), [0, 91, 41]);
    assert!(server.ask("INFO commandstats").contains("cmdstat_mget:calls=1,"), "one question");
    let other = RedisBackend::builder(&server.url()).build().expect("redis");
    for number in 0..50 {
        assert_eq!(get(&other, number).await.expect("a read"), Some(number));
    }
}

/// None of them uses an epoch that the store has not got.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_e14_many_first_writes_at_once_are_all_there() {
    let server = RedisServer::start();
    for life in 0..4_u64 {
        let processes: Vec<RedisBackend> =
            (0..4).map(|_| RedisBackend::builder(&server.url()).build().expect("redis")).collect();
        let writes = (0..64).map(|number| {
            let redis = processes[number as usize % 4].clone();
            let tag = format!("{life}-{}", number % 3);
            tokio::spawn(async move {
                redis.set(&key(number), tagged(number + life, &tag), &mut CacheContext::new()).await
            })
        });
        for written in futures_util::future::join_all(writes).await {
            written.expect("no panic").expect("a write");
        }
        for redis in &processes {
            for number in 0..64 {
                assert_eq!(
                    get(redis, number).await.expect("a read"),
                    Some(number + life),
                    "{number} of {life}"
                );
            }
        }
    }
}
