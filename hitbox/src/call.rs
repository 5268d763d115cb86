//! One call with options of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hitbox_backend::internal::LoadPermit;
use hitbox_backend::{Backend, Body, BodySink, Cacheable, DeleteStatus, Receipt};
use hitbox_core::{BackendResult, Priority, Scope, Timestamp};

use crate::cache::Cache;
use crate::entry_options::EntryOptions;
use crate::error::{BoxError, LoadError, LoadErrorKind};
use crate::key::ToKey;
use crate::load::{Loader, LoaderFn};
use crate::load_stream::Source;
use crate::loaded::{Load, Loaded};
use crate::response::Response;
use crate::settings::LifetimeOverride;

/// What a call does with the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Normal,
    /// The caller has looked for a body already, when so many loads had ended.
    Looked(u64),
    /// The caller has what it would load, and waits for nobody else's load.
    Lead,
    Reload,
    Bypass,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) mode: Mode,
    pub(crate) lifetime: LifetimeOverride,
    pub(crate) options: EntryOptions,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
}

/// A key of a cache, and how this one call treats it. Its methods say how they were answered.
///
/// ```
/// # use std::time::Duration;
/// # use hitbox::{AnswerKind, Cache};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), hitbox::LoadError> {
/// # let cache: Cache<u32> = Cache::null();
/// let response = cache
///     .entry("answer")
///     .ttl(Duration::from_secs(5))
///     .get_or_load(|| async { Ok::<_, std::io::Error>(42) })
///     .await?;
/// assert_eq!((*response, response.outcome.kind), (42, AnswerKind::Loaded));
/// # Ok(()) }
/// ```
#[must_use = "nothing is done before one of its methods is awaited"]
pub struct Entry<'c, K, V: Cacheable, B: Backend + ?Sized> {
    cache: &'c Cache<V, B>,
    key: K,
    call: Call,
}

impl<'c, K: ToKey, V: Cacheable, B: Backend + ?Sized> Entry<'c, K, V, B> {
    pub(crate) fn new(cache: &'c Cache<V, B>, key: K) -> Self {
        Self { cache, key, call: Call::default() }
    }

