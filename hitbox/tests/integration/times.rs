//! Writes that change the times of an entry and nothing else: notes of reads, `expire`, recovery. Two caches with layers of
//! their own over one Redis stand for two processes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hitbox::backend::wrap::Wrapper;
use hitbox::backend::{
    Backend, CacheBackend, Compose, CompositionPolicy, OffloadPool, RaceReadPolicy, RefillPolicy, Wrap,
};
use hitbox::core::{CacheContext, CacheKey, CacheValue, Clock, Details, ErrorKind, ManualClock, Offload};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::redis::RedisBackend;
use hitbox::{AnswerKind, Cache, ToKey};
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation, RedisServer};

const IDLE: Duration = Duration::from_secs(8);
const LARGE: usize = 1 << 20;

fn pool() -> Arc<dyn Offload> {
    OffloadPool::new().shared()
}

fn moka(clock: &ManualClock) -> MokaBackend {
    MokaBackend::builder().clock(Arc::new(clock.clone())).build().expect("moka")
}

fn redis(server: &RedisServer, clock: &ManualClock) -> RedisBackend {
    let builder = RedisBackend::builder(&server.url()).deadline(Duration::from_secs(5));
    builder.clock(Arc::new(clock.clone())).build().expect("redis")
}

async fn disk(folder: &Path, clock: &ManualClock) -> DiskBackend {
    DiskBackend::builder(folder).clock(Arc::new(clock.clone())).open().await.expect("disk")
}

fn plain(backend: Arc<dyn Backend>, clock: &ManualClock) -> Cache<String> {
    let builder = Cache::builder(backend).name("times").clock(Arc::new(clock.clone()));
    builder.build().expect("a cache")
}

fn cache(backend: Arc<dyn Backend>, clock: &ManualClock) -> Cache<String> {
    let builder = Cache::builder(backend).name("times").idle(IDLE).clock(Arc::new(clock.clone()));
    builder.build().expect("a cache")
}

/// Waits until something holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Reads a key, of which a note is taken.
async fn read_and_note(cache: &Cache<String>, clock: &ManualClock, key: u64) -> Option<String> {
    let noted = cache.statistics().touched;
    clock.advance(IDLE / 4);
    let found = cache.get(key).await.expect("a read");
    if found.is_some() {
        // The note of an earlier read may just be ending, and then this one is not taken.
        until("a note", async || {
            drop(cache.get(key).await);
            cache.statistics().touched > noted
        })
        .await;
    }
    found
}

