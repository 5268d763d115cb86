//! Random programs over bodies: what is found is what somebody wrote, and nothing is left over. Each has a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_backend::Wrap;
use hitbox_backend::operation::{Batch, TimeChange, Write};
use hitbox_core::Timestamp;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::runtime::{Builder, Runtime};

use super::*;

fn runtime(threads: usize, blocking: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).max_blocking_threads(blocking).enable_all();
    builder.build().expect("a runtime")
}

fn tagged(tag: &str) -> CacheValue<()> {
    let mut details = Details::default();
    details.scopes.push(Scope::tag(tag));
    CacheValue::new(()).with_details(details)
}

async fn content(disk: &dyn Backend, number: u64) -> Option<Vec<u8>> {
    Some(read(&mut *open(disk, number).await?).await.expect("a body"))
}

/// What the folder takes is what the store says.
async fn until_settled(disk: &DiskBackend, folder: &Path) {
    let on_disk = || {
        let space = |path: &PathBuf| path.metadata().map_or(0, |file| file.len().div_ceil(4096) * 4096);
        let (objects, under_way) = files(folder);
        (under_way == 0).then(|| objects.iter().map(space).sum::<u64>())
    };
    until("room is lost, or files are", || on_disk() == Some(held_by(disk))).await;
}

/// Whatever future is dropped, after whatever poll: the old body is there, or the new one as a whole.
async fn drop_futures(seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = builder(&folder).max_bytes(64 * MIB as u64).open().await.expect("disk");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..150 {
        let number = round % 7;
        let entry = if random.random_bool(0.3) { tagged("t") } else { CacheValue::new(()) };
        let len = *[0, 1, CHUNK, 300_000, 2_000_000].choose(&mut random).expect("a length");
        let (key, body) = (key(number), part(round + 100, 0, len));
        let mut may_be = vec![content(&disk, number).await];
        let open = disk.open_writer(&key, entry, WriteOptions::default());
        let Some(writer) = poll_at_most(random.random_range(1..4), open).await else { continue };
        let mut writer = writer.expect("a writer");
        let mut is_whole = true;
        for chunk in body.chunks(700_000) {
            let chunk = writer.chunk(Bytes::copy_from_slice(chunk));
            is_whole &= poll_at_most(random.random_range(1..9), chunk).await.is_some();
            if !is_whole {
                break;
            }
        }
        let polls = random.random_range(1..6);
        match random.random_range(0..6) {
            0 => drop(writer),
            1 => drop(poll_at_most(polls, writer.abort()).await),
            2 => {
                poll_at_most(polls, writer.leave_out()).await;
                may_be.push(None);
            }
            _ => {
                let ended = poll_at_most(polls, writer.finish()).await;
                if let Some(receipt) = &ended {
                    assert_eq!(receipt.is_ok(), is_whole, "seed {seed}, round {round}: {receipt:?}");
                }
                if is_whole {
                    may_be.push(Some(body));
                }
                if is_whole && ended.is_some() {
                    may_be.remove(0);
                }
            }
        }
        let found = content(&disk, number).await;
        assert!(may_be.contains(&found), "seed {seed}, round {round}: {:?} bytes", found.map(|it| it.len()));
        if round % 3 == 0 {
            store(&disk, number, 70_000).await;
            compare(&mut *super::open(&disk, number).await.expect("a body"), number, 0, 70_000).await;
        }
    }
    until_settled(&disk, folder.path()).await;
    disk.close().await;
}

#[test]
fn a_future_that_is_dropped_leaves_a_whole_body_or_none() {
    runtime(2, 512).block_on(drop_futures(5));
    runtime(1, 1).block_on(drop_futures(6));
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(drop_futures(7));
}

/// A body that says what it is made of.
fn telling(seed: u64, len: usize) -> Vec<u8> {
    let mut body = seed.to_le_bytes().to_vec();
    body.extend(part(seed, 8, len));
    body
}

/// Reads a body again from its start, whatever has become of its key.
async fn check(reader: &mut dyn BodyReader) {
    reader.seek(0..u64::MAX).expect("a range");
    let body = read(reader).await.expect("a body");
    assert_eq!(Some(body.len() as u64), reader.len());
    let seed = body.first_chunk().map_or(0, |seed| u64::from_le_bytes(*seed));
    assert!(body.is_empty() || body == telling(seed, body.len() - 8), "a mix of bodies");
}

async fn write_some(disk: &dyn Backend, number: u64, random: &mut StdRng) {
    let mut entry = match random.random_range(0..10) {
        0..3 => tagged(["x", "y"].choose(random).expect("a tag")),
        _ => CacheValue::new(()),
    };
    if random.random_bool(0.3) {
        entry = entry.ttl(Duration::from_millis(random.random_range(1..400)));
    }
    let (key, body) = (key(number), telling(random.random(), random.random_range(0..3 * MIB)));
    let is_room = |error: &hitbox_core::BackendError| {
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    };
    let mut writer = match disk.open_writer(&key, entry, WriteOptions::default()).await {
        Ok(writer) => writer,
        Err(error) => return is_room(&error),
    };
    let mut rest = Bytes::from(body);
    let mut has_failed = false;
    while !rest.is_empty() && !has_failed {
        let len = *[1, CHUNK - 1, CHUNK, CHUNK + 1, MIB].choose(random).expect("a length");
        let written = writer.chunk(rest.split_to(len.min(rest.len()))).await;
        has_failed = written.inspect_err(is_room).is_err();
    }
    match random.random_range(0..8) {
        0 => drop(writer),
        1 => writer.abort().await,
        2 => drop(writer.leave_out().await),
        _ => {
            let receipt = writer.finish().await;
            if let Some(error) = receipt.error().filter(|_| !has_failed) {
                is_room(error);
            }
        }
    }
}

