//! Expressions, responses and what is done with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hitbox_backend::{Backend, CacheBackend, Compose, OffloadPool, RefillPolicy, Wrap};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_pingora::BackendStorage;
use hitbox_quick::QuickBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::{HitHandler, MissFinishType, PurgeOutcome, PurgeTarget, PurgeType};
use pingora_cache::trace::{Span, SpanHandle};
use pingora_cache::{CacheKey, CacheMeta, Storage};
use pingora_http::ResponseHeader;
use tempfile::TempDir;

/// A storage over an expression.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) storage: &'static BackendStorage,
    pub(crate) pool: OffloadPool,
    /// Whether it has a layer that keeps what the upper one has put out.
    pub(crate) has_lower: bool,
    pub(crate) folder: TempDir,
}

pub(crate) fn moka() -> MokaBackend {
    MokaBackend::builder().max_bytes(64 << 20).build().expect("moka")
}

pub(crate) fn quick() -> QuickBackend {
    QuickBackend::builder().max_bytes(64 << 20).build().expect("quick")
}

pub(crate) async fn disk(folder: &TempDir) -> DiskBackend {
    DiskBackend::builder(folder.path()).open().await.expect("a disk")
}

/// A storage whose keys are its own, over a backend with this pool.
pub(crate) fn storage_over(backend: Arc<dyn Backend>, pool: &OffloadPool) -> &'static BackendStorage {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let name = format!("p{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
    BackendStorage::builder(backend).name(name).offload(pool.shared()).build().leak()
}

/// This expression, with a folder for its disk.
pub(crate) async fn case(name: &'static str) -> Case {
    let (pool, folder) = (OffloadPool::new(), tempfile::tempdir().expect("a folder"));
    let over = |upper: Arc<dyn Backend>, lower: Arc<dyn Backend>| -> Arc<dyn Backend> {
        Arc::new(upper.compose(lower, pool.shared()).with_refill(RefillPolicy::Always))
    };
    let redis = || -> Arc<dyn Backend> {
        RedisBackend::builder(&RedisServer::shared().url()).build().expect("redis").shared()
    };
    let backend = match name {
        "moka" => moka().shared(),
        "quick" => quick().shared(),
        "disk" => disk(&folder).await.shared(),
        "redis" => redis(),
        "moka over disk" => over(moka().shared(), disk(&folder).await.shared()),
        "moka over redis" => over(moka().shared(), redis()),
        "moka over (quick over disk)" => {
            over(moka().shared(), over(quick().shared(), disk(&folder).await.shared()))
        }
        "wrapped" => {
            let layers = moka().compose(disk(&folder).await, pool.shared()).with_refill(RefillPolicy::Always);
            layers.namespace("tenant").deadline(Duration::from_secs(5)).shared()
        }
        other => unreachable!("{other} is no expression"),
    };
    let has_lower = name.contains("over") || name == "wrapped";
    Case { name, storage: storage_over(backend, &pool), pool, has_lower, folder }
}

const NAMES: [&str; 8] = [
    "moka",
    "quick",
    "disk",
    "redis",
    "moka over disk",
    "moka over redis",
    "moka over (quick over disk)",
    "wrapped",
];

pub(crate) async fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in NAMES {
        cases.push(case(name).await);
    }
    cases
}

pub(crate) fn span() -> SpanHandle {
    Span::inactive().handle()
}

pub(crate) fn key(path: &str) -> CacheKey {
    CacheKey::new(path, "")
}

/// Metadata of a response that is fresh for an hour, with windows of ten minutes.
pub(crate) fn meta(etag: &str) -> CacheMeta {
    meta_for(etag, Duration::from_secs(3600))
}

pub(crate) fn meta_for(etag: &str, fresh: Duration) -> CacheMeta {
    let mut header = ResponseHeader::build(200, None).expect("a header");
    header.append_header("ETag", etag).expect("a field");
    header.append_header("Set", "one").expect("a field");
    header.append_header("Set", "two").expect("a field");
    let now = SystemTime::now();
    CacheMeta::new(now + fresh, now, 600, 600, header)
}

pub(crate) fn etag(meta: &CacheMeta) -> &str {
    meta.headers()["etag"].to_str().expect("text")
}

/// Bytes that differ by place.
pub(crate) fn bytes(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

impl Case {
    pub(crate) async fn find(&self, key: &CacheKey) -> Option<(CacheMeta, HitHandler)> {
        self.storage.lookup(key, &span()).await.expect("a lookup never fails")
    }

    /// Stores a response, and waits until it is.
    pub(crate) async fn store(&self, key: &CacheKey, meta: &CacheMeta, body: &[u8]) -> usize {
        let mut miss = self.storage.get_miss_handler(key, meta, &span()).await.expect("a writer");
        for chunk in body.chunks(16 * 1024) {
            miss.write_body(Bytes::copy_from_slice(chunk), false).await.expect("a chunk");
        }
        miss.write_body(Bytes::new(), true).await.expect("the end");
        let MissFinishType::Created(size) = miss.finish().await.expect("an end") else {
            panic!("{}: it is new", self.name);
        };
        self.pool.wait_all().await;
        size
    }

    pub(crate) async fn purge(&self, key: &CacheKey, why: PurgeType) -> PurgeOutcome {
        let key = key.to_compact();
        self.storage.purge(PurgeTarget::Active(&key), why, &span()).await.expect("a purge")
    }

    pub(crate) async fn demote(&self, key: &CacheKey) -> PurgeOutcome {
        self.purge(key, PurgeType::Eviction).await
    }

    pub(crate) async fn body(&self, key: &CacheKey) -> Option<Bytes> {
        match self.find(key).await {
            Some((_, mut hit)) => Some(read(&mut hit).await.expect("a body")),
            None => None,
        }
    }

    /// The layer that has a response.
    pub(crate) async fn layer(&self, key: &CacheKey) -> Option<String> {
        let (meta, _) = self.find(key).await?;
        Some(meta.extensions().get::<hitbox_pingora::Stored>().expect("it says where").layer.to_string())
    }
}

/// What is left of a body.
pub(crate) async fn read(hit: &mut HitHandler) -> pingora_error::Result<Bytes> {
    let mut all = Vec::new();
    while let Some(chunk) = hit.read_body().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all.into())
}

/// The key of a variant.
pub(crate) fn variant(path: &str, variance: u8) -> CacheKey {
    let mut key = key(path);
    key.set_variance_key([variance; 16]);
    assert!(key.variance_bin().is_some());
    key
}
