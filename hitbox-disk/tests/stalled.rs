//! A disk that does not get on: what its calls keep in memory when their callers have left.

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hitbox_backend::{CacheBackend, Wrap};
use hitbox_core::{CacheKey, CacheValue};
use hitbox_disk::DiskBackend;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const WRITES: u64 = 8_000;
const BYTES: usize = 100_000;
/// What writes under way may take, and as much again for all else.
const BOUND: usize = 128 << 20;

/// All work of the disk is done by one thread, which is busy until the sender is dropped.
#[test]
fn case_f06_writes_that_were_cut_do_not_pile_up() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
        let key = |number: u64| CacheKey::builder("k").part("n", number).build();
        let body = Bytes::from(vec![1; BYTES]);
        let (release, stalled) = mpsc::channel::<()>();
        let stall = tokio::task::spawn_blocking(move || stalled.recv());
        let cut = disk.clone().deadline(Duration::from_millis(1));
        let mut failed = 0;
        for first in (0..WRITES).step_by(100) {
            let keys: Vec<CacheKey> = (first..first + 100).map(key).collect();
            let writes = keys.iter().map(|key| cut.set_one(key, CacheValue::new(body.clone())));
            failed += join_all(writes).await.into_iter().filter(Result::is_err).count() as u64;
        }
        assert_eq!(failed, WRITES, "the disk was to be stalled");
        // Reads and removals are calls too.
        for number in 0..200 {
            cut.delete_one(&key(number)).await.expect_err("the disk was to be stalled");
        }
        let held = dhat::HeapStats::get().curr_bytes;
        assert!(held < BOUND, "{} MiB for {WRITES} writes of {BYTES} bytes", held >> 20);
        drop(release);
        let _ = stall.await;
        // It goes on with what it took, and takes more.
        disk.set_one(&key(1), CacheValue::new(body.clone())).await.expect("a write");
        assert!(disk.get_one::<Bytes>(&key(1)).await.expect("a read").is_some());
    });
}
