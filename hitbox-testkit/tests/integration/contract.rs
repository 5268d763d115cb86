//! The contract as third parties meet it: wrappers of their own, stores of three methods, every call of every expression.
//! Each test is named after a case in which a cache is known to go wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use hitbox_backend::doc::Map;
use hitbox_backend::internal::{Reconciler, Reconciles};
use hitbox_backend::operation::{
    Answers, Condition, Invalidation, InvalidationTarget, LeafSet, Maintained, Maintenance, Removal, TryRead,
    Write, WriteOptions,
};
use hitbox_backend::operation::{Batch, BodyReader};
use hitbox_backend::policy::Loser;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::{Capabilities, DeleteStatus, Page, Peek, Raw, Store, Sweep};
use hitbox_backend::wrap::{AdmissionRule, Wrapper};
use hitbox_backend::{
    Backend, CacheBackend, Compose, CompositionPolicy, IntoBackend, Leaf, LeafOutcome,
    OptimisticParallelWritePolicy, RaceWritePolicy, ReadOptions, Receipt, RefillPolicy,
    SequentialWritePolicy, Wrap,
};
use hitbox_core::{
    BackendError, BackendResult, BoxFuture, CacheContext, CacheKey, CacheValue, Details, ErrorKind,
    KeyPattern, Lifetime, Scope,
};
use hitbox_testkit::broken::PlainMap;
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation, Setup, World};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

fn key(name: &str) -> CacheKey {
    CacheKey::builder("contract").part("name", name).build()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn tagged<T>(value: T, tag: &str) -> CacheValue<T> {
    let mut details = Details::default();
    details.scopes = vec![Scope::tag(tag)];
    CacheValue::new(value).with_details(details)
}

async fn set(cache: &dyn Backend, key: &CacheKey, value: u64) -> Receipt {
    cache.set(key, CacheValue::new(value), &mut CacheContext::new()).await.expect("a write")
}

async fn get(cache: &dyn Backend, key: &CacheKey) -> Option<u64> {
    let read = cache.get::<u64>(key, &mut CacheContext::new()).await;
    read.expect("a read").map(CacheValue::into_data)
}

async fn write(cache: &dyn Backend, write: Write) -> Receipt {
    cache.write(Batch::one(write)).await.into_one().expect("a receipt")
}

/// Nothing that works takes longer.
async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), call).await.unwrap_or_else(|_| panic!("{what} never ends"))
}

/// The kinds of the errors of single leaves in an error.
fn kinds(error: &BackendError) -> Vec<ErrorKind> {
    match error.causes() {
        [] => vec![error.kind()],
        causes => causes.iter().flat_map(kinds).collect(),
    }
}

/// A wrapper as a third party writes it first: it says what it wraps, and how it is put around another.
struct Bare(Arc<dyn Backend>);

impl Wrapper for Bare {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.0
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self(inner))
    }
}

/// The same around something whose type it knows.
struct Around<B>(B);

impl<B: Backend> Wrapper for Around<B> {
    type Inner = B;

    fn inner(&self) -> &B {
        &self.0
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Around(inner))
    }
}

