//! Bodies through compositions: what one layer's trouble means for the other.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hitbox_backend::operation::{BodyReader, BodyWriter, LeafSet, MAX_BUFFERED_BODY, WriteOptions};
use hitbox_backend::policy::{
    Loser, ParallelReadPolicy, RaceReadPolicy, SequentialReadPolicy, SequentialWritePolicy,
};
use hitbox_backend::store::memory::{Weigher, weigh};
use hitbox_backend::wrap::AdmissionRule;
use hitbox_backend::{
    Backend, CacheBackend, Compose, CompositionBackend, Layer, LeafOutcome, LeafStatistics, OffloadPool,
    ReadOptions, Receipt, RefillPolicy, Requirement, SystemClock, Wrap,
};
use hitbox_core::{
    BackendLabel, BackendResult, CacheKey, CacheValue, Clock, Details, ErrorKind, Lifetime, Limits, Scope,
};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use hitbox_testkit::{Fault, Faults, Faulty, Operation, Trouble, Troubled};
use tokio::sync::Semaphore;

fn key() -> CacheKey {
    CacheKey::new("body")
}

fn memory() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

async fn disk(folder: &tempfile::TempDir) -> DiskBackend {
    DiskBackend::builder(folder.path()).open().await.expect("disk")
}

/// Ten chunks are too many for a value of this one.
async fn disk_of_short_values(folder: &tempfile::TempDir) -> DiskBackend {
    let limits = Limits { value_bytes: 500_000, ..Limits::DEFAULT };
    DiskBackend::builder(folder.path()).limits(limits).open().await.expect("disk")
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Bodies that are being written into a folder.
fn under_way(folder: &tempfile::TempDir) -> usize {
    std::fs::read_dir(folder.path().join("tmp")).expect("a folder").count()
}

/// Memory over disk, one of which is in trouble.
async fn troubled(folder: &tempfile::TempDir, upper: bool, trouble: Trouble) -> CompositionBackend {
    let pool = OffloadPool::new();
    let around = |inner: Arc<dyn Backend>| Troubled::new(inner, trouble);
    if upper {
        around(Arc::new(memory())).compose(disk(folder).await, pool.shared())
    } else {
        memory().compose(around(Arc::new(disk(folder).await)), pool.shared())
    }
}

async fn create(cache: &dyn Backend) -> Box<dyn BodyWriter> {
    create_of(cache, CacheValue::new(())).await
}

async fn create_of(cache: &dyn Backend, entry: CacheValue<()>) -> Box<dyn BodyWriter> {
    cache.open_writer(&key(), entry, WriteOptions::default()).await.expect("a writer")
}

/// What grows counts, and takes the room of what is stored: the bound holds for both, whatever is written meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_entries_yield_to_bodies_that_grow() {
    const BOUND: u64 = 8 << 20;
    const CHUNK: u64 = 64 << 10;
    let moka = || MokaBackend::builder().max_bytes(BOUND);
    // One weighs twice what it has. Shards of quick_cache take short bodies only, with many cores.
    let twice: Weigher = Arc::new(|key, value| 2 * weigh(key, value));
    let quick = QuickBackend::builder().max_bytes(BOUND).build().expect("quick_cache");
    let memories: [(&str, u64, u64, Arc<dyn Backend>); 4] = [
        ("moka", 1, 2 << 20, Arc::new(moka().build().expect("moka"))),
        ("moka with priorities", 1, 2 << 20, Arc::new(moka().priorities().build().expect("moka"))),
        (
            "moka by another weight",
            1,
            1 << 20,
            Arc::new(moka().max_weight(BOUND, twice).build().expect("moka")),
        ),
        ("quick", 8, CHUNK, Arc::new(quick)),
    ];
    for (name, bodies, length, memory) in memories {
        let held = || memory.layout().leaves()[0].statistics().occupancy.expect("memory says what it holds");
        let written = Cell::new(0_u64);
        let fill = async || {
            for _ in 0..15_000 {
                let key = CacheKey::builder("small").part("n", written.get()).build();
                written.set(written.get() + 1);
                memory.set_one(&key, CacheValue::new(Bytes::from(vec![7; 1_000]))).await.expect("a write");
                // What is read often is preferred to what is not.
                for _ in 0..2 {
                    memory.get_one::<Bytes>(&key).await.expect("an answer");
                }
            }
            memory.sweep(usize::MAX).await.expect("a sweep");
        };
        fill().await;
        let full = held();
        let each = full.bytes / full.entries;
        assert!(full.bytes > BOUND / 10 * 9, "{name}: {full:?}");
        let weight = bodies * length * if name.ends_with("another weight") { 2 } else { 1 };
        let check = async |when: &str| {
            let now = held();
            let listed = memory.list_keys(0, usize::MAX).await.expect("keys").keys.len() as u64;
            let counts = memory.entry_counts().await.expect("counts");
            let counted = counts[0].entries.clone().expect("a count");
            assert_eq!((listed, counted), (now.entries, now.entries), "{name} {when}");
            let all = now.entries * each + weight;
            assert!(all <= BOUND + CHUNK && now.bytes <= BOUND, "{name} {when}: {now:?}, {all}");
            assert!(now.evictions >= full.evictions, "{name} {when}: {now:?}");
            now
        };
        for ends_whole in [false, true] {
            let mut writers = Vec::new();
            for number in 0..bodies {
                let mut writer = fed(&*memory, &format!("body {number}"), CHUNK as usize).await;
                for _ in 1..length / CHUNK {
                    writer.chunk(Bytes::from(vec![7; CHUNK as usize])).await.expect("a chunk");
                }
                writers.push(writer);
            }
            check("when it has grown").await;
            fill().await;
            let churned = check("when more was written").await;
            assert!(churned.entries * each + weight > BOUND / 10 * 8, "{name}: {churned:?}");
            if ends_whole {
                memory.clear().await.expect("an answer");
            } else {
                memory.erase().await.expect("an answer");
            }
            fill().await;
            check("when all was gone").await;
            for writer in writers {
                if ends_whole {
                    assert!(writer.finish().await.is_ok(), "{name}");
                } else {
                    writer.abort().await;
                }
            }
            memory.sweep(usize::MAX).await.expect("a sweep");
            assert!(held().bytes <= BOUND, "{name}: {:?}", held());
            fill().await;
            assert!(held().entries * each > BOUND / 10 * 9, "{name}: the room is free again: {:?}", held());
        }
    }
}

