//! The backend: the folder in its leaf.

use std::sync::Arc;

use hitbox_backend::core::BackendResult;
use hitbox_backend::internal::Event;
use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{Backend, Leaf};

use crate::builder::DiskBuilder;
use crate::store::{DiskStore, Opened};

/// The disk backend: a folder in a leaf. Clones, and all places that compositions give it, share the folder.
///
/// # Cancellation
/// A write or delete whose future is dropped goes on, and is ordered before every later one of its key.
#[derive(Clone, Debug)]
pub struct DiskBackend(Leaf<DiskStore>);

impl DiskBackend {
    /// Settings to start from.
    pub fn builder(folder: impl AsRef<std::path::Path>) -> DiskBuilder {
        DiskBuilder::new(folder.as_ref())
    }

    pub(crate) async fn open(settings: DiskBuilder) -> BackendResult<Self> {
        let options = settings.options.clone();
        let Opened { store, damaged, expired, newer } = DiskStore::open(settings).await?;
        let leaf = Leaf::new(store, options);
        leaf.handle().count(Event::Damaged, damaged);
        leaf.handle().count(Event::Foreign, newer);
        if damaged + expired > 0 {
            tracing::info!(backend = %leaf.handle().path(), damaged, expired, "removed objects while opening");
        }
        Ok(Self(leaf))
    }

    /// Waits until this is the only handle and no call is under way, then releases the folder: after this
    /// it can be opened again. Handles that compositions hold count; drop them first.
    pub async fn close(self) {
        let holder = self.0.store().holder();
        drop(self);
        holder.released().await;
    }
}

/// It adds its name, its builder and `close`, and is the leaf in all else.
impl Wrapper for DiskBackend {
    type Inner = Leaf<DiskStore>;

    #[inline]
    fn inner(&self) -> &Leaf<DiskStore> {
        &self.0
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        inner
    }
}
