//! Bodies where something else is in the way: room, damage, changes beside them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_backend::Wrap;
use hitbox_backend::operation::{Batch, Presence, TimeChange, Write};
use hitbox_core::{Lifetime, Timestamp};

use super::*;

/// No longer than this can be read as one value.
fn with_short_values(folder: &tempfile::TempDir) -> DiskBuilder {
    builder(folder).limits(Limits { value_bytes: MIB as u64, ..Limits::DEFAULT })
}

/// A body takes nearly all of the room. Values that are written meanwhile are put out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_beside_a_body_stay_within_the_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let bound = 4 * MIB as u64;
    let disk = builder(&folder).max_bytes(bound).open().await.expect("disk");
    for left in [20_000, 256 * 1024] {
        let mut writer = create(&disk, 1).await;
        put(&mut *writer, 1, 4 * MIB - left).await;
        for number in 10..14 {
            let write = |index| {
                let (disk, key) = (disk.clone(), key(number * 100 + index));
                let value = CacheValue::new(Bytes::from(part(number, 0, 500_000)));
                tokio::spawn(async move { disk.set_one(&key, value).await.expect("a write") })
            };
            for written in (0..8).map(write).collect::<Vec<_>>() {
                written.await.expect("a task");
            }
            assert!(held_by(&disk) <= bound, "{} bytes beside a body", held_by(&disk));
        }
        disk.set_one(&key(2), CacheValue::new(Bytes::from(part(2, 0, MIB)))).await.expect("a write");
        writer.finish().await.into_result().expect("a body");
        assert!(held_by(&disk) <= bound, "{} bytes when it has ended", held_by(&disk));
        compare(&mut *open(&disk, 1).await.expect("the body"), 1, 0, (4 * MIB - left) as u64).await;
        disk.delete_one(&key(1)).await.expect("a removal");
    }
}

/// Records of namespaces are never put out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_leaves_records_of_namespaces_their_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let bound = 2 * MIB as u64;
    let disk = builder(&folder).max_bytes(bound).open().await.expect("disk");
    for number in 0..200 {
        let named = disk.clone().namespace(&format!("n{number}"));
        named.set_one(&key(1), CacheValue::new(1_u64)).await.expect("a write");
    }
    let mut writer = create(&disk, 1).await;
    let chunk = Bytes::from(part(1, 0, 2 * MIB - 10_000));
    assert_eq!(writer.chunk(chunk).await.expect_err("no room").kind(), ErrorKind::Overloaded);
    writer.abort().await;
    store(&disk, 1, MIB).await;
    assert!(held_by(&disk) <= bound && open(&disk, 1).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_can_never_fit_puts_nobody_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).max_bytes(8 * MIB as u64).open().await.expect("disk");
    for number in 10..16 {
        store(&disk, number, MIB).await;
    }
    let mut writer = create(&disk, 1).await;
    let refused = writer.chunk(part(1, 0, 9 * MIB).into()).await.expect_err("it is larger than the store");
    assert_eq!(refused.exceeded(), Some((9 * MIB as u64, 8 * MIB as u64)), "{refused}");
    // It takes nothing any more, not even what would wait in memory.
    let next = writer.chunk(Bytes::from_static(b"short")).await.expect_err("of no use");
    assert_eq!(next.kind(), ErrorKind::Closed);
    assert!(!writer.finish().await.is_ok(), "it has failed");
    for number in 10..16 {
        assert!(open(&disk, number).await.is_some(), "{number} was put out");
    }
}

/// Each has a file open and memory of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_written_at_a_time_are_limited() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    let mut writers = Vec::new();
    let refused = loop {
        let key = key(writers.len() as u64);
        match disk.open_writer(&key, CacheValue::new(()), WriteOptions::default()).await {
            Ok(writer) => writers.push(writer),
            Err(refused) => break refused,
        }
        assert!(writers.len() < 10_000, "no limit");
    };
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
    writers.pop().expect("a writer").abort().await;
    store(&disk, 1, MIB).await;
    drop(writers);
    until("files are left", || files(folder.path()).1 == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_waits_for_a_chunk_whose_caller_has_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    let before = held_by(&disk);
    for _ in 0..50 {
        let mut writer = create(&disk, 1).await;
        poll_at_most(2, writer.chunk(Bytes::from(part(1, 0, 3 * MIB)))).await;
        writer.abort().await;
        assert_eq!((files(folder.path()).1, held_by(&disk)), (0, before), "something is left");
    }
}