/// Bytes that a memory says that it holds, with what is reserved for bodies that grow.
fn held(memory: &dyn Backend) -> u64 {
    memory.layout().leaves()[0].statistics().occupancy.expect("memory says what it holds").bytes
}

async fn fed(memory: &dyn Backend, key: &str, length: usize) -> Box<dyn BodyWriter> {
    let (key, options) = (CacheKey::new(key), WriteOptions::default());
    let mut writer = memory.open_writer(&key, CacheValue::new(()), options).await.expect("a writer");
    writer.chunk(Bytes::from(vec![7; length])).await.expect("a chunk");
    writer
}

#[tokio::test]
async fn an_overwrite_that_does_not_fit_beside_bodies_that_grow_is_not_admitted() {
    const BOUND: u64 = 8 << 20;
    let moka = MokaBackend::builder().max_bytes(BOUND).build().expect("moka");
    let value = |length| CacheValue::new(Bytes::from(vec![7; length]));
    moka.set_one(&key(), value(100)).await.expect("a write");
    let writer = fed(&moka, "grows", 6 << 20).await;
    let receipt = moka.set_one(&key(), value(4 << 20)).await.expect("an answer");
    assert!(matches!(receipt.leaves()[0].outcome, LeafOutcome::NotAdmitted), "{receipt:?}");
    assert!(moka.get_one::<Bytes>(&key()).await.expect("an answer").is_none(), "it was overwritten");
    assert!((6 << 20..=BOUND).contains(&held(&moka)), "{}", held(&moka));
    writer.abort().await;
    let receipt = moka.set_one(&key(), value(4 << 20)).await.expect("an answer");
    assert_eq!(receipt.stored(), 1, "there is room: {receipt:?}");
}

