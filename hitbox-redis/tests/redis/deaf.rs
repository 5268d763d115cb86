//! Connections that stay open and answer nothing.

use std::time::{Duration, Instant};

use hitbox_backend::CacheBackend;
use hitbox_core::{BoxFuture, CacheContext, CacheValue};
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;

use crate::proxy::Proxy;
use crate::{crowd, get, key};

const DEADLINE: Duration = Duration::from_millis(100);

/// Nothing here takes so long unless it hangs.
const ALIVE: Duration = Duration::from_secs(20);

fn through(proxy: &Proxy) -> RedisBackend {
    let builder = RedisBackend::builder(&proxy.url()).deadline(DEADLINE).connect_timeout(DEADLINE * 2);
    builder.build().expect("redis")
}

/// Calls until there is an answer, and says how often there was none.
async fn failures_before_an_answer(what: &str, call: impl AsyncFn() -> bool) -> usize {
    let (started, mut failures) = (Instant::now(), 0);
    while !call().await {
        failures += 1;
        assert!(started.elapsed() < ALIVE, "{what}: no answer after {failures} calls");
    }
    failures
}

type Call = fn(RedisBackend) -> BoxFuture<'static, bool>;

const CALLS: [(&str, Call); 9] = [
    ("ping", |redis| Box::pin(async move { redis.ping().await.is_ok() })),
    ("read", |redis| Box::pin(async move { get(&redis, 1).await.is_ok() })),
    ("write", |redis| {
        Box::pin(
            async move { redis.set(&key(1), CacheValue::new(1_u64), &mut CacheContext::new()).await.is_ok() },
        )
    }),
    ("conditional write", |redis| {
        Box::pin(async move {
            let version = redis.snapshot().total.writes + 1;
            let written = redis.set_if_newer(&key(2), CacheValue::new(1_u64), version).await;
            written.is_ok()
        })
    }),
    ("removal", |redis| {
        Box::pin(async move { redis.delete(&key(3), &mut CacheContext::new()).await.is_ok() })
    }),
    ("batch of reads", |redis| {
        Box::pin(async move { redis.get_many::<u64>(&[key(1), key(4)]).await.iter().all(Result::is_ok) })
    }),
    ("batch of writes", |redis| {
        Box::pin(async move {
            let entries = vec![(key(4), CacheValue::new(4_u64)), (key(5), CacheValue::new(5))];
            redis.set_many(entries).await.iter().all(Result::is_ok)
        })
    }),
    ("batch of removals", |redis| {
        Box::pin(async move { redis.delete_many(&[key(1), key(4)]).await.iter().all(Result::is_ok) })
    }),
    ("crowd of reads", |redis| {
        Box::pin(async move { crowd(&redis, 100).await.iter().all(|(_, answer)| answer.is_ok()) })
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f01_a_deaf_connection_is_replaced_whatever_is_called() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    let redis = through(&proxy);
    let clone = redis.clone();
    for (name, call) in CALLS {
        assert!(call(redis.clone()).await, "a {name} fails");
        let before = proxy.accepted();
        proxy.deafen();
        let failures = failures_before_an_answer(name, async || call(redis.clone()).await).await;
        assert!(failures >= 1, "a {name} was answered by a deaf connection");
        // Who has not noticed has the new one too.
        assert!(call(clone.clone()).await, "a {name} of a clone fails");
        assert_eq!(proxy.accepted(), before + 1, "connections after a {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f01_a_deaf_connection_is_replaced_whatever_connecting_may_take() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    let builder = RedisBackend::builder(&proxy.url()).deadline(DEADLINE).connect_timeout(Duration::MAX);
    let redis = builder.build().expect("redis");
    redis.ping().await.expect("an answer");
    proxy.deafen();
    failures_before_an_answer("ping", async || redis.ping().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f01_a_deaf_connection_is_replaced_if_callers_are_cut_elsewhere() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    let redis = through(&proxy);
    redis.ping().await.expect("an answer");
    proxy.deafen();
    let impatient = async || {
        let read = tokio::time::timeout(DEADLINE / 4, get(&redis, 1)).await;
        matches!(read, Ok(Ok(_)))
    };
    failures_before_an_answer("read", impatient).await;
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f01_a_connection_that_answers_is_kept() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    let redis = through(&proxy);
    redis.ping().await.expect("an answer");
    // Calls that are given up at once say nothing about the connection.
    let started = Instant::now();
    while started.elapsed() < DEADLINE * 8 {
        drop(futures_util::FutureExt::now_or_never(get(&redis, 1)));
        // It gives the server time to answer, whoever listens.
        server.ask("PING");
    }
    assert!(get(&redis, 1).await.is_ok());
    assert_eq!(proxy.accepted(), 1);
}

/// A server that is away for long is connected to now and then, and is back at once when it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f01_a_frozen_server_is_not_flooded_with_connections() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port());
    let redis = through(&proxy);
    redis.ping().await.expect("an answer");
    server.freeze();
    let started = Instant::now();
    while started.elapsed() < DEADLINE * 12 {
        for (_, answer) in crowd(&redis, 50).await {
            answer.expect_err("nobody answers");
        }
    }
    let (elapsed, connections) = (started.elapsed(), proxy.accepted() as u32);
    assert!(connections <= 2 + elapsed.as_millis() as u32 / 200, "{connections} in {elapsed:?}");
    server.thaw();
    failures_before_an_answer("read", async || get(&redis, 1).await.is_ok()).await;
}

/// The connections of clients, but for the one that asks.
fn connections(server: &RedisServer) -> Vec<String> {
    let list = server.ask("CLIENT LIST");
    let others = list.lines().filter(|line| line.starts_with("id=") && !line.contains("cmd=client"));
    others.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

/// What is on its way to a server that hangs must arrive before what is written when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f01_a_frozen_server_gets_writes_in_their_order() {
    const KEYS: u64 = 200;
    let server = RedisServer::start();
    let builder = RedisBackend::builder(&server.url()).deadline(DEADLINE).connect_timeout(DEADLINE * 2);
    let redis = builder.build().expect("redis");
    let write_all = async |text: &str| {
        let write = |number| {
            let (redis, text) = (redis.clone(), text.repeat(1_000));
            tokio::spawn(async move {
                redis.set(&key(number), CacheValue::new(text), &mut CacheContext::new()).await.is_ok()
            })
        };
        let tasks: Vec<_> = (0..KEYS).map(write).collect();
        let mut all = true;
        for task in tasks {
            all &= task.await.expect("a write");
        }
        all
    };
    assert!(write_all("a").await);
    let before = connections(&server);
    server.freeze();
    let started = Instant::now();
    while started.elapsed() < DEADLINE * 10 {
        assert!(!write_all("b").await, "a frozen server answers");
    }
    server.thaw();
    failures_before_an_answer("write", async || write_all("c").await).await;
    for number in 0..KEYS {
        let read = redis.get::<String>(&key(number), &mut CacheContext::new()).await.expect("a read");
        assert!(read.is_some_and(|value| value.data().starts_with('c')), "key {number} is an older one");
    }
    let after = connections(&server);
    assert!(before.iter().all(|id| after.contains(id)), "{before:?} became {after:?}");
}

/// The kernel looks after the connection too: it has a timer for it although nothing is on its way.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn case_f01_sockets_are_kept_alive() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    let has_keepalive = || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
        let port = format!("0100007F:{:04X}", server.port());
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_ours = fields.get(2) == Some(&port.as_str()) && fields.get(3) == Some(&"01");
            is_ours && fields.get(5).is_some_and(|timer| timer.starts_with("02:"))
        })
    };
    let started = Instant::now();
    loop {
        redis.ping().await.expect("an answer");
        if has_keepalive() {
            return;
        }
        assert!(started.elapsed() < ALIVE, "no keepalive");
        std::thread::yield_now();
    }
}

/// A runtime that lives and is not driven drives nothing of what was started on it: the connection, and the task that sends
/// batches.
#[test]
fn a_runtime_that_is_not_driven_holds_up_others_for_a_while_only() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).deadline(DEADLINE).build().expect("redis");
    let all_answer = async || {
        let reads = (0..20).map(|number| get(&redis, number));
        futures_util::future::join_all(reads).await.iter().all(Result::is_ok)
    };
    let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    idle.block_on(async {
        // Reads that have to ask for epochs do not travel together.
        redis.set(&key(1), CacheValue::new(1_u64), &mut CacheContext::new()).await.expect("a write");
        assert!(all_answer().await, "a crowd of reads fails");
    });
    let driven = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    // After failures a leaf asks for epochs with each read, and such reads travel alone: one crowd that is answered proves
    // nothing.
    let ten_answer = async || {
        for _ in 0..10 {
            if !all_answer().await {
                return false;
            }
        }
        true
    };
    let failures = driven.block_on(failures_before_an_answer("ten crowds of reads", ten_answer));
    // Those that find out that nobody answers. A queue that is full of what nobody reads would end it too, much later.
    assert!(failures < 20, "{failures} times a crowd came to nothing");
    drop(idle);
}
