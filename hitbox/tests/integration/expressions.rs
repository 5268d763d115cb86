//! What holds whatever the expression: stores in two places, stores by themselves, policies of others, batches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::{millis, seconds, until};
use async_trait::async_trait;
use bytes::Bytes;
use hitbox::backend::operation::Completion;
use hitbox::backend::policy::{WriteAttempts, WritePolicy, Written};
use hitbox::backend::store::LeafOptions;
use hitbox::backend::{
    Backend, CacheBackend, Compose, CompositionBackend, DeleteStatus, Layer, Leaf, OffloadPool,
    OptimisticParallelWritePolicy, RaceWritePolicy, Raw, ReadOptions, RefillPolicy, SequentialWritePolicy,
    Store, Wrap,
};
use hitbox::core::{
    Accept, BackendError, BackendResult, CacheContext, CacheKey, CacheValue, Clock, ErrorKind, ManualClock,
    Offload,
};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, Loaded};
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation, RedisServer};

fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

async fn set(backend: &dyn Backend, number: u64, value: u64) {
    backend.set(&key(number), CacheValue::new(value), &mut CacheContext::new()).await.expect("a write");
}

async fn get(backend: &dyn Backend, number: u64) -> Option<u64> {
    let found = backend.get::<u64>(&key(number), &mut CacheContext::new()).await;
    found.expect("a read").map(CacheValue::into_data)
}

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

/// A store of the three methods that a store has to have, and what was asked of it.
#[derive(Default)]
struct Three {
    records: Mutex<HashMap<CacheKey, Bytes>>,
    reads: AtomicU64,
    writes: AtomicU64,
    /// Calls that yield before they act.
    slowness: AtomicUsize,
    fails: std::sync::atomic::AtomicBool,
}

impl Three {
    async fn dawdle(&self) {
        for _ in 0..self.slowness.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }
}

/// The same for those who hold it too.
#[derive(Clone, Default)]
struct Shared(Arc<Three>);

#[async_trait]
impl Store for Shared {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        self.0.dawdle().await;
        Ok(self.0.records.lock().expect("no panic").get(key).cloned().map(Raw::record))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        self.0.dawdle().await;
        if self.0.fails.load(Ordering::Relaxed) {
            return Err(BackendError::new(ErrorKind::Connection, "it is told to fail"));
        }
        let record = Raw::to_record(key, &value)?;
        self.0.records.lock().expect("no panic").insert(key.clone(), record.into());
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let held = self.0.records.lock().expect("no panic").remove(key);
        Ok(DeleteStatus::of(u32::from(held.is_some())))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_e01_one_store_in_two_places_keeps_the_order_of_writes() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    let pool = OffloadPool::new();
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let redis = RedisBackend::builder(&server.url()).deadline(seconds(5)).build().expect("redis");
    let slow = Shared::default();
    slow.0.slowness.store(3, Ordering::Relaxed);
    let slow = Leaf::new(slow, LeafOptions::new("slow"));
    let stores: Vec<(&str, Arc<dyn Backend>)> = vec![
        ("moka", moka().shared()),
        ("redis", redis.shared()),
        ("disk", disk.shared()),
        ("slow", slow.shared()),
    ];
    for (name, store) in stores {
        let other = || moka().shared();
        let twice = |upper: Arc<dyn Backend>, lower: Arc<dyn Backend>, how: usize| -> Arc<dyn Backend> {
            let whole: CompositionBackend = match how {
                0 => upper.compose(lower, pool.shared()).with_write(OptimisticParallelWritePolicy),
                1 => upper.compose(lower, pool.shared()).with_write(SequentialWritePolicy::new()),
                2 => upper.compose(lower, pool.shared()).with_write(SequentialWritePolicy::durable_first()),
                _ => upper.compose(lower, pool.shared()).with_write(RaceWritePolicy::default()),
            };
            whole.with_refill(RefillPolicy::Always).shared()
        };
        // A race leaves one place behind: more of those.
        for how in [0, 1, 2, 3, 3, 3, 3, 3] {
            for (shape, cache) in [
                ("over itself", twice(store.clone(), store.clone(), how)),
                ("over a composition with it", twice(store.clone(), twice(other(), store.clone(), how), how)),
                (
                    "two compositions over it",
                    twice(twice(other(), store.clone(), how), twice(other(), store.clone(), how), how),
                ),
            ] {
                for value in 1..40 {
                    // Others of the key are read and written meanwhile.
                    let reader = tokio::spawn({
                        let cache = cache.clone();
                        async move { get(&*cache, 1).await }
                    });
                    set(&*cache, 1, value).await;
                    assert_eq!(get(&*cache, 1).await, Some(value), "{name}, {shape}, {how}");
                    reader.await.expect("no panic");
                }
                pool.wait_all().await;
                assert_eq!(get(&*cache, 1).await, Some(39), "{name}, {shape}, {how}: in the end");
                assert_eq!(get(&*store, 1).await, Some(39), "{name}, {shape}, {how}: the store");
                cache.delete(&key(1), &mut CacheContext::new()).await.expect("a removal");
                pool.wait_all().await;
                assert_eq!(get(&*cache, 1).await, None, "{name}, {shape}, {how}: removed");
            }
        }
    }
}