/// Each shard of quick_cache has a small part of its bound, and reserves a part of that.
#[tokio::test]
async fn many_bodies_may_grow_at_once() {
    const BOUND: u64 = 8 << 20;
    let memories: [Arc<dyn Backend>; 2] = [
        Arc::new(MokaBackend::builder().max_bytes(BOUND).build().expect("moka")),
        Arc::new(QuickBackend::builder().max_bytes(BOUND).build().expect("quick_cache")),
    ];
    for memory in memories {
        let mut writers = Vec::new();
        for number in 0..200 {
            writers.push(fed(&*memory, &format!("body {number}"), 20_000).await);
        }
        assert!((4_000_000..=BOUND).contains(&held(&*memory)), "{}", held(&*memory));
        for writer in writers {
            let receipt = writer.finish().await;
            assert_eq!(receipt.stored(), 1, "{receipt:?}");
        }
        assert!(held(&*memory) <= BOUND);
    }
}

#[tokio::test]
async fn a_body_that_ends_has_the_room_that_it_grew_in() {
    const BOUND: u64 = 4 << 20;
    let moka = MokaBackend::builder().max_bytes(BOUND).build().expect("moka");
    for number in 0_u64..8_000 {
        let key = CacheKey::builder("small").part("n", number).build();
        moka.set_one(&key, CacheValue::new(Bytes::from(vec![7; 1_000]))).await.expect("a write");
        for _ in 0..3 {
            moka.get_one::<Bytes>(&key).await.expect("an answer");
        }
    }
    let short = fed(&moka, "short", 100_000).await;
    let (first, second) = (fed(&moka, "first", 1_000_000).await, fed(&moka, "second", 1_000_000).await);
    for (writer, name) in [(short, "short"), (first, "first"), (second, "second")] {
        assert!(writer.finish().await.is_ok());
        moka.sweep(usize::MAX).await.expect("a sweep");
        assert!(moka.open_body(&CacheKey::new(name)).await.expect("an answer").is_some(), "{name}");
    }
    assert!(held(&moka) <= BOUND);
}

#[tokio::test]
async fn a_body_counts_as_long_as_it_is_held() {
    const BOUND: u64 = 8 << 20;
    let memory = || MokaBackend::builder().max_bytes(BOUND).build().expect("moka");
    let moka = memory().admission(AdmissionRule::UpTo(1 << 20));
    let mut writer = fed(&moka, "large", 1 << 20).await;
    let follower = writer.written().expect("it can be followed");
    // It is not going to be stored, and is held for those who follow it.
    writer.chunk(Bytes::from_static(b"more")).await.expect("a chunk");
    assert_eq!(writer.finish().await.stored(), 0);
    assert_eq!(follower.read_at(0, 100).await.expect("what has come").len(), 100);
    assert!(held(&moka) >= 1 << 20, "{}", held(&moka));
    drop(follower);
    assert_eq!(held(&moka), 0);
    let pool = OffloadPool::new();
    let expressions: [Arc<dyn Backend>; 3] = [
        Arc::new(memory().admission(AdmissionRule::UpTo(1 << 20))),
        Arc::new(memory().compose(memory(), pool.shared()).admission(AdmissionRule::UpTo(1 << 20))),
        Arc::new(memory().admission(AdmissionRule::UpTo(1 << 20)).compose(memory(), pool.shared())),
    ];
    for expression in expressions {
        let mut writer = fed(&*expression, "large", 1 << 20).await;
        assert!(held(&*expression) >= 1 << 20);
        for _ in 0..2 {
            writer.chunk(Bytes::from_static(b"more")).await.expect("a chunk");
        }
        assert_eq!(held(&*expression), 0, "nobody follows it");
        writer.abort().await;
    }
    // Chunks take more than their bytes.
    let memory = memory();
    let mut writer = fed(&memory, "many chunks", 1).await;
    for _ in 0..500 {
        writer.chunk(Bytes::from(vec![7; 4096])).await.expect("a chunk");
    }
    let (growing, receipt) = (held(&memory), writer.finish().await);
    let stored = held(&memory);
    assert!(receipt.is_ok() && stored > 500 * 4096 && growing >= stored, "{growing}, {stored}, {receipt:?}");
}

