//! The backend: moka in its leaf.

use std::sync::Arc;

use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{Backend, Leaf};

use crate::builder::MokaBuilder;
use crate::store::MokaStore;

/// The in-memory backend: [moka](https://docs.rs/moka) in a leaf. Clones share the store.
#[derive(Clone, Debug)]
pub struct MokaBackend(pub(crate) Leaf<MokaStore>);

impl MokaBackend {
    /// Settings to start from.
    pub fn builder() -> MokaBuilder {
        MokaBuilder::new()
    }
}

/// It adds its name and its builder, and is the leaf in all else.
impl Wrapper for MokaBackend {
    type Inner = Leaf<MokaStore>;

    #[inline]
    fn inner(&self) -> &Leaf<MokaStore> {
        &self.0
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        inner
    }
}