#[tokio::test]
async fn case_e02_stores_of_three_methods_have_their_own_state() {
    let (one, other) = (Shared::default(), Shared::default());
    let pool = OffloadPool::new();
    let first = Cache::<u64>::builder(moka().compose(one.clone(), pool.shared())).name("same").build();
    let second = Cache::<u64>::builder(moka().compose(other.clone(), pool.shared())).name("same").build();
    let (first, second) = (first.expect("a cache"), second.expect("a cache"));
    second.insert(1_u64, 2).await.expect("a write");
    one.0.fails.store(true, Ordering::Relaxed);
    first.insert(1_u64, 1).await.expect("memory has it");
    first.clear().await.expect_err("an epoch that is not recorded");
    assert_eq!(second.get(1_u64).await.expect("a read"), Some(2));
    second.backend().evict(&second.key(&1_u64)).await.expect("an eviction");
    assert_eq!(second.get(1_u64).await.expect("a read"), Some(2), "what the lower store has");
    assert_eq!(second.statistics().recovering, 0);
}

#[tokio::test]
async fn case_e10_a_hidden_layer_that_cannot_be_erased_comes_back() {
    let clock = ManualClock::new();
    let pool = OffloadPool::builder().clock(Arc::new(clock.clone())).build();
    let faults = Faults::default();
    let memory = MemoryBackend::labelled("lower", Arc::new(clock.clone()));
    let faulty = Faulty::new(memory, &faults, Arc::new(clock.clone()));
    for (name, hidden) in [
        ("a namespace", faulty.shared().namespace("n").shared()),
        ("three methods", {
            let options = LeafOptions::new("three").with_clock(Arc::new(clock.clone()));
            Faulty::new(Leaf::new(Shared::default(), options), &faults, Arc::new(clock.clone())).shared()
        }),
    ] {
        let upper = MemoryBackend::labelled("upper", Arc::new(clock.clone()));
        let builder = Cache::<u64>::builder(upper.compose(hidden, pool.shared())).name("e10");
        let cache = builder.offload(pool.shared()).clock(Arc::new(clock.clone())).build().expect("a cache");
        cache.insert(1_u64, 1).await.expect("a write");
        faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
        faults.always(Operation::Remove, Fault::Fail(ErrorKind::Connection));
        for number in 0..140_000_u64 {
            // The upper layer has them.
            cache.insert(number, number).await.expect("one layer is enough");
        }
        faults.clear();
        assert!(cache.statistics().recovering >= 140_000, "{name}");
        until("recovery", || {
            clock.advance(seconds(1));
            cache.statistics().recovering == 0
        })
        .await
        .unwrap_or_else(|why| panic!("{name}: {why}, {:?}", cache.statistics()));
        // What is written now is served from there.
        cache.insert(2_u64, 20).await.expect("a write");
        let below = ReadOptions::NORMAL.skipping(hitbox::backend::operation::LeafSet::of(0));
        let found =
            cache.backend().get_with::<u64>(&cache.key(&2_u64), below, &mut CacheContext::new()).await;
        assert_eq!(found.expect("a read").map(CacheValue::into_data), Some(20), "{name}");
    }
}