/// Memory is asked before it has more than it may: by one body, and by several together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_refuses_bodies_that_outgrow_it() {
    const BOUND: u64 = 4 * 1024 * 1024;
    let bounded = || MokaBackend::builder().max_bytes(BOUND).build().expect("moka");
    let chunk = || Bytes::from(vec![7; 100_000]);
    let memories: [Arc<dyn Backend>; 2] = [
        Arc::new(bounded()),
        Arc::new(QuickBackend::builder().max_bytes(BOUND).build().expect("quick_cache")),
    ];
    for memory in memories {
        let mut taken = 0;
        let mut writer = create(&*memory).await;
        let refused = loop {
            match writer.chunk(chunk()).await {
                Ok(()) => taken += 100_000,
                Err(error) => break error,
            }
        };
        assert!(taken <= BOUND, "{taken}");
        assert!(refused.exceeded().is_some_and(|(size, limit)| size > limit && limit <= BOUND), "{refused}");
        drop(writer);
        let mut writers = vec![create(&*memory).await, create(&*memory).await];
        let mut taken = 0;
        'all: loop {
            for writer in &mut writers {
                match writer.chunk(chunk()).await {
                    Ok(()) => taken += 100_000,
                    Err(error) => break 'all assert_eq!(error.kind(), ErrorKind::TooLarge),
                }
            }
        }
        assert!(taken <= BOUND + 1024 * 1024 * 2, "{taken}");
        drop(writers);
        let mut writer = create(&*memory).await;
        writer.chunk(chunk()).await.expect("the others are gone");
        assert!(writer.finish().await.is_ok());
    }

    // A refill of what would not fit reads nothing of it.
    let folder = tempfile::tempdir().expect("a folder");
    let pool = OffloadPool::new();
    let cache = bounded().compose(disk(&folder).await, pool.shared()).with_refill(RefillPolicy::Awaited);
    let mut writer = create(&cache).await;
    for _ in 0..50 {
        writer.chunk(chunk()).await.expect("a layer takes it");
    }
    let receipt = writer.finish().await;
    assert_eq!(receipt.stored(), 1, "{receipt:?}");
    let before = statistics(&cache).errors;
    let body = cache.open_body(&key()).await.expect("an answer").expect("the body");
    assert_eq!(body.len(), Some(5_000_000));
    assert_eq!(statistics(&cache).errors, before + 1, "it was not refused at once");
}

/// A layer that does not even begin a body keeps the other waiting for a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_hangs_when_a_body_begins_is_given_up() {
    for upper in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = troubled(&folder, upper, Trouble::HangsAtOnce).await;
        let began = create(&cache);
        let mut writer = tokio::time::timeout(Duration::from_secs(20), began).await.expect("in time");
        writer.chunk(Bytes::from_static(b"body")).await.expect("a chunk");
        let receipt = writer.finish().await;
        assert_eq!(receipt.stored(), 1, "{receipt:?}");
    }
}

/// Those of the upper leaf.
fn statistics(cache: &dyn Backend) -> LeafStatistics {
    cache.layout().statistics().into_iter().next().expect("a leaf")
}

async fn open(cache: &dyn Backend) -> Option<Box<dyn BodyReader>> {
    cache.open_reader(&key(), &ReadOptions::default()).await.expect("a reader")
}

fn chunk(number: usize) -> Bytes {
    (0..100_000_usize).map(|at| (at * 31 + number * 7) as u8).collect::<Vec<u8>>().into()
}

async fn put(writer: &mut dyn BodyWriter, chunks: usize) -> BackendResult<()> {
    for number in 0..chunks {
        writer.chunk(chunk(number)).await?;
    }
    Ok(())
}

async fn compare(cache: &dyn Backend, chunks: usize, label: &str) {
    assert_eq!(compare_any(cache, chunks).await.as_str(), label);
}

/// The same from whichever layer; says which it was.
async fn compare_any(cache: &dyn Backend, chunks: usize) -> BackendLabel {
    let mut reader = open(cache).await.expect("the body");
    let mut body = Vec::new();
    while let Some(part) = reader.chunk().await.expect("a chunk") {
        body.extend_from_slice(&part);
    }
    let whole: Vec<u8> = (0..chunks).flat_map(|number| chunk(number).to_vec()).collect();
    assert!(body == whole, "{} bytes of {}", body.len(), whole.len());
    reader.label()
}

