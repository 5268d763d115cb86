//! Users of the server who may not do all that the backend does.

use std::time::Duration;

use hitbox_backend::operation::{Batch, TimeChange, Write};
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{BackendError, BackendResult, CacheContext, CacheKey, CacheValue, ErrorKind, Lifetime};
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;

use crate::{crowd, get, key, now};

/// What the documentation says that a user needs.
const RIGHTS: [&str; 17] = [
    "+get",
    "+mget",
    "+set",
    "+getrange",
    "+setrange",
    "+hget",
    "+hmget",
    "+hset",
    "+hlen",
    "+rename",
    "+pexpire",
    "+pexpireat",
    "+persist",
    "+unlink",
    "+eval",
    "+scan",
    "+ping",
];

/// A backend of a user with these rights.
fn user(server: &RedisServer, rights: &[&str]) -> RedisBackend {
    let rules = rights.join(" ");
    let set =
        server.ask(&format!("ACL SETUSER cache reset on >sesame ~hitbox:* resetchannels -@all {rules}"));
    assert!(set.starts_with("+OK"), "{set}");
    let url = format!("redis://cache:sesame@127.0.0.1:{}", server.port());
    RedisBackend::builder(&url).build().expect("redis")
}

fn without(right: &str) -> Vec<&'static str> {
    RIGHTS.into_iter().filter(|other| *other != right).collect()
}

/// One in parts.
async fn long_body_of(redis: &RedisBackend, text: &str) -> BackendResult<()> {
    let mut sink = redis.write_body(&key(7), CacheValue::new(())).await?;
    sink.chunk(text.repeat(300_000)).await?;
    sink.finish().await.map(drop)
}

/// The same, which is written, read and given up.
async fn long_body(redis: &RedisBackend) -> BackendResult<()> {
    let chunk = || "x".repeat(300_000);
    long_body_of(redis, "x").await?;
    let mut body = redis.open_body(&key(7)).await?.expect("a body");
    while body.chunk().await?.is_some() {}
    let mut sink = redis.write_body(&key(7), CacheValue::new(())).await?;
    sink.chunk(chunk()).await?;
    sink.abort().await;
    Ok(())
}

/// Everything that sends a command, with the error of the first that fails.
async fn all(redis: &RedisBackend) -> Vec<(&'static str, BackendResult<()>)> {
    let mut context = CacheContext::new();
    let two = [key(1), key(2)];
    let entries = || two.iter().map(|key| (key.clone(), CacheValue::new(1_u64))).collect();
    let first = |results: Vec<BackendResult<()>>| results.into_iter().collect::<BackendResult<()>>();
    let mut done = vec![("ping", redis.ping().await)];
    done.push(("write", redis.set(&key(1), CacheValue::new(1_u64), &mut context).await.map(drop)));
    let large = CacheValue::new("x".repeat(100_000));
    done.push(("large write", redis.set(&key(3), large, &mut context).await.map(drop)));
    done.push((
        "writes",
        first(redis.set_many::<u64>(entries()).await.into_iter().map(|r| r.map(drop)).collect()),
    ));
    done.push(("read", get(redis, 1).await.map(drop)));
    done.push(("reads", first(redis.get_many::<u64>(&two).await.into_iter().map(|r| r.map(drop)).collect())));
    let crowd = crowd(redis, 100).await.into_iter().map(|(_, read)| read.map(drop)).collect();
    done.push(("crowd of reads", first(crowd)));
    done.push(("look", Backend::contains(redis, &key(1)).await.map(drop)));
    done.push(("conditional write", redis.set_if_newer(&key(4), CacheValue::new(1_u64), 1).await.map(drop)));
    // One without an end, and one that ends.
    let end = Lifetime::ttl(now(), Duration::from_secs(60));
    for (number, lifetime) in [(5, Lifetime::FOREVER), (6, end)] {
        let entry = CacheValue::new(1_u64).with_lifetime(lifetime);
        done.push(("write", redis.set(&key(number), entry, &mut context).await.map(drop)));
        let write = Write::times(key(number), TimeChange::stale_from(now()));
        let receipt = redis.write(Batch::one(write)).await.into_one().unwrap_or_default();
        done.push(("times", receipt.into_result().map(drop)));
    }
    done.push(("body", long_body(redis).await));
    done.push(("removal", redis.delete(&key(1), &mut context).await.map(drop)));
    done.push(("removals", first(redis.delete_many(&two).await.into_iter().map(|r| r.map(drop)).collect())));
    done.push(("list", redis.list_keys(0, 10).await.map(drop)));
    let counts = redis.entry_counts().await.expect("counts");
    done.push(("count", counts.into_iter().try_for_each(|count| count.entries.map(drop))));
    done.push(("pattern", redis.invalidate_prefix(&CacheKey::builder("k").build()).await.map(drop)));
    done.push(("erasure", redis.erase().await));
    done
}

