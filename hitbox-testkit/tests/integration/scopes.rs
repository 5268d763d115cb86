//! Scopes over stores that outlive the process, are shared, lose what they had, or know nothing of them; and filters,
//! priorities, limits and counters of single leaves.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex, MutexGuard};
use std::time::Duration;

use hitbox_backend::internal::counting_line;
use hitbox_backend::operation::{
    Answers, Invalidation, InvalidationTarget, LeafSet, TryRead, Write, WriteOptions,
};
use hitbox_backend::operation::{Batch, Completion, Presence};
use hitbox_backend::store::{LeafOptions, Occupancy};
use hitbox_backend::wrap::{NegativeFilter, Wrapper, forward};
use hitbox_backend::{
    Backend, CacheBackend, Compose, DeleteStatus, Leaf, LeafOutcome, Raw, ReadOptions, Receipt, Statistics,
    Wrap,
};
use hitbox_core::{
    BackendResult, CacheContext, CacheKey, CacheValue, Details, ErrorKind, Limits, Priority, Scope,
};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::broken::PlainMap;
use hitbox_testkit::{RedisServer, World};

type Verdict = Result<(), String>;

fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

async fn put(cache: &dyn Backend, number: u64, scopes: &[Scope]) -> BackendResult<()> {
    let mut details = Details::default();
    details.scopes = scopes.to_vec();
    let value = CacheValue::new(number).with_details(details);
    cache.set(&key(number), value, &mut CacheContext::new()).await.map(drop)
}

async fn get(cache: &dyn Backend, number: u64) -> Option<u64> {
    let read = cache.get::<u64>(&key(number), &mut CacheContext::new()).await;
    read.expect("a read").map(CacheValue::into_data)
}

/// The keys from 0 to 9 that have a value.
async fn left(cache: &dyn Backend) -> Vec<u64> {
    let mut left = Vec::new();
    for number in 0..10 {
        left.extend(get(cache, number).await);
    }
    left
}

fn occupancy(leaf: &dyn Backend) -> Occupancy {
    let statistics = leaf.layout().statistics().remove(0);
    statistics.occupancy.expect("what it holds")
}

async fn open_disk(folder: &Path) -> DiskBackend {
    DiskBackend::builder(folder).open().await.expect("the folder opens")
}

fn redis(server: &RedisServer) -> RedisBackend {
    RedisBackend::builder(&server.url()).staleness_bound(Duration::ZERO).build().expect("redis")
}

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

#[derive(Clone, Copy, Debug)]
enum Lasting {
    Disk,
    Redis,
    MemoryOverDisk,
    MemoryOverRedisOverDisk,
}

/// Each opening stands for a process of its own.
async fn open(what: Lasting, folder: &Path, server: &RedisServer) -> Arc<dyn Backend> {
    let pool = World::new().pool.shared();
    match what {
        Lasting::Disk => Arc::new(open_disk(folder).await),
        Lasting::Redis => Arc::new(redis(server)),
        Lasting::MemoryOverDisk => Arc::new(moka().compose(open_disk(folder).await, pool)),
        Lasting::MemoryOverRedisOverDisk => {
            Arc::new(moka().compose(redis(server).compose(open_disk(folder).await, pool.clone()), pool))
        }
    }
}

