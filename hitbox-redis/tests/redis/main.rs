//! Redis itself: round trips, connections, outages, secrets. Each check is also run against a backend
//! with the mistake that it is there to find.

mod bodies;
mod careless;
mod cases;
mod deaf;
mod proxy;
mod rights;
mod stopped;
#[cfg(feature = "tls")]
mod tls;

use std::time::{Duration, Instant};

use careless::{Careless, Mistake};
use hitbox_backend::{Backend, CacheBackend, Compose, OffloadPool, RefillPolicy};
use hitbox_core::{BackendResult, CacheContext, CacheKey, CacheValue, ErrorKind, Lifetime, ManualClock};
use hitbox_moka::MokaBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;
use hitbox_testkit::suite::Verdict;

const DEADLINE: Duration = Duration::from_millis(200);

fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

fn open(mistake: Mistake, server: &RedisServer) -> Careless {
    Careless::new(mistake, &server.url(), DEADLINE).expect("redis")
}

async fn get(cache: &impl Backend, number: u64) -> BackendResult<Option<u64>> {
    let read = cache.get::<u64>(&key(number), &mut CacheContext::new()).await;
    read.map(|value| value.map(CacheValue::into_data))
}

/// A number in the answer to INFO.
fn info(server: &RedisServer, section: &str, name: &str) -> u64 {
    let answer = server.ask(&format!("INFO {section}"));
    let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.and_then(|value| value.trim().parse().ok()).expect("a number")
}

fn now() -> hitbox_core::Timestamp {
    std::time::SystemTime::now().into()
}

async fn one_round_trip(mistake: Mistake) -> Verdict {
    let server = RedisServer::start();
    let cache = open(mistake, &server);
    cache.redis.ping().await.map_err(|error| error.to_string())?;
    // The first write asks for the epochs that all entries have.
    let value = CacheValue::new(0).with_lifetime(Lifetime::ttl(now(), Duration::from_secs(60)));
    cache.set(&key(0), value, &mut CacheContext::new()).await.map_err(|error| error.to_string())?;
    let before = info(&server, "stats", "total_commands_processed");
    for number in 0..100 {
        let value = CacheValue::new(number).with_lifetime(Lifetime::ttl(now(), Duration::from_secs(60)));
        cache.set(&key(number), value, &mut CacheContext::new()).await.map_err(|error| error.to_string())?;
        let read = get(&cache, number).await;
        if !matches!(read, Ok(Some(read)) if read == number) {
            return Err(format!("{number} reads as {read:?}"));
        }
    }
    // Beside them the QUIT of the first question and the INFO of the second.
    let trips = info(&server, "stats", "total_commands_processed") - before - 2;
    if trips == 200 { Ok(()) } else { Err(format!("{trips} commands for 100 writes and 100 reads")) }
}

#[tokio::test]
async fn redis_02_one_round_trip_per_read_and_per_write() {
    one_round_trip(Mistake::Nothing).await.expect("one round trip each");
}

#[tokio::test]
async fn redis_02_rejects_two_round_trips() {
    one_round_trip(Mistake::TwoTrips).await.expect_err("two round trips");
}

async fn one_connection(mistake: Mistake) -> Verdict {
    let server = RedisServer::start();
    let redis = open(mistake, &server);
    let pool = OffloadPool::new();
    let compose = || {
        let memory = MokaBackend::builder().build().expect("moka");
        memory.compose(redis.clone(), pool.shared()).compose(redis.clone(), pool.shared())
    };
    let compositions = [compose(), compose(), compose()];
    for number in 0..1_000 {
        for cache in &compositions {
            get(cache, number).await.map_err(|error| error.to_string())?;
        }
    }
    // The one that asks counts too.
    let connections = info(&server, "clients", "connected_clients") - 1;
    if connections == 1 { Ok(()) } else { Err(format!("{connections} connections")) }
}

#[tokio::test]
async fn redis_03_one_connection_for_all_clones_and_compositions() {
    one_connection(Mistake::Nothing).await.expect("one connection");
}

#[tokio::test]
async fn redis_03_rejects_a_connection_per_clone() {
    one_connection(Mistake::ConnectionPerClone).await.expect_err("six connections");
}

/// The answer of a call, which must come within ten times the deadline.
async fn alive<T>(what: &str, call: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(DEADLINE * 10, call).await;
    answer.map_err(|_| format!("a {what} took longer than {:?}", DEADLINE * 10))
}

