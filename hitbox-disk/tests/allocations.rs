//! What overwriting leaves behind in memory.

use hitbox_backend::CacheBackend;
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_disk::DiskBackend;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[tokio::test]
async fn case_a09_overwrites_leave_no_allocations() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let key = CacheKey::new("overwritten");
    let overwrite = async |times: u64| {
        for number in 0..times {
            disk.set(&key, CacheValue::new(number), &mut CacheContext::new()).await.expect("a write");
        }
        dhat::HeapStats::get().curr_blocks
    };
    // What grows once has grown: threads, tables, the queue of the index.
    let before = overwrite(2_000).await;
    let after = overwrite(5_000).await;
    assert!(after <= before + 50, "{before} blocks before 5,000 overwrites, {after} afterwards");
}
