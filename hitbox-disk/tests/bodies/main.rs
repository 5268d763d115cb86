//! Bodies that are written and read by chunks.

mod programs;
mod trouble;

use std::fs;
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hitbox_backend::operation::{BodyReader, BodyWriter, MAX_BUFFERED_BODY, WriteOptions};
use hitbox_backend::{Backend, CacheBackend, LeafOutcome, LeafStatistics, ReadOptions};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Details, ErrorKind, Limits, Scope};
use hitbox_disk::{DiskBackend, DiskBuilder};

const MIB: usize = 1 << 20;
const CHUNK: usize = 64 * 1024;

fn key(number: u64) -> CacheKey {
    CacheKey::builder("body").part("n", number).build()
}

/// A part of a body that differs everywhere from other parts and other bodies.
fn part(seed: u64, at: u64, len: usize) -> Vec<u8> {
    let word = |index: u64| (index ^ seed << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    let from = at / 8;
    let words = (from..=(at + len as u64) / 8).flat_map(word);
    words.skip((at - from * 8) as usize).take(len).collect()
}

fn statistics(disk: &dyn Backend) -> LeafStatistics {
    disk.layout().statistics().into_iter().next().expect("a leaf")
}

/// Bytes of the file system that the store has taken.
fn held_by(disk: &dyn Backend) -> u64 {
    statistics(disk).occupancy.expect("an occupancy").bytes
}

async fn open(disk: &dyn Backend, number: u64) -> Option<Box<dyn BodyReader>> {
    disk.open_reader(&key(number), &ReadOptions::default()).await.expect("a reader")
}

async fn create(disk: &dyn Backend, number: u64) -> Box<dyn BodyWriter> {
    let entry = CacheValue::new(());
    disk.open_writer(&key(number), entry, WriteOptions::default()).await.expect("a writer")
}

async fn put(writer: &mut dyn BodyWriter, seed: u64, len: usize) {
    let step = 100_000;
    for at in (0..len).step_by(step) {
        let chunk = part(seed, at as u64, step.min(len - at));
        writer.chunk(chunk.into()).await.expect("a chunk");
    }
}

/// What is left to be read.
async fn read(reader: &mut dyn BodyReader) -> BackendResult<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        assert!(!chunk.is_empty(), "an empty chunk");
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Polls a future at most so often.
async fn poll_at_most<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), times);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

async fn store(disk: &dyn Backend, number: u64, len: usize) {
    let mut writer = create(disk, number).await;
    put(&mut *writer, number, len).await;
    writer.finish().await.into_result().expect("a body");
}

/// Reads to the end of the range, and compares.
async fn compare(reader: &mut dyn BodyReader, seed: u64, mut at: u64, end: u64) {
    while let Some(chunk) = reader.chunk().await.expect("a chunk") {
        assert!(!chunk.is_empty(), "an empty chunk");
        assert!(chunk == part(seed, at, chunk.len()), "other bytes from {at} on");
        at += chunk.len() as u64;
    }
    assert_eq!(at, end, "the end");
}

/// Files that hold entries, the longest last, and those that nobody sees yet.
fn files(folder: &Path) -> (Vec<PathBuf>, usize) {
    let list = |folder: PathBuf| {
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path())
    };
    let mut objects: Vec<PathBuf> = list(folder.join("objects")).flat_map(list).collect();
    objects.sort_by_key(|path| path.metadata().expect("a file").len());
    (objects, list(folder.join("tmp")).count())
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

fn builder(folder: &tempfile::TempDir) -> DiskBuilder {
    DiskBackend::builder(folder.path()).max_bytes(1 << 30)
}