#[tokio::test]
async fn case_e11_a_store_by_itself_is_found_through_a_composition() {
    let pool = OffloadPool::new();
    let leaf = Leaf::new(Shared::default(), LeafOptions::new("three"));
    let whole = moka().compose(leaf.clone(), pool.shared()).with_refill(RefillPolicy::Always);
    set(&whole, 1, 1).await;
    whole.clear().await.expect("a clear");
    set(&leaf, 2, 2).await;
    assert_eq!(get(&whole, 2).await, Some(2));
    set(&whole, 3, 3).await;
    assert_eq!(get(&leaf, 3).await, Some(3));
    // Another leaf of the same store, as a second process has it.
    let store = Shared::default();
    let whole = moka().compose(store.clone(), pool.shared());
    set(&whole, 1, 1).await;
    let alone: Arc<dyn Backend> = Leaf::new(store.clone(), LeafOptions::new("alone")).shared();
    set(&*alone, 2, 2).await;
    assert_eq!(get(&whole, 2).await, Some(2), "it was written by itself");
    assert_eq!(get(&*alone, 1).await, Some(1));
}

/// Writes the lower layer alone.
#[derive(Debug)]
struct LowerOnly;

impl WritePolicy for LowerOnly {
    fn write<'a>(&'a self, layers: &'a dyn WriteAttempts, _: &'a dyn Offload) -> Completion<'a, Written> {
        Completion::later(async { Written { l1: None, l2: Some(layers.write(Layer::L2).await) } })
    }
}

#[tokio::test]
async fn case_e13_a_policy_of_others_decides_for_batches_too() {
    let (upper, lower) = (moka(), moka());
    let pool = OffloadPool::new();
    let cache = upper.clone().compose(lower.clone(), pool.shared()).with_write(LowerOnly);
    set(&cache, 1, 1).await;
    let entries = (2..10).map(|number| (key(number), CacheValue::new(number))).collect();
    assert!(cache.set_many(entries).await.iter().all(Result::is_ok));
    for number in 1..10 {
        assert_eq!((get(&upper, number).await, get(&lower, number).await), (None, Some(number)), "{number}");
    }
    // In a nest, behind pointers.
    let (upper, lower) = (moka(), moka());
    let inner: Arc<dyn Backend> =
        upper.clone().compose(lower.clone(), pool.shared()).with_write(LowerOnly).shared();
    let nest = moka().compose(inner, pool.shared());
    let entries = (2..10).map(|number| (key(number), CacheValue::new(number))).collect();
    assert!(nest.set_many(entries).await.iter().all(Result::is_ok));
    for number in 2..10 {
        assert_eq!((get(&upper, number).await, get(&lower, number).await), (None, Some(number)), "{number}");
    }
}

/// A store that stops to answer reads.
#[derive(Clone, Default)]
struct Silent(Shared, Arc<std::sync::atomic::AtomicBool>);

#[async_trait]
impl Store for Silent {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        if self.1.load(Ordering::Relaxed) {
            return Err(BackendError::new(ErrorKind::Timeout, "nobody answers"));
        }
        self.0.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }
}