/// Also where its file is too long to be read as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_damaged_at_its_ends_is_removed() {
    for value_bytes in [Limits::DEFAULT.value_bytes, MIB as u64] {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits { value_bytes, ..Limits::DEFAULT };
        let disk = builder(&folder).limits(limits).open().await.expect("disk");
        store(&disk, 2, 10).await;
        let before = held_by(&disk);
        // The magic number, the header of the record, its end, and the file cut in two ways.
        for how in 0..5 {
            store(&disk, 1, 3 * MIB).await;
            let path = files(folder.path()).0.pop().expect("a file");
            let file = fs::File::options().write(true).open(&path).expect("a file");
            let len = file.metadata().expect("a file").len();
            match how {
                0 => file.write_all_at(&[9; 4], 3).expect("damage"),
                1 => file.write_all_at(&[9; 4], 80).expect("damage"),
                2 => file.write_all_at(&[9; 4], len - 6).expect("damage"),
                3 => file.set_len(2 * MIB as u64).expect("a cut"),
                _ => file.set_len(len - CHUNK as u64 - 8).expect("a cut"),
            }
            let unusable = statistics(&disk).unusable;
            assert!(open(&disk, 1).await.is_none(), "{how}");
            assert_eq!(statistics(&disk).unusable, unusable + 1, "{how} of {value_bytes}");
            assert!(!path.exists(), "{how} of {value_bytes} stays");
            assert_eq!(held_by(&disk), before, "{how} of {value_bytes}");
        }
        assert!(open(&disk, 2).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_beneath_its_reader_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    store(&disk, 1, 3 * MIB).await;
    let mut reader = open(&disk, 1).await.expect("the body");
    let path = files(folder.path()).0.pop().expect("a file");
    fs::File::options().write(true).open(&path).expect("a file").set_len(MIB as u64).expect("a cut");
    assert_eq!(read(&mut *reader).await.expect_err("damage").kind(), ErrorKind::Codec);
    assert!(!path.exists() && open(&disk, 1).await.is_none());
}

/// The body of a key, with one tag, has these metadata and lives as long as it did. Says its generation.
async fn has_metadata(
    disk: &DiskBackend,
    metadata: &BTreeMap<String, Bytes>,
    lifetime: &Lifetime,
    len: usize,
) -> u64 {
    let mut reader = open(disk, 1).await.expect("the body");
    let details = reader.entry().details().expect("details");
    assert!(details.metadata == *metadata && details.scopes.len() == 1, "{len}: {details:?}");
    assert_eq!(reader.entry().lifetime(), lifetime, "{len}");
    compare(&mut *reader, 1, 0, len as u64).await;
    reader.generation()
}

/// A body that is too long to be read as one value is copied for it by chunks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metadata_of_a_body_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut disk = with_short_values(&folder).open().await.expect("disk");
    let mut details = Details::default();
    details.scopes.push(Scope::tag("red"));
    let entry = CacheValue::new(()).with_details(details).ttl(Duration::from_secs(1_000));
    for len in [0, 10, 200_000, 900_000, 3 * MIB] {
        let mut writer =
            disk.open_writer(&key(1), entry.clone(), WriteOptions::default()).await.expect("a writer");
        put(&mut *writer, 1, len).await;
        writer.finish().await.into_result().expect("a body");
        let expires = *open(&disk, 1).await.expect("the body").entry().lifetime();
        let metadata = BTreeMap::from([("etag".to_owned(), Bytes::from(vec![7; len % 999]))]);
        let receipt = disk.set_metadata(&key(1), metadata.clone()).await.expect("metadata");
        assert_eq!(receipt.stored(), 1, "{len}: {receipt:?}");
        has_metadata(&disk, &metadata, &expires, len).await;
        disk.close().await;
        disk = with_short_values(&folder).open().await.expect("disk");
        has_metadata(&disk, &metadata, &expires, len).await;
        disk.invalidate_tags(&["red"]).await.expect("an invalidation");
        let absent = disk.set_metadata(&key(1), metadata).await.expect("an answer");
        assert!(absent.stored() == 0 && open(&disk, 1).await.is_none(), "{len}: {absent:?}");
    }
    assert_eq!(files(folder.path()).1, 0, "a file is left");
}