/// What is there after invalidations and restarts.
async fn survives_restarts(
    what: &str,
    open: impl AsyncFn(&Path, &RedisServer) -> Arc<dyn Backend>,
) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    let server = RedisServer::start();
    let ensure = |found: Vec<u64>, expected: &[u64], when: &str| {
        if found == expected {
            Ok(())
        } else {
            Err(format!("{what} {when}: {found:?} instead of {expected:?}"))
        }
    };
    let open = async || open(folder.path(), &server).await;
    let cache = open().await;
    for number in 0..4 {
        put(&*cache, number, &[Scope::tag(format!("tag{number}")), Scope::tag("all")])
            .await
            .expect("a write");
    }
    put(&*cache, 4, &[Scope::dependency("menu")]).await.expect("a write");
    put(&*cache, 5, &[]).await.expect("a write");
    ensure(left(&*cache).await, &[0, 1, 2, 3, 4, 5], "at first")?;
    cache.invalidate_tags(&["tag1", "unknown"]).await.expect("an invalidation");
    cache.invalidate_dependencies(&["menu"]).await.expect("an invalidation");
    drop(cache);
    let cache = open().await;
    ensure(left(&*cache).await, &[0, 2, 3, 5], "after a restart")?;
    put(&*cache, 1, &[Scope::tag("tag1"), Scope::tag("all")]).await.expect("a write");
    ensure(left(&*cache).await, &[0, 1, 2, 3, 5], "with what was written afterwards")?;
    drop(cache);
    let cache = open().await;
    ensure(left(&*cache).await, &[0, 1, 2, 3, 5], "with that after another restart")?;
    cache.invalidate_tags(&["all"]).await.expect("an invalidation");
    drop(cache);
    ensure(left(&*open().await).await, &[5], "after one that was invalidated without being read")?;
    let cache = open().await;
    cache.clear().await.expect("an invalidation");
    drop(cache);
    let cache = open().await;
    ensure(left(&*cache).await, &[], "cleared and restarted")?;
    put(&*cache, 6, &[]).await.expect("a write");
    let inside = cache.clone().namespace("n");
    put(&inside, 7, &[]).await.expect("a write");
    drop((cache, inside));
    let cache = open().await;
    let inside = cache.clone().namespace("n");
    ensure(left(&*cache).await, &[6], "with what was written after everything was cleared")?;
    ensure(left(&inside).await, &[7], "in its namespace")?;
    cache.flush_namespace("n").await.expect("an invalidation");
    drop((cache, inside));
    let cache = open().await;
    ensure(left(&cache.clone().namespace("n")).await, &[], "flushed and restarted")?;
    ensure(left(&*cache).await, &[6], "beside the namespace")
}

const LASTING: [Lasting; 4] =
    [Lasting::Disk, Lasting::Redis, Lasting::MemoryOverDisk, Lasting::MemoryOverRedisOverDisk];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidate_03_survives_restarts() {
    for what in LASTING {
        let open = async |folder: &Path, server: &RedisServer| open(what, folder, server).await;
        survives_restarts(&format!("{what:?}"), open).await.expect("what is invalidated stays so");
    }
}

/// Forgets what was invalidated when the process ends: it knows by itself what entries carry, and the layer below does
/// not.
#[derive(Clone)]
struct ForgetsAtTheEnd {
    inner: Arc<dyn Backend>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    scopes: HashMap<CacheKey, Vec<Scope>>,
    invalid: HashSet<CacheKey>,
}

impl ForgetsAtTheEnd {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic")
    }
}

