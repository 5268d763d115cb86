//! Bodies: what is stored and read by chunks, beside the typed values.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::internal::LoadPermit;
use hitbox_backend::operation::{BodyWriter, WriteOptions};
use hitbox_backend::{Backend, Body, BodySink, Cacheable, Receipt};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Lifetime};

use crate::cache::Cache;
use crate::entry_options::EntryOptions;
use crate::events::CacheEvent;
use crate::key::ToKey;
use crate::settings::LifetimeOverride;
use crate::shared::{READ, Shared};

impl<V: Cacheable, B: Backend + ?Sized> Cache<V, B> {
    /// The body under a key, from the layers only, of any length.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancellation
    /// Leaves nothing.
    pub async fn open_body(&self, key: impl ToKey) -> BackendResult<Option<Body>> {
        let (key, shared) = (self.key(&key), &self.shared);
        shared.reconcile_if_dirty();
        let body = shared.backend.open_reader(&key, &READ).await?;
        let freshness = body.as_ref().map(|body| body.freshness());
        shared.count_look(freshness);
        match freshness {
            Some(freshness) => shared.tell_hit(&key, freshness),
            None => shared.events.tell(|| CacheEvent::Miss { key: &key }),
        }
        Ok(body.map(Body::from))
    }

    /// Begins a body. It is stored as [`insert`](Self::insert) stores a value, when it is finished; what was written or
    /// invalidated meanwhile wins. Its life, tags and metadata are set by [`entry`](Self::entry).
    ///
    /// ```
    /// # #[cfg(feature = "disk")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use hitbox::{Cache, Compose, OffloadPool};
    /// use hitbox::{disk::DiskBackend, moka::MokaBackend};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let memory = MokaBackend::builder().max_bytes(64 * 1024 * 1024).build()?;
    /// let disk = DiskBackend::builder(folder.path()).open().await?;
    /// let pool = OffloadPool::new();
    /// let films: Cache<()> = Cache::builder(memory.compose(disk, pool.shared())).name("films").build()?;
    ///
    /// // From what tokio can read: a file, a socket, a response.
    /// let source: &[u8] = b"a film";
    /// films.write_body("metropolis").await?.store_from(source).await?;
    ///
    /// let mut film = films.open_body("metropolis").await?.expect("it was stored");
    /// assert_eq!(film.len(), Some(6));
    /// film.seek(2..u64::MAX)?;
    /// let mut rest = String::new();
    /// film.into_tokio_read().read_to_string(&mut rest).await?;
    /// assert_eq!(rest, "film");
    /// # Ok(()) }
    /// # #[cfg(not(feature = "disk"))] fn main() {}
    /// ```
    ///
    /// # Errors
    /// If no layer, or not each required one, takes it.
    ///
    /// # Cancellation
    /// Leaves nothing.
    pub async fn write_body(&self, key: impl ToKey) -> BackendResult<BodySink> {
        self.entry(key).write_body().await
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    pub(crate) async fn write_body(
        self: &Arc<Self>,
        key: &CacheKey,
        lifetime: LifetimeOverride,
        mut options: EntryOptions,
    ) -> BackendResult<BodySink> {
        let now = self.now();
        options.absolute_end = lifetime.until.is_some();
        // One that is over at once replaces what was there with nothing.
        let lifetime = self.settings.lifetime(key, lifetime, false, now);
        let lifetime = lifetime.unwrap_or_else(|| Lifetime::ttl(now, Duration::ZERO));
        let entry = CacheValue::new(()).with_lifetime(lifetime).with_created(Some(now));
        let entry = entry.with_details(self.details(now, options));
        let permit = Arc::new(self.backend.layout().load_permit(key));
        let of_load = WriteOptions::default().with_load(permit.clone());
        let writer = self.backend.open_writer(key, entry, of_load).await?;
        let recorded = RecordedWriter { shared: self.clone(), key: key.clone(), permit, writer };
        Ok((Box::new(recorded) as Box<dyn BodyWriter>).into())
    }
}

/// A body whose layers are brought up to date if they miss it.
struct RecordedWriter<V: Cacheable, B: Backend + ?Sized> {
    shared: Arc<Shared<V, B>>,
    key: CacheKey,
    permit: Arc<LoadPermit>,
    writer: Box<dyn BodyWriter>,
}

#[async_trait]
impl<V: Cacheable, B: Backend + ?Sized> BodyWriter for RecordedWriter<V, B> {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        self.writer.chunk(chunk).await
    }

    async fn finish(self: Box<Self>) -> Receipt {
        let Self { shared, key, permit, writer } = *self;
        // The layers are given the same ticket.
        let ticket = permit.begin();
        shared.throttle.end(&key);
        let receipt = writer.finish().await;
        if let Some(ticket) = ticket {
            shared.record_failures(&key, &receipt, &ticket);
        }
        receipt
    }

    async fn abort(self: Box<Self>) {
        self.writer.abort().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        self.writer.leave_out().await
    }
}