async fn does_all(name: &str, cache: &dyn Backend, evicts: bool) {
    let (one, two) = (key("one"), key("two"));
    in_time(name, async {
        set(cache, &one, 1).await;
        assert_eq!(get(cache, &one).await, Some(1), "{name}");
        if evicts {
            assert_eq!(cache.evict(&one).await.expect("an eviction"), DeleteStatus::Deleted(1), "{name}");
            assert_eq!(get(cache, &one).await, Some(1), "{name}: what is below");
        }
        cache.set_if_newer(&one, CacheValue::new(2_u64), 5).await.expect("a write");
        let older = cache.set_if_newer(&one, CacheValue::new(3_u64), 4).await.expect_err("an older version");
        assert_eq!(older.kind(), ErrorKind::VersionMismatch, "{name}");
        assert_eq!(get(cache, &one).await, Some(2), "{name}");
        cache.set(&two, tagged(7_u64, "red"), &mut CacheContext::new()).await.expect("a write");
        cache.invalidate_tags(&["red"]).await.expect("an invalidation");
        assert_eq!(get(cache, &two).await, None, "{name}: an invalidated entry");
        let entries = vec![(one.clone(), CacheValue::new(8_u64)), (two.clone(), CacheValue::new(9_u64))];
        assert!(cache.set_many(entries).await.iter().all(Result::is_ok), "{name}");
        let read = cache.get_many::<u64>(&[one.clone(), two.clone()]).await.into_iter();
        let read: Vec<_> = read.map(|entry| entry.expect("a read").map(CacheValue::into_data)).collect();
        assert_eq!(read, [Some(8), Some(9)], "{name}");
        assert_eq!(cache.invalidate_prefix(&CacheKey::new("contract")).await.expect("a prefix"), 2, "{name}");
        cache.sweep(10).await.expect("a sweep");
        set(cache, &one, 10).await;
        let erased = cache.erase().await;
        assert_eq!(erased.is_ok(), cache.layout().capabilities().erases, "{name}: {erased:?}");
        assert_eq!(get(cache, &one).await, erased.is_err().then_some(10), "{name}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a01_a_wrapper_of_two_methods_forwards_all_else() {
    let world = World::new();
    let moka = || crate::common::moka(world.clone());
    let pool = || world.pool.shared();
    let whole = async || moka().await.compose(moka().await, pool()).with_label("whole");
    does_all("around a composition", &Bare(whole().await.shared()), true).await;
    does_all("around a composition whose type is known", &Around(whole().await), true).await;
    does_all("twice", &Bare(Around(Bare(whole().await.shared())).shared()), true).await;
    let layers = Bare(moka().await.shared()).compose(Around(moka().await), pool());
    does_all("around layers", &layers, true).await;
    does_all("around layers and the whole", &Bare(layers.shared()).namespace("inside").shared(), true).await;
    does_all("around a leaf", &Around(moka().await), false).await;
    // Paths, statistics and what has been adopted go through too.
    let nest = Bare(whole().await.shared()).compose(Around(moka().await), pool()).with_label("nest");
    let paths: Vec<String> = nest.layout().paths().map(|path| path.to_string()).collect();
    assert_eq!(paths, ["nest.whole.moka", "nest.whole.moka2", "nest.moka"]);
    set(&nest, &key("one"), 1).await;
    assert_eq!(nest.snapshot().total.writes, 3);
}

/// Whoever stores what lives for 20 ms at most serves none of it after its time; whoever takes nothing has nothing.
async fn caps_and_keeps_out<K1, K2, B1, B2>(name: &str, make: impl Fn() -> (B1, B2), pass: impl AsyncFn())
where
    B1: IntoBackend<K1>,
    B2: IntoBackend<K2>,
{
    let world = World::new();
    let pool = || world.pool.shared();
    let memory = || MemoryBackend::new(world.shared_clock());
    let cap = millis(20);
    let never = AdmissionRule::Never;
    // Alone, and with other wrappers in either order.
    let capped: Vec<(&str, Arc<dyn Backend>)> = vec![
        ("alone", make().0.ttl_cap(cap).shared()),
        ("namespace inside", make().0.namespace("n").ttl_cap(cap).shared()),
        ("namespace outside", make().0.ttl_cap(cap).namespace("n").shared()),
        ("a longer cap outside", make().0.ttl_cap(cap).ttl_cap(millis(1_000_000)).shared()),
        ("a longer cap inside", make().0.ttl_cap(millis(1_000_000)).ttl_cap(cap).shared()),
        ("an override inside", make().0.ttl_override(Some(cap)).shared()),
        ("coalesced, admitted, with a deadline", {
            let wrapped = make().0.coalesced().ttl_cap(cap).admission(AdmissionRule::Always);
            wrapped.deadline(millis(1_000_000)).shared()
        }),
        ("composed of two", {
            let whole = make().0.ttl_cap(cap).compose(make().1.ttl_cap(cap), pool());
            whole.with_refill(RefillPolicy::Awaited).shared()
        }),
        ("around a composition", make().0.compose(make().1, pool()).ttl_cap(cap).shared()),
    ];
    let one = key("one");
    for (how, cache) in &capped {
        set(&**cache, &one, 1).await;
        drop(cache.set_many(vec![(key("two"), CacheValue::new(2_u64))]).await);
        cache.set_if_newer(&key("three"), CacheValue::new(3_u64), 3).await.expect("a write");
        let mut body = cache
            .open_writer(&key("body"), CacheValue::new(()), WriteOptions::default())
            .await
            .expect("a writer");
        body.chunk(Bytes::from_static(b"body")).await.expect("a chunk");
        assert!(body.finish().await.is_ok(), "{name}, {how}");
    }
    pass().await;
    for (how, cache) in &capped {
        for name_of_key in ["one", "two", "three"] {
            assert_eq!(get(&**cache, &key(name_of_key)).await, None, "{name}, {how}: {name_of_key}");
        }
        let body = cache.open_reader(&key("body"), &ReadOptions::NORMAL).await.expect("a reader");
        assert!(body.is_none(), "{name}, {how}: a body");
    }
    // Below or above memory, which has another life.
    let upper = make().0.ttl_cap(cap).compose(memory(), pool()).with_refill(RefillPolicy::Awaited);
    set(&upper, &one, 1).await;
    pass().await;
    assert_eq!(get(&upper, &one).await, Some(1), "{name}: what memory below has");
    pass().await;
    let only_upper = ReadOptions::NORMAL.skipping(LeafSet::of(1));
    let read = upper.get_with::<u64>(&one, only_upper, &mut CacheContext::new()).await.expect("a read");
    assert!(read.is_none(), "{name}: a refilled copy after its time");

    let kept_out: Vec<(&str, Arc<dyn Backend>)> = vec![
        ("alone", make().0.admission(never).shared()),
        ("namespace inside", make().0.namespace("n").admission(never).shared()),
        ("namespace outside", make().0.admission(never).namespace("n").shared()),
        ("an admission outside", make().0.admission(never).admission(AdmissionRule::Always).shared()),
        ("an admission inside", make().0.admission(AdmissionRule::Always).admission(never).shared()),
        ("composed of two", make().0.admission(never).compose(make().1.admission(never), pool()).shared()),
        ("around a composition", make().0.compose(make().1, pool()).admission(never).shared()),
    ];
    for (how, cache) in &kept_out {
        let receipt = set(&**cache, &one, 1).await;
        let is_out = |line: &hitbox_backend::LeafReceipt| matches!(line.outcome, LeafOutcome::NotAdmitted);
        assert!(receipt.leaves().iter().all(is_out), "{name}, {how}: {receipt:?}");
        let entries = vec![(one.clone(), CacheValue::new(2_u64)), (key("two"), CacheValue::new(2_u64))];
        drop(cache.set_many(entries).await);
        let mut body =
            cache.open_writer(&one, CacheValue::new(()), WriteOptions::default()).await.expect("a writer");
        body.chunk(Bytes::from_static(b"body")).await.expect("a chunk");
        let receipt = body.finish().await;
        assert!(receipt.leaves().iter().all(is_out), "{name}, {how}: {receipt:?}");
        assert_eq!(
            (get(&**cache, &one).await, get(&**cache, &key("two")).await),
            (None, None),
            "{name}, {how}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a02_wrappers_act_on_every_store() {
    // Bare stores, which get leaves on the machine's clock.
    let wait = async || tokio::time::sleep(millis(40)).await;
    caps_and_keeps_out("a map", || (Map::default(), Map::default()), wait).await;
    caps_and_keeps_out("records", || (PlainMap::new(), PlainMap::new()), wait).await;
    // Leaves on the clock of the test.
    let world = World::new();
    let pass = async || world.advance_millis(20);
    let clock = || world.shared_clock();
    caps_and_keeps_out("a leaf", || (PlainMap::leaf(clock()), MemoryBackend::new(clock())), pass).await;
    let factories: Vec<_> =
        crate::common::subjects().into_iter().filter(|subject| subject.layers.is_none()).collect();
    for subject in factories.into_iter().filter(|subject| !subject.name.contains("Override")) {
        let world = World::new();
        let made = [(); 80].map(|()| (subject.whole)(world.clone()));
        let made = Mutex::new(futures_util::future::join_all(made).await);
        let take = || made.lock().expect("no panic").pop().expect("another one");
        let pass = async || world.advance_millis(20);
        caps_and_keeps_out(&subject.name, || (take(), take()), pass).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a03_receipts_say_what_was_not_admitted() {
    let world = World::new();
    let pool = || world.pool.shared();
    let one = key("one");
    let is_out = |outcome: &LeafOutcome| matches!(outcome, LeafOutcome::NotAdmitted);
    let policies = || {
        [
            CompositionPolicy::new().write(OptimisticParallelWritePolicy),
            CompositionPolicy::new().write(SequentialWritePolicy::new()),
            CompositionPolicy::new().write(SequentialWritePolicy::durable_first()),
        ]
    };
    for (name, leaf) in [
        ("moka", crate::common::moka(world.clone()).await.shared()),
        ("quick", crate::common::quick(world.clone()).await.shared()),
        ("redis", crate::common::redis(world.clone()).await.shared()),
        ("disk", crate::common::disk(world.clone()).await.shared()),
        ("plain", crate::common::plain(world.clone()).await.shared()),
    ] {
        set(&*leaf, &one, 1).await;
        let none = leaf.clone().admission(AdmissionRule::Never);
        let receipt = none.set_if_newer(&one, CacheValue::new(2_u64), 2).await.expect("a write");
        assert!(receipt.leaves().iter().all(|line| is_out(&line.outcome)), "{name}: {receipt:?}");
        assert_eq!(get(&*leaf, &one).await, None, "{name}: what was there, and is older");
        // A version that is not newer changes nothing.
        leaf.set_if_newer(&one, CacheValue::new(5_u64), 5).await.expect("a write");
        let refused = none.set_if_newer(&one, CacheValue::new(4_u64), 4).await.expect_err("an older version");
        assert_eq!(refused.kind(), ErrorKind::VersionMismatch, "{name}");
        assert_eq!(get(&*leaf, &one).await, Some(5), "{name}: what was there, and is newer");

        // The lower layer decides, and takes small values only.
        for policy in policies() {
            let (small, large) = (CacheValue::new("x".to_owned()), CacheValue::new("x".repeat(10_000)));
            let lower = leaf.clone().admission(AdmissionRule::UpTo(1_000));
            let upper = MemoryBackend::labelled("upper", world.shared_clock());
            let whole = upper.clone().compose_with(lower, pool(), &policy).with_label("whole");
            let read = async |cache: &dyn Backend| {
                let read = cache.get::<String>(&one, &mut CacheContext::new()).await.expect("a read");
                read.map(|value| value.into_data().len())
            };
            whole.delete(&one, &mut CacheContext::new()).await.expect("a delete");
            let receipt = whole.set_if_newer(&one, small.clone(), 5).await.expect("a write");
            assert_eq!(receipt.stored(), 2, "{name}: {receipt:?}");
            let receipt = whole.set_if_newer(&one, large.clone(), 6).await.expect("a write");
            let below = receipt.leaves().iter().find(|line| line.label.as_str() != "whole.upper");
            assert!(below.is_some_and(|line| is_out(&line.outcome)), "{name}: {receipt:?}");
            assert_eq!(read(&*leaf).await, None, "{name}: what was there, and is older");
            assert_eq!(read(&whole).await, Some(10_000), "{name}: what the upper layer has taken");
            // Versions never go back, whoever has the entry.
            let refused = whole.set_if_newer(&one, large.clone(), 4).await;
            assert!(read(&whole).await.is_some(), "{name}: {refused:?}");
            let entry = whole.get::<String>(&one, &mut CacheContext::new()).await.expect("a read");
            let version = entry.and_then(|entry| entry.details()?.version);
            assert_eq!(version, Some(6), "{name}: {refused:?}");
            assert_eq!(
                refused.map_err(|error| error.kind()).err(),
                Some(ErrorKind::VersionMismatch),
                "{name}"
            );
            let receipt = whole.set_if_newer(&one, large, 7).await.expect("a newer one");
            assert_eq!(receipt.stored(), 1, "{name}: {receipt:?}");
        }
    }
}

async fn read_body(cache: &dyn Backend, key: &CacheKey) -> Option<Vec<u8>> {
    let mut reader = cache.open_reader(key, &ReadOptions::NORMAL).await.expect("a reader")?;
    let mut body = Vec::new();
    while let Some(chunk) = reader.chunk().await.expect("a chunk") {
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a04_bodies_are_as_old_as_their_start() {
    const HOWS: [&str; 7] = ["tag", "everything", "prefix", "set", "batch", "delete", "finished body"];
    for subject in crate::common::subjects() {
        let world = World::new();
        let cache = (subject.whole)(world.clone()).await;
        let cache = &*cache;
        for how in HOWS {
            let said = format!("{}, {how}", subject.name);
            if how == "prefix" && !cache.layout().capabilities().enumerates {
                continue;
            }
            let one = key(how);
            let open = async |load: bool| {
                let options = if load {
                    WriteOptions::default().with_load(Arc::new(cache.layout().load_permit(&one)))
                } else {
                    WriteOptions::default()
                };
                let opened = cache.open_writer(&one, tagged((), "red"), options).await;
                let mut writer = opened.expect("a writer");
                writer.chunk(Bytes::from_static(b"old ")).await.expect("a chunk");
                writer
            };
            let mut writers = vec![open(false).await, open(true).await];
            let mut left: Option<&[u8]> = None;
            match how {
                "tag" => drop(cache.invalidate_tags(&["red"]).await.expect("an invalidation")),
                "everything" => drop(cache.clear().await.expect("an invalidation")),
                "prefix" => {
                    cache.invalidate_prefix(&CacheKey::new("contract")).await.expect("a prefix");
                }
                "delete" => drop(cache.delete(&one, &mut CacheContext::new()).await.expect("a delete")),
                "set" => {
                    let value = CacheValue::new(Bytes::from_static(b"new"));
                    cache.set(&one, value, &mut CacheContext::new()).await.expect("a write");
                    left = Some(b"new");
                }
                "batch" => {
                    let value = || CacheValue::new(Bytes::from_static(b"new"));
                    let written = cache.set_many(vec![(one.clone(), value()), (key("two"), value())]).await;
                    assert!(written.iter().all(Result::is_ok), "{said}");
                    left = Some(b"new");
                }
                _ => {
                    let mut newer = open(false).await;
                    newer.chunk(Bytes::from_static(b"newer")).await.expect("a chunk");
                    assert!(newer.finish().await.is_ok(), "{said}");
                    left = Some(b"old newer");
                }
            }
            for writer in &mut writers {
                writer.chunk(Bytes::from_static(b"body")).await.expect("a chunk");
            }
            for writer in writers {
                let receipt = writer.finish().await;
                let is_superseded = |outcome: &LeafOutcome| matches!(outcome, LeafOutcome::Superseded);
                assert!(
                    receipt.leaves().iter().all(|line| is_superseded(&line.outcome)),
                    "{said}: {receipt:?}"
                );
                assert_eq!(receipt.leaves().len(), cache.layout().leaves().len(), "{said}: {receipt:?}");
                assert_eq!(read_body(cache, &one).await.as_deref(), left, "{said}");
            }
            // What is opened afterwards is stored.
            let mut writer = open(false).await;
            writer.chunk(Bytes::from_static(b"again")).await.expect("a chunk");
            let receipt = writer.finish().await;
            assert_eq!(receipt.stored() as usize, cache.layout().leaves().len(), "{said}: {receipt:?}");
            assert_eq!(read_body(cache, &one).await.as_deref(), Some(&b"old again"[..]), "{said}");
        }
    }
}

/// A store that never answers.
struct Hanging;

#[async_trait]
impl Store for Hanging {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        std::future::pending().await
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        std::future::pending().await
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        std::future::pending().await
    }

    async fn peek(&self, _: &CacheKey) -> BackendResult<Peek> {
        std::future::pending().await
    }

    async fn keys(&self, _: u64, _: usize) -> BackendResult<Page> {
        std::future::pending().await
    }

    async fn count(&self) -> BackendResult<u64> {
        std::future::pending().await
    }

    async fn erase(&self) -> BackendResult<()> {
        std::future::pending().await
    }

    async fn sweep(&self, _: usize) -> BackendResult<Sweep> {
        std::future::pending().await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        (capabilities.enumerates, capabilities.counts, capabilities.erases) = (true, true, true);
        capabilities
    }
}

/// What a call that has been cut answers with.
type Cut<'a> = BoxFuture<'a, Vec<ErrorKind>>;

fn of_receipts(receipts: impl IntoIterator<Item = Receipt>) -> Vec<ErrorKind> {
    let error = |receipt: Receipt| receipt.error().map_or(vec![], kinds);
    receipts.into_iter().flat_map(error).collect()
}

fn of_result<T>(result: BackendResult<T>) -> Vec<ErrorKind> {
    result.err().as_ref().map_or(vec![], kinds)
}

/// Every call of the contract, and how many answers it has.
fn every_call<'a>(cache: &'a dyn Backend, what: &'a Arguments) -> Vec<(&'static str, usize, Cut<'a>)> {
    let Arguments { keys, normal, scopes, by_keys, matching, elsewhere, elsewhere_keys, .. } = what;
    let one = || keys[0].clone();
    let entry = || CacheValue::new(Raw::live(1_u64));
    let of_answers = |answers: Answers| answers.into_iter().flat_map(of_result).collect::<Vec<_>>();
    let send = move |write: Write| async move { of_receipts(cache.write(Batch::one(write)).await) };
    let maintain = |work: &'a Maintenance| async move {
        match cache.maintain(work).await {
            Ok(Maintained::Counted(counts)) => {
                counts.into_iter().flat_map(|count| of_result(count.entries)).collect()
            }
            done => of_result(done),
        }
    };
    vec![
        ("read", 1, Box::pin(async move { of_answers(cache.read(&keys[..1], normal).await) })),
        ("batch of reads", 2, Box::pin(async move { of_answers(cache.read(keys, normal).await) })),
        ("contains", 1, Box::pin(async move { of_result(cache.contains(&keys[0]).await) })),
        ("write", 1, Box::pin(send(Write::new(one(), entry())))),
        (
            "batch of writes",
            2,
            Box::pin(async move {
                let writes =
                    keys.iter().map(|key| Write::new(key.clone(), CacheValue::new(Raw::live(1_u64))));
                of_receipts(cache.write(writes.collect()).await)
            }),
        ),
        ("version", 1, Box::pin(send(Write::new(one(), entry()).with_condition(Condition::IfNewer(1))))),
        ("if absent", 1, Box::pin(send(Write::new(one(), entry()).with_condition(Condition::IfAbsent)))),
        ("if same", 1, {
            let same = Condition::IfSame(Arc::new(entry()));
            Box::pin(send(Write::new(one(), entry()).with_condition(same)))
        }),
        ("refill", 1, {
            Box::pin(async move {
                let permit = cache.layout().refill_permit(&keys[0], LeafSet::EMPTY);
                let refill = Condition::Refill(Arc::new(permit));
                send(Write::new(keys[0].clone(), CacheValue::new(Raw::live(1_u64))).with_condition(refill))
                    .await
            })
        }),
        ("metadata", 1, Box::pin(send(Write::metadata(one(), BTreeMap::new())))),
        ("write of what is over", 1, {
            let over = Lifetime::ttl(hitbox_core::Timestamp::from_millis(0), Duration::ZERO);
            Box::pin(send(Write::new(one(), entry().with_lifetime(over))))
        }),
        (
            "remove",
            1,
            Box::pin(
                async move { of_receipts(cache.remove(Batch::one(Removal::new(keys[0].clone()))).await) },
            ),
        ),
        (
            "batch of removals",
            2,
            Box::pin(async move {
                of_receipts(cache.remove(keys.iter().cloned().map(Removal::new).collect()).await)
            }),
        ),
        (
            "evict",
            1,
            Box::pin(
                async move { of_receipts(cache.remove(Batch::one(Removal::evict(keys[0].clone()))).await) },
            ),
        ),
        ("invalidate scopes", 1, Box::pin(async move { of_receipts([cache.invalidate(scopes).await]) })),
        ("invalidate keys", 1, Box::pin(async move { of_receipts([cache.invalidate(by_keys).await]) })),
        ("invalidate pattern", 1, Box::pin(async move { of_receipts([cache.invalidate(matching).await]) })),
        ("observe scopes", 1, Box::pin(async move { of_receipts([cache.observe(elsewhere).await]) })),
        ("observe keys", 1, Box::pin(async move { of_receipts([cache.observe(elsewhere_keys).await]) })),
        ("sweep", 1, Box::pin(maintain(&Maintenance::Sweep { limit: 10 }))),
        ("erase", 1, Box::pin(maintain(&Maintenance::Erase { skip: LeafSet::EMPTY }))),
        ("count", 1, Box::pin(maintain(&Maintenance::Count))),
        ("list", 1, Box::pin(maintain(&Maintenance::List { cursor: 0, limit: 10 }))),
        ("open a reader", 1, Box::pin(async move { of_result(cache.open_reader(&keys[0], normal).await) })),
        (
            "finish a body",
            1,
            Box::pin(async move {
                let opened = cache.open_writer(&keys[0], CacheValue::new(()), WriteOptions::default()).await;
                let mut writer = opened.expect("a writer needs no store");
                writer.chunk(Bytes::from_static(b"body")).await.expect("nor does a chunk");
                of_receipts([writer.finish().await])
            }),
        ),
        (
            "leave a body out",
            1,
            Box::pin(async move {
                let opened = cache.open_writer(&keys[0], CacheValue::new(()), WriteOptions::default()).await;
                of_receipts([opened.expect("a writer needs no store").leave_out().await])
            }),
        ),
    ]
}

/// What the calls are made with.
struct Arguments {
    keys: [CacheKey; 2],
    normal: ReadOptions,
    scopes: Invalidation,
    by_keys: Invalidation,
    matching: Invalidation,
    elsewhere: Invalidation,
    elsewhere_keys: Invalidation,
}

impl Arguments {
    fn new() -> Self {
        let scopes = || InvalidationTarget::Scopes(vec![Scope::tag("red")]);
        let by_keys = || InvalidationTarget::Keys(vec![key("one")]);
        Self {
            keys: [key("one"), key("two")],
            normal: ReadOptions::NORMAL,
            scopes: Invalidation::new(scopes()),
            by_keys: Invalidation::new(by_keys()),
            matching: Invalidation::new(InvalidationTarget::Matching(KeyPattern::glob("**"))),
            elsewhere: Invalidation::elsewhere(scopes()),
            elsewhere_keys: Invalidation::elsewhere(by_keys()),
        }
    }
}

#[tokio::test]
async fn case_a05_a_deadline_cuts_every_call() {
    let limit = millis(50);
    type Make = fn(&World, Leaf<Hanging>) -> Arc<dyn Backend>;
    let expressions: [(&str, Make); 5] = [
        ("a leaf", |_, leaf| leaf.deadline(millis(50)).shared()),
        ("in a namespace", |_, leaf| leaf.deadline(millis(50)).namespace("n").shared()),
        ("around a namespace", |_, leaf| leaf.namespace("n").deadline(millis(50)).shared()),
        ("around other wrappers", |_, leaf| {
            let wrapped = leaf.coalesced().ttl_cap(millis(1_000)).admission(AdmissionRule::Always);
            wrapped.deadline(millis(50)).shared()
        }),
        ("behind a third party's", |_, leaf| Bare(leaf.deadline(millis(50)).shared()).shared()),
    ];
    for (name, make) in expressions {
        let world = World::new();
        let leaf = Leaf::new(Hanging, LeafOptions::new("hanging").with_clock(world.shared_clock()));
        let cache = make(&world, leaf);
        let arguments = Arguments::new();
        let calls = every_call(&*cache, &arguments);
        let count = calls.len();
        // One after the other: what has been cut stands in nobody's way.
        for (call, answers, mut work) in calls {
            // A namespace counts by listing, and keeps the rest of the store out of an erasing.
            let is_refused = name.contains("namespace") && call == "erase";
            let before = cache.snapshot().total.errors;
            let mut context = Context::from_waker(Waker::noop());
            let mut poll = || work.as_mut().poll(&mut context);
            if is_refused {
                assert_eq!(poll(), Poll::Ready(vec![ErrorKind::Unsupported]), "{name}: {call}");
                continue;
            }
            assert_eq!(poll(), Poll::Pending, "{name}: a {call} does not wait");
            world.advance_millis(49);
            assert_eq!(poll(), Poll::Pending, "{name}: a {call} is cut early");
            world.advance_millis(1);
            assert_eq!(
                poll(),
                Poll::Ready(vec![ErrorKind::Timeout; answers]),
                "{name}: a {call} after {limit:?}"
            );
            let is_counted = !["sweep", "erase", "count", "list"].contains(&call);
            let errors = cache.snapshot().total.errors - before;
            assert!(!is_counted || errors >= 1, "{name}: a {call} that was cut is no error");
        }
        assert_eq!(count, 26);
    }
    // Around a composition every call that reaches the lower layer is cut. Writes go on in the background, and are in the
    // way of others: so each call has a composition of its own.
    let arguments = Arguments::new();
    for number in 0..26 {
        let world = World::new();
        let leaf = Leaf::new(Hanging, LeafOptions::new("hanging").with_clock(world.shared_clock()));
        let memory = MemoryBackend::new(world.shared_clock());
        let whole = memory.compose(leaf, world.pool.shared()).deadline(limit);
        let (call, _, mut work) = every_call(&whole, &arguments).swap_remove(number);
        let mut poll = || work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // Memory alone answers these.
        if ["evict", "list"].contains(&call) {
            assert_eq!(poll(), Poll::Ready(vec![]), "a {call} of a composition");
            continue;
        }
        assert_eq!(poll(), Poll::Pending, "a {call} of a composition does not wait");
        world.advance_millis(49);
        assert_eq!(poll(), Poll::Pending, "a {call} of a composition is cut early");
        world.advance_millis(1);
        assert!(poll().is_ready(), "a {call} of a composition is not cut");
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NoBytes {
    id: u64,
    name: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a06_a_body_that_is_no_bytes_is_a_miss() {
    let one = key("one");
    let no_bytes = || CacheValue::new(NoBytes { id: u64::MAX, name: "x".to_owned() });
    let unusable = |cache: &dyn Backend| cache.snapshot().total.unusable;
    for subject in crate::common::subjects() {
        let world = World::new();
        let cache = (subject.whole)(world.clone()).await;
        cache.set(&one, no_bytes(), &mut CacheContext::new()).await.expect("a write");
        let opened = cache.open_reader(&one, &ReadOptions::NORMAL).await;
        let is_miss = |opened: &BackendResult<Option<Box<dyn BodyReader>>>| matches!(opened, Ok(None));
        assert!(is_miss(&opened), "{}: {:?}", subject.name, opened.err());
        let leaves = cache.layout().leaves().len() as u64;
        assert_eq!(unusable(&*cache), leaves, "{}: copies that were met", subject.name);
        let read = cache.get::<Bytes>(&one, &mut CacheContext::new()).await;
        assert!(matches!(read, Ok(None)), "{}: {read:?}", subject.name);
        let read = cache.get::<NoBytes>(&one, &mut CacheContext::new()).await.expect("a read");
        assert_eq!(read.map(CacheValue::into_data), Some(no_bytes().into_data()), "{}", subject.name);
        // Below it there is a body.
        let Some((l1, l2)) = subject.make_layers(&world).await else { continue };
        l1.set(&one, no_bytes(), &mut CacheContext::new()).await.expect("a write");
        let body = CacheValue::new(Bytes::from_static(b"body"));
        l2.set(&one, body, &mut CacheContext::new()).await.expect("a write");
        let whole = subject.compose(l1, l2, &world, Setup::default());
        assert_eq!(read_body(&*whole, &one).await.as_deref(), Some(&b"body"[..]), "{}", subject.name);
    }
}

/// Lists all keys, page by page.
async fn list_all(cache: &dyn Backend) -> BackendResult<usize> {
    let (mut keys, mut cursor) = (0, Some(0));
    while let Some(from) = cursor {
        let page = cache.list_keys(from, 3).await?;
        keys += page.keys.len();
        cursor = page.next;
    }
    Ok(keys)
}

fn agree<T: std::fmt::Debug>(name: &str, capability: bool, call: BackendResult<T>) {
    let is_unsupported = |error: &BackendError| kinds(error).contains(&ErrorKind::Unsupported);
    match call {
        Ok(_) => assert!(capability, "{name}: it can, and says that it cannot"),
        Err(error) => {
            assert!(!capability && is_unsupported(&error), "{name}: it says {capability}: {error:?}")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a07_capabilities_and_calls_agree() {
    for subject in crate::common::subjects() {
        let world = World::new();
        let cache = (subject.whole)(world.clone()).await;
        let name = &subject.name;
        let facts = *cache.layout().capabilities();
        for number in 0..10 {
            set(&*cache, &key(&number.to_string()), number).await;
        }
        agree(&format!("{name}, a version"), facts.writes_conditionally, {
            cache.set_if_newer(&key("3"), CacheValue::new(3_u64), 3).await
        });
        if facts.writes_conditionally {
            let older = cache.set_if_newer(&key("3"), CacheValue::new(3_u64), 2).await;
            let kind = older.err().map(|error| error.kind());
            assert_eq!(kind, Some(ErrorKind::VersionMismatch), "{name}: it says that it compares versions");
        }
        agree(&format!("{name}, listing"), facts.enumerates, list_all(&*cache).await);
        agree(&format!("{name}, a first page"), facts.enumerates, cache.list_keys(0, 3).await);
        if facts.enumerates {
            let leaves = cache.layout().leaves().len();
            assert_eq!(list_all(&*cache).await.expect("keys"), 10 * leaves, "{name}: the keys of all leaves");
        }
        agree(&format!("{name}, counting"), facts.counts, {
            let counts = cache.entry_counts().await;
            counts.and_then(|counts| {
                counts.into_iter().map(|count| count.entries).collect::<Result<Vec<_>, _>>()
            })
        });
        if facts.counts {
            let counts = cache.entry_counts().await.expect("counts");
            let counts: Vec<u64> = counts.into_iter().map(|count| count.entries.expect("a count")).collect();
            assert_eq!(counts, vec![10; cache.layout().leaves().len()], "{name}: entries");
        }
        if facts.answers_at_once {
            for key in [key("3"), key("none")] {
                let answer = cache.try_read(&key, &ReadOptions::NORMAL);
                assert!(!matches!(answer, TryRead::WouldWait(_)), "{name}: a read of {key} has to wait");
            }
        }
        agree(&format!("{name}, a pattern"), facts.enumerates, {
            cache.invalidate_matching(KeyPattern::glob("contract:3")).await
        });
        agree(&format!("{name}, erasing"), facts.erases, cache.erase().await);
        if facts.erases {
            assert_eq!(get(&*cache, &key("1")).await, None, "{name}: it says that it has erased all");
        } else {
            assert_eq!(get(&*cache, &key("1")).await, Some(1), "{name}: what is not erased is there");
        }
    }
}

/// A map whose writes fail when they are told to, whether or not they have acted.
#[derive(Default)]
struct Flaky {
    map: Map,
    is_failing: AtomicBool,
    acts: bool,
}

#[async_trait]
impl Store for Flaky {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.map.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        if !self.is_failing.load(Ordering::SeqCst) {
            return self.map.write(key, value).await;
        }
        if self.acts {
            self.map.write(key, value).await?;
        }
        Err(BackendError::new(ErrorKind::Connection, "an injected fault"))
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.map.remove(key).await
    }
}

/// Who has a cache brought up to date, as a cache does.
struct Owner {
    cache: Arc<dyn Backend>,
    reconciler: Reconciler,
    reconciled: Mutex<Vec<CacheKey>>,
}

impl Reconciles for Owner {
    type Expression = dyn Backend;

    fn expression(&self) -> &dyn Backend {
        &*self.cache
    }

    fn reconciler(&self) -> &Reconciler {
        &self.reconciler
    }

    fn reconciled(&self, key: &CacheKey) {
        self.reconciled.lock().expect("no panic").push(key.clone());
    }
}

/// Lets a daemon bring the cache up to date until nothing is dirty.
async fn reconcile(cache: &Arc<dyn Backend>, world: &World) -> Vec<CacheKey> {
    let owner = Arc::new(Owner {
        cache: cache.clone(),
        reconciler: Reconciler::default(),
        reconciled: Mutex::default(),
    });
    Reconciler::wake(&owner, &world.pool, &world.shared_clock());
    in_time("a reconciliation", async {
        // The last key is clean before its owner is told of it.
        while cache.layout().has_dirty() || world.pool.statistics().daemons > 0 {
            if world.clock.sleepers() > 0 {
                world.advance_millis(100);
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let reconciled = owner.reconciled.lock().expect("no panic");
    reconciled.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a10_a_later_write_outlives_the_failure_of_a_batch() {
    let keys = [key("one"), key("two"), key("three")];
    // Whoever writes a batch takes note of its failures: before the later write, or after it.
    for (acts, notes_late) in [(false, false), (true, false), (false, true), (true, true)] {
        let said = format!("acts: {acts}, notes late: {notes_late}");
        let world = World::new();
        let store = Arc::new(Flaky { acts, ..Flaky::default() });
        let options = LeafOptions::new("flaky").with_clock(world.shared_clock());
        let cache: Arc<dyn Backend> = Arc::new(Leaf::of(store.clone(), options));
        for key in &keys {
            set(&*cache, key, 0).await;
        }
        let tickets: Vec<_> = keys.iter().map(|key| cache.layout().begin_write(key)).collect();
        let writes = keys.iter().zip(&tickets).map(|(key, ticket)| {
            Write::new(key.clone(), CacheValue::new(Raw::live(1_u64))).with_options(WriteOptions::of(ticket))
        });
        store.is_failing.store(true, Ordering::SeqCst);
        let receipts = cache.write(writes.collect()).await;
        assert!(receipts.iter().all(|receipt| !receipt.is_ok()), "{said}: {receipts:?}");
        store.is_failing.store(false, Ordering::SeqCst);
        let leaf = &cache.layout().leaves()[0];
        let note = || keys.iter().zip(&tickets).for_each(|(key, ticket)| leaf.mark_dirty(key, ticket));
        if notes_late {
            // The later write waits for nobody: the batch is through with this store.
            in_time("a later write", set(&*cache, &keys[0], 2)).await;
            note();
        } else {
            note();
            drop(tickets);
            set(&*cache, &keys[0], 2).await;
        }
        assert!(!leaf.is_dirty(&keys[0]), "{said}: what was written later is as it should be");
        assert!(leaf.is_dirty(&keys[1]) && leaf.is_dirty(&keys[2]), "{said}: what failed is dirty");
        assert_eq!(get(&*cache, &keys[0]).await, Some(2), "{said}: before it is reconciled");
        assert_eq!(get(&*cache, &keys[1]).await, None, "{said}: before it is reconciled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a10_reconciliation_keeps_what_was_written_later() {
    let keys = [key("one"), key("two"), key("three")];
    // One leaf: nobody else knows what failed. It is removed, but for what was written later.
    for acts in [false, true] {
        let world = World::new();
        let store = Arc::new(Flaky { acts, ..Flaky::default() });
        let options = LeafOptions::new("flaky").with_clock(world.shared_clock());
        let cache: Arc<dyn Backend> = Arc::new(Leaf::of(store.clone(), options));
        for key in &keys {
            set(&*cache, key, 0).await;
        }
        let leaf = &cache.layout().leaves()[0];
        {
            let tickets: Vec<_> = keys.iter().map(|key| cache.layout().begin_write(key)).collect();
            let writes = keys.iter().zip(&tickets).map(|(key, ticket)| {
                Write::new(key.clone(), CacheValue::new(Raw::live(1_u64)))
                    .with_options(WriteOptions::of(ticket))
            });
            store.is_failing.store(true, Ordering::SeqCst);
            drop(cache.write(writes.collect()).await);
            store.is_failing.store(false, Ordering::SeqCst);
            keys.iter().zip(&tickets).for_each(|(key, ticket)| leaf.mark_dirty(key, ticket));
        }
        set(&*cache, &keys[0], 2).await;
        let reconciled = reconcile(&cache, &world).await;
        assert_eq!(get(&*cache, &keys[0]).await, Some(2), "acts: {acts}: what was written later");
        for key in &keys[1..] {
            assert_eq!(get(&*cache, key).await, None, "acts: {acts}: what failed");
            assert!(reconciled.contains(key), "acts: {acts}: {reconciled:?}");
        }
        assert!(!reconciled.contains(&keys[0]), "acts: {acts}: {reconciled:?}");
    }
    // Two leaves: what one has, the other is given; a later write through either is kept.
    for failing_is_upper in [false, true] {
        let world = World::new();
        let faults = Faults::default();
        let sound = MemoryBackend::labelled("sound", world.shared_clock());
        let flaky = MemoryBackend::labelled("flaky", world.shared_clock());
        let faulty = Faulty::new(flaky.clone(), &faults, world.shared_clock());
        let cache: Arc<dyn Backend> = if failing_is_upper {
            faulty.compose(sound.clone(), world.pool.shared()).shared()
        } else {
            sound.clone().compose(faulty, world.pool.shared()).shared()
        };
        faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
        let batch = |value: u64| keys.iter().map(|key| (key.clone(), CacheValue::new(value))).collect();
        assert!(cache.set_many(batch(1)).await.iter().all(Result::is_ok));
        faults.clear();
        set(&*cache, &keys[0], 2).await;
        // Past the layers that were composed, through the leaf itself.
        set(&flaky, &keys[1], 3).await;
        reconcile(&cache, &world).await;
        world.pool.wait_all().await;
        let said = format!("the failing leaf is above: {failing_is_upper}");
        assert_eq!((get(&sound, &keys[0]).await, get(&flaky, &keys[0]).await), (Some(2), Some(2)), "{said}");
        assert_eq!(get(&flaky, &keys[1]).await, Some(3), "{said}: what was written to the leaf itself");
        assert_eq!((get(&sound, &keys[2]).await, get(&flaky, &keys[2]).await), (Some(1), Some(1)), "{said}");
        let receipt = write(&*cache, Write::new(keys[2].clone(), CacheValue::new(Raw::live(4_u64)))).await;
        assert_eq!(receipt.stored(), 2, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a10_reconciliation_waits_for_what_it_writes() {
    for loser in [Loser::Finish, Loser::Drop] {
        let world = World::new();
        let (one, faults) = (key("one"), Faults::default());
        let sound = MemoryBackend::labelled("sound", world.shared_clock());
        let flaky = MemoryBackend::labelled("flaky", world.shared_clock());
        let faulty = Faulty::new(flaky.clone(), &faults, world.shared_clock());
        let whole = faulty.compose(sound, world.pool.shared());
        let cache: Arc<dyn Backend> = Arc::new(whole.with_write(RaceWritePolicy { loser }));
        set(&*cache, &one, 1).await;
        world.pool.wait_all().await;
        // The upper leaf misses a write. It is given what it missed, slowly; a leaf that is left out wins no race.
        faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
        set(&*cache, &one, 2).await;
        world.pool.wait_all().await;
        faults.clear();
        faults.nth(Operation::Write, 1, Fault::Delay(millis(500)));
        assert_eq!(get(&*cache, &one).await, Some(2), "{loser:?}");
        in_time("the reconciliation", async {
            while cache.layout().has_dirty() && faults.held_up() == 0 {
                get(&*cache, &one).await;
                tokio::task::yield_now().await;
            }
        })
        .await;
        let newer = tokio::spawn({
            let (cache, one) = (cache.clone(), one.clone());
            async move { set(&*cache, &one, 3).await }
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        world.advance_millis(500);
        in_time("a write", newer).await.expect("no panic");
        in_time("the rest", world.pool.wait_all()).await;
        for _ in 0..3 {
            assert_eq!(get(&*cache, &one).await, Some(3), "{loser:?}");
            let above = get(&flaky, &one).await;
            assert!(matches!(above, Some(3) | None), "{loser:?}: {above:?} above");
            world.advance_millis(1_000);
            in_time("the rest", world.pool.wait_all()).await;
        }
    }
}

/// A map that has acted, or is about to, and answers when it is let.
struct Gated {
    map: Map,
    entries: Mutex<Vec<CacheKey>>,
    /// Reads and erasings that are let through.
    gate: Semaphore,
    /// Calls that stand at the gate.
    waiting: AtomicUsize,
    /// An erasing removes first and waits then.
    erases_first: bool,
}

impl Gated {
    fn new(erases_first: bool) -> Arc<Self> {
        let (entries, gate, waiting) = (Mutex::default(), Semaphore::new(0), AtomicUsize::new(0));
        Arc::new(Self { map: Map::default(), entries, gate, waiting, erases_first })
    }

    async fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("it is never closed").forget();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    async fn remove_all(&self) -> BackendResult<()> {
        let keys = std::mem::take(&mut *self.entries.lock().expect("no panic"));
        for key in keys {
            self.map.remove(&key).await?;
        }
        Ok(())
    }

    /// Waits until so many calls stand at the gate.
    async fn held(&self, calls: usize) {
        in_time("a call that comes to the gate", async {
            while self.waiting.load(Ordering::SeqCst) < calls {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// The same behind a handle of its own.
struct AtTheGate {
    store: Arc<Gated>,
    reads_wait: bool,
}

#[async_trait]
impl Store for AtTheGate {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let found = self.store.map.read(key).await;
        if self.reads_wait && !key.is_reserved() {
            self.store.wait().await;
        }
        found
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.store.entries.lock().expect("no panic").push(key.clone());
        self.store.map.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.map.remove(key).await
    }

    async fn erase(&self) -> BackendResult<()> {
        if self.store.erases_first {
            let removed = self.store.remove_all().await;
            self.store.wait().await;
            return removed;
        }
        self.store.wait().await;
        self.store.remove_all().await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        (capabilities.erases, capabilities.keeps_live_values) = (true, true);
        capabilities
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_d08_coalesced_reads_see_what_was_written_through_another_handle() {
    let world = World::new();
    let store = Gated::new(false);
    let options = LeafOptions::new("gated").with_clock(world.shared_clock());
    let leaf = Leaf::new(AtTheGate { store: store.clone(), reads_wait: true }, options);
    let cache: Arc<dyn Backend> = Arc::new(leaf.clone().coalesced());
    // Each is polled, so that it has begun before what follows.
    let begun = || {
        let cache = cache.clone();
        let mut read = Box::pin(async move { get(&*cache, &key("one")).await });
        assert!(read.as_mut().now_or_never().is_none(), "a read passes the gate");
        tokio::spawn(read)
    };
    set(&leaf, &key("one"), 1).await;
    let older = [begun(), begun(), begun()];
    store.held(1).await;
    // They are one call. What comes now is of another time.
    set(&leaf, &key("one"), 2).await;
    let newer = [begun(), begun()];
    store.held(2).await;
    assert_eq!(store.waiting.load(Ordering::SeqCst), 2, "reads that meet are one call");
    store.gate.add_permits(10);
    for reader in older {
        assert_eq!(in_time("a read", reader).await.expect("no panic"), Some(1));
    }
    for reader in newer {
        assert_eq!(in_time("a read", reader).await.expect("no panic"), Some(2));
    }
    // Each of the readers has had a hit.
    assert_eq!(cache.snapshot().total.hits, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_a10_reconciliation_stays_out_of_an_erasing() {
    let world = World::new();
    let one = key("one");
    let leaf = |store: &Arc<Gated>, label: &str| {
        let options = LeafOptions::new(label).with_clock(world.shared_clock());
        Leaf::new(AtTheGate { store: store.clone(), reads_wait: false }, options)
    };
    let (upper, lower) = (Gated::new(true), Gated::new(false));
    let (above, below) = (leaf(&upper, "upper"), leaf(&lower, "lower"));
    let faults = Faults::default();
    let faulty = Faulty::new(above.clone(), &faults, world.shared_clock());
    let cache: Arc<dyn Backend> = Arc::new(faulty.compose(below.clone(), world.pool.shared()));
    set(&*cache, &one, 1).await;
    faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
    set(&*cache, &one, 2).await;
    faults.clear();
    assert!(cache.layout().has_dirty(), "the upper leaf has missed a write");
    // The upper leaf is empty, the lower one is not yet; a read has the upper brought up to date.
    let erasing = tokio::spawn({
        let cache = cache.clone();
        async move { cache.erase().await }
    });
    upper.held(1).await;
    lower.held(1).await;
    assert_eq!(get(&*cache, &one).await, Some(2), "what has not been erased yet");
    in_time("background work", world.pool.wait_all()).await;
    upper.gate.add_permits(1);
    lower.gate.add_permits(1);
    in_time("an erasing", erasing).await.expect("no panic").expect("it is erased");
    assert_eq!(get(&*cache, &one).await, None, "what was erased");
    assert_eq!((get(&above, &one).await, get(&below, &one).await), (None, None), "what was erased");
}
