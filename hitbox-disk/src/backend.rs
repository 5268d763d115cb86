//! The backend: the folder in its leaf.

use std::sync::Arc;

use hitbox_backend::core::{BackendResult, CacheKey};
use hitbox_backend::envelope::Inspection;
use hitbox_backend::internal::Event;
use hitbox_backend::store::Store;
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

    /// What the folder has under a key: see [`Leaf::inspect`]. [`inspect::entry`](crate::inspect::entry) looks into a folder
    /// that another process has open.
    ///
    /// # Errors
    /// As [`Leaf::inspect`].
    pub async fn inspect(&self, key: &CacheKey) -> BackendResult<Option<Inspection>> {
        self.0.inspect(key).await
    }

    /// Waits for the calls that are under way, and releases the folder: after this it can be opened again. Other handles,
    /// those that compositions hold among them, find nothing any more, and their writes fail. A lock that the system does
    /// not release is told of in the log; it ends with the process.
    pub async fn close(self) {
        let handles = Arc::strong_count(self.0.store()) - 1;
        if handles > 0 {
            tracing::info!(backend = %self.0.handle().path(), handles, "closing a store that has other handles");
        }
        if let Err(error) = self.0.store().close().await {
            tracing::warn!(backend = %self.0.handle().path(), %error, "the folder of a cache is not released");
        }
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
