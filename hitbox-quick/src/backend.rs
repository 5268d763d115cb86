//! The backend: quick_cache in its leaf.

use std::sync::Arc;

use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{Backend, Leaf};

use crate::builder::QuickBuilder;
use crate::store::QuickStore;

/// The in-memory backend: [quick_cache](https://docs.rs/quick_cache) in a leaf. Clones share the store.
#[derive(Clone, Debug)]
pub struct QuickBackend(pub(crate) Leaf<QuickStore>);

impl QuickBackend {
    /// Settings to start from.
    pub fn builder() -> QuickBuilder {
        QuickBuilder::new()
    }
}

/// It adds its name and its builder, and is the leaf in all else.
impl Wrapper for QuickBackend {
    type Inner = Leaf<QuickStore>;

    #[inline]
    fn inner(&self) -> &Leaf<QuickStore> {
        &self.0
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        inner
    }
}
