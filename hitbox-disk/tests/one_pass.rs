//! What the process reads of its disk. Nothing else runs beside it.

#![cfg(target_os = "linux")]

use bytes::Bytes;
use futures_util::future::join_all;
use hitbox_backend::operation::{BodyReader, WriteOptions};
use hitbox_backend::{Backend, ReadOptions};
use hitbox_core::{CacheKey, CacheValue};
use hitbox_disk::DiskBackend;

/// What the process has read of files, in bytes.
fn bytes_read() -> u64 {
    let said = std::fs::read_to_string("/proc/self/io").expect("counts of this process");
    let line = said.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("bytes read");
    line.parse().expect("a number")
}

/// A chunk of a body, which says where it is.
fn chunk(number: u64) -> Bytes {
    number.to_le_bytes().repeat(64 * 1024 / 8).into()
}

/// Readers that go on together share what they read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_readers_make_one_pass_over_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let key = CacheKey::new("body");
    let mut writer =
        disk.open_writer(&key, CacheValue::new(()), WriteOptions::default()).await.expect("a writer");
    let chunks = 256;
    for number in 0..chunks {
        writer.chunk(chunk(number)).await.expect("a chunk");
    }
    writer.finish().await.into_result().expect("a body");
    let len = chunks * 64 * 1024;
    let mut readers = Vec::new();
    for _ in 0..16 {
        let reader = disk.open_reader(&key, &ReadOptions::default()).await.expect("a reader");
        readers.push((reader.expect("the body"), 0));
    }
    let before = bytes_read();
    while readers.iter().any(|(_, at)| *at < len) {
        let read = async |(reader, at): &mut (Box<dyn BodyReader>, u64)| {
            if let Some(part) = reader.chunk().await.expect("a chunk") {
                assert!(part[..64] == chunk(*at / (64 * 1024))[..64], "other bytes at {at}");
                *at += part.len() as u64;
            }
        };
        join_all(readers.iter_mut().map(read)).await;
    }
    let read = bytes_read() - before;
    assert!(read < len + len / 50, "{read} bytes for a body of {len}");
}
