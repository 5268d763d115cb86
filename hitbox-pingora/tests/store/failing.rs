//! Layers that fail, refuse and hang fail no request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hitbox_backend::operation::Batch;
use hitbox_backend::{Backend, CacheBackend, Compose, OffloadPool, SystemClock};
use hitbox_core::{ErrorKind, ManualClock};
use hitbox_moka::MokaBackend;
use hitbox_pingora::BackendStorage;
use hitbox_testkit::{Fault, Faults, Faulty, Operation};
use pingora_cache::Storage;
use pingora_cache::storage::{MissFinishType, PurgeTarget, PurgeType};

use crate::common::{bytes, etag, key, meta, moka, read, span, storage_over};

const BODY: usize = 5_000_000;

struct Broken {
    storage: &'static BackendStorage,
    faults: Faults,
    pool: OffloadPool,
    has_sound_layer: bool,
}

/// A layer that does as it is told, alone, below and above a sound one.
fn broken() -> Vec<Broken> {
    let faulty = |faults: &Faults| Faulty::new(moka(), faults, Arc::new(SystemClock));
    (0..3)
        .map(|place| {
            let (pool, faults) = (OffloadPool::new(), Faults::default());
            let backend: Arc<dyn Backend> = match place {
                0 => faulty(&faults).shared(),
                1 => moka().compose(faulty(&faults), pool.shared()).shared(),
                _ => faulty(&faults).compose(moka(), pool.shared()).shared(),
            };
            Broken { storage: storage_over(backend, &pool), faults, pool, has_sound_layer: place > 0 }
        })
        .collect()
}

/// Passes a response through, as a request does. Its reader gets all of it.
async fn pass(storage: &'static BackendStorage, path: &str) -> MissFinishType {
    let (key, all) = (key(path), bytes(BODY));
    let mut miss = storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
    let tag = miss.streaming_write_tag().expect("a tag").to_vec();
    let found = storage.lookup_streaming_write(&key, Some(&tag), &span()).await.expect("a lookup");
    let (found, mut hit) = found.expect("the reader of this very writer");
    assert_eq!(etag(&found), "a");
    let mut seen = Vec::new();
    for chunk in all.chunks(64 * 1024) {
        miss.write_body(Bytes::copy_from_slice(chunk), false).await.expect("a chunk");
        seen.extend_from_slice(&hit.read_body().await.expect("a chunk").expect("more"));
    }
    let ended = miss.finish().await.expect("an end");
    seen.extend_from_slice(&read(&mut hit).await.expect("the rest"));
    assert_eq!(seen, all);
    ended
}