/// The error says what is missing, in these words.
fn expect_clear(what: &str, error: &BackendError, words: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{what}, {words}: {text}");
    assert!(text.contains(&format!("the Redis user has no right to {words}")), "{what}, {words}: {text}");
    assert!(!text.contains("sesame"), "the password is shown: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f29_the_rights_of_the_documentation_suffice() {
    let server = RedisServer::start();
    let redis = user(&server, &RIGHTS);
    for (what, result) in all(&redis).await {
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let documented = include_str!("../../README.md");
    assert!(documented.contains(&RIGHTS.join(" ")), "the documentation names other rights");
    // A command of several lines.
    let book = include_str!("../../../docs/src/choose-settings.md").replace('\\', "");
    let book = book.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(book.contains(&RIGHTS.join(" ")), "the book names other rights");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f29_a_missing_right_is_a_clear_error() {
    let server = RedisServer::start();
    for right in RIGHTS.into_iter().filter(|right| *right != "+mget") {
        let redis = user(&server, &without(right));
        server.ask("FLUSHALL");
        let mut failures = 0;
        for (what, result) in all(&redis).await {
            let Err(error) = result else { continue };
            failures += 1;
            // Older servers do not say what a script may not run. All that is needed is named then.
            let text = error.to_string();
            let command = right.trim_start_matches('+').to_uppercase();
            let is_script = text.contains("a command of a script") && text.contains(right);
            let words = if is_script {
                "run a command of a script that EVAL sends".to_owned()
            } else {
                format!("run {command}")
            };
            expect_clear(what, &error, &words);
        }
        assert!(failures > 0, "nothing needs {right}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f29_without_mget_keys_are_read_with_get() {
    let server = RedisServer::start();
    let redis = user(&server, &without("+mget"));
    for (what, result) in all(&redis).await {
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    for number in 0..100 {
        redis.set(&key(number), CacheValue::new(number), &mut CacheContext::new()).await.expect("a write");
    }
    server.ask("DEL hitbox:k:0:n=7");
    server.ask("RPUSH hitbox:k:0:n=7 theirs");
    for (number, answer) in crowd(&redis, 100).await {
        assert_eq!(answer.expect("a read"), (number != 7).then_some(number));
    }
    let keys: Vec<_> = (0..100).map(key).collect();
    for (number, answer) in redis.get_many::<u64>(&keys).await.into_iter().enumerate() {
        let found = answer.expect("a read").map(CacheValue::into_data);
        assert_eq!(found, (number != 7).then_some(number as u64));
    }
}

#[tokio::test]
async fn case_f29_keys_out_of_reach_and_wrong_passwords_are_clear_errors() {
    let server = RedisServer::start();
    user(&server, &RIGHTS);
    let address = |login: &str, path: &str| format!("redis://{login}@127.0.0.1:{}{path}", server.port());
    let open = |url: &str| RedisBackend::builder(url).prefix("other:").build().expect("redis");

    let redis = open(&address("cache:sesame", ""));
    for (what, error) in all(&redis).await.into_iter().filter_map(|(what, r)| Some((what, r.err()?))) {
        expect_clear(what, &error, "a key");
    }
    let written = redis.set(&key(1), CacheValue::new(1_u64), &mut CacheContext::new()).await;
    written.expect_err("the prefix is out of reach");

    let wrong = open(&address("cache:open-sesame", "")).ping().await.expect_err("a wrong password");
    assert_eq!(wrong.kind(), ErrorKind::Configuration, "{wrong}");
    assert!(wrong.to_string().contains("user and password"), "{wrong}");
    assert!(!wrong.to_string().contains("open-sesame"), "{wrong}");
    server.ask("ACL SETUSER default resetpass >closed");
    let none = open(&format!("redis://127.0.0.1:{}", server.port())).ping().await.expect_err("no password");
    assert_eq!(none.kind(), ErrorKind::Configuration, "{none}");
    // A database is chosen with a command of its own.
    let select = open(&address("cache:sesame", "/1")).ping().await.expect_err("no right to SELECT");
    assert_eq!(select.kind(), ErrorKind::Configuration, "{select}");
    assert!(select.to_string().to_lowercase().contains("select"), "{select}");
}

/// A body that cannot be put in the place of another leaves that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_a_right_leaves_what_is_there() {
    let server = RedisServer::start();
    long_body_of(&user(&server, &RIGHTS), "x").await.expect("stored");
    let unable = user(&server, &without("+rename"));
    long_body_of(&unable, "y").await.expect_err("no right");
    let able = user(&server, &RIGHTS);
    let mut body = able.open_body(&key(7)).await.expect("an answer").expect("a body");
    assert_eq!(body.chunk().await.expect("a part").expect("some")[0], b'x');
}
