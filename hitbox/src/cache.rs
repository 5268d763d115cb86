//! The cache that applications hold.

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::sync::Arc;

use hitbox_backend::internal::{self, Decoded};
use hitbox_backend::operation::LeafSet;
use hitbox_backend::{Backend, CacheBackend, Cacheable, DeleteStatus, IntoBackend, Receipt};
use hitbox_core::{BackendResult, CacheKey, Freshness};

use crate::advisor::Advice;
use crate::builder::CacheBuilder;
use crate::call::Entry;
use crate::error::{BoxError, LoadError};
use crate::events::{CacheEvent, CacheStatistics};
use crate::key::ToKey;
use crate::loaded::{Load, Loaded};
use crate::response::{AnswerKind, Outcome, Response};
use crate::shared::{READ, Shared, respond};

/// A typed cache over any backend. Cloning is cheap and shares everything.
///
/// The backend is erased, so that the type stays short; `Cache<V, B>`, from
/// [`build_generic`](CacheBuilder::build_generic), keeps it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use hitbox::{Cache, moka::MokaBackend};
///
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)] struct User { name: String }
/// # async fn load_user(id: u64) -> Result<User, std::io::Error> { Ok(User { name: format!("user {id}") }) }
/// let memory = MokaBackend::builder().max_entries(10_000).build()?;
/// let users: Cache<User> = Cache::builder(memory).name("users").ttl(Duration::from_secs(300)).build()?;
///
/// let user = users.get_or_load(("user", 7), || load_user(7)).await?;
/// assert_eq!(user.name, "user 7");
/// users.remove(("user", 7)).await?;
/// assert!(users.get(("user", 7)).await?.is_none());
/// # Ok(()) }
/// ```
pub struct Cache<V: Cacheable, B: Backend + ?Sized = dyn Backend> {
    pub(crate) shared: Arc<Shared<V, B>>,
    pub(crate) advice: Arc<[Advice]>,
}

impl<V: Cacheable, B: Backend + ?Sized> Clone for Cache<V, B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), advice: self.advice.clone() }
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Debug for Cache<V, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leaves = self.shared.backend.layout();
        f.debug_struct("Cache").field("name", &self.name()).field("leaves", leaves).finish_non_exhaustive()
    }
}

impl<V: Cacheable> Cache<V> {
    /// Settings to start from. The backend is any leaf, wrapper or composition, or a bare store.
    pub fn builder<Kind, T: IntoBackend<Kind>>(backend: T) -> CacheBuilder<V, T::Backend> {
        CacheBuilder::new(backend.into_backend())
    }

    /// A cache that keeps nothing: for tests, and to switch caching off. Loads are still made once for all who
    /// ask at the same time.
    pub fn null() -> Self {
        crate::null::cache()
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Cache<V, B> {
    /// The value under a key, from the layers only.
    ///
    /// # Errors
    /// If every layer failed, or a required one did and no other had the value.
    ///
    /// # Cancellation
    /// Leaves nothing.
    pub async fn get(&self, key: impl ToKey) -> BackendResult<Option<V>> {
        let key = self.key(&key);
        match internal::try_read(&*self.shared.backend, &key, &READ) {
            // Nobody asks how it was answered.
            Ok(Some(copy)) if copy.entry.details().is_none() => {
                self.shared.count_look(Some(copy.freshness));
                self.shared.tell_hit(&key, copy.freshness);
                Ok(copy.entry.into_data())
            }
            first => Ok(self.find_after(&key, first).await?.value),
        }
    }

    /// The value under a key, loaded if no layer has it. All who ask for it meanwhile wait for one load, which is
    /// stored before they get it.
    ///
    /// The load runs on its own: it goes on if this call is dropped while others wait, and is cancelled once nobody
    /// does ([`finish_abandoned`](CacheBuilder::finish_abandoned)). A loader that borrows goes to
    /// [`get_or_load_scoped`](Self::get_or_load_scoped).
    ///
    /// # Errors
    /// [`LoadError`]: the loader's error, shared by all who waited, unless an older copy may be served instead; or
    /// the time is up. A cache that fails is no error.
    ///
    /// # Panics
    /// If the loader that this call ran panics. Others who wait get an error.
    pub async fn get_or_load<L, F, E>(&self, key: impl ToKey, loader: L) -> Result<V, LoadError>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Ok(self.entry(key).get_or_load(loader).await?.value)
    }

    /// The same with a loader that sees the older value and may set life, metadata, or say "absent", "not modified"
    /// or "do not store".
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use hitbox::{Cache, Loaded};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), hitbox::LoadError> {
    /// # let pages: Cache<String> = Cache::null();
    /// # async fn fetch(_etag: Option<String>) -> Result<Option<String>, std::io::Error> { Ok(Some("body".into())) }
    /// let page = pages
    ///     .get_or_load_with("/index.html", |load| async move {
    ///         Ok::<_, std::io::Error>(match fetch(load.previous().await).await? {
    ///             Some(page) => Loaded::new(page).ttl(Duration::from_secs(60)),
    ///             None => Loaded::not_modified(),
    ///         })
    ///     })
    ///     .await?;
    /// # assert_eq!(page, "body");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load); of kind [`Absent`](crate::LoadErrorKind::Absent) if the loader says so.
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_with<L, F, E>(&self, key: impl ToKey, loader: L) -> Result<V, LoadError>
    where
        L: FnOnce(Load<V>) -> F + Send + 'static,
        F: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Ok(self.entry(key).get_or_load_with(loader).await?.value)
    }

