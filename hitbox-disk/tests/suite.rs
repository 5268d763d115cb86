//! The behaviour suite over this leaf, alone and in compositions, on files.

use std::sync::Arc;

use hitbox_backend::Backend;
use hitbox_backend::wrap::Wrapper;
use hitbox_disk::DiskBackend;
use hitbox_testkit::{World, factory};

/// A disk whose folder goes with it.
struct TemporaryDisk {
    disk: Arc<dyn Backend>,
    folder: Arc<tempfile::TempDir>,
}

impl Wrapper for TemporaryDisk {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.disk
    }

    fn around(&self, disk: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { disk, folder: self.folder.clone() })
    }
}

async fn disk(world: World) -> TemporaryDisk {
    let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let builder = DiskBackend::builder(folder.path()).clock(world.shared_clock());
    TemporaryDisk { disk: Arc::new(builder.open().await.expect("disk")), folder }
}

hitbox_testkit::suite_tests! { factory(disk) }