/// Longer than what is collected in memory for others, and than what is read as one value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_any_length_goes_in_and_comes_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { value_bytes: MIB as u64, ..Limits::DEFAULT };
    let len = MAX_BUFFERED_BODY as usize + MIB + 12_345;
    let mut disk = builder(&folder).limits(limits).open().await.expect("disk");
    store(&disk, 1, len).await;
    for is_again in [false, true] {
        if is_again {
            disk.close().await;
            disk = builder(&folder).limits(limits).open().await.expect("disk");
        }
        let mut reader = open(&disk, 1).await.expect("the body");
        assert_eq!(reader.len(), Some(len as u64));
        compare(&mut *reader, 1, 0, len as u64).await;
        let (first, second, end) = (CHUNK as u64, 2 * CHUNK as u64, len as u64);
        for (start, stop) in
            [(0, 1), (first - 1, first + 1), (first, second), (1, end - 1), (end - 1, u64::MAX)]
        {
            reader.seek(start..stop).expect("a range");
            compare(&mut *reader, 1, start, stop.min(end)).await;
        }
        // It is too large to be one value, and stays.
        assert!(disk.get_one::<Bytes>(&key(1)).await.expect("a read").is_none());
        assert!(open(&disk, 1).await.is_some());
    }
    assert_eq!(statistics(&disk).unusable, 0);
    // What fits is a value too.
    store(&disk, 2, 300_000).await;
    let value = disk.get_one::<Bytes>(&key(2)).await.expect("a read").expect("a value");
    assert!(value.into_data() == part(2, 0, 300_000));
    // And a value that was written as a whole is a body.
    disk.set_one(&key(3), CacheValue::new(Bytes::from(part(3, 0, 200_000)))).await.expect("a write");
    compare(&mut *open(&disk, 3).await.expect("a body"), 3, 0, 200_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    let is_empty = || files(folder.path()).1 == 0;
    let before = held_by(&disk);
    let mut writer = create(&disk, 1).await;
    put(&mut *writer, 1, 3 * MIB).await;
    assert!(!is_empty(), "it is being written");
    writer.abort().await;
    assert!(is_empty(), "it was given up, and something is left");
    let mut writer = create(&disk, 1).await;
    put(&mut *writer, 1, 3 * MIB).await;
    drop(writer);
    until("it was dropped, and something is left", is_empty).await;
    // A future that is dropped in the middle of a chunk.
    let mut writer = create(&disk, 1).await;
    let chunk = Bytes::from(part(1, 0, 3 * MIB));
    let given_up = tokio::time::timeout(Duration::ZERO, writer.chunk(chunk.clone())).await;
    if given_up.is_err() {
        assert_eq!(writer.chunk(chunk).await.expect_err("of no use").kind(), ErrorKind::Closed);
    }
    drop(writer);
    until("its chunk was dropped, and something is left", is_empty).await;
    assert!(open(&disk, 1).await.is_none(), "nothing is there");
    let room = || held_by(&disk) == before;
    until("its room is not given back", room).await;
}

/// A range reads and verifies the chunks that it touches, and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_where_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    let len = 10 * CHUNK + 5;
    store(&disk, 1, len).await;
    let path = files(folder.path()).0.pop().expect("a file");
    let file = fs::File::options().write(true).open(&path).expect("a file");
    // The trailer is short: this is in the fourth chunk from the end.
    let at = path.metadata().expect("a file").len() - 4 * CHUNK as u64;
    file.write_all_at(&[1, 2, 3], at).expect("damage");
    let mut reader = open(&disk, 1).await.expect("the body");
    reader.seek(0..CHUNK as u64 * 6).expect("a range");
    compare(&mut *reader, 1, 0, CHUNK as u64 * 6).await;
    reader.seek(CHUNK as u64 * 8..u64::MAX).expect("a range");
    compare(&mut *reader, 1, CHUNK as u64 * 8, len as u64).await;
    reader.seek(CHUNK as u64 * 6..u64::MAX).expect("a range");
    assert_eq!(reader.chunk().await.expect_err("damage").kind(), ErrorKind::Codec);
    assert_eq!(statistics(&disk).unusable, 1);
    assert!(open(&disk, 1).await.is_none(), "it is removed");
    // What has been written since is not.
    store(&disk, 1, len).await;
    assert_eq!(reader.chunk().await.expect_err("damage").kind(), ErrorKind::Codec);
    compare(&mut *open(&disk, 1).await.expect("the new body"), 1, 0, len as u64).await;
    // One that is cut off is a miss.
    let path = files(folder.path()).0.pop().expect("a file");
    let cut = path.metadata().expect("a file").len() - 1;
    fs::File::options().write(true).open(&path).expect("a file").set_len(cut).expect("a cut");
    assert!(open(&disk, 1).await.is_none(), "it is cut off");
}

/// While it grows a body takes room as an entry does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_stay_within_the_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let bound = 8 * MIB as u64;
    let disk = builder(&folder).max_bytes(bound).open().await.expect("disk");
    let held = || held_by(&disk);
    for number in 10..16 {
        store(&disk, number, MIB).await;
    }
    let mut one = create(&disk, 1).await;
    put(&mut *one, 1, 5 * MIB).await;
    assert!(held() <= bound, "{} bytes are held", held());
    // Another finds no room beside it, and puts nobody out for nothing.
    let before = held();
    let mut other = create(&disk, 2).await;
    let chunk = Bytes::from(part(2, 0, 4 * MIB));
    assert_eq!(other.chunk(chunk).await.expect_err("no room").kind(), ErrorKind::Overloaded);
    assert!(!other.finish().await.is_ok(), "it has failed");
    assert!(held() <= bound && held() + 4 * MIB as u64 >= before, "{} of {before} bytes are held", held());
    one.finish().await.into_result().expect("a body");
    compare(&mut *open(&disk, 1).await.expect("the body"), 1, 0, 5 * MIB as u64).await;
    assert!(held() <= bound && open(&disk, 2).await.is_none());
    let mut large = create(&disk, 3).await;
    let refused = large.chunk(part(3, 0, 9 * MIB).into()).await.expect_err("it is larger than the store");
    let (size, limit) = refused.exceeded().expect("both numbers");
    assert!(refused.kind() == ErrorKind::TooLarge && size > limit && limit == bound, "{refused}");
    drop(large);
    store(&disk, 3, 7 * MIB).await;
    compare(&mut *open(&disk, 3).await.expect("the body"), 3, 0, 7 * MIB as u64).await;
    assert!(held() <= bound, "{} bytes are held", held());
}