#[tokio::test]
async fn case_c18_a_store_that_falls_silent_within_a_batch_is_asked_no_more() {
    let store = Silent::default();
    let leaf = Leaf::new(store.clone(), LeafOptions::new("silent"));
    set(&leaf, 1, 1).await;
    let writes = || store.0.0.writes.load(Ordering::Relaxed);
    let before = writes();
    store.1.store(true, Ordering::Relaxed);
    let mut details = hitbox::core::Details::default();
    details.scopes = vec![hitbox::core::Scope::tag("unknown")];
    // The first could be written; the epoch of the tag of the second has to be asked for.
    let tagged = CacheValue::new(3_u64).with_details(details);
    let results = leaf.set_many(vec![(key(2), CacheValue::new(2_u64)), (key(3), tagged)]).await;
    let kinds: Vec<_> =
        results.iter().map(|result| result.as_ref().map(drop).map_err(|e| e.kind())).collect();
    assert_eq!(kinds, [Err(ErrorKind::Timeout), Err(ErrorKind::Timeout)]);
    assert_eq!(writes(), before, "each of them would wait as long again");
    store.1.store(false, Ordering::Relaxed);
    set(&leaf, 2, 4).await;
    assert_eq!(get(&leaf, 2).await, Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_e14_a_record_of_epochs_is_written_once_and_not_counted() {
    let store = Shared::default();
    let leaf = Leaf::new(store.clone(), LeafOptions::new("three"));
    let calls = || (store.0.reads.load(Ordering::Relaxed), store.0.writes.load(Ordering::Relaxed));
    set(&leaf, 1, 1).await;
    // The epoch of everything is asked for once, and recorded once.
    assert_eq!(calls(), (1, 2), "the first");
    for number in 2..10 {
        set(&leaf, number, number).await;
    }
    assert_eq!(calls(), (1, 10), "all others");
    assert_eq!((leaf.snapshot().total.writes, leaf.snapshot().total.misses), (9, 0));
    // It is nobody's entry.
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    let redis = RedisBackend::builder(&server.url()).build().expect("redis");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    for (name, backend) in [("redis", redis.shared()), ("disk", disk.shared())] {
        set(&*backend, 1, 1).await;
        let (total, counts) = (backend.snapshot().total, backend.entry_counts().await.expect("counts"));
        assert_eq!((total.writes, total.hits, total.misses), (1, 0, 0), "{name}");
        assert!(matches!(counts[0].entries, Ok(1)), "{name}: {counts:?}");
        assert!(total.occupancy.is_none_or(|held| held.entries == 1), "{name}: {total:?}");
    }
}

/// A store that takes many keys in one call.
#[derive(Clone, Default)]
struct Batching(Shared, Arc<[AtomicUsize; 2]>);

#[async_trait]
impl Store for Batching {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.1[0].fetch_add(1, Ordering::Relaxed);
        self.0.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.1[1].fetch_add(1, Ordering::Relaxed);
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }

    async fn read_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        self.1[0].fetch_add(1, Ordering::Relaxed);
        self.0.read_batch(keys).await
    }

    async fn write_batch(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        self.1[1].fetch_add(1, Ordering::Relaxed);
        self.0.write_batch(entries).await
    }
}

#[tokio::test]
async fn case_e14_a_batch_asks_once_for_all_its_epochs() {
    let store = Batching::default();
    let leaf = Leaf::new(store.clone(), LeafOptions::new("batching"));
    let entries = (0..50_u64).map(|number| {
        let mut details = hitbox::core::Details::default();
        details.scopes = vec![hitbox::core::Scope::tag(format!("tag {}", number % 40))];
        (key(number), CacheValue::new(number).with_details(details))
    });
    assert!(leaf.set_many(entries.collect()).await.iter().all(Result::is_ok));
    let calls = store.1.each_ref().map(|calls| calls.load(Ordering::Relaxed));
    assert_eq!(calls, [1, 2], "one question, one batch of records, and one of entries");
    for number in 0..50 {
        assert_eq!(get(&leaf, number).await, Some(number));
    }
    leaf.invalidate_tags(&["tag 3"]).await.expect("an invalidation");
    for (number, expected) in [(3, None), (43, None), (4, Some(4))] {
        assert_eq!(get(&leaf, number).await, expected);
    }
}

/// Reads that wait at a gate.
#[derive(Clone)]
struct Gate {
    store: Shared,
    gate: Arc<tokio::sync::Semaphore>,
}

#[async_trait]
impl Store for Gate {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let found = self.store.read(key).await;
        self.gate.acquire().await.expect("it is never closed").forget();
        found
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.store.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.remove(key).await
    }
}

fn gated() -> (Gate, Arc<Three>, Arc<tokio::sync::Semaphore>) {
    let (store, gate) = (Shared::default(), Arc::new(tokio::sync::Semaphore::new(0)));
    (Gate { store: store.clone(), gate: gate.clone() }, store.0, gate)
}

