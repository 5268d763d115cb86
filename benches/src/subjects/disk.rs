//! A hit on disk whose file is in the page cache.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use hitbox_disk::DiskBackend;

use super::{fill, hit};
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::{KEYS, body, keys, nth};

const LEN: usize = 4 << 10;

pub(super) fn subject() -> Subject {
    Subject::new("disk", "A hit on disk, page cache warm, 4 KiB", Measure::Time)
        .operation("pread", |env| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("file");
            let all: Vec<u8> = (0..KEYS).flat_map(|_| body(LEN)).collect();
            std::fs::write(&path, all).expect("a file");
            let file = File::open(&path).expect("a file");
            env.repeat((file, folder), async |(file, _), n| {
                let mut read = vec![0; LEN];
                file.read_exact_at(&mut read, (n % KEYS) * LEN as u64).expect("a read");
                black_box(read);
            })
        })
        .operation("disk, files open", |env| disk(env, 32))
        .operation("disk, files opened for it", |env| disk(env, KEYS))
        .target("disk, files open", "pread", 2.0)
}

/// Hits of so many keys in turns: of a few the files stay open.
fn disk(env: &Env, among: u64) -> Repeat {
    let (folder, keys) = (tempfile::tempdir().expect("a folder"), keys());
    let disk = env.block_on(async {
        let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
        fill(&disk, &keys, |_| body(LEN)).await;
        disk
    });
    env.repeat((disk, keys, folder), async move |(disk, keys, _), n| {
        hit::<Bytes>(disk, nth(keys, n % among)).await;
    })
}
