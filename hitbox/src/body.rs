//! Bodies: what is stored and read by chunks, beside the typed values.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use hitbox_backend::internal::{self, LoadPermit, TryOpen};
use hitbox_backend::operation::{BodyReader, BodyWriter, WriteOptions, WrittenPart};
use hitbox_backend::{Backend, Body, BodySink, CacheBackend, Cacheable, DeleteStatus, Receipt};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Lifetime};

use crate::cache::Cache;
use crate::entry_options::EntryOptions;
use crate::error::{BoxError, LoadError};
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
        let key = self.key(&key);
        match self.try_open_body(&key) {
            Ok(body) => Ok(body),
            Err(opening) => self.open_tried_body(&key, opening).await,
        }
    }

    /// The same if that needs no waiting. What it was about otherwise is for [`open_tried_body`](Self::open_tried_body).
    ///
    /// # Errors
    /// If it has to be waited for.
    #[doc(hidden)]
    pub fn try_open_body(&self, key: &CacheKey) -> Result<Option<Body>, TryOpen> {
        self.shared.reconcile_if_dirty();
        match internal::try_open_reader(&*self.shared.backend, key, &READ) {
            TryOpen::Answered(reader) => Ok(self.opened(key, reader)),
            opening => Err(opening),
        }
    }

    /// Waits for what [`try_open_body`](Self::try_open_body) would have had to wait for.
    ///
    /// # Errors
    /// As [`open_body`](Self::open_body).
    #[doc(hidden)]
    pub async fn open_tried_body(&self, key: &CacheKey, opening: TryOpen) -> BackendResult<Option<Body>> {
        let reader = internal::open_tried(&*self.shared.backend, key, &READ, opening).await?;
        Ok(self.opened(key, reader))
    }

    /// Counts and tells what a look has found.
    fn opened(&self, key: &CacheKey, reader: Option<Box<dyn BodyReader>>) -> Option<Body> {
        let (shared, freshness) = (&self.shared, reader.as_ref().map(|body| body.freshness()));
        shared.count_look(freshness);
        match freshness {
            Some(freshness) => shared.tell_hit(key, freshness),
            None => shared.events.tell(|| CacheEvent::Miss { key }),
        }
        reader.map(Body::from)
    }

    /// How many loads of bodies have ended, of this key and of some others: who looks for a body asks before, and says it with
    /// [`looked`](crate::Entry::looked).
    #[doc(hidden)]
    pub fn body_loads_ended(&self, key: &CacheKey) -> u64 {
        self.shared.streams.completions(key)
    }

    /// Removes one body from all layers, as the generation of its reader tells it, and keeps it from being stored if it is still being
    /// written. What else is stored or being written under the key stays, and no load ends: that is what
    /// [`remove`](Self::remove) is for.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use hitbox::{Cache, moka::MokaBackend};
    /// # let films: Cache<()> = Cache::builder(MokaBackend::builder().build()?).name("films").build()?;
    /// # let mut sink = films.write_body("metropolis").await?;
    /// # sink.chunk("a cut version").await?;
    /// # sink.finish().await?;
    /// let film = films.open_body("metropolis").await?.expect("it is stored");
    /// // It is not what it should be. Whoever has stored another meanwhile loses nothing.
    /// films.remove_generation("metropolis", film.generation()).await?;
    /// # assert!(films.open_body("metropolis").await?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If any layer failed: it may still be there. [`Unsupported`](hitbox_core::ErrorKind::Unsupported) if a
    /// layer that others share cannot compare.
    ///
    /// # Cancellation
    /// It may or may not have been removed, and is on its way to be.
    pub async fn remove_generation(&self, key: impl ToKey, generation: u64) -> BackendResult<DeleteStatus> {
        self.shared.backend.delete_generation(&self.key(&key), generation).await
    }

    /// Follows the body that is being written under a key, by this cache or another over the same backend, from its beginning. Nothing
    /// if there is none, or the key was written, or something that the body carries was invalidated, since it began.
    ///
    /// What follows a body keeps nobody waiting, and keeps no load going that nobody else reads: up to 2 MiB are held for it, and what is older it reads from a layer. It fails if the
    /// body is given up.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use hitbox::{Cache, moka::MokaBackend};
    /// # let films: Cache<()> = Cache::builder(MokaBackend::builder().build()?).name("films").build()?;
    /// let mut sink = films.write_body("metropolis").await?;
    /// sink.chunk("first reel").await?;
    ///
    /// // Elsewhere, while it is being written.
    /// assert!(films.open_body("metropolis").await?.is_none());
    /// let mut film = films.follow_body("metropolis").expect("it is being written");
    /// assert_eq!(film.chunk().await?.as_deref(), Some(&b"first reel"[..]));
    ///
    /// sink.finish().await?;
    /// assert!(film.chunk().await?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn follow_body(&self, key: impl ToKey) -> Option<Body> {
        self.shared.backend.follow_body(&self.key(&key))
    }

    /// The body under a key, loaded if no layer has it. The source is read once for all who ask for it meanwhile, and each gets all of
    /// it, from its beginning, as it comes. Nobody waits until it is stored; a layer that takes less than 1 MiB in a second in which others wait for
    /// it is given up.
    ///
    /// The loader brings a stream of chunks; who has a source of tokio's traits makes one with `tokio_util::io::ReaderStream`. Life, tags and
    /// metadata are set by [`entry`](Self::entry), or by the loader of
    /// [`get_or_load_stream_with`](crate::Entry::get_or_load_stream_with).
    ///
    /// The load goes no faster than the call that leads it reads, as long as that takes something each second. Others who follow are not
    /// waited for: up to 2 MiB are held for them, and what is older they read from a layer that has it. If none can be read, as where the
    /// body outgrows what memory takes, those who are further behind fail; the call that leads does not. The load is cancelled once nobody reads
    /// ([`finish_abandoned`](crate::CacheBuilder::finish_abandoned)).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use hitbox::{Cache, moka::MokaBackend};
    /// # use bytes::Bytes;
    /// use futures_util::TryStreamExt;
    ///
    /// # async fn fetch() -> std::io::Result<impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send> {
    /// #     Ok(futures_util::stream::iter([Ok(Bytes::from_static(b"first reel, ")), Ok(Bytes::from_static(b"second reel"))]))
    /// # }
    /// # let films: Cache<()> = Cache::builder(MokaBackend::builder().build()?).name("films").build()?;
    /// let film = films.get_or_load_stream("metropolis", || fetch()).await?;
    /// let reels: Vec<Bytes> = film.into_stream().try_collect().await?;
    /// assert_eq!(reels.concat(), b"first reel, second reel");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`LoadError`], if the loader fails before it brings a stream and no older body may be served instead, or the time is up. An error of the
    /// stream is one of the body, for all who read it.
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Cancellation
    /// Who leaves takes nothing from others.
    pub async fn get_or_load_stream<L, F, S, E, D>(
        &self,
        key: impl ToKey,
        loader: L,
    ) -> Result<Body, LoadError>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<S, E>> + Send + 'static,
        S: Stream<Item = Result<Bytes, D>> + Send + 'static,
        E: Into<BoxError>,
        D: Into<BoxError>,
    {
        Ok(self.entry(key).get_or_load_stream(loader).await?.value)
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
        permit: Arc<LoadPermit>,
    ) -> BackendResult<BodySink> {
        let now = self.now();
        options.absolute_end = lifetime.until.is_some();
        // One that is over at once replaces what was there with nothing.
        let lifetime = self.settings.lifetime(key, lifetime, false, now);
        let lifetime = lifetime.unwrap_or_else(|| Lifetime::ttl(now, Duration::ZERO));
        let entry = CacheValue::new(()).with_lifetime(lifetime).with_created(Some(now));
        let entry = entry.with_details(self.details(now, options));
        let writer = self.open_recorded(key, entry.clone(), permit.clone()).await?;
        Ok(BodySink::new(self.backend.layout(), key, entry, permit, writer))
    }

    /// A writer whose layers are brought up to date if they miss what it brings.
    pub(crate) async fn open_recorded(
        self: &Arc<Self>,
        key: &CacheKey,
        entry: CacheValue<()>,
        permit: Arc<LoadPermit>,
    ) -> BackendResult<Box<dyn BodyWriter>> {
        let of_load = WriteOptions::default().with_load(permit.clone());
        let writer = self.backend.open_writer(key, entry, of_load).await?;
        Ok(Box::new(RecordedWriter { shared: self.clone(), key: key.clone(), permit, writer }))
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

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        self.writer.written()
    }

    fn let_go(&mut self) {
        self.writer.let_go();
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