fn outcomes(receipt: &Receipt) -> Vec<&LeafOutcome> {
    receipt.leaves().iter().map(|line| &line.outcome).collect()
}

/// A body that is larger than memory collects is stored below, and read from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_one_layer_cannot_take_is_in_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = memory().compose(disk(&folder).await, OffloadPool::new().shared());
    cache.set_one(&key(), CacheValue::new(7_u64)).await.expect("an older value");
    let mut writer = create(&cache).await;
    let chunks = MAX_BUFFERED_BODY as usize / 100_000 + 10;
    put(&mut *writer, chunks).await.expect("chunks");
    let receipt = writer.finish().await;
    assert!(receipt.is_ok(), "{receipt:?}");
    assert!(matches!(outcomes(&receipt)[..], [LeafOutcome::Refused(_), LeafOutcome::Stored]), "{receipt:?}");
    compare(&cache, chunks, "composition.disk").await;
}

/// A layer that fails, or takes nothing for a second, does not keep the other from the body; and what it had before is not
/// served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_02_trouble_of_a_layer_is_its_own() {
    for (upper, label) in [(true, "composition.disk"), (false, "composition.moka")] {
        for trouble in
            [Trouble::FailsAfter(0), Trouble::FailsAfter(20), Trouble::HangsAfter(0), Trouble::HangsAfter(20)]
        {
            let folder = tempfile::tempdir().expect("a folder");
            let cache = troubled(&folder, upper, trouble).await;
            cache.set_one(&key(), CacheValue::new(7_u64)).await.expect("an older value");
            let mut writer = create(&cache).await;
            put(&mut *writer, 40).await.expect("chunks");
            let receipt = writer.finish().await;
            let stored = receipt.leaves().iter().filter(|line| matches!(line.outcome, LeafOutcome::Stored));
            let stored: Vec<_> = stored.map(|line| line.label.as_str()).collect();
            assert!(receipt.is_ok() && stored == [label], "{receipt:?}");
            // A read has the other layer brought up to date, which may be done before it is asked.
            compare_any(&cache, 40).await;
            assert!(cache.get_one::<u64>(&key()).await.expect("a read").is_none(), "the older value");
        }
    }
}

/// If a required layer fails the whole fails, and nothing is left; and so it does if both do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_02_a_required_layer_fails_the_body() {
    for (fails, expected) in [(false, ErrorKind::RequiredLayer), (true, ErrorKind::AllLayers)] {
        let folder = tempfile::tempdir().expect("a folder");
        let below = troubled(&folder, false, Trouble::FailsAfter(5)).await;
        let cache = if fails {
            let above = Troubled::new(Arc::new(memory()), Trouble::FailsAfter(1));
            let failing = Troubled::new(Arc::new(memory()), Trouble::FailsAfter(3));
            above.compose(failing, OffloadPool::new().shared())
        } else {
            below.with_requirement(Layer::L2, Requirement::Required)
        };
        let mut writer = create(&cache).await;
        let failed = put(&mut *writer, 100).await.expect_err("it fails");
        assert_eq!(failed.kind(), expected);
        let receipt = writer.finish().await;
        assert!(!receipt.is_ok() && receipt.stored() == 0, "{receipt:?}");
        assert!(open(&cache).await.is_none(), "something is left");
        if !fails {
            until("a file is left", async || under_way(&folder) == 0).await;
        }
    }
}

/// What is above can be read before the layer below has committed, and a commit goes on if its caller leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_02_the_upper_layer_is_readable_first() {
    for in_order in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = Arc::new(Semaphore::new(0));
        let cache = troubled(&folder, false, Trouble::Commits(gate.clone())).await;
        let cache = if in_order { cache.with_write(SequentialWritePolicy::new()) } else { cache };
        let mut writer = create(&cache).await;
        put(&mut *writer, 10).await.expect("chunks");
        let left = tokio::time::timeout(Duration::from_millis(50), writer.finish()).await;
        left.expect_err("the layer below waits");
        compare(&cache, 10, "composition.moka").await;
        gate.add_permits(1);
        let below = cache.layout().leaves()[1].path();
        let options = ReadOptions::default().skipping(LeafSet::of(cache.layout().leaves()[0].position()));
        let is_there = async || cache.open_reader(&key(), &options).await.expect("a reader").is_some();
        until("it is not committed", is_there).await;
        assert_eq!(below.as_str(), "composition.disk");
    }
}

