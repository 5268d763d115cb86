//! Updates that one layer takes and another refuses.

use std::sync::Arc;

use hitbox_backend::policy::SequentialWritePolicy;
use hitbox_backend::{Backend, CacheBackend, Compose, LeafOutcome, LeafReceipt, Wrap};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Limits};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::{RedisServer, World};

fn small() -> Limits {
    Limits { value_bytes: 1_000, ..Limits::default() }
}

async fn read(cache: &dyn Backend, key: &CacheKey) -> Option<usize> {
    let found = cache.get::<Vec<u8>>(key, &mut CacheContext::new()).await.expect("a read");
    found.map(|entry| entry.into_data().len())
}

/// Stores small values, then larger ones, one by one, as a batch, and by version.
async fn update(cache: &dyn Backend, keys: &[CacheKey]) {
    let entry = |len: usize| CacheValue::new(vec![7_u8; len]);
    for (number, key) in keys.iter().enumerate() {
        cache.set_if_newer(key, entry(10), number as u64 + 1).await.expect("a write");
    }
    let [single, versioned, batch @ ..] = keys else { panic!("keys") };
    // By the default policy it succeeds; one that needs every layer tells.
    if let Ok(receipt) = cache.set(single, entry(5_000), &mut CacheContext::new()).await {
        let is_refused = |line: &LeafReceipt| matches!(line.outcome, LeafOutcome::Refused(_));
        assert!(receipt.leaves().iter().any(is_refused), "{receipt:?}");
    }
    // The authority decides: nobody has the new value, and everybody the older one.
    assert!(cache.set_if_newer(versioned, entry(5_000), 100).await.is_err());
    drop(cache.set_many(batch.iter().map(|key| (key.clone(), entry(5_000))).collect()).await);
    assert_eq!(read(cache, single).await, Some(5_000));
    assert_eq!(read(cache, versioned).await, Some(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c01_a_refused_update_leaves_no_older_value() {
    let keys: Vec<CacheKey> = (0..5_u64).map(|n| CacheKey::builder("c01").part("n", n).build()).collect();
    for nested in [false, true] {
        for sequential in [false, true] {
            let world = World::new();
            let over = |lower: Arc<dyn Backend>| -> Arc<dyn Backend> {
                let mut cache =
                    MokaBackend::builder().build().expect("moka").compose(lower, world.pool.shared());
                if sequential {
                    cache = cache.with_write(SequentialWritePolicy::new());
                }
                if !nested {
                    return cache.shared();
                }
                QuickBackend::builder().build().expect("quick").compose(cache, world.pool.shared()).shared()
            };
            let said = format!("nested: {nested}, sequential: {sequential}");
            // Redis, and another process.
            let server = RedisServer::shared().url();
            let prefix = format!("c01{nested}{sequential}:");
            let redis =
                || RedisBackend::builder(&server).prefix(&prefix).limits(small()).build().expect("redis");
            update(&*over(redis().shared()), &keys).await;
            let other = redis();
            for (number, key) in keys.iter().enumerate() {
                assert_eq!(read(&other, key).await, (number == 1).then_some(10), "{said}: {key} in Redis");
            }
            // Disk, and a restart.
            let folder = tempfile::tempdir().expect("a folder");
            let open =
                async || DiskBackend::builder(folder.path()).limits(small()).open().await.expect("disk");
            {
                let disk = open().await;
                update(&*over(disk.clone().shared()), &keys).await;
                world.pool.wait_all().await;
                disk.close().await;
            }
            let reopened = open().await;
            for (number, key) in keys.iter().enumerate() {
                assert_eq!(read(&reopened, key).await, (number == 1).then_some(10), "{said}: {key} on disk");
            }
            reopened.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_g07_errors_carry_their_numbers_at_the_top() {
    let world = World::new();
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let disk = async |index: usize| {
        DiskBackend::builder(folders[index].path()).limits(small()).open().await.expect("disk")
    };
    let pair = disk(0).await.compose(disk(1).await, world.pool.shared());
    let whole = pair.clone().compose(pair.namespace("n"), world.pool.shared());
    let large = CacheValue::new(vec![7_u8; 5_000]);
    let error = whole.set(&CacheKey::new("k"), large, &mut CacheContext::new()).await.expect_err("too large");
    let (size, limit) = error.exceeded().expect("both numbers");
    assert!(size >= 5_000 && limit == 1_000, "{size} over {limit}: {error:?}");
}
