//! The backend: Redis in its leaf.

use std::sync::Arc;

use hitbox_backend::core::{BackendResult, CacheKey};
use hitbox_backend::envelope::Inspection;
use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{Backend, Leaf};

use crate::builder::RedisBuilder;
use crate::store::RedisStore;

/// The Redis backend: a server in a leaf. Clones, and all places that compositions give it, share one connection.
#[derive(Clone, Debug)]
pub struct RedisBackend(Leaf<RedisStore>);

impl RedisBackend {
    /// Settings to start from. `url` is `redis://[user:password@]host:port[/db]`, or `rediss://…` with the
    /// feature `tls`, or `redis+unix:///path`.
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder::new(url)
    }

    pub(crate) fn new(builder: RedisBuilder) -> BackendResult<Self> {
        let options = builder.options.clone().with_turn_limit(builder.settings.deadline);
        Ok(Self(Leaf::new(RedisStore::new(builder)?, options)))
    }

    /// What the server has under a key: see [`Leaf::inspect`].
    ///
    /// # Errors
    /// As [`Leaf::inspect`].
    pub async fn inspect(&self, key: &CacheKey) -> BackendResult<Option<Inspection>> {
        self.0.inspect(key).await
    }

    /// Waits for the server's answer, at most until the deadline.
    ///
    /// # Errors
    /// [`Connection`](hitbox_backend::core::ErrorKind::Connection) or
    /// [`Timeout`](hitbox_backend::core::ErrorKind::Timeout) if there is none.
    pub async fn ping(&self) -> BackendResult<()> {
        self.0.store().ping().await.map_err(|error| error.at(self.0.handle().path()))
    }
}

/// It adds its name, its builder and `ping`, and is the leaf in all else.
impl Wrapper for RedisBackend {
    type Inner = Leaf<RedisStore>;

    #[inline]
    fn inner(&self) -> &Leaf<RedisStore> {
        &self.0
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        inner
    }
}