    /// The value if the source has one. That it has none is remembered for
    /// [`absent_ttl`](CacheBuilder::absent_ttl).
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_optional<L, F, E>(
        &self,
        key: impl ToKey,
        loader: L,
    ) -> Result<Option<V>, LoadError>
    where
        L: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Option<V>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Ok(self.entry(key).get_or_load_optional(loader).await?.value)
    }

    /// As [`get_or_load`](Self::get_or_load), with a loader that may borrow. It runs within this call: if that is
    /// dropped, another caller leads with its own loader, and nothing goes on in the background. Where the cache
    /// would reload in the background, such a call reloads first, and the soft timeout answers those that wait for it but
    /// not the call itself.
    ///
    /// # Errors
    /// As [`get_or_load`](Self::get_or_load).
    ///
    /// # Panics
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_scoped<'l, L, F, E>(&self, key: impl ToKey, loader: L) -> Result<V, LoadError>
    where
        L: FnOnce() -> F + Send + 'l,
        F: Future<Output = Result<V, E>> + Send + 'l,
        E: Into<BoxError>,
        B: 'l,
    {
        Ok(self.entry(key).get_or_load_scoped(loader).await?.value)
    }

    /// Stores a value. No load or refill that began before brings an older one back.
    ///
    /// # Errors
    /// As the write policy decides. Layers that failed are brought up to date later; until then they do not serve
    /// what they had.
    ///
    /// # Cancellation
    /// Compositions finish the write in their offload; a leaf alone may or may not have stored it.
    pub async fn insert(&self, key: impl ToKey, value: V) -> BackendResult<Receipt> {
        self.entry(key).insert(value).await
    }

    /// Removes an entry from all layers. No load or refill that began before brings it back.
    ///
    /// # Errors
    /// If any layer failed: it is removed there later, and not served until then.
    ///
    /// # Cancellation
    /// As [`insert`](Self::insert).
    pub async fn remove(&self, key: impl ToKey) -> BackendResult<DeleteStatus> {
        self.entry(key).remove().await
    }

    /// Makes an entry stale at once. Its value and all other instants stay: who has a loader reloads it as the
    /// settings for stale copies say, and it serves where that fails. Loads that are under way do not make it fresh
    /// again. Says whether there was one. What other processes have in memory stays as it is there.
    ///
    /// # Errors
    /// If no layer had it and one failed. A layer that failed while another had it is brought up to date later.
    ///
    /// # Cancellation
    /// As [`insert`](Self::insert).
    pub async fn expire(&self, key: impl ToKey) -> BackendResult<bool> {
        let key = self.key(&key);
        self.shared.expire(&key).await
    }

    /// A key with options for one call; its methods say how they were answered.
    pub fn entry<K: ToKey>(&self, key: K) -> Entry<'_, K, V, B> {
        Entry::new(self, key)
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.shared.settings.name.as_str()
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<B> {
        &self.shared.backend
    }

    /// Counts since the cache was built, and statistics of its layers. In the total of these the hits and misses are those
    /// of this cache's own calls.
    pub fn statistics(&self) -> CacheStatistics {
        let counted = self.shared.events.counts.snapshot();
        let mut layers = self.shared.backend.snapshot();
        // Other caches may stand over the same layers.
        let total = &mut layers.total;
        (total.hits, total.stale_hits, total.misses) = (counted.hits, counted.stale_hits, counted.misses);
        let (recovering, loading) = (self.shared.dirty_keys(), self.shared.loads_under_way());
        CacheStatistics { recovering, loading, layers, ..counted }
    }

    /// What the settings made the builder warn of.
    pub fn advice(&self) -> &[Advice] {
        &self.advice
    }

    /// The key as the layers know it.
    pub fn key<'k>(&self, key: &'k impl ToKey) -> Cow<'k, CacheKey> {
        match (key.to_key(self.name()), self.shared.settings.schema) {
            (Cow::Owned(key), schema @ 1..) => Cow::Owned(key.with_version(schema)),
            (key, _) => key,
        }
    }

    pub(crate) async fn find(&self, key: &CacheKey) -> BackendResult<Response<Option<V>>> {
        match internal::try_read(&*self.shared.backend, key, &READ) {
            Ok(Some(copy)) if copy.entry.details().is_none() => Ok(Self::found(&self.shared, key, copy)),
            first => self.find_after(key, first).await,
        }
    }

    /// What comes of a first look that did not find a plain copy at once.
    async fn find_after(
        &self,
        key: &CacheKey,
        first: Result<Option<Decoded<V>>, LeafSet>,
    ) -> BackendResult<Response<Option<V>>> {
        let shared = &self.shared;
        shared.reconcile_if_dirty();
        let copy = match first {
            Ok(copy) => copy,
            Err(skip) => Box::pin(shared.read(key, READ.skipping(skip))).await?,
        };
        match copy {
            Some(copy) => {
                shared.touch(key, &copy);
                Ok(Self::found(shared, key, copy))
            }
            None => {
                shared.count_look(None);
                Ok(self.missed(key))
            }
        }
    }

    #[inline]
    fn found(shared: &Shared<V, B>, key: &CacheKey, copy: Decoded<V>) -> Response<Option<V>> {
        shared.count_look(Some(copy.freshness));
        shared.tell_hit(key, copy.freshness);
        let is_fresh = copy.freshness == Freshness::Fresh;
        respond(copy, if is_fresh { AnswerKind::Hit } else { AnswerKind::Stale })
    }

    pub(crate) fn missed(&self, key: &CacheKey) -> Response<Option<V>> {
        self.shared.events.tell(|| CacheEvent::Miss { key });
        Response::new(None, Outcome::new(AnswerKind::Miss, None))
    }
}