async fn run_program(disk: Arc<dyn Backend>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kept: Vec<Box<dyn BodyReader>> = Vec::new();
    for _ in 0..150 {
        let number = random.random_range(0..14);
        match random.random_range(0..20) {
            0..8 => write_some(&*disk, number, &mut random).await,
            8..13 => {
                if let Some(mut reader) = open(&*disk, number).await {
                    check(&mut *reader).await;
                    kept.push(reader);
                    kept.truncate(6);
                }
            }
            13 => {
                let value = CacheValue::new(Bytes::from(telling(random.random(), 300_000)));
                disk.set_one(&key(number), value).await.expect("a write");
            }
            14 => drop(disk.delete_one(&key(number)).await.expect("a removal")),
            15 => {
                disk.get_one::<Bytes>(&key(number)).await.expect("a read");
                disk.contains(&key(number)).await.expect("an answer");
                let change = TimeChange::stale_from(Timestamp::from_millis(1));
                disk.write(Batch::one(Write::times(key(number), change))).await;
            }
            16 => {
                if random.random_bool(0.2) {
                    disk.invalidate_tags(&["x"]).await.expect("an invalidation");
                }
                disk.sweep(100).await.expect("a sweep");
            }
            17 => match random.random_range(0..20) {
                0 => disk.erase().await.expect("erased"),
                1 => drop(disk.clear().await.expect("cleared")),
                _ => {
                    let metadata = BTreeMap::from([("a".to_owned(), Bytes::from(vec![1; 50]))]);
                    match disk.set_metadata(&key(number), metadata).await {
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}"),
                    }
                }
            },
            _ => {
                for mut reader in kept.drain(..) {
                    check(&mut *reader).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_of_many_tasks_find_what_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = || {
        let limits = Limits { value_bytes: 2 * MIB as u64, ..Limits::DEFAULT };
        builder(&folder).max_bytes(24 * MIB as u64).limits(limits)
    };
    let disk = settings().open().await.expect("disk");
    let tasks: Vec<_> = (0..10)
        .map(|task| {
            let backend: Arc<dyn Backend> = match task % 3 {
                0 => Arc::new(disk.clone()),
                1 => Arc::new(disk.clone().namespace("n")),
                _ => Arc::new(disk.clone().deadline(Duration::from_secs(60))),
            };
            tokio::spawn(run_program(backend, 1_000 + task))
        })
        .collect();
    for task in tasks {
        task.await.expect("a program");
    }
    until_settled(&disk, folder.path()).await;
    let held = held_by(&disk);
    assert!(held <= 24 * MIB as u64, "{held} bytes");
    disk.close().await;
    let disk = settings().open().await.expect("disk");
    assert!(held_by(&disk) <= held && statistics(&disk).unusable == 0, "{} bytes", held_by(&disk));
}

/// Chunks that are under way end with their runtime, or go on without it.
#[test]
fn a_runtime_that_is_shut_down_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..16 {
        let first = if round % 2 == 0 { runtime(2, 512) } else { runtime(1, 1) };
        let disk = first.block_on(builder(&folder).max_bytes(64 * MIB as u64).open()).expect("disk");
        let mut left = first.block_on(create(&disk, 999));
        first.block_on(put(&mut *left, 1, 600_000));
        let written = Arc::new(AtomicU64::new(0));
        for task in 0..6 {
            let (disk, written) = (disk.clone(), written.clone());
            first.spawn(async move {
                loop {
                    let mut writer = create(&disk, task).await;
                    for at in (0..1_500_000).step_by(100_000) {
                        if writer.chunk(part(task, at, 100_000).into()).await.is_err() {
                            return;
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    writer.finish().await;
                }
            });
        }
        while written.load(Ordering::Relaxed) < round * 10 {
            std::thread::yield_now();
        }
        if round % 4 < 2 {
            first.shutdown_background();
        } else {
            first.shutdown_timeout(Duration::from_secs(20));
        }
        // There is no runtime where this is dropped.
        drop(left);
        runtime(2, 512).block_on(async {
            until_settled(&disk, folder.path()).await;
            for number in 0..6 {
                if let Some(body) = content(&disk, number).await {
                    assert!(body == part(number, 0, body.len()), "round {round}: a mix of bodies");
                    assert!([10, 1_500_000].contains(&body.len()), "round {round}: {} bytes", body.len());
                }
                store(&disk, number, 10).await;
                assert!(open(&disk, number).await.is_some());
            }
            disk.close().await;
        });
    }
}