impl Wrapper for ForgetsAtTheEnd {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, known: self.known.clone() })
    }

    fn change(&self, key: &CacheKey, entry: CacheValue<()>) -> CacheValue<()> {
        let mut details = entry.details().cloned().unwrap_or_default();
        let mut known = self.known();
        known.invalid.remove(key);
        known.scopes.insert(key.clone(), std::mem::take(&mut details.scopes));
        entry.with_details(details)
    }

    fn try_read(&self, _: &CacheKey, _: &ReadOptions) -> TryRead {
        TryRead::WouldWait(LeafSet::EMPTY)
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        forward::read(self, keys, options).map(|answers| {
            let known = self.known();
            let valid = |(key, answer)| if known.invalid.contains(key) { Ok(None) } else { answer };
            keys.iter().zip(answers).map(valid).collect()
        })
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        let InvalidationTarget::Scopes(scopes) = invalidation.target() else {
            return forward::invalidate(self, invalidation);
        };
        let mut known = self.known();
        let carries =
            |(_, carried): &(&CacheKey, &Vec<Scope>)| carried.iter().any(|scope| scopes.contains(scope));
        let keys: Vec<CacheKey> = known.scopes.iter().filter(carries).map(|(key, _)| key.clone()).collect();
        known.invalid.extend(keys);
        Completion::Done(Receipt::of_all(self.inner.layout().paths(), &LeafOutcome::Invalidated))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidate_03_rejects_epochs_of_the_process() {
    let open = async |folder: &Path, server: &RedisServer| -> Arc<dyn Backend> {
        let inner = open(Lasting::Disk, folder, server).await;
        ForgetsAtTheEnd { inner, known: Arc::default() }.shared()
    };
    let why = survives_restarts("the process's epochs", open).await.expect_err("entries come back");
    assert!(why.contains("after a restart: [0, 1, 2, 3, 4, 5]"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_that_a_store_has_lost_cost_misses_and_nothing_else() {
    // Redis loses some of its keys.
    let server = RedisServer::start();
    let cache = redis(&server);
    put(&cache, 1, &[Scope::tag("red")]).await.expect("a write");
    cache.invalidate_tags(&["red"]).await.expect("an invalidation");
    put(&cache, 2, &[Scope::tag("red")]).await.expect("a write");
    put(&cache, 3, &[]).await.expect("a write");
    assert_eq!(left(&cache).await, [2, 3]);
    for (lost, expected) in [("*kind=2*", vec![3]), ("*kind=0*", vec![])] {
        let deleted = server.ask(&format!(
            "EVAL \"return #redis.call('KEYS', '{lost}') + redis.call('UNLINK', unpack(redis.call('KEYS', '{lost}')))\" 0"
        ));
        assert!(deleted.starts_with(":2"), "an epoch is there and was deleted: {deleted}");
        assert_eq!(left(&cache).await, expected, "without {lost}");
        assert_eq!(left(&redis(&server)).await, expected, "another process without {lost}");
    }
    put(&cache, 4, &[Scope::tag("red")]).await.expect("a write");
    assert_eq!(left(&redis(&server)).await, [4], "what is written afterwards");
    server.ask("FLUSHALL");
    assert_eq!(left(&cache).await, [0_u64; 0]);
    // The first may carry an epoch that was believed and lost; then that is known.
    for _ in 0..2 {
        put(&cache, 5, &[Scope::tag("red")]).await.expect("a write");
        left(&cache).await;
    }
    assert_eq!(left(&cache).await, [5], "after everything was lost");

    // Files are lost too.
    let folder = tempfile::tempdir().expect("a folder");
    let disk = open_disk(folder.path()).await;
    put(&disk, 1, &[]).await.expect("a write");
    disk.clear().await.expect("an invalidation");
    put(&disk, 2, &[]).await.expect("a write");
    let keys = disk.list_keys(0, 10).await.expect("a page").keys;
    disk.close().await;
    // What no key is listed for is the epoch.
    let is_listed = |file: &[u8]| {
        keys.iter().any(|key| file.windows(key.as_encoded().len()).any(|part| part == key.as_encoded()))
    };
    let mut removed = 0;
    for shelf in std::fs::read_dir(folder.path().join("objects")).expect("a folder").flatten() {
        for file in std::fs::read_dir(shelf.path()).expect("a shelf").flatten() {
            if !is_listed(&std::fs::read(file.path()).expect("an object")) {
                std::fs::remove_file(file.path()).expect("removed");
                removed += 1;
            }
        }
    }
    assert_eq!(removed, 1);
    let disk = open_disk(folder.path()).await;
    assert_eq!(left(&disk).await, [0_u64; 0], "neither what was cleared nor what was written afterwards");
    put(&disk, 3, &[]).await.expect("a write");
    assert_eq!(left(&disk).await, [3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_epochs_that_all_entries_have_are_not_evicted() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || DiskBackend::builder(folder.path()).max_bytes(64 * 1024).open();
    let disk = open().await.expect("disk");
    disk.clear().await.expect("an invalidation");
    for number in 0..1_000 {
        put(&disk, number, &[]).await.expect("a write");
    }
    assert!(occupancy(&disk).evictions > 500);
    disk.close().await;
    let disk = open().await.expect("disk");
    assert_eq!(get(&disk, 999).await, Some(999), "the last entry after a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_believed_within_the_staleness_bound() {
    let server = RedisServer::start();
    let world = World::new();
    let process = |bound| {
        let builder = RedisBackend::builder(&server.url()).clock(world.shared_clock());
        builder.staleness_bound(bound).deadline(Duration::from_secs(1_000)).build().expect("redis")
    };
    let (ours, theirs) = (process(Duration::from_secs(10)), process(Duration::ZERO));
    for round in 0..3 {
        put(&ours, 1, &[Scope::tag("red")]).await.expect("a write");
        put(&ours, 2, &[]).await.expect("a write");
        assert_eq!(left(&ours).await, [1, 2], "in round {round}");
        assert_eq!(left(&theirs).await, [1, 2], "in round {round}");
        if round >= 1 {
            theirs.clear().await.expect("an invalidation");
        } else {
            theirs.invalidate_tags(&["red"]).await.expect("an invalidation");
        }
        let expected: &[u64] = if round >= 1 { &[] } else { &[2] };
        assert_eq!(left(&theirs).await, expected, "theirs in round {round}");
        world.advance_millis(10_001);
        if round == 2 {
            // Batches ask as single reads do.
            let keys = [key(1), key(2)];
            let batch = ours.get_many::<u64>(&keys).await.into_iter();
            let found: Vec<u64> =
                batch.filter_map(|e| e.expect("a read")).map(CacheValue::into_data).collect();
            assert_eq!(found, expected, "a batch of ours");
        }
        assert_eq!(left(&ours).await, expected, "ours in round {round}");
    }
    // What a process loads while another invalidates is no hit for anybody.
    put(&ours, 1, &[Scope::tag("red")]).await.expect("a write");
    let load = Backend::layout(&ours).load_permit(&key(1));
    theirs.invalidate_tags(&["red"]).await.expect("an invalidation");
    let ticket = load.begin().expect("nobody here has written it");
    let mut details = Details::default();
    details.scopes = vec![Scope::tag("red")];
    let value = CacheValue::new(Raw::live(7_u64)).with_details(details);
    let write = Write::new(key(1), value).with_options(WriteOptions::of(&ticket));
    drop(Backend::write(&ours, Batch::one(write)).await);
    assert_eq!(get(&theirs, 1).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidate_06_a_frozen_server_is_named_and_catches_up() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url())
        .staleness_bound(Duration::ZERO)
        .deadline(Duration::from_millis(100))
        .build()
        .expect("redis");
    let cache = moka().compose(redis, World::new().pool.shared()).with_label("outer");
    put(&cache, 1, &[Scope::tag("red")]).await.expect("a write");
    server.freeze();
    let error = cache.invalidate_tags(&["red"]).await.expect_err("it is not recorded");
    assert_eq!(error.label().map(|label| label.as_str()), Some("outer.redis"));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let read = cache.get::<u64>(&key(1), &mut CacheContext::new()).await;
    assert!(!matches!(read, Ok(Some(_))), "it is served while the server is frozen");
    server.thaw();
    // The next calls bring the server up to date; another process then sees it.
    let started = std::time::Instant::now();
    loop {
        assert_eq!(get(&cache, 1).await, None, "it comes back with the server");
        put(&cache, 2, &[Scope::tag("red")]).await.expect("a write");
        let other = self::redis(&server);
        if get(&other, 2).await == Some(2) {
            assert_eq!(get(&other, 1).await, None);
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "the server is not brought up to date");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stores_that_know_nothing_of_scopes_have_them() {
    let world = World::new();
    // Alone: the store keeps epochs as it keeps entries.
    let plain = PlainMap::leaf(world.shared_clock());
    put(&plain, 1, &[]).await.expect("a write");
    put(&plain, 2, &[Scope::tag("red")]).await.expect("a write");
    plain.invalidate_tags(&["red"]).await.expect("an invalidation");
    assert_eq!(left(&plain).await, [1]);
    plain.clear().await.expect("an invalidation");
    assert_eq!(left(&plain).await, [0_u64; 0]);
    put(&plain, 1, &[]).await.expect("a write");
    assert_eq!(left(&plain).await, [1]);
    plain.delete(&key(1), &mut CacheContext::new()).await.expect("a delete");
    // In compositions: two over it see the same.
    let compose = || {
        let memory = hitbox_testkit::MemoryBackend::new(world.shared_clock());
        memory.compose(plain.clone(), world.pool.shared())
    };
    let (first, second) = (compose(), compose());
    put(&first, 3, &[Scope::tag("red")]).await.expect("a write");
    put(&first, 4, &[]).await.expect("a write");
    first.evict(&key(3)).await.expect("an eviction");
    assert_eq!(left(&second).await, [3, 4]);
    first.invalidate_tags(&["red"]).await.expect("an invalidation");
    assert_eq!((left(&first).await, left(&second).await), (vec![4], vec![4]));
    second.clear().await.expect("an invalidation");
    first.evict(&key(4)).await.expect("an eviction");
    assert_eq!(left(&first).await, [0_u64; 0]);
    put(&second, 5, &[Scope::tag("red")]).await.expect("a write");
    assert_eq!(left(&compose()).await, [5], "a composition that is made later");
    // A leaf that is made later, as after a restart, of the same store.
    plain.invalidate_tags(&["red"]).await.expect("an invalidation");
    put(&plain, 6, &[]).await.expect("a write");
    let options = LeafOptions::new("plain").with_clock(world.shared_clock());
    assert_eq!(left(&Leaf::of(plain.store().clone(), options)).await, [6]);
    // A bare store gets a leaf of its own.
    let bare = hitbox_testkit::MemoryBackend::new(world.shared_clock())
        .compose(PlainMap::new(), world.pool.shared());
    put(&bare, 1, &[Scope::tag("red")]).await.expect("a write");
    bare.evict(&key(1)).await.expect("an eviction");
    assert_eq!(left(&bare).await, [1]);
    bare.invalidate_tags(&["red"]).await.expect("an invalidation");
    assert_eq!(left(&bare).await, [0_u64; 0]);
}

/// Answers for keys that are not there, and counts nothing against those that are.
async fn filters<F: Backend + Clone>(folder: &Path, wrap: impl AsyncFn(DiskBackend) -> F) -> Verdict {
    let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let disk = open_disk(folder).await;
    put(&disk, 1, &[]).await.map_err(|e| e.to_string())?;
    disk.close().await;
    let disk = open_disk(folder).await;
    let cache = wrap(disk.clone()).await;
    ensure(get(&cache, 1).await == Some(1), "a key that was there when it was opened is not found")?;
    for number in 100..1_100 {
        ensure(get(&cache, number).await.is_none(), "a key that is not there is found")?;
    }
    let total = cache.snapshot().total;
    ensure(total.filtered + total.false_positives == 1_000, "reads of absent keys are not told apart")?;
    ensure(total.filtered > 900, "most reads of absent keys ask the store")?;
    let is_absent = matches!(cache.try_read(&key(5_000), &Default::default()), TryRead::Miss);
    ensure(is_absent, "an absent key has to be waited for")?;
    ensure(
        matches!(cache.contains(&key(5_001)).await, Ok(Presence::Absent)),
        "presence of a key that is not there",
    )?;
    // Written through it, through another handle, by a batch, by a composition: each is found at once.
    put(&cache, 2, &[]).await.map_err(|e| e.to_string())?;
    put(&disk, 3, &[]).await.map_err(|e| e.to_string())?;
    drop(disk.set_many(vec![(key(4), CacheValue::new(4_u64))]).await);
    let whole = moka().compose(cache.clone(), World::new().pool.shared());
    put(&whole, 5, &[]).await.map_err(|e| e.to_string())?;
    drop(disk.set_if_newer(&key(6), CacheValue::new(6_u64), 1).await);
    for number in 1..=6 {
        ensure(get(&cache, number).await == Some(number), &format!("key {number} is there and not found"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_02_a_filter_answers_without_io() {
    let folder = tempfile::tempdir().expect("a folder");
    let filter = async |disk: DiskBackend| Arc::new(disk.negative_filter(10_000).await.expect("a filter"));
    filters(folder.path(), filter).await.expect("no false negatives");

    // While it is filled anew nothing is missed, whatever is written meanwhile.
    let other = tempfile::tempdir().expect("a folder");
    let disk = open_disk(other.path()).await;
    let cache = Arc::new(NegativeFilter::new(disk, 500).await.expect("a filter"));
    assert!((600..2_000).contains(&cache.memory_bytes()), "{} bytes", cache.memory_bytes());
    let rebuilding = {
        let cache = cache.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                cache.rebuild().await.expect("it is rebuilt");
            }
        })
    };
    for number in 0..1_500 {
        put(&*cache, number, &[]).await.expect("a write");
        assert_eq!(get(&*cache, number).await, Some(number));
    }
    rebuilding.await.expect("no panic");
    for number in 0..1_500 {
        assert_eq!(get(&*cache, number).await, Some(number));
    }
    // What is deleted leaves it with the next maintenance.
    for number in 0..1_500 {
        cache.delete(&key(number), &mut CacheContext::new()).await.expect("a delete");
    }
    cache.sweep(10).await.expect("a sweep");
    let before = cache.snapshot().total.false_positives;
    assert_eq!(get(&*cache, 7).await, None);
    assert_eq!(cache.snapshot().total.false_positives, before);

    // Where it could be wrong it is refused.
    let shared = redis(RedisServer::shared()).negative_filter(10).await;
    assert_eq!(shared.err().map(|error| error.kind()), Some(ErrorKind::Configuration));
    let plain = PlainMap::new().negative_filter(10).await;
    assert_eq!(plain.err().map(|error| error.kind()), Some(ErrorKind::Unsupported));
    let whole = moka().compose(moka(), World::new().pool.shared()).negative_filter(10).await;
    assert_eq!(whole.err().map(|error| error.kind()), Some(ErrorKind::Configuration));
}

/// A filter that knows the keys of the moment when it was made.
#[derive(Clone)]
struct Outdated {
    inner: Arc<dyn Backend>,
    known: Arc<Vec<CacheKey>>,
}

impl Wrapper for Outdated {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, known: self.known.clone() })
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        if self.known.contains(key) { forward::try_read(self, key, options) } else { TryRead::Miss }
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        let known = self.known.clone();
        forward::read(self, keys, options).map(move |answers| {
            let known = keys
                .iter()
                .zip(answers)
                .map(|(key, answer)| if known.contains(key) { answer } else { Ok(None) });
            known.collect()
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_02_rejects_a_filter_that_misses_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let outdated = async |disk: DiskBackend| {
        let known = Arc::new(disk.list_keys(0, 10).await.expect("a page").keys);
        let inner: Arc<dyn Backend> = Arc::new(disk.negative_filter(10_000).await.expect("a filter"));
        // Looks go past it, so that only reads are wrong.
        for number in 100..1_100 {
            assert_eq!(get(&*inner, number).await, None);
        }
        Outdated { inner, known }
    };
    filters(folder.path(), outdated).await.expect_err("keys that were written are not found");
}

/// The cache lines in which this many threads at once count hits of one leaf.
fn lines(line: impl Fn() -> usize + Sync, threads: usize) -> Vec<usize> {
    let together = Barrier::new(threads);
    std::thread::scope(|scope| {
        let count = || {
            let found = line();
            together.wait();
            found
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn all_differ(mut lines: Vec<usize>) -> bool {
    let count = lines.len();
    lines.sort_unstable();
    lines.dedup();
    lines.len() == count
}

#[test]
fn stats_02_threads_count_hits_on_lines_of_their_own() {
    let cache = moka();
    let leaf = Backend::layout(&cache).leaves()[0].handle();
    assert!(all_differ(lines(|| counting_line(leaf), 16)));
    // Threads that have ended leave theirs to others.
    assert!(all_differ(lines(|| counting_line(leaf), 16)));
}

#[test]
fn stats_02_rejects_a_counter_for_all() {
    let counter = std::sync::atomic::AtomicU64::new(0);
    assert!(!all_differ(lines(|| std::ptr::from_ref(&counter) as usize / 128, 16)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_name_both_numbers() {
    let limits = Limits { value_bytes: 1_000, namespaces: 3, ..Limits::DEFAULT };
    let folder = tempfile::tempdir().expect("a folder");
    let leaves: Vec<Arc<dyn Backend>> = vec![
        Arc::new(MokaBackend::builder().limits(limits).build().expect("moka")),
        Arc::new(QuickBackend::builder().limits(limits).build().expect("quick")),
        Arc::new(RedisBackend::builder(&RedisServer::start().url()).limits(limits).build().expect("redis")),
        Arc::new(DiskBackend::builder(folder.path()).limits(limits).open().await.expect("disk")),
    ];
    // The server of the Redis leaf is gone: what is refused is refused before it is asked.
    for leaf in &leaves {
        let large = CacheValue::new("x".repeat(2_000));
        let error = leaf.set(&key(1), large, &mut CacheContext::new()).await;
        if !leaf.layout().capabilities().keeps_live_values {
            let exceeded = error.expect_err("a value of 2,000 bytes").exceeded();
            assert_eq!(exceeded.map(|(_, limit)| limit), Some(1_000));
        }
        for (name, nested) in [("a", None), ("b", Some("c")), ("a", None)] {
            let inside = leaf.clone().namespace(name);
            let written = match nested {
                Some(nested) => put(&inside.namespace(nested), 1, &[]).await,
                None => put(&inside, 1, &[]).await,
            };
            assert!(written.is_ok() || leaf.layout().capabilities().shared, "{name}");
        }
        let error = put(&leaf.clone().namespace("d"), 1, &[]).await.expect_err("a fourth namespace");
        assert_eq!((error.kind(), error.exceeded()), (ErrorKind::TooLarge, Some((4, 3))));
    }
}

#[tokio::test]
async fn refill_09_low_priorities_are_put_out_first() {
    let priorities =
        |entries| MokaBackend::builder().max_entries(entries).priorities().build().expect("moka");
    let put = async |cache: &MokaBackend, number: u64, priority: Priority| {
        let mut details = Details::default();
        details.priority = priority;
        let value = CacheValue::new(number).with_details(details);
        cache.set(&key(number), value, &mut CacheContext::new()).await.expect("a write");
    };
    let cache = priorities(10);
    for number in 0..10 {
        let class = [Priority::High, Priority::Low, Priority::Normal][number as usize % 3];
        put(&cache, number, class).await;
    }
    assert_eq!(left(&cache).await, (0..10).collect::<Vec<_>>());
    // Low: 1, 4, 7; normal: 2, 5, 8; high: 0, 3, 6, 9.
    put(&cache, 100, Priority::High).await;
    assert_eq!(left(&cache).await, [0, 2, 3, 4, 5, 6, 7, 8, 9], "the oldest low one has gone");
    for number in 101..103 {
        put(&cache, number, Priority::Normal).await;
    }
    assert_eq!(left(&cache).await, [0, 2, 3, 5, 6, 8, 9], "all low ones have gone");
    put(&cache, 103, Priority::Low).await;
    assert_eq!(get(&cache, 103).await, None, "a low one finds no room");
    for number in 104..109 {
        put(&cache, number, Priority::High).await;
    }
    assert_eq!(left(&cache).await, [0, 3, 6, 9], "all normal ones have gone");
    let held = occupancy(&cache);
    assert!(held.entries <= 10 && held.evictions >= 8);
    // An overwrite changes the class; a delete gives the room back.
    put(&cache, 0, Priority::Low).await;
    put(&cache, 110, Priority::High).await;
    assert_eq!(left(&cache).await, [3, 6, 9]);
    let deleted = cache.delete(&key(3), &mut CacheContext::new()).await.expect("a delete");
    assert_eq!(deleted, DeleteStatus::Deleted(1));
    put(&cache, 111, Priority::Low).await;
    assert_eq!(get(&cache, 111).await, Some(111));
    let total: Statistics = cache.snapshot();
    assert_eq!(total.leaves.len(), 1);
}

#[tokio::test]
async fn receipts_of_invalidations_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let both = MokaBackend::builder().build().expect("moka").over(disk).with_label("both");
    put(&both, 1, &[Scope::tag("red")]).await.expect("a write");
    for receipt in [
        both.invalidate_tags(&["red"]).await,
        both.invalidate_dependencies(&["table"]).await,
        both.flush_namespace("tenant").await,
        both.clear().await,
    ] {
        let lines: Vec<String> =
            receipt.expect("it is done").leaves().iter().map(|l| format!("{l:?}")).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.contains("Invalidated")), "{lines:?}");
    }
    assert_eq!(get(&both, 1).await, None);
}