/// Whatever was written or invalidated since the writer was opened wins in every layer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_07_what_came_in_between_wins_in_all_layers() {
    let mut details = Details::default();
    details.scopes.push(Scope::tag("red"));
    let entry = CacheValue::new(()).with_details(details);
    for between in 0..4 {
        let folder = tempfile::tempdir().expect("a folder");
        let nest = memory().compose(disk(&folder).await, OffloadPool::new().shared()).namespace("n");
        let cache = memory().compose(nest, OffloadPool::new().shared());
        let opened = cache.open_writer(&key(), entry.clone(), WriteOptions::default()).await;
        let mut writer = opened.expect("a writer");
        put(&mut *writer, 10).await.expect("chunks");
        let mut left = None;
        match between {
            0 => drop(cache.invalidate_tags(&["red"]).await.expect("an invalidation")),
            1 => drop(cache.delete_one(&key()).await.expect("a removal")),
            2 => {
                cache.set_one(&key(), CacheValue::new(7_u64)).await.expect("a write");
                left = Some(7);
            }
            _ => {
                let mut other = cache
                    .open_writer(&key(), entry.clone(), WriteOptions::default())
                    .await
                    .expect("a writer");
                other.chunk(Bytes::from_static(b"other")).await.expect("a chunk");
                assert!(other.finish().await.is_ok());
            }
        }
        let receipt = writer.finish().await;
        assert!(outcomes(&receipt).iter().all(|line| matches!(line, LeafOutcome::Superseded)), "{receipt:?}");
        if between == 3 {
            let mut reader = open(&cache).await.expect("the other body");
            assert_eq!(reader.chunk().await.expect("a chunk").as_deref(), Some(&b"other"[..]));
        } else {
            let found = cache.get_one::<u64>(&key()).await.expect("a read").map(CacheValue::into_data);
            assert_eq!(found, left, "{between}");
        }
    }
}

/// A body that was found below fills the layer above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_fills_the_layer_above() {
    for policy in [RefillPolicy::Awaited, RefillPolicy::Always] {
        let folder = tempfile::tempdir().expect("a folder");
        let (above, below) = (memory(), disk(&folder).await);
        let mut writer = create(&below).await;
        put(&mut *writer, 10).await.expect("chunks");
        assert!(writer.finish().await.is_ok());
        let cache = above.clone().compose(below, OffloadPool::new().shared()).with_refill(policy);
        compare(&cache, 10, "composition.disk").await;
        if policy == RefillPolicy::Always {
            until("it is not filled", async || open(&above).await.is_some()).await;
        }
        compare(&cache, 10, "composition.moka").await;
    }
}

/// The policy of reads chooses the layer, also for bodies that no layer reads as one value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_read_by_every_policy() {
    let race = |loser| RaceReadPolicy { loser };
    for policy in 0..4 {
        let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let (above, below) =
            (disk_of_short_values(&folders[0]).await, disk_of_short_values(&folders[1]).await);
        let pool = OffloadPool::new();
        let cache = above.clone().compose(below.clone(), pool.shared());
        let cache = match policy {
            0 => cache.with_read(SequentialReadPolicy),
            1 => cache.with_read(ParallelReadPolicy),
            2 => cache.with_read(race(Loser::Drop)),
            _ => cache.with_read(race(Loser::Finish)),
        };
        for (layer, label, chunks) in [(&below, "composition.disk2", 10), (&above, "composition.disk", 11)] {
            let mut writer = create(layer).await;
            put(&mut *writer, chunks).await.expect("chunks");
            assert!(writer.finish().await.is_ok());
            let mut reader = open(&cache).await.expect("the body");
            // In a race either may be first.
            assert!(policy >= 2 || reader.label().as_str() == label, "{policy}: {}", reader.label());
            let expected = if reader.label().as_str() == "composition.disk" { 11 } else { 10 };
            assert_eq!(reader.len(), Some(expected * 100_000), "{policy}: {}", reader.label());
            let mut len = 0;
            while let Some(part) = reader.chunk().await.expect("a chunk") {
                len += part.len() as u64;
            }
            assert_eq!(Some(len), reader.len());
        }
        // A copy that lives longer wins where both are asked.
        let entry = CacheValue::new(()).ttl(Duration::from_secs(1_000));
        let mut writer = create_of(&above, entry).await;
        put(&mut *writer, 1).await.expect("chunks");
        assert!(writer.finish().await.is_ok());
        let label = open(&cache).await.expect("the body").label();
        let expected = if policy == 1 { "composition.disk2" } else { "composition.disk" };
        assert!(policy >= 2 || label.as_str() == expected, "{policy}: {label}");
        for layer in [&above, &below] {
            layer.delete_one(&key()).await.expect("a removal");
        }
        assert!(open(&cache).await.is_none());
    }
}