    /// What this call stores is fresh for so long.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.call.lifetime.ttl = Some(ttl);
        self
    }

    /// What this call stores is served stale for so long beyond.
    pub fn stale(mut self, stale: Duration) -> Self {
        self.call.lifetime.stale = Some(stale);
        self
    }

    /// What this call stores is not served from then on.
    pub fn expires_at(mut self, until: Timestamp) -> Self {
        self.call.lifetime.until = Some(until);
        self
    }

    /// What this call stores carries this tag, and those that a loader adds by [`Loaded::tag`].
    pub fn tag(mut self, tag: &str) -> Self {
        self.call.options.add_scope(Scope::tag(tag));
        self
    }

    /// What this call stores depends on this, and on what a loader adds by [`Loaded::depends_on`].
    pub fn depends_on(mut self, name: &str) -> Self {
        self.call.options.add_scope(Scope::dependency(name));
        self
    }

    /// What this call stores goes before or after others when a layer that heeds priorities needs room: moka, if its builder
    /// is told `priorities()`. Other layers keep the priority with the entry and evict as they do by themselves.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.call.options.priority = Some(priority);
        self
    }

    /// Metadata that is kept with what this call stores, in every layer.
    pub fn metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.call.options.add_metadata(name, value.as_ref());
        self
    }

    /// Loads even if there is a copy, and stores what it gets. If a load of the key is under way, that will do.
    pub fn reload(mut self) -> Self {
        self.call.mode = Mode::Reload;
        self
    }

    /// The caller has looked for a body, when so many [loads had ended](Cache::body_loads_ended), and wants another.
    #[doc(hidden)]
    pub fn looked(mut self, ended: u64) -> Self {
        self.call.mode = Mode::Looked(ended);
        self
    }

    /// The caller has what it would load: the load is led, or, if another is under way, declined.
    #[doc(hidden)]
    pub fn lead(mut self) -> Self {
        self.call.mode = Mode::Lead;
        self
    }

    /// Loads past the cache: nothing is read and nothing stored.
    pub fn bypass(mut self) -> Self {
        self.call.mode = Mode::Bypass;
        self
    }

    /// As [`CacheBuilder::soft_timeout`](crate::CacheBuilder::soft_timeout), for this call.
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.call.soft_timeout = Some(timeout);
        self
    }

    /// As [`CacheBuilder::hard_timeout`](crate::CacheBuilder::hard_timeout), for this call.
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.call.hard_timeout = Some(timeout);
        self
    }

    /// The value, from the cache only.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn get(self) -> BackendResult<Response<Option<V>>> {
        let key = self.cache.key(&self.key);
        match self.call.mode {
            Mode::Bypass => Ok(self.cache.missed(&key)),
            Mode::Normal | Mode::Looked(_) | Mode::Lead | Mode::Reload => self.cache.find(&key).await,
        }
    }

    /// The value, loaded if need be.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get_or_load<L, F, E>(self, loader: L) -> Result<Response<V>, LoadError>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let loader = || Loader::Detached(plain(async { loader().await.map(Loaded::new) }));
        present(self.cache, &self.key, &self.call, false, loader).await
    }

    /// The same with a loader that knows of the load, and says how long its value is good.
    ///
    /// # Errors
    /// As [`Cache::get_or_load_with`].
    pub async fn get_or_load_with<L, F, E>(self, loader: L) -> Result<Response<V>, LoadError>
    where
        L: FnOnce(Load<V>) -> F + Send + 'static,
        F: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        // A loader that may say "absent" is answered with an absence that is remembered.
        present(self.cache, &self.key, &self.call, true, || Loader::Detached(told(loader))).await
    }

    /// The value if the source has one.
    ///
    /// # Errors
    /// As [`Cache::get_or_load_optional`].
    pub async fn get_or_load_optional<L, F, E>(self, loader: L) -> Result<Response<Option<V>>, LoadError>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Option<V>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let key = self.cache.key(&self.key);
        let loader = || Loader::Detached(plain(async { loader().await.map(Loaded::from) }));
        self.cache.shared.get_or_load(&key, &self.call, true, loader).await
    }

    /// The value, loaded within this call, whose variables the loader may borrow.
    ///
    /// # Errors
    /// As [`Cache::get_or_load_scoped`].
    pub async fn get_or_load_scoped<'l, L, F, E>(self, loader: L) -> Result<Response<V>, LoadError>
    where
        L: FnOnce() -> F + Send + 'l,
        F: Future<Output = Result<V, E>> + Send + 'l,
        E: Into<BoxError>,
        B: 'l,
    {
        let loader = || Loader::Scoped(plain(async { loader().await.map(Loaded::new) }));
        present(self.cache, &self.key, &self.call, false, loader).await
    }

    /// The value if the source has one, loaded within this call, whose variables the loader may borrow.
    ///
    /// # Errors
    /// As [`Cache::get_or_load_scoped`].
    pub async fn get_or_load_optional_scoped<'l, L, F, E>(
        self,
        loader: L,
    ) -> Result<Response<Option<V>>, LoadError>
    where
        L: FnOnce() -> F + Send + 'l,
        F: Future<Output = Result<Option<V>, E>> + Send + 'l,
        E: Into<BoxError>,
        B: 'l,
    {
        let key = self.cache.key(&self.key);
        let loader = || Loader::Scoped(plain(async { loader().await.map(Loaded::from) }));
        self.cache.shared.get_or_load(&key, &self.call, true, loader).await
    }

    /// The body, loaded if need be.
    ///
    /// # Errors
    /// As [`Cache::get_or_load_stream`].
    pub async fn get_or_load_stream<L, F, S, E, D>(self, loader: L) -> Result<Response<Body>, LoadError>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<S, E>> + Send + 'static,
        S: Stream<Item = Result<Bytes, D>> + Send + 'static,
        E: Into<BoxError>,
        D: Into<BoxError>,
    {
        self.get_or_load_stream_with(|| async { loader().await.map(Loaded::new) }).await
    }

    /// The same with a loader that says how long its body is good, or that there is none, which is not remembered. Of one that is "not modified"
    /// the life starts anew, as the loader says, and what is stored is the answer.
    ///
    /// # Errors
    /// As [`Cache::get_or_load_stream`]; of kind [`Absent`](LoadErrorKind::Absent) if the loader says so, and of kind
    /// [`NothingToKeep`](LoadErrorKind::NothingToKeep) if it says "not modified", and nothing is stored.
    pub async fn get_or_load_stream_with<L, F, S, E, D>(self, loader: L) -> Result<Response<Body>, LoadError>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Loaded<S>, E>> + Send + 'static,
        S: Stream<Item = Result<Bytes, D>> + Send + 'static,
        E: Into<BoxError>,
        D: Into<BoxError>,
    {
        let key = self.cache.key(&self.key);
        let loader = Box::pin(async {
            let loaded = loader().await.map_err(Into::into)?;
            Ok(loaded.map(|source| Box::pin(source.map(|chunk| chunk.map_err(Into::into))) as Source))
        });
        self.cache.shared.get_or_load_stream(&key, &self.call, loader).await
    }

    /// Stores a value.
    ///
    /// # Errors
    /// As [`Cache::insert`].
    pub async fn insert(self, value: V) -> BackendResult<Receipt> {
        let key = self.cache.key(&self.key);
        self.cache.shared.insert(&key, value, self.call.lifetime, self.call.options).await
    }

    /// Begins a body.
    ///
    /// # Errors
    /// As [`Cache::write_body`].
    pub async fn write_body(self) -> BackendResult<BodySink> {
        let permit = self.cache.shared.backend.layout().load_permit(&self.cache.key(&self.key));
        self.write_body_under(Arc::new(permit)).await
    }

    /// The same under a permit that was taken before.
    #[doc(hidden)]
    pub async fn write_body_under(self, permit: Arc<LoadPermit>) -> BackendResult<BodySink> {
        let key = self.cache.key(&self.key);
        self.cache.shared.write_body(&key, self.call.lifetime, self.call.options, permit).await
    }

    /// Stores a value under a version, if the stored one has a lower version or none.
    ///
    /// # Errors
    /// As [`Cache::insert_if_newer`].
    pub async fn insert_if_newer(mut self, value: V, version: u64) -> BackendResult<Receipt> {
        let key = self.cache.key(&self.key);
        self.call.options.version = Some(version);
        self.cache.shared.insert(&key, value, self.call.lifetime, self.call.options).await
    }

    /// Replaces the metadata of what is stored with that of [`metadata`](Self::metadata), all of it; the value or body and its generation stay, and so do its
    /// times, unless this call says others ([`ttl`](Self::ttl), [`stale`](Self::stale), [`expires_at`](Self::expires_at)): then its life starts anew. The receipt says which layers had it; where it is absent nothing is created.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use hitbox::{Cache, moka::MokaBackend};
    /// # let films: Cache<()> = Cache::builder(MokaBackend::builder().build()?).name("films").build()?;
    /// # let mut sink = films.write_body("metropolis").await?;
    /// # sink.chunk("first reel").await?;
    /// # sink.finish().await?;
    /// films.entry("metropolis").metadata("content-type", "video/mp4").set_metadata().await?;
    /// let film = films.open_body("metropolis").await?.expect("it is stored");
    /// assert_eq!(film.metadata("content-type").map(|text| &text[..]), Some(&b"video/mp4"[..]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If a layer failed, as the policy of writes says: others may have the new metadata.
    ///
    /// # Cancellation
    /// As [`Cache::insert`].
    pub async fn set_metadata(self) -> BackendResult<Receipt> {
        let key = self.cache.key(&self.key);
        self.cache.shared.set_metadata(&key, self.call.lifetime, self.call.options.metadata).await
    }

    /// Removes the entry.
    ///
    /// # Errors
    /// As [`Cache::remove`].
    pub async fn remove(self) -> BackendResult<DeleteStatus> {
        let key = self.cache.key(&self.key);
        self.cache.shared.remove(&key).await
    }
}