fn received(server: &RedisServer) -> u64 {
    let stats = server.ask("INFO stats");
    let line = stats.lines().find_map(|line| line.strip_prefix("total_net_input_bytes:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c08_a_note_of_a_read_sends_no_value_to_redis() {
    let (server, clock) = (RedisServer::start(), ManualClock::new());
    let redis = redis(&server, &clock);
    let cache = cache(moka(&clock).compose(redis.clone(), pool()).shared(), &clock);
    let value = "x".repeat(LARGE);
    // With attributes too: they stand between the header and the value.
    cache.entry(1).tag("red").insert(value.clone()).await.expect("a write");
    cache.entry(2).insert(value.clone()).await.expect("a write");
    let before = received(&server);
    for _ in 0..20 {
        for key in [1, 2] {
            assert_eq!(read_and_note(&cache, &clock, key).await.as_ref(), Some(&value));
        }
        assert!(cache.expire(1).await.expect("an expiry"));
    }
    let sent = received(&server) - before;
    assert!(sent < LARGE as u64 / 4, "{sent} bytes for 40 notes and 20 expiries");
    // The lower layer has noted them: it lived far longer than its idle time.
    let key = 2.to_key("times").into_owned();
    let read = redis.get::<String>(&key, &mut CacheContext::new()).await.expect("a read");
    assert_eq!(read.map(CacheValue::into_data), Some(value));
}

fn objects(folder: &Path) -> Vec<(PathBuf, u64)> {
    let shelves = std::fs::read_dir(folder.join("objects")).expect("shelves");
    let files = shelves.flat_map(|shelf| std::fs::read_dir(shelf.expect("a shelf").path()).expect("a shelf"));
    let mut files: Vec<_> = files
        .map(|file| {
            let file = file.expect("a file");
            (file.path(), file.metadata().expect("its metadata").ino())
        })
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c08_a_note_of_a_read_leaves_the_file_in_its_place() {
    let (folder, clock) = (tempfile::tempdir().expect("a folder"), ManualClock::new());
    let value = "x".repeat(LARGE);
    {
        let cache = cache(moka(&clock).compose(disk(folder.path(), &clock).await, pool()).shared(), &clock);
        cache.entry(1).tag("red").insert(value.clone()).await.expect("a write");
        cache.insert(2, "small".to_owned()).await.expect("a write");
        let before = objects(folder.path());
        for _ in 0..20 {
            assert_eq!(read_and_note(&cache, &clock, 1).await.as_ref(), Some(&value));
            assert!(read_and_note(&cache, &clock, 2).await.is_some());
        }
        assert!(cache.expire(2).await.expect("an expiry"));
        assert_eq!(objects(folder.path()), before, "files were written anew");
    }
    // After a restart too it lives by its last read.
    clock.advance(IDLE / 2);
    let cache = cache(disk(folder.path(), &clock).await.shared(), &clock);
    assert_eq!(cache.get(1).await.expect("a read"), Some(value));
    assert_eq!(cache.entry(2).get().await.expect("a read").outcome.kind, AnswerKind::Stale);
}

/// What two processes have in common, and what each has for itself.
struct Two {
    server: RedisServer,
    clock: ManualClock,
    faults: Faults,
    a: Cache<String>,
    b: Cache<String>,
}

impl Two {
    fn new(cache: impl Fn(Arc<dyn Backend>, &ManualClock) -> Cache<String>) -> Self {
        let (server, clock, faults) = (RedisServer::start(), ManualClock::new(), Faults::default());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let line = Faulty::new(redis(&server, &clock), &faults, shared);
        let a = cache(moka(&clock).compose(line, pool()).shared(), &clock);
        let b = cache(moka(&clock).compose(redis(&server, &clock), pool()).shared(), &clock);
        Self { server, clock, faults, a, b }
    }

    /// What a process finds that has nothing in memory.
    async fn shared(&self, key: u64) -> Option<String> {
        cache(redis(&self.server, &self.clock).shared(), &self.clock).get(key).await.expect("a read")
    }

    /// The second process changes what the first has in memory.
    async fn change(&self, how: &str, key: u64) {
        let done = match how {
            "overwritten" => self.b.insert(key, "new".to_owned()).await.map(drop),
            "removed" => self.b.remove(key).await.map(drop),
            _ => self.b.entry(key).insert_if_newer("new".to_owned(), 9).await.map(drop),
        };
        done.expect("a change");
    }
}

const CHANGES: [(&str, Option<&str>); 3] =
    [("overwritten", Some("new")), ("removed", None), ("raised in version", Some("new"))];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c09_a_note_of_a_read_brings_no_older_value_back() {
    let two = Two::new(cache);
    for (key, (how, then)) in (1..).zip(CHANGES) {
        two.a.entry(key).insert_if_newer("old".to_owned(), 1).await.expect("a write");
        two.change(how, key).await;
        // Its own copy is noted, again and again.
        for _ in 0..4 {
            assert_eq!(read_and_note(&two.a, &two.clock, key).await.as_deref(), Some("old"), "{how}");
            if then.is_some() {
                read_and_note(&two.b, &two.clock, key).await;
            }
        }
        assert_eq!(two.shared(key).await.as_deref(), then, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c09_expiring_brings_no_older_value_back() {
    let two = Two::new(cache);
    for (key, (how, then)) in (1..).zip(CHANGES) {
        two.a.entry(key).insert_if_newer("old".to_owned(), 1).await.expect("a write");
        two.change(how, key).await;
        assert!(two.a.expire(key).await.expect("an expiry"), "it has a copy");
        assert_eq!(two.shared(key).await.as_deref(), then, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c09_recovery_brings_no_older_value_back() {
    let two = Two::new(plain);
    for (key, (how, then)) in (1..).zip(CHANGES).filter(|(_, (_, then))| then.is_some()) {
        let insert = |value: &str, version| two.a.entry(key).insert_if_newer(value.to_owned(), version);
        insert("first", 1).await.expect("a write");
        two.faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
        two.a.insert(key, "old".to_owned()).await.expect("memory has it");
        assert_eq!(two.a.statistics().recovering, 1);
        two.clock.advance(Duration::from_millis(1));
        two.change(how, key).await;
        two.faults.clear();
        until("it is recovered", async || {
            two.clock.advance(Duration::from_millis(100));
            two.a.statistics().recovering == 0
        })
        .await;
        assert_eq!(two.shared(key).await.as_deref(), then, "{how}");
        assert_eq!(two.a.get(key).await.expect("a read").as_deref(), then, "{how}: its own copy is older");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c03_keys_that_cannot_be_written_keep_no_others_waiting() {
    let server = RedisServer::start();
    let set = server.ask("ACL SETUSER cache reset on >sesame ~hitbox:good:* ~hitbox:!* resetchannels +@all");
    assert!(set.starts_with("+OK"), "{set}");
    let url = format!("redis://cache:sesame@127.0.0.1:{}", server.port());
    let redis = RedisBackend::builder(&url).deadline(Duration::from_millis(200)).build().expect("redis");
    let layers = MokaBackend::builder().build().expect("moka").compose(redis, pool()).shared();
    let [good, bad] = ["good", "bad"]
        .map(|name| -> Cache<u64> { Cache::builder(layers.clone()).name(name).build().expect("a cache") });
    good.insert(0, 0).await.expect("a write");
    server.freeze();
    for number in 0..30 {
        let (one, other) = tokio::join!(good.insert(number, number), bad.insert(number, number));
        one.and(other).expect("memory has it");
    }
    assert!(good.statistics().recovering >= 60, "{:?}", good.statistics());
    server.thaw();
    let stored = || server.ask("KEYS hitbox:good:*").matches("hitbox:good").count();
    until("the others are there", async || stored() == 30).await;
    until("only the others wait", async || (1..=30).contains(&good.statistics().recovering)).await;
}

/// Backends whose entries a clock ends.
async fn all(
    server: &RedisServer,
    folder: &Path,
    clock: &ManualClock,
) -> Vec<(&'static str, Arc<dyn Backend>)> {
    let quick = || QuickBackend::builder().clock(Arc::new(clock.clone())).build().expect("quick");
    let race = CompositionPolicy::new().read(RaceReadPolicy::default());
    let map = || MemoryBackend::labelled("map", Arc::new(clock.clone()));
    vec![
        ("moka", moka(clock).shared()),
        ("quick", quick().shared()),
        ("map", map().shared()),
        ("redis", redis(server, clock).shared()),
        ("disk", disk(&folder.join("alone"), clock).await.shared()),
        ("moka/quick", moka(clock).compose(quick(), pool()).shared()),
        ("moka/redis", moka(clock).compose(redis(server, clock).namespace("two"), pool()).shared()),
        ("moka|map", moka(clock).compose(map(), pool()).with_policy(&race).shared()),
        (
            "moka/(quick/disk)",
            moka(clock)
                .compose(quick().compose(disk(&folder.join("nest"), clock).await, pool()), pool())
                .shared(),
        ),
    ]
}

fn idle(clock: &ManualClock) -> CacheValue<u64> {
    let mut details = Details::default();
    details.idle = Some(IDLE);
    CacheValue::new(7).with_created(Some(clock.now())).with_details(details)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_d20_every_read_of_a_user_counts() {
    let (server, clock, folder) =
        (RedisServer::start(), ManualClock::new(), tempfile::tempdir().expect("a folder"));
    for (name, backend) in all(&server, folder.path(), &clock).await {
        let keys = [CacheKey::new("one"), CacheKey::new("two")];
        for key in &keys {
            backend.set(key, idle(&clock), &mut CacheContext::new()).await.expect("a write");
        }
        for round in 0..20 {
            clock.advance(IDLE / 4);
            let one = backend.get::<u64>(&keys[0], &mut CacheContext::new()).await.expect("a read");
            assert!(one.is_some(), "{name}: it died after {round} reads");
            for found in backend.get_many::<u64>(&keys).await {
                assert!(found.expect("a read").is_some(), "{name}: it died after {round} reads of many");
            }
        }
        clock.advance(IDLE);
        assert!(backend.get::<u64>(&keys[0], &mut CacheContext::new()).await.expect("a read").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_e07_expiring_makes_stale_at_once_and_is_no_read() {
    let clock = ManualClock::new();
    let [never, hour] = [None, Some(Duration::from_secs(3600))];
    for (upper, lower) in [(never, hour), (hour, never)] {
        let lower = moka(&clock).ttl_override(lower);
        let layers = moka(&clock).ttl_override(upper).compose(lower, pool()).shared();
        let builder = Cache::builder(layers.clone()).name("times").ttl(Duration::from_secs(60));
        let cache: Cache<String> = builder.clock(Arc::new(clock.clone())).build().expect("a cache");
        cache.insert(1, "old".to_owned()).await.expect("a write");
        let reads = || {
            let counts = layers.snapshot().total;
            (counts.hits, counts.stale_hits, counts.misses)
        };
        let before = reads();
        assert!(cache.expire(1).await.expect("an expiry"));
        assert!(!cache.expire(2).await.expect("an expiry"), "there is nothing");
        assert_eq!(reads(), before, "an expiry is no read");
        for _ in 0..2 {
            assert_eq!(cache.entry(1).get().await.expect("a read").outcome.kind, AnswerKind::Stale);
            // The lower layer's too.
            cache.evict(1).await.expect("an eviction");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_e08_a_note_of_a_read_is_no_refill() {
    for refill in [RefillPolicy::Never, RefillPolicy::NthHit(u32::MAX)] {
        let clock = ManualClock::new();
        let upper = MemoryBackend::labelled("upper", Arc::new(clock.clone()));
        let layers = upper.clone().compose(moka(&clock), pool()).with_refill(refill).shared();
        let cache = cache(layers, &clock);
        cache.insert(1, "value".to_owned()).await.expect("a write");
        cache.evict(1).await.expect("an eviction");
        for _ in 0..20 {
            assert!(read_and_note(&cache, &clock, 1).await.is_some());
        }
        let key = 1.to_key("times").into_owned();
        assert!(upper.inner().store().get(&key).is_none(), "{refill:?}: a note filled memory");
    }
}

/// One of the things that two processes do, in a random order; nothing that either of them has missed is removed by the
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c09_histories_of_two_processes_never_go_back() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    const KEYS: u64 = 4;
    let seed = hitbox_testkit::seed();
    let operations = hitbox_testkit::number_from("HITBOX_OPERATIONS").unwrap_or(1_000_000) / 500;
    eprintln!("{operations} operations with HITBOX_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let two = Two::new(plain);
    let (mut cut, mut number) = (false, 0_u64);
    // What was written last, by anybody, and is not removed.
    let mut last: [Option<u64>; KEYS as usize] = Default::default();
    for step in 0..operations {
        two.clock.advance(Duration::from_millis(1));
        let key = random.random_range(0..KEYS);
        let process = if random.random_bool(0.5) { &two.a } else { &two.b };
        let is_cut_off = cut && std::ptr::eq(process, &two.a);
        let context = || format!("step {step} of HITBOX_SEED={seed}");
        match random.random_range(0..10) {
            0..4 => {
                number += 1;
                process
                    .insert(key, number.to_string())
                    .await
                    .unwrap_or_else(|e| panic!("{}: {e}", context()));
                last[key as usize] = Some(number);
            }
            4 if !cut && two.a.statistics().recovering == 0 => {
                process.remove(key).await.unwrap_or_else(|e| panic!("{}: {e}", context()));
                last[key as usize] = None;
            }
            5 if !is_cut_off => {
                process.expire(key).await.unwrap_or_else(|e| panic!("{}: {e}", context()));
            }
            6 => {
                cut = !cut;
                if cut {
                    two.faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
                } else {
                    two.faults.clear();
                    until("it is recovered", async || {
                        two.clock.advance(Duration::from_millis(100));
                        two.a.statistics().recovering == 0
                    })
                    .await;
                }
            }
            _ => drop(process.get(key).await.unwrap_or_else(|e| panic!("{}: {e}", context()))),
        }
        if two.a.statistics().recovering == 0 {
            for key in 0..KEYS {
                let found = two.shared(key).await.map(|value| value.parse::<u64>().expect("a number"));
                assert_eq!(found, last[key as usize], "key {key} after {}", context());
            }
        }
    }
}