/// A refill copies a body by chunks, whatever its size, and leaves out what a rule of admission keeps out or what was removed
/// meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refill_of_a_body_streams() {
    let entry = || {
        let mut details = Details::default();
        details.scopes.push(Scope::tag("red"));
        details.metadata.insert("etag".to_owned(), Bytes::from_static(b"one"));
        CacheValue::new(()).with_details(details).ttl(Duration::from_secs(1_000))
    };
    let store = async |layer: &DiskBackend| {
        let mut writer = create_of(layer, entry()).await;
        put(&mut *writer, 10).await.expect("chunks");
        assert!(writer.finish().await.is_ok());
        open(layer).await.expect("the body").entry().clone()
    };
    for limit in [999_999, 1_000_000] {
        let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let (above, below) =
            (disk_of_short_values(&folders[0]).await, disk_of_short_values(&folders[1]).await);
        let stored = store(&below).await;
        let admitted = above.clone().admission(AdmissionRule::UpTo(limit));
        let cache = admitted.compose(below, OffloadPool::new().shared()).with_refill(RefillPolicy::Awaited);
        compare(&cache, 10, "composition.disk2").await;
        let refilled = open(&above).await;
        assert_eq!(refilled.is_some(), limit == 1_000_000, "{limit}");
        if let Some(reader) = refilled {
            let copy = reader.entry();
            assert_eq!((copy.lifetime(), copy.created()), (stored.lifetime(), stored.created()));
            let metadata = |entry: &CacheValue<()>| entry.details().map(|details| details.metadata.clone());
            assert_eq!(metadata(copy), metadata(&stored));
            compare(&cache, 10, "composition.disk").await;
            cache.invalidate_tags(&["red"]).await.expect("an invalidation");
            assert!(open(&above).await.is_none() && open(&cache).await.is_none());
        }
    }
    for is_invalidated in [false, true] {
        let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let (above, below) =
            (disk_of_short_values(&folders[0]).await, disk_of_short_values(&folders[1]).await);
        store(&below).await;
        let gate = Arc::new(Semaphore::new(0));
        let gated = Troubled::new(Arc::new(above.clone()), Trouble::Commits(gate.clone()));
        let pool = OffloadPool::new();
        let cache = gated.compose(below, pool.shared()).with_refill(RefillPolicy::Always);
        compare(&cache, 10, "composition.disk2").await;
        // It has its copy of what is below.
        until("no refill", async || under_way(&folders[0]) == 1).await;
        if is_invalidated {
            cache.invalidate_tags(&["red"]).await.expect("an invalidation");
        } else {
            cache.delete_one(&key()).await.expect("a removal");
        }
        gate.add_permits(1);
        until("the refill goes on", async || statistics(&cache).refills_superseded > 0).await;
        assert!(open(&above).await.is_none() && open(&cache).await.is_none());
        assert_eq!(under_way(&folders[0]), 0, "a file is left");
    }
}