async fn outages(mistake: Mistake) -> Verdict {
    let server = RedisServer::start();
    let redis = open(mistake, &server);
    let pool = OffloadPool::new();
    let memory = MokaBackend::builder().build().expect("moka");
    let cache = memory.compose(redis.clone(), pool.shared()).with_refill(RefillPolicy::Always);
    let set = async |number: u64| {
        let (key, mut context) = (key(number), CacheContext::new());
        let written = cache.set(&key, CacheValue::new(number), &mut context);
        alive("write", written).await?.map_err(|error| format!("a write fails: {error}"))
    };
    for number in 0..50 {
        set(number).await?;
    }
    // Every call is cut, and what lives in memory is served.
    let through_an_outage = async |kinds: &[ErrorKind]| {
        for number in 0..10 {
            let read = alive("read", get(&cache, number)).await?;
            if !matches!(read, Ok(Some(read)) if read == number) {
                return Err(format!("memory has {number}, and it reads as {read:?}"));
            }
            set(number).await?;
            let alone = alive("read of Redis", get(&redis, number)).await?;
            // What was written meanwhile is dirty: nobody asks the server.
            let fails_as_expected = alone.as_ref().err().is_none_or(|error| kinds.contains(&error.kind()));
            if !fails_as_expected || matches!(alone, Ok(Some(_))) {
                return Err(format!("Redis alone answers {alone:?}"));
            }
        }
        Ok(())
    };
    let recovers = async || {
        let started = Instant::now();
        while redis.redis.ping().await.is_err() {
            if started.elapsed() > Duration::from_secs(20) {
                return Err("it does not come back".to_owned());
            }
        }
        let receipt = set(77).await?;
        if receipt.stored() != 2 {
            return Err(format!("after the outage: {receipt:?}"));
        }
        match get(&redis, 77).await {
            Ok(Some(77)) => Ok(()),
            other => Err(format!("after the outage Redis answers {other:?}")),
        }
    };
    server.freeze();
    through_an_outage(&[ErrorKind::Timeout]).await?;
    server.thaw();
    recovers().await?;
    server.kill();
    through_an_outage(&[ErrorKind::Connection, ErrorKind::Timeout]).await?;
    server.restart();
    recovers().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_04_killed_frozen_and_restarted_under_load() {
    outages(Mistake::Nothing).await.expect("outages are survived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_04_rejects_calls_without_a_deadline() {
    outages(Mistake::NoDeadline).await.expect_err("a call hangs");
}

/// As many reads at once, each of a task of its own, as would never travel alone.
async fn crowd(redis: &RedisBackend, readers: u64) -> Vec<(u64, BackendResult<Option<u64>>)> {
    let read = |number| {
        let redis = redis.clone();
        tokio::spawn(async move { (number, get(&redis, number).await) })
    };
    let tasks: Vec<_> = (0..readers).map(read).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("a reader"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_made_at_once_travel_together() {
    const READERS: u64 = 300;
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).deadline(DEADLINE * 10).build().expect("redis");
    for number in (0..READERS).step_by(2) {
        let written = redis.set(&key(number), CacheValue::new(number), &mut CacheContext::new()).await;
        written.expect("a write");
    }
    // Somebody else's value of another type, under a key of ours.
    server.ask("DEL hitbox:k:0:n=4");
    let pushed = server.ask("LPUSH hitbox:k:0:n=4 foreign");
    let before = info(&server, "stats", "total_commands_processed");
    for _ in 0..20 {
        for (number, answer) in crowd(&redis, READERS).await {
            let expected = (number % 2 == 0 && number != 4).then_some(number);
            assert_eq!(answer.expect("an answer"), expected, "key {number}");
        }
    }
    let commands = info(&server, "stats", "total_commands_processed") - before;
    assert!(commands < READERS * 20 / 4, "{commands} commands for {} reads", READERS * 20);
    assert_eq!(pushed.trim(), server.ask("LLEN hitbox:k:0:n=4").trim(), "what is foreign is left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_04_cuts_reads_that_travel_together() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).deadline(DEADLINE).build().expect("redis");
    redis.ping().await.expect("an answer");
    server.freeze();
    // More than can be under way at once: the rest is cut while it waits.
    let answers = alive("crowd of reads", crowd(&redis, 600)).await.expect("they are cut");
    for (number, answer) in answers {
        let error = answer.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Timeout, "key {number}");
    }
    server.thaw();
    while redis.ping().await.is_err() {}
    for (number, answer) in crowd(&redis, 600).await {
        assert_eq!(answer.expect("an answer"), None, "key {number}");
    }
}

/// A call that answers with the kind of its failure.
type Call<'a> = hitbox_core::BoxFuture<'a, Option<ErrorKind>>;

/// Polls a call once, and says what it has answered, if it has.
async fn poll_once<F: Future + Unpin>(call: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        answer = call => Some(answer),
        () = std::future::ready(()) => None,
    }
}

/// The only call under way drives the connection itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_held_or_given_up_holds_nobody() {
    const BYTES: usize = 8 << 20;
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).deadline(DEADLINE * 20).build().expect("redis");
    let large = || CacheValue::new("x".repeat(BYTES));
    redis.ping().await.expect("an answer");
    let connections = || info(&server, "stats", "total_connections_received");
    let (before, mut waiting) = (connections(), 0);
    for number in 0..20 {
        redis.ping().await.expect("an answer");
        let (key, mut context) = (key(number), CacheContext::new());
        // More than the machine takes at once: the rest is written when the server has read some of it.
        let mut call: hitbox_core::BoxFuture<'_, BackendResult<()>> = match number % 2 {
            0 => Box::pin(async { redis.set(&key, large(), &mut context).await.map(drop) }),
            _ => Box::pin(redis.ping()),
        };
        // A machine that does something else for a moment may have the answer at once.
        if poll_once(&mut call).await.is_some() {
            continue;
        }
        waiting += 1;
        if number % 4 < 2 {
            redis.ping().await.expect("an answer beside a call that nobody polls");
            drop(call);
        } else {
            drop(call);
            redis.ping().await.expect("an answer after a call that was given up");
        }
    }
    assert!(waiting > 5, "{waiting} calls of 20 were under way when they were held or given up");
    assert_eq!(connections(), before + 1, "beside the one that asks for this number");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_04_cuts_every_call_at_its_deadline_on_the_clock() {
    let server = RedisServer::start();
    let clock = ManualClock::new();
    let redis = RedisBackend::builder(&server.url())
        .deadline(DEADLINE)
        .clock(std::sync::Arc::new(clock.clone()))
        .build()
        .expect("redis");
    redis.ping().await.expect("an answer");
    let memory = MokaBackend::builder().clock(std::sync::Arc::new(clock.clone())).build().expect("moka");
    let cache = memory.compose(redis.clone(), OffloadPool::new().shared());
    server.freeze();
    let mut context = [CacheContext::new(), CacheContext::new(), CacheContext::new()];
    let [of_read, of_write, of_delete] = &mut context;
    let of = |result: BackendResult<()>| result.err().map(|error| error.kind());
    let (read, written, deleted) = (key(1), key(2), key(3));
    let calls: [(&str, Call<'_>, Option<ErrorKind>); 4] = [
        ("ping", Box::pin(async { of(redis.ping().await) }), Some(ErrorKind::Timeout)),
        (
            "read",
            Box::pin(async { of(redis.get::<u64>(&read, of_read).await.map(|_| ())) }),
            Some(ErrorKind::Timeout),
        ),
        (
            "delete",
            Box::pin(async { of(redis.delete(&deleted, of_delete).await.map(|_| ())) }),
            Some(ErrorKind::Timeout),
        ),
        // The layer that lives has it.
        (
            "composed write",
            Box::pin(async { of(cache.set(&written, CacheValue::new(2_u64), of_write).await.map(|_| ())) }),
            None,
        ),
    ];
    for (name, mut call, answer) in calls {
        assert_eq!(poll_once(&mut call).await, None, "a {name} was answered by a frozen server");
        while clock.sleepers() == 0 {
            assert_eq!(poll_once(&mut call).await, None);
            tokio::task::yield_now().await;
        }
        clock.advance(DEADLINE - Duration::from_millis(1));
        for _ in 0..100 {
            assert_eq!(poll_once(&mut call).await, None, "a {name} was cut early");
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_millis(1));
        assert_eq!(alive(name, call).await.expect("it is cut"), answer, "{name}");
    }
    server.thaw();
}

async fn secrets(mistake: Mistake) -> Verdict {
    const SECRET: &str = "open-sesame-7";
    let server = RedisServer::start();
    server.ask(&format!("CONFIG SET requirepass {SECRET}"));
    let address = |password: &str| format!("redis://:{password}@127.0.0.1:{}/1", server.port());
    let builder = RedisBackend::builder(&address(SECRET));
    let shown = format!("{builder:?}");
    let redis = Careless::new(mistake, &address(SECRET), DEADLINE).map_err(|error| error.to_string())?;
    redis.redis.ping().await.map_err(|error| format!("the right password: {error}"))?;
    redis
        .set(&key(1), CacheValue::new(1_u64), &mut CacheContext::new())
        .await
        .map_err(|error| error.to_string())?;
    let wrong = RedisBackend::builder(&address("wrong-sesame")).build().expect("redis");
    let refused = wrong.ping().await.err().ok_or("the wrong password is taken")?;
    server.kill();
    let down = redis.redis.ping().await.err().ok_or("no server, and an answer")?;
    let malformed =
        RedisBackend::builder(&format!("redis://:{SECRET}@:x/y")).build().expect_err("no address");
    assert_eq!(malformed.kind(), ErrorKind::Configuration);
    let texts = [
        shown,
        format!("{redis:?}"),
        format!("{refused:?} {refused}"),
        format!("{down:?} {down}"),
        format!("{malformed:?} {malformed}"),
    ];
    match texts.iter().find(|text| text.contains("sesame")) {
        Some(text) => Err(format!("the password is shown: {text}")),
        None => Ok(()),
    }
}

#[tokio::test]
async fn redis_01_passwords_work_and_never_appear() {
    secrets(Mistake::Nothing).await.expect("no password is shown");
}

#[tokio::test]
async fn a_password_that_is_put_right_is_found() {
    let server = RedisServer::start();
    let address = format!("redis://:open@127.0.0.1:{}", server.port());
    let redis = RedisBackend::builder(&address).build().expect("redis");
    redis.ping().await.expect_err("the server has no password");
    server.ask("CONFIG SET requirepass open");
    redis.ping().await.expect("the password is right now");
}

/// glibc serves what is no larger from what it keeps for each thread, and anything else under a lock.
const SERVED_WITHOUT_A_LOCK: usize = 1_032;

#[tokio::test]
async fn futures_of_reads_and_writes_need_no_lock_of_the_heap() {
    use hitbox_backend::Raw;
    use hitbox_backend::operation::{Batch, Completion, ReadOptions, Write};
    fn size<T>(call: &Completion<'_, T>) -> usize {
        match call {
            Completion::Later(work) => size_of_val(&**work),
            _ => 0,
        }
    }
    let redis = RedisBackend::builder("redis://127.0.0.1:1").build().expect("redis");
    let cache =
        MokaBackend::builder().build().expect("moka").compose(redis.clone(), OffloadPool::new().shared());
    let (keys, options) = ([key(1)], ReadOptions::default());
    let write = || Batch::one(Write::new(key(1), CacheValue::new(Raw::live(1_u64))));
    let sizes = [
        ("read", size(&redis.read(&keys, &options))),
        ("write", size(&redis.write(write()))),
        ("composed read", size(&cache.read(&keys, &options))),
        ("composed write", size(&cache.write(write()))),
    ];
    for (what, size) in sizes {
        assert!((1..=SERVED_WITHOUT_A_LOCK).contains(&size), "the future of a {what} takes {size} bytes");
    }
}

#[tokio::test]
async fn redis_01_rejects_showing_the_address() {
    secrets(Mistake::ShowsAddress).await.expect_err("the password is shown");
}

#[tokio::test]
async fn case_c04_erasing_leaves_the_keys_of_others() {
    let server = RedisServer::start();
    let others = ["shopify:user:0:id=1", "shop2:user:0:id=1", "shop:cart-17", "shop", "other:user:0:id=1"];
    for key in others {
        server.ask(&format!("SET {key} theirs"));
    }
    // With and without a separator at its end.
    for prefix in ["shop", "shop:"] {
        let redis = RedisBackend::builder(&server.url()).prefix(prefix).build().expect("redis");
        for number in 0..2_500 {
            let (key, value) = (key(number), CacheValue::new(number));
            redis.set(&key, value, &mut CacheContext::new()).await.expect("a write");
        }
        assert!(server.ask("EXISTS shop:k:0:n=1").contains('1'), "a prefix ends at a separator");
        redis.erase().await.expect("an erasure");
        for number in [0, 1_000, 2_499] {
            assert_eq!(get(&redis, number).await.expect("a read"), None);
        }
        assert!(server.ask("EXISTS shop:k:0:n=1").contains('0'));
        for key in others {
            assert!(server.ask(&format!("GET {key}")).contains("theirs"), "{key} after erasing {prefix}");
        }
    }
}