#[tokio::test]
async fn case_d07_reads_are_joined_with_their_like() {
    let (store, three, gate) = gated();
    let pool = OffloadPool::new();
    let backend: Arc<dyn Backend> = Arc::new(store.coalesced());
    let builder = Cache::<u64>::builder(backend.clone()).name("d7").offload(pool.shared());
    let cache = builder.absent_ttl(seconds(60)).build().expect("a cache");
    gate.add_permits(10);
    let absent = cache.get_or_load_optional(1_u64, || async { Ok::<_, std::io::Error>(None) }).await;
    assert_eq!(absent.expect("an answer"), None);
    pool.wait_all().await;
    gate.forget_permits(gate.available_permits());
    let before = three.reads.load(Ordering::Relaxed);
    let spawn = |with_absent: bool| {
        let (backend, key) = (backend.clone(), cache.key(&1_u64).into_owned());
        let options = ReadOptions::NORMAL.with_absent(with_absent).accepting(Accept::Stale);
        tokio::spawn(async move {
            let answer = backend.read(std::slice::from_ref(&key), &options).await.into_one();
            answer.expect("an answer").expect("a read").is_some()
        })
    };
    let reads: Vec<_> = [true, false, true, false].into_iter().map(|with| (with, spawn(with))).collect();
    until("two calls", || three.reads.load(Ordering::Relaxed) == before + 2)
        .await
        .expect("one for each kind");
    gate.add_permits(10);
    for (with_absent, read) in reads {
        assert_eq!(read.await.expect("no panic"), with_absent, "each has its own kind of answer");
    }
    assert_eq!(three.reads.load(Ordering::Relaxed), before + 2);
}

/// What is invalidated in other stores is no reason to ask again.
#[tokio::test]
async fn case_d09_reads_share_a_call_whatever_happens_elsewhere() {
    let (store, three, gate) = gated();
    let cache = Leaf::new(store, LeafOptions::new("gated")).coalesced();
    gate.add_permits(1_000);
    set(&cache, 1, 1).await;
    gate.forget_permits(gate.available_permits());
    three.reads.store(0, Ordering::Relaxed);
    let cache = cache.shared();
    let elsewhere = moka();
    let reader = || {
        let cache = cache.clone();
        tokio::spawn(async move { get(&*cache, 1).await })
    };
    let first = reader();
    until("a call", || three.reads.load(Ordering::Relaxed) == 1).await.expect("it is asked");
    elsewhere.invalidate_tags(&["red"]).await.expect("an invalidation");
    let second = reader();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // Here it is one.
    cache.invalidate_tags(&["red"]).await.expect("an invalidation");
    let third = reader();
    until("another call", || three.reads.load(Ordering::Relaxed) == 2).await.expect("it is asked again");
    gate.add_permits(100);
    for reader in [first, second, third] {
        assert_eq!(reader.await.expect("no panic"), Some(1));
    }
    assert_eq!(three.reads.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn case_d09_simultaneous_reads_are_one_call_below_a_miss() {
    for wrapped in ["the layer", "the whole", "boxed"] {
        let (store, three, gate) = gated();
        let pool = OffloadPool::new();
        let leaf = Leaf::new(store, LeafOptions::new("gated"));
        let cache: Arc<dyn Backend> = match wrapped {
            "the layer" => moka().compose(leaf.coalesced(), pool.shared()).shared(),
            "the whole" => moka().compose(leaf, pool.shared()).coalesced().shared(),
            _ => moka().shared().compose(leaf.shared().coalesced().shared(), pool.shared()).shared(),
        };
        gate.add_permits(1_000);
        set(&*cache, 1, 1).await;
        cache.evict(&key(1)).await.expect("an eviction");
        gate.forget_permits(gate.available_permits());
        three.reads.store(0, Ordering::Relaxed);
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { get(&*cache, 1).await })
            })
            .collect();
        until("a call", || three.reads.load(Ordering::Relaxed) > 0).await.expect("it is asked");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(100);
        for reader in readers {
            assert_eq!(reader.await.expect("no panic"), Some(1), "{wrapped}");
        }
        assert_eq!(three.reads.load(Ordering::Relaxed), 1, "{wrapped}: one call for all");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c10_the_shared_layer_decides_about_versions() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    let pool = OffloadPool::new();
    let process = async |name: &str| {
        let redis = RedisBackend::builder(&server.url()).deadline(seconds(5)).build().expect("redis");
        let disk = DiskBackend::builder(folder.path().join(name)).open().await.expect("disk");
        moka().compose(redis.compose(disk, pool.shared()), pool.shared()).shared()
    };
    let (one, other) = (process("one").await, process("other").await);
    let mut round = 0;
    // Whichever layer is told to decide, a shared one does.
    for (writer, late) in [(&one, &other), (&other, &one)] {
        round += 1;
        writer.set_if_newer(&key(round), CacheValue::new(5_u64), 5).await.expect("a write");
        let refused = late.set_if_newer(&key(round), CacheValue::new(3_u64), 3).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::VersionMismatch));
        assert_eq!((get(&**writer, round).await, get(&**late, round).await), (Some(5), Some(5)));
        late.set_if_newer(&key(round), CacheValue::new(7_u64), 7).await.expect("a newer one");
        assert_eq!(get(&**late, round).await, Some(7));
        let refused = writer.set_if_newer(&key(round), CacheValue::new(6_u64), 6).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::VersionMismatch));
    }
    let redis = RedisBackend::builder(&server.url()).deadline(seconds(5)).build().expect("redis");
    assert_eq!(get(&redis, 1).await, Some(7));
}