/// The value of a call that cannot do without one.
async fn present<'l, K: ToKey, V: Cacheable, B: Backend + ?Sized + 'l>(
    cache: &Cache<V, B>,
    key: &K,
    call: &Call,
    absent: bool,
    loader: impl FnOnce() -> Loader<'l, V> + Send,
) -> Result<Response<V>, LoadError> {
    let key = cache.key(key);
    let response = cache.shared.get_or_load(&key, call, absent, loader).await?;
    response.and_then(|value| value).ok_or_else(|| LoadError::new(LoadErrorKind::Absent, &key))
}

/// A loader that wants to know nothing, as loads take it.
fn plain<'l, V, E: Into<BoxError>>(
    work: impl Future<Output = Result<Loaded<V>, E>> + Send + 'l,
) -> LoaderFn<'l, V> {
    LoaderFn::Plain(Box::pin(async { work.await.map_err(Into::into) }))
}

/// A loader that wants to know of its load.
fn told<'l, V, L, F, E>(loader: L) -> LoaderFn<'l, V>
where
    L: FnOnce(Load<V>) -> F + Send + 'l,
    F: Future<Output = Result<Loaded<V>, E>> + Send + 'l,
    E: Into<BoxError>,
{
    LoaderFn::Told(Box::new(|load| {
        let work = loader(load);
        Box::pin(async move { work.await.map_err(Into::into) })
    }))
}