/// A validation of a large body costs what its metadata cost. Longer metadata than fit have the body copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_that_fit_are_replaced_in_their_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut disk = builder(&folder).open().await.expect("disk");
    let with = |len: usize, byte: u8| BTreeMap::from([("head".to_owned(), Bytes::from(vec![byte; len]))]);
    let mut details = Details::default();
    details.metadata = with(300, 1);
    details.scopes.push(Scope::tag("red"));
    let entry = CacheValue::new(()).with_details(details).ttl(Duration::from_secs(1_000));
    let mut writer = disk.open_writer(&key(1), entry, WriteOptions::default()).await.expect("a writer");
    put(&mut *writer, 1, 3 * MIB).await;
    writer.finish().await.into_result().expect("a body");
    let file = || fs::metadata(files(folder.path()).0.pop().expect("a file")).expect("a file").ino();
    let mut inode = file();
    for (len, is_in_place) in [
        (300, true),
        (330, true),
        (0, true),
        (1, true),
        (300, true),
        (3_000, false),
        (3_050, true),
        (10, true),
    ] {
        let mut early = open(&disk, 1).await.expect("the body");
        let first = early.chunk().await.expect("a chunk").expect("a chunk");
        let receipt = disk.set_metadata(&key(1), with(len, 2)).await.expect("metadata");
        assert_eq!(receipt.stored(), 1, "{len}: {receipt:?}");
        assert_eq!(file() == inode, is_in_place, "{len}");
        inode = file();
        // Who has begun reads on, of the same body.
        compare(&mut *early, 1, first.len() as u64, 3 * MIB as u64).await;
        let expires = *early.entry().lifetime();
        assert_eq!(has_metadata(&disk, &with(len, 2), &expires, 3 * MIB).await, early.generation(), "{len}");
        disk.close().await;
        disk = builder(&folder).open().await.expect("disk");
        assert_eq!(has_metadata(&disk, &with(len, 2), &expires, 3 * MIB).await, early.generation(), "{len}");
    }
    assert_eq!(statistics(&disk).unusable, 0);
}

/// Other metadata are written into its file while it is opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_body_whose_metadata_change_is_found_with_one_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    store(&disk, 1, 2 * MIB).await;
    let with = |round: u64| {
        let bytes = vec![round as u8; 100 + round as usize % 7];
        BTreeMap::from([("head".to_owned(), Bytes::from(bytes))])
    };
    disk.set_metadata(&key(1), with(0)).await.expect("metadata");
    let opened = Arc::new(AtomicU64::new(0));
    let openers: Vec<_> = (0..4)
        .map(|_| {
            let (disk, opened) = (disk.clone(), opened.clone());
            tokio::spawn(async move {
                while opened.fetch_add(1, Ordering::Relaxed) < 6_000 {
                    assert_eq!(disk.contains(&key(1)).await.expect("an answer"), Presence::Present);
                    let body = open(&disk, 1).await.expect("no miss");
                    let head = body.entry().details().expect("details").metadata["head"].clone();
                    assert!(head.len() >= 100 && head.iter().all(|byte| *byte == head[0]), "a mix: {head:?}");
                }
            })
        })
        .collect();
    let mut round = 0;
    while opened.load(Ordering::Relaxed) < 6_000 {
        round += 1;
        let receipt = disk.set_metadata(&key(1), with(round)).await.expect("metadata");
        assert_eq!(receipt.stored(), 1, "{receipt:?}");
    }
    for opener in openers {
        opener.await.expect("no miss");
    }
    assert_eq!(statistics(&disk).unusable, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_compared_with_that_of_a_body() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = with_short_values(&folder).open().await.expect("disk");
    for len in [10, 200_000, 900_000, 3 * MIB] {
        let mut details = Details::default();
        details.version = Some(5);
        let entry = CacheValue::new(()).with_details(details);
        let mut writer = disk.open_writer(&key(1), entry, WriteOptions::default()).await.expect("a writer");
        put(&mut *writer, 1, len).await;
        writer.finish().await.into_result().expect("a body");
        let older = disk.set_if_newer(&key(1), CacheValue::new(7_u64), 3).await;
        assert_eq!(older.expect_err("it is older").kind(), ErrorKind::VersionMismatch, "{len}");
        compare(&mut *open(&disk, 1).await.expect("the body"), 1, 0, len as u64).await;
        disk.set_if_newer(&key(1), CacheValue::new(7_u64), 6).await.expect("it is newer");
    }
}