/// A store that needs longer than its deadline for what is large.
#[derive(Clone, Default)]
struct Narrow {
    store: Shared,
    large: Arc<AtomicU64>,
}

#[async_trait]
impl Store for Narrow {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.store.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        if Raw::to_record(key, &value)?.len() > 100_000 {
            self.large.fetch_add(1, Ordering::Relaxed);
            return Err(BackendError::new(ErrorKind::Timeout, "the deadline"));
        }
        self.store.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.remove(key).await
    }
}

#[tokio::test]
async fn case_c12_what_outlasts_the_deadline_is_not_sent_again_and_again() {
    let clock = ManualClock::new();
    let pool = OffloadPool::builder().clock(Arc::new(clock.clone())).build();
    let store = Narrow::default();
    let sent = || store.large.load(Ordering::Relaxed);
    let lower = Leaf::new(store.clone(), LeafOptions::new("narrow").with_clock(Arc::new(clock.clone())));
    let upper = MemoryBackend::labelled("upper", Arc::new(clock.clone()));
    let builder = Cache::<String>::builder(upper.compose(lower, pool.shared())).name("c12");
    let cache = builder.offload(pool.shared()).clock(Arc::new(clock.clone())).build().expect("a cache");
    cache.insert(1_u64, "small".to_owned()).await.expect("a write");
    cache.insert(1_u64, "x".repeat(200_000)).await.expect("memory has it");
    for step in 0..250 {
        clock.advance(millis(100));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        // Small ones go through meanwhile.
        cache.insert(2_u64, step.to_string()).await.expect("a write");
    }
    assert!(sent() <= 2, "sent {} times", sent());
    assert_eq!(cache.insert(1_u64, "x".repeat(200_000)).await.expect("memory has it").stored(), 1);
    assert!(sent() <= 2, "it is remembered: sent {} times", sent());
    // The older one is not found below, by anybody.
    let below = ReadOptions::NORMAL.skipping(hitbox::backend::operation::LeafSet::of(0));
    let found = cache.backend().get_with::<String>(&cache.key(&1_u64), below, &mut CacheContext::new()).await;
    assert!(found.expect("a read").is_none());
    cache.insert(1_u64, "small again".to_owned()).await.expect("a write");
    // A while later it may have become faster.
    clock.advance(seconds(60));
    cache.insert(1_u64, "x".repeat(200_000)).await.expect("memory has it");
    assert!(sent() >= 2);
}

#[tokio::test]
async fn case_f15_an_entry_of_a_quarter_of_the_bound_is_taken() {
    const BOUND: u64 = 64 << 20;
    let moka = MokaBackend::builder().max_bytes(BOUND).build().expect("moka");
    let quick = QuickBackend::builder().max_bytes(BOUND).build().expect("quick");
    for (name, backend) in [("moka", moka.shared()), ("quick", quick.shared())] {
        // quick says that it takes what a shard of it holds.
        let sizes: &[usize] = if name == "quick" { &[1, 4, 7] } else { &[1, 8, 16, 32, 60] };
        for mebibytes in sizes.iter().copied() {
            let value = CacheValue::new(Bytes::from(vec![1; mebibytes << 20]));
            let receipt = backend.set(&key(mebibytes as u64), value, &mut CacheContext::new()).await;
            assert_eq!(receipt.expect("a write").stored(), 1, "{name}: {mebibytes} MiB");
            let found = backend.get::<Bytes>(&key(mebibytes as u64), &mut CacheContext::new()).await;
            // moka may choose to keep others that were wanted more often.
            let is_kept = found.expect("a read").is_some();
            assert!(is_kept || (name == "moka" && mebibytes > 16), "{name}: {mebibytes} MiB");
            let held = backend.layout().leaves()[0].statistics().occupancy.expect("a bound");
            assert!(held.bytes <= BOUND, "{name}: {} bytes", held.bytes);
        }
        let refused = backend
            .set(&key(0), CacheValue::new(Bytes::from(vec![1; 65 << 20])), &mut CacheContext::new())
            .await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::TooLarge), "{name}");
    }
}

