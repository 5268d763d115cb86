//! Bodies that are read by chunks, from the page cache and from memory.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{CacheKey, CacheValue};
use hitbox_disk::DiskBackend;

use super::memory;
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::body;

/// Bytes of a body on disk.
const LONG: usize = 16 << 20;
/// Bytes of one in memory.
const SHORT: usize = 1 << 20;
/// Bytes that are read at a time, as the disk does.
const PART: usize = 256 << 10;

pub(super) fn on_disk() -> Subject {
    Subject::new("body on disk", "A body of 16 MiB read from disk, page cache warm", Measure::Time)
        .operation("plain file, same hand-over", |env| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("file");
            std::fs::write(&path, body(LONG)).expect("a file");
            let file = Arc::new(File::open(&path).expect("a file"));
            env.repeat((file, folder), async |(file, _), _| {
                for at in (0..LONG).step_by(PART) {
                    let file = file.clone();
                    black_box(tokio::task::spawn_blocking(move || part(&file, at)).await.expect("a read"));
                }
            })
        })
        .operation("body on disk", |env| {
            let folder = tempfile::tempdir().expect("a folder");
            let disk =
                env.block_on(async { DiskBackend::builder(folder.path()).open().await.expect("disk") });
            read(env, disk, LONG, folder)
        })
        .target("body on disk", "plain file, same hand-over", 1.25)
}

/// A part of a file, whose bytes are then shared.
fn part(file: &File, at: usize) -> Bytes {
    let mut read = vec![0; PART];
    file.read_exact_at(&mut read, at as u64).expect("a read");
    read.into()
}

pub(super) fn in_memory() -> Subject {
    Subject::new("body in memory", "A body of 1 MiB read from memory", Measure::Time)
        .operation("one copy", |env| {
            env.repeat(body(SHORT), async |whole, _| {
                black_box(whole.to_vec());
            })
        })
        .operation("body in memory", |env| read(env, memory(), SHORT, ()))
        .target("body in memory", "one copy", 1.11)
}

/// Reads a body of so many bytes from its beginning to its end, again and again.
fn read<B: Backend, F: Send + Sync + 'static>(env: &Env, backend: B, len: usize, folder: F) -> Repeat {
    let key = CacheKey::new("body");
    env.block_on(async {
        let mut sink = backend.write_body(&key, CacheValue::new(())).await.expect("a sink");
        let whole = Bytes::from(body(len).to_vec());
        for at in (0..len).step_by(PART) {
            sink.chunk(whole.slice(at..at + PART)).await.expect("a chunk");
        }
        sink.finish().await.expect("stored");
    });
    env.repeat((backend, key, folder), async move |(backend, key, _), _| {
        let mut body = backend.open_body(key).await.expect("an answer").expect("the body");
        let mut read = 0;
        while let Some(chunk) = body.chunk().await.expect("a chunk") {
            read += black_box(chunk).len();
        }
        assert_eq!(read, len, "a part of it is missing");
    })
}
