//! Updates that one layer takes and another refuses.

use std::sync::Arc;

use hitbox_backend::store::{DeleteStatus, Encoded, Raw};
use hitbox_backend::{
    Backend, CacheBackend, Compose, Format, LeafOutcome, LeafReceipt, SequentialWritePolicy, Wrap,
};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f25_values_of_known_size_are_limited_in_every_leaf() {
    let moka = MokaBackend::builder().limits(small()).build().expect("moka");
    let quick = QuickBackend::builder().limits(small()).build().expect("quick");
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).limits(small()).open().await.expect("disk");
    let all: [(&str, Arc<dyn Backend>); 3] =
        [("moka", moka.shared()), ("quick", quick.shared()), ("disk", disk.clone().shared())];
    async fn refuses<T: hitbox_backend::Cacheable>(name: &str, cache: &dyn Backend, small: T, large: T) {
        let key = CacheKey::new(name);
        let context = &mut CacheContext::new();
        cache.set(&key, CacheValue::new(small), context).await.expect("a small value");
        let error = cache.set(&key, CacheValue::new(large), context).await.expect_err("a large value");
        assert_eq!(error.exceeded().map(|(_, limit)| limit), Some(1_000), "{name}: {error:?}");
        assert!(
            cache.get::<T>(&key, context).await.expect("a read").is_some(),
            "{name}: the older value stays"
        );
    }
    for (name, cache) in all {
        let text = |len: usize| "x".repeat(len);
        refuses(name, &*cache, text(10), text(2_000)).await;
        refuses(name, &*cache, bytes::Bytes::from(text(10)), bytes::Bytes::from(text(2_000))).await;
        refuses(name, &*cache, vec![1_u8; 10], vec![1_u8; 2_000]).await;
        refuses::<Arc<str>>(name, &*cache, text(10).into(), text(2_000).into()).await;
    }
    disk.close().await;
}

/// A store of bytes that somebody else writes.
#[derive(Default)]
struct Records(std::sync::Mutex<Option<Vec<u8>>>);

#[async_trait::async_trait]
impl hitbox_backend::store::Store for Records {
    async fn read(&self, _: &CacheKey) -> hitbox_core::BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.0.lock().expect("the record").clone().map(|bytes| Raw::record(bytes.into())))
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> hitbox_core::BackendResult<()> {
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> hitbox_core::BackendResult<DeleteStatus> {
        *self.0.lock().expect("the record") = None;
        Ok(DeleteStatus::Missing)
    }
}

#[tokio::test]
async fn case_f09_records_that_claim_too_much_are_damaged() {
    let key = CacheKey::new("k");
    let gzip = 1;
    for (compressor, plain_len) in [(gzip, 1 << 30), (gzip, 1 << 32), (gzip, u64::MAX)] {
        let store = Arc::new(Records::default());
        let mut encoded = Encoded::new(Format::Json, bytes::Bytes::from_static(b"[1,2,3,4]"));
        (encoded.compressor, encoded.plain_len) = (compressor, plain_len);
        let entry = CacheValue::new(Raw::encoded(encoded, None));
        *store.0.lock().expect("the record") = Some(Raw::to_record(&key, &entry).expect("a record"));
        let leaf =
            hitbox_backend::Leaf::of(store.clone(), hitbox_backend::store::LeafOptions::new("records"));
        let read = leaf.get::<Vec<u8>>(&key, &mut CacheContext::new()).await.expect("a read");
        assert!(read.is_none(), "{compressor} {plain_len}: {read:?}");
        assert_eq!(leaf.snapshot().total.unusable, 1, "{compressor} {plain_len}");
    }
}