/// Reads of a store in memory are known by what is put out: what was looked at is treated as what was not.
#[tokio::test]
async fn case_f17_a_look_has_no_effect() {
    const ENTRIES: u64 = 200;
    let evicted_of = async |looks: bool, quick: bool| -> Vec<u64> {
        let backend: Arc<dyn Backend> = if quick {
            QuickBackend::builder().max_entries(ENTRIES).build().expect("quick").shared()
        } else {
            MokaBackend::builder().max_entries(ENTRIES).build().expect("moka").shared()
        };
        for number in 0..ENTRIES {
            set(&*backend, number, number).await;
            backend.sweep(0).await.expect("a sweep");
        }
        for _ in 0..20 {
            for number in 0..50 {
                if looks {
                    backend.contains(&key(number)).await.expect("a look");
                }
            }
            backend.sweep(0).await.expect("a sweep");
        }
        for number in 1_000..1_000 + ENTRIES {
            set(&*backend, number, number).await;
            backend.sweep(0).await.expect("a sweep");
        }
        let listed = backend.list_keys(0, usize::MAX).await.expect("a list").keys;
        (0..ENTRIES).filter(|number| !listed.contains(&key(*number))).collect()
    };
    for quick in [false, true] {
        assert_eq!(evicted_of(true, quick).await, evicted_of(false, quick).await, "quick: {quick}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f24_an_absolute_end_is_the_ceiling() {
    let clock = ManualClock::new();
    let folder = tempfile::tempdir().expect("a folder");
    let pool = OffloadPool::builder().clock(Arc::new(clock.clone())).build();
    let memory = || MemoryBackend::labelled("memory", Arc::new(clock.clone()));
    let moka = || MokaBackend::builder().clock(Arc::new(clock.clone())).build().expect("moka");
    let disk = DiskBackend::builder(folder.path()).clock(Arc::new(clock.clone())).open().await.expect("disk");
    let hour = seconds(3_600);
    let backends: Vec<(&str, Arc<dyn Backend>)> = vec![
        ("override", moka().ttl_override(Some(hour)).shared()),
        ("override for ever", memory().ttl_override(None).shared()),
        ("below", memory().compose(moka().ttl_override(Some(hour)), pool.shared()).shared()),
        ("above", moka().ttl_override(None).compose(memory(), pool.shared()).shared()),
        ("disk", moka().compose(disk.ttl_override(Some(hour)), pool.shared()).shared()),
        ("around", memory().compose(moka(), pool.shared()).ttl_override(Some(hour)).shared()),
    ];
    for (name, backend) in backends {
        let builder = Cache::<u64>::builder(backend).name("f24").clock(Arc::new(clock.clone()));
        let cache = builder.ttl(seconds(10)).offload(pool.shared()).build().expect("a cache");
        let until = clock.now() + seconds(5);
        cache.entry(1_u64).expires_at(until).insert(1).await.expect("a write");
        cache
            .entry(2_u64)
            .get_or_load_with(
                move |_| async move { Ok::<_, std::io::Error>(Loaded::new(2).expires_at(until)) },
            )
            .await
            .expect("a load");
        cache.insert(3_u64, 3).await.expect("a write");
        clock.advance(seconds(4));
        assert_eq!(
            (cache.get(1_u64).await.expect("a read"), cache.get(2_u64).await.expect("a read")),
            (Some(1), Some(2)),
            "{name}"
        );
        clock.advance(seconds(2));
        assert_eq!(
            (cache.get(1_u64).await.expect("a read"), cache.get(2_u64).await.expect("a read")),
            (None, None),
            "{name}: served after its end"
        );
        // A TTL is what the layer's own replaces.
        clock.advance(seconds(60));
        let longer = cache.get(3_u64).await.expect("a read");
        assert_eq!(longer, Some(3), "{name}: a TTL is replaced");
    }
}