/// Other times are written into its file while it is opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_body_whose_times_change_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = with_short_values(&folder).open().await.expect("disk");
    store(&disk, 1, 2 * MIB).await;
    let opened = Arc::new(AtomicU64::new(0));
    let openers: Vec<_> = (0..4)
        .map(|_| {
            let (disk, opened) = (disk.clone(), opened.clone());
            tokio::spawn(async move {
                while opened.fetch_add(1, Ordering::Relaxed) < 6_000 {
                    assert!(open(&disk, 1).await.is_some(), "a miss");
                }
            })
        })
        .collect();
    let mut end = 4_000_000_000_000;
    while opened.load(Ordering::Relaxed) < 6_000 {
        end += 1_234_567;
        let change = TimeChange::kept_until(Some(Timestamp::from_millis(end)));
        disk.write(Batch::one(Write::times(key(1), change))).await;
    }
    for opener in openers {
        opener.await.expect("no miss");
    }
    assert_eq!(statistics(&disk).unusable, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_starts_within_its_body() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    for len in [0, 10, 300_000_u64] {
        store(&disk, 1, len as usize).await;
        let mut reader = open(&disk, 1).await.expect("the body");
        for (start, end) in [(5, 5), (0, 0), (3, u64::MAX), (len / 2, len), (len / 3, len + 9), (0, u64::MAX)]
        {
            let range = reader.seek(start..end);
            if start < len || start == 0 {
                range.expect("a range");
                compare(&mut *reader, 1, start, end.min(len).max(start)).await;
            } else {
                assert_eq!(range.expect_err("behind the end").kind(), ErrorKind::Range);
            }
        }
        for (start, end) in [(len.max(1), u64::MAX), (len + 1, u64::MAX), (3, 2)] {
            let refused = reader.seek(start..end).expect_err("no range");
            assert_eq!(refused.kind(), ErrorKind::Range, "{start}..{end} of {len}");
        }
    }
}

/// A writer of a store that was closed puts out nobody of the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_puts_nobody_out() {
    for round in 0..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let bound = 8 * MIB as u64;
        let closed = builder(&folder).max_bytes(bound).open().await.expect("disk");
        for number in 10..16 {
            store(&closed, number, MIB).await;
        }
        let mut writer = create(&closed, 1).await;
        let chunk = Bytes::from(part(1, 0, 6 * MIB));
        let write = tokio::spawn(async move { writer.chunk(chunk).await.map(|()| writer) });
        // Sometimes it has begun, and sometimes not.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        closed.close().await;
        let disk = builder(&folder).max_bytes(bound).open().await.expect("it was released");
        let found = statistics(&disk).occupancy.expect("an occupancy").entries;
        drop(write.await.expect("a task"));
        let mut left = 0;
        for number in 10..16 {
            left += u64::from(open(&disk, number).await.is_some());
        }
        assert_eq!(left, found, "some of those that were found are gone");
    }
}

/// Who removes what is in the folder does no lasting harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_written_again_when_objects_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    store(&disk, 1, MIB).await;
    let held = held_by(&disk);
    fs::remove_dir_all(folder.path().join("objects")).expect("objects are removed");
    assert!(open(&disk, 1).await.is_none());
    assert!(held_by(&disk) < held, "it has kept its room");
    // The first may be lost with the folder.
    let mut writer = create(&disk, 1).await;
    put(&mut *writer, 1, MIB).await;
    writer.finish().await;
    store(&disk, 1, MIB).await;
    compare(&mut *open(&disk, 1).await.expect("the body"), 1, 0, MIB as u64).await;
    for _ in 0..2 {
        let mut writer = create(&disk, 1).await;
        put(&mut *writer, 1, MIB).await;
        fs::remove_dir_all(folder.path().join("tmp")).expect("files under way are removed");
        assert!(!writer.finish().await.is_ok(), "its file is gone");
        store(&disk, 1, MIB).await;
        assert_eq!(files(folder.path()).1, 0, "a file is left");
    }
}