/// A nest is filled as a layer is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refill_of_a_body_reaches_the_layers_of_a_nest() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let (upper, middle, below) = (memory(), disk(&folders[0]).await, disk_of_short_values(&folders[1]).await);
    let pool = OffloadPool::new();
    let nest = upper.clone().compose(middle.clone(), pool.shared());
    let mut writer = create(&below).await;
    let chunks = MAX_BUFFERED_BODY as usize / 100_000 + 10;
    put(&mut *writer, chunks).await.expect("chunks");
    assert!(writer.finish().await.is_ok());
    let cache = nest.compose(below.clone(), pool.shared()).with_refill(RefillPolicy::Awaited);
    compare(&cache, chunks, "composition.disk").await;
    // It is larger than memory collects.
    assert!(open(&upper).await.is_none());
    compare(&cache, chunks, "composition.composition.disk").await;
    cache.delete_one(&key()).await.expect("a removal");
    let mut writer = create(&below).await;
    put(&mut *writer, 10).await.expect("chunks");
    assert!(writer.finish().await.is_ok());
    compare(&cache, 10, "composition.disk").await;
    compare(&middle, 10, "disk").await;
    compare(&cache, 10, "composition.composition.moka").await;
}

/// Flips a byte in the middle of the one file of a folder that has objects.
fn damage(folder: &std::path::Path) {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            match entry.file_type().expect("a type").is_dir() {
                true => folders.push(entry.path()),
                false => found.push((entry.metadata().expect("metadata").len(), entry.path())),
            }
        }
    }
    let (len, largest) = found.into_iter().max().expect("a file");
    let mut bytes = std::fs::read(&largest).expect("its bytes");
    bytes[len as usize / 2] ^= 1;
    std::fs::write(&largest, bytes).expect("written");
}

/// A layer that fails in the middle costs the reader nothing where the other has the same body, and is never mended with another body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_read_on_from_the_other_layer() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (upper, lower) = (disk(&one).await, disk(&two).await);
    let both = upper.clone().compose(lower.clone(), OffloadPool::new().shared());
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    let store = async |cache: &dyn Backend, body: &[u8]| {
        let mut writer = create(cache).await;
        writer.chunk(Bytes::copy_from_slice(body)).await.expect("taken");
        assert!(writer.finish().await.is_ok());
    };
    for has_another in [false, true] {
        store(&both, &body).await;
        if has_another {
            store(&lower, &vec![9; body.len()]).await;
        }
        damage(one.path());
        let mut reader = both.open_body(&key()).await.expect("an answer").expect("a body");
        let (from, mut read) = (reader.label(), Vec::new());
        reader.seek(10..2_900_000).expect("a range");
        let end = loop {
            match reader.chunk().await {
                Ok(Some(chunk)) => read.extend_from_slice(&chunk),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        assert!(body[10..2_900_000].starts_with(&read), "no other bytes");
        if has_another {
            assert_eq!(end.expect_err("there is another body below").kind(), ErrorKind::Codec);
        } else {
            end.expect("the other layer has it");
            assert_eq!(read.len(), 2_899_990);
            assert_ne!(reader.label(), from, "the reader says whose bytes it has");
        }
    }
}

/// A call that is dropped while it goes on in the other layer costs the reader nothing, and nor does the end of the body's time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_moves_on_whoever_gives_it_up_in_between() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (above, below) = (Faults::default(), Faults::default());
    let upper = Faulty::new(memory(), &above, clock.clone());
    let both = upper.compose(Faulty::new(memory(), &below, clock.clone()), OffloadPool::new().shared());
    let end = clock.now() + Duration::from_millis(100);
    let retain = end + Duration::from_secs(600);
    let entry = CacheValue::new(()).with_lifetime(Lifetime::new(None, Some(end), Some(retain)));
    let mut writer = create_of(&both, entry).await;
    put(&mut *writer, 10).await.expect("chunks");
    assert!(writer.finish().await.is_ok());
    let mut body = both.open_reader(&key(), &ReadOptions::NORMAL).await.expect("an answer").expect("a body");
    let first = body.chunk().await.expect("a chunk").expect("some");
    until("it is over", async || clock.now() > end).await;
    above.always(Operation::ReadChunk, Fault::Fail(ErrorKind::Io));
    below.nth(Operation::ReadChunk, 1, Fault::Hang);
    tokio::time::timeout(Duration::from_millis(20), body.chunk()).await.expect_err("it hangs");
    let mut read = first.to_vec();
    while let Some(chunk) = body.chunk().await.expect("the other layer has it") {
        read.extend_from_slice(&chunk);
    }
    assert_eq!(Some(read.len() as u64), body.len());
}