/// A reader goes on with the body that it has opened, whatever happens to its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_keeps_its_body() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    store(&disk, 1, 2 * MIB).await;
    let mut old = open(&disk, 1).await.expect("the body");
    old.chunk().await.expect("a chunk");
    let mut writer = create(&disk, 1).await;
    put(&mut *writer, 9, MIB).await;
    writer.finish().await.into_result().expect("a body");
    let mut new = open(&disk, 1).await.expect("the new body");
    assert_ne!(old.generation(), new.generation());
    disk.delete_one(&key(1)).await.expect("a removal");
    old.seek(0..u64::MAX).expect("from its start");
    compare(&mut *old, 1, 0, 2 * MIB as u64).await;
    compare(&mut *new, 9, 0, MIB as u64).await;
    assert!(open(&disk, 1).await.is_none());
}

/// What was written or invalidated since a writer was opened wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_was_overtaken_is_not_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    let mut details = Details::default();
    details.scopes.push(Scope::tag("red"));
    let entry = CacheValue::new(()).with_details(details);
    for is_invalidated in [false, true] {
        let options = WriteOptions::default();
        let mut writer = disk.open_writer(&key(1), entry.clone(), options).await.expect("a writer");
        put(&mut *writer, 1, MIB).await;
        if is_invalidated {
            disk.invalidate_tags(&["red"]).await.expect("an invalidation");
        } else {
            disk.set_one(&key(1), CacheValue::new(7_u64)).await.expect("a write");
        }
        let receipt = writer.finish().await;
        let is_superseded = |outcome: &LeafOutcome| matches!(outcome, LeafOutcome::Superseded);
        assert!(receipt.leaves().iter().all(|line| is_superseded(&line.outcome)), "{receipt:?}");
        let found = disk.get_one::<u64>(&key(1)).await.expect("a read").map(CacheValue::into_data);
        assert_eq!(found, Some(7), "invalidated: {is_invalidated}");
        assert_eq!(files(folder.path()).1, 0, "a file is left");
    }
    // One with tags that are valid is found, and not when they are invalidated afterwards.
    let mut writer = disk.open_writer(&key(1), entry, WriteOptions::default()).await.expect("a writer");
    put(&mut *writer, 1, MIB).await;
    writer.finish().await.into_result().expect("a body");
    let mut reader = open(&disk, 1).await.expect("the body");
    assert_eq!(reader.entry().details().map(|details| details.scopes.len()), Some(1));
    compare(&mut *reader, 1, 0, MIB as u64).await;
    disk.invalidate_tags(&["red"]).await.expect("an invalidation");
    assert!(open(&disk, 1).await.is_none(), "it was invalidated");
}

/// A folder that is closed, or removed, while a body is written does not get it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_whose_folder_is_gone_is_not_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    store(&disk, 1, MIB).await;
    let mut writer = create(&disk, 1).await;
    put(&mut *writer, 2, MIB).await;
    fs::remove_dir_all(folder.path()).expect("the folder is removed");
    let receipt = writer.finish().await;
    assert!(!receipt.is_ok(), "{receipt:?}");
    assert!(open(&disk, 1).await.is_none(), "nothing is there");
    store(&disk, 1, MIB).await;
    compare(&mut *open(&disk, 1).await.expect("it was made again"), 1, 0, MIB as u64).await;
    let mut writer = create(&disk, 1).await;
    put(&mut *writer, 3, MIB).await;
    disk.clone().close().await;
    let other = builder(&folder).open().await.expect("it was released");
    let receipt = writer.finish().await;
    assert_eq!(receipt.error().map(|error| error.kind()), Some(ErrorKind::Closed), "{receipt:?}");
    compare(&mut *open(&other, 1).await.expect("the body of before"), 1, 0, MIB as u64).await;
    other.close().await;
    let other = builder(&folder).open().await.expect("it was released");
    compare(&mut *open(&other, 1).await.expect("the body of before"), 1, 0, MIB as u64).await;
}

/// Each at its own pace, some over parts of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_share_a_body_find_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).open().await.expect("disk");
    let len = 8 * MIB as u64 + 12_345;
    store(&disk, 1, len as usize).await;
    let read = |number: u64| {
        let disk = disk.clone();
        tokio::spawn(async move {
            let mut reader = open(&disk, 1).await.expect("the body");
            let (start, end) = if number < 8 { (0, len) } else { (number * 100_001, len - number * 99_999) };
            reader.seek(start..end).expect("a range");
            compare(&mut *reader, 1, start, end).await;
        })
    };
    for reader in (0..16).map(read).collect::<Vec<_>>() {
        reader.await.expect("a reader");
    }
}
