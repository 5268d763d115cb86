//! The stores that the checks are run against.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hitbox_backend::operation::WriteOptions;
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_disk::DiskBackend;
use hitbox_testkit::World;
use hitbox_testkit::broken::NakedFiles;

/// A store on disk, right or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Disk,
    NakedFiles,
    WriteBehind,
}

impl Store {
    const ALL: [Self; 3] = [Self::Disk, Self::NakedFiles, Self::WriteBehind];

    pub(crate) fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|store| store.name() == name).expect("the name of a store")
    }

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// Opens the store in a folder.
    pub(crate) async fn open(self, folder: &Path, max_bytes: u64) -> Arc<dyn Backend> {
        let clock = World::new().shared_clock();
        match self {
            Self::Disk => {
                let builder = DiskBackend::builder(folder).max_bytes(max_bytes).clock(clock);
                Arc::new(builder.open().await.expect("the folder opens"))
            }
            Self::NakedFiles => Arc::new(NakedFiles::new(folder).leaf(clock)),
            Self::WriteBehind => Arc::new(NakedFiles::new(folder).behind(16).leaf(clock)),
        }
    }
}

/// A runtime for one check.
pub(crate) fn block_on<T>(check: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(check)
}

pub(crate) fn key(number: u64) -> CacheKey {
    CacheKey::builder("k").part("n", number).build()
}

/// Writes by chunks.
pub(crate) async fn write_body(store: &dyn Backend, number: u64, bytes: Bytes) -> Result<(), String> {
    let failed = |error| format!("the body of key {number} cannot be written: {error}");
    let opened = store.open_writer(&key(number), CacheValue::new(()), WriteOptions::default()).await;
    let mut writer = opened.map_err(failed)?;
    for chunk in bytes.chunks(10_000) {
        writer.chunk(bytes.slice_ref(chunk)).await.map_err(failed)?;
    }
    writer.finish().await.into_result().map(drop).map_err(failed)
}

pub(crate) async fn set(store: &dyn Backend, number: u64, bytes: Bytes) -> Result<(), String> {
    let value = CacheValue::new(bytes);
    let written = store.set(&key(number), value, &mut CacheContext::new()).await;
    written.map(|_| ()).map_err(|error| format!("key {number} cannot be written: {error}"))
}

pub(crate) async fn get(store: &dyn Backend, number: u64) -> Result<Option<Bytes>, String> {
    let read = store.get::<Bytes>(&key(number), &mut CacheContext::new()).await;
    read.map(|value| value.map(CacheValue::into_data))
        .map_err(|error| format!("key {number} cannot be read: {error}"))
}

pub(crate) async fn delete(store: &dyn Backend, number: u64) -> Result<(), String> {
    let deleted = store.delete(&key(number), &mut CacheContext::new()).await;
    deleted.map(|_| ()).map_err(|error| format!("key {number} cannot be deleted: {error}"))
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}