#[tokio::test]
async fn a_layer_that_fails_fails_no_request() {
    for (place, broken) in broken().into_iter().enumerate() {
        for fault in [Fault::Fail(ErrorKind::Io), Fault::Fail(ErrorKind::Timeout)] {
            for operation in [Operation::Read, Operation::Begin, Operation::Chunk, Operation::Write] {
                let what = format!("place {place}, {operation:?}: {fault:?}");
                let path = format!("/{operation:?}/{fault:?}");
                broken.faults.always(operation, fault);
                assert!(broken.storage.lookup(&key(&path), &span()).await.expect(&what).is_none(), "{what}");
                pass(broken.storage, &path).await;
                broken.pool.wait_all().await;
                let found = broken.storage.lookup(&key(&path), &span()).await.expect(&what);
                broken.faults.clear();
                if broken.has_sound_layer {
                    let (_, mut hit) = found.expect(&what);
                    assert_eq!(read(&mut hit).await.expect(&what), bytes(BODY), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_body_is_read_on_from_the_other_layer() {
    for broken in broken().into_iter().filter(|broken| broken.has_sound_layer) {
        pass(broken.storage, "/film").await;
        broken.pool.wait_all().await;
        broken.faults.always(Operation::ReadChunk, Fault::Fail(ErrorKind::Io));
        let found = broken.storage.lookup(&key("/film"), &span()).await.expect("a lookup");
        let (_, mut hit) = found.expect("it is stored");
        assert_eq!(read(&mut hit).await.expect("a body"), bytes(BODY));
        hit.seek(1_000_000, Some(2_000_000)).expect("a part");
        assert_eq!(read(&mut hit).await.expect("a part"), bytes(BODY)[1_000_000..2_000_000]);
    }
}

#[tokio::test]
async fn a_purge_that_fails_says_so() {
    for broken in broken() {
        let key = key("/film");
        pass(broken.storage, "/film").await;
        broken.pool.wait_all().await;
        broken.faults.always(Operation::Remove, Fault::Fail(ErrorKind::Io));
        let compact = key.to_compact();
        let target = PurgeTarget::Active(&compact);
        broken
            .storage
            .purge(target, PurgeType::Invalidation, &span())
            .await
            .expect_err("a layer may have it");
        broken.faults.clear();
    }
}

#[tokio::test]
async fn a_layer_that_hangs_holds_up_nobody_for_long() {
    for (place, broken) in broken().into_iter().enumerate() {
        for operation in [Operation::Begin, Operation::Chunk] {
            broken.faults.always(operation, Fault::Hang);
            let began = Instant::now();
            pass(broken.storage, &format!("/{operation:?}")).await;
            // A liveness limit: a second for each layer, and twice that where one is given up late.
            assert!(began.elapsed() < Duration::from_secs(20), "place {place}, {operation:?}");
            broken.faults.clear();
        }
    }
}

#[tokio::test]
async fn a_layer_that_hangs_when_it_is_read_is_a_miss() {
    for (place, broken) in broken().into_iter().enumerate() {
        pass(broken.storage, "/film").await;
        broken.pool.wait_all().await;
        broken.faults.always(Operation::Read, Fault::Hang);
        let compact = key("/film").to_compact();
        let began = Instant::now();
        broken.storage.lookup(&key("/film"), &span()).await.expect("a lookup");
        let target = PurgeTarget::Active(&compact);
        broken.storage.purge(target, PurgeType::Invalidation, &span()).await.expect("a purge");
        // A liveness limit: a second for each layer, twice.
        assert!(began.elapsed() < Duration::from_secs(20), "place {place}");
        broken.faults.clear();
        assert!(
            broken.storage.lookup(&key("/film"), &span()).await.expect("a lookup").is_none(),
            "place {place}"
        );
    }
}

#[tokio::test]
async fn a_pool_that_takes_nothing_has_the_end_stored_within_the_call() {
    let pool = OffloadPool::new();
    let folder = tempfile::tempdir().expect("a folder");
    let storage = storage_over(crate::common::disk(&folder).await.shared(), &pool);
    pool.shutdown().await;
    pass(storage, "/film").await;
    let (_, mut hit) = storage.lookup(&key("/film"), &span()).await.expect("a lookup").expect("it is stored");
    assert_eq!(read(&mut hit).await.expect("a body"), bytes(BODY));
}

#[tokio::test]
async fn what_a_disk_cannot_begin_counts_nothing() {
    let pool = OffloadPool::new();
    let folder = tempfile::tempdir().expect("a folder");
    let storage = storage_over(crate::common::disk(&folder).await.shared(), &pool);
    // Files are where its folders were: it finds no place for another.
    for part in std::fs::read_dir(folder.path()).expect("a folder").map(|part| part.expect("a part").path()) {
        if part.is_dir() {
            std::fs::remove_dir_all(&part).expect("it is removed");
            std::fs::write(&part, "").expect("a file");
        }
    }
    for path in ["/one", "/two"] {
        let mut miss = storage.get_miss_handler(&key(path), &meta("a"), &span()).await.expect("a writer");
        miss.write_body(Bytes::from_static(b"two reels"), true).await.expect("a chunk");
        let ended = miss.finish().await.expect("an end");
        assert!(matches!(ended, MissFinishType::Created(0)), "an eviction manager would count it: {path}");
    }
}

#[tokio::test]
async fn nothing_is_held_for_a_client_that_has_left() {
    let (pool, clock) = (OffloadPool::new(), ManualClock::new());
    let small = MokaBackend::builder().max_bytes(1024 * 1024).clock(Arc::new(clock.clone())).build();
    let storage = storage_over(small.expect("moka").shared(), &pool);
    // Pingora keeps the reader of the one who has left, and those who follow read on.
    for leaves in [true, false] {
        let key = key(if leaves { "/left" } else { "/slow" });
        let mut miss = storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
        let tag = miss.streaming_write_tag().expect("a tag").to_vec();
        let tagged = storage.lookup_streaming_write(&key, Some(&tag), &span()).await.expect("a lookup");
        let (_, mut own) = tagged.expect("its reader");
        let mut taken = 0;
        for n in 0..400 {
            miss.write_body(bytes(64 * 1024), false).await.expect("a chunk");
            clock.advance(Duration::from_millis(10));
            // One that is slow takes something now and then.
            if !leaves && n % 90 == 0 {
                taken += own.read_body().await.expect("a chunk").expect("more").len();
            }
        }
        miss.finish().await.expect("an end");
        let rest = read(&mut own).await;
        if leaves {
            rest.expect_err("what it has not taken is gone");
        } else {
            assert_eq!(taken + rest.expect("the rest").len(), 400 * 64 * 1024, "it has lost nothing");
        }
    }
}

#[tokio::test]
async fn a_body_that_no_layer_takes_goes_to_its_reader() {
    let pool = OffloadPool::new();
    let small = || MokaBackend::builder().max_bytes(1024 * 1024).build().expect("moka");
    let backends: [Arc<dyn Backend>; 2] =
        [small().shared(), small().compose(small(), pool.shared()).shared()];
    for backend in backends {
        let storage = storage_over(backend, &pool);
        pass(storage, "/film").await;
        pool.wait_all().await;
        assert!(storage.lookup(&key("/film"), &span()).await.expect("a lookup").is_none(), "it is too large");
        // Who comes when its beginning is gone asks the origin.
        let key = key("/late");
        let mut miss = storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
        let tag = miss.streaming_write_tag().expect("a tag").to_vec();
        let tagged = storage.lookup_streaming_write(&key, Some(&tag), &span()).await.expect("a lookup");
        let (_, mut own) = tagged.expect("its reader");
        for chunk in bytes(BODY).chunks(64 * 1024) {
            miss.write_body(Bytes::copy_from_slice(chunk), false).await.expect("a chunk");
            own.read_body().await.expect("a chunk").expect("more");
        }
        let late = storage.lookup(&key, &span()).await.expect("a lookup");
        assert!(late.is_none(), "what it would be told first is neither held nor stored");
    }
}

#[tokio::test]
async fn a_reader_that_is_slow_loses_nothing() {
    for broken in broken() {
        broken.faults.always(Operation::Chunk, Fault::Fail(ErrorKind::Io));
        let (key, all) = (key("/film"), bytes(BODY));
        let mut miss = broken.storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
        let tag = miss.streaming_write_tag().expect("a tag").to_vec();
        let tagged =
            broken.storage.lookup_streaming_write(&key, Some(&tag), &span()).await.expect("a lookup");
        let (_, mut own) = tagged.expect("its reader");
        // All of it comes before the one who asked for it reads anything: Pingora has both in one task.
        for chunk in all.chunks(64 * 1024) {
            miss.write_body(Bytes::copy_from_slice(chunk), false).await.expect("a chunk");
        }
        miss.finish().await.expect("an end");
        let mut reads = 0;
        let mut seen = Vec::new();
        while let Some(chunk) = own.read_body().await.expect("a chunk") {
            reads += 1;
            seen.extend_from_slice(&chunk);
        }
        assert_eq!(seen, all);
        assert!(reads <= 6, "{reads} reads: who is behind is given much at a time");
    }
}

#[tokio::test]
async fn metadata_that_cannot_be_read_are_a_miss() {
    let pool = OffloadPool::new();
    let backend: Arc<dyn Backend> = moka().shared();
    let storage = storage_over(backend.clone(), &pool);
    let key = key("/film");
    pass(storage, "/film").await;
    // Somebody else writes under this key.
    let page = backend.list_keys(0, 10).await.expect("its keys");
    let ours = page.keys.first().expect("one").clone();
    backend
        .set_metadata(&ours, [("pingora.internal".to_owned(), Bytes::from_static(b"?"))].into())
        .await
        .expect("a write");
    assert!(storage.lookup(&key, &span()).await.expect("a lookup").is_none());
    let removal = hitbox_backend::operation::Removal::new(ours);
    drop(backend.remove(Batch::one(removal)).await);
    pass(storage, "/film").await;
    assert!(storage.lookup(&key, &span()).await.expect("a lookup").is_some());
}
