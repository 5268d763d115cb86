//! The layer, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hitbox::backend::wrap::AdmissionRule;
use hitbox::backend::{Backend, IntoBackend, Wrap};
use hitbox::core::{BackendResult, BoxFuture, CacheKey, Clock, Offload, Subject, Task, TaskKind, Timestamp};
use hitbox::{Body as StoredBody, Cache, OffloadPool};
use hitbox_http::{KeyRules, Policy};
use http::uri::Scheme;
use http::{Extensions, HeaderName, Method, Uri};
use http_body::Body;
use tower_layer::Layer;

use crate::body::BoxError;
use crate::choice::{RequestHead, ResponseHead};
use crate::heads::{Head, Heads};
use crate::key_body::{KeyBody, RequestBody};
use crate::purge::Purge;
use crate::recent::NotShared;
use crate::service::CacheService;
use crate::settings::Settings;

/// Caches the responses of the service that it is put in front of, by the rules of HTTP (RFC 9111). Cloning is cheap; clones share
/// everything.
///
/// ```
/// # fn f() -> hitbox::core::BackendResult<()> {
/// use hitbox::moka::MokaBackend;
/// use hitbox_tower::CacheLayer;
///
/// let memory = MokaBackend::builder().max_bytes(256 * 1024 * 1024).build()?;
/// let layer = CacheLayer::new(memory);
/// # let _ = layer;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct CacheLayer {
    rules: Arc<Rules>,
}

/// What all requests share.
pub(crate) struct Rules {
    pub(crate) cache: Cache<()>,
    pub(crate) settings: Settings,
    #[cfg(feature = "status-page")]
    pub(crate) observer: std::sync::OnceLock<crate::status::Observer>,
    pub(crate) not_shared: NotShared,
    pub(crate) heads: Heads,
    clock: Arc<dyn Clock>,
    offload: Arc<dyn Offload>,
}

impl Rules {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(time)
    }

    /// Time since the start of the process.
    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The head of a stored response.
    pub(crate) fn head_of(&self, key: &CacheKey, body: &StoredBody) -> Option<Arc<Head>> {
        self.heads.of(key, body, self.cache.backend().layout(), &self.settings.policy)
    }

    /// Removes what is not right any more. It is not served meanwhile: it is stale.
    pub(crate) fn remove_in_background(self: &Arc<Self>, key: CacheKey) {
        let rules = self.clone();
        self.in_background(async move {
            if let Err(error) = rules.cache.remove(key).await {
                tracing::debug!(cache = %rules.settings.name, %error, "what is not right any more was not removed");
            }
        });
    }

    /// Does something that nobody waits for, unless there is no room for it.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.register(Task::new(TaskKind::LOAD, work));
    }

    /// The same, of which one at a time is enough for a key. Further ones are dropped, with the requests that they have.
    pub(crate) fn once_in_background(
        self: &Arc<Self>,
        key: CacheKey,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let subject = Subject { owner: Arc::as_ptr(self) as u64, key };
        self.register(Task::unique(TaskKind::LOAD, subject, work));
    }

    fn register(&self, task: Task) {
        if let Err(refused) = self.offload.register(task) {
            tracing::debug!(cache = %self.settings.name, why = ?refused.why, "a validation in the background was not taken");
        }
    }
}

impl std::fmt::Debug for CacheLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheLayer")
            .field("name", &self.rules.settings.name)
            .field("cache", &self.rules.cache)
            .finish_non_exhaustive()
    }
}

impl CacheLayer {
    /// A shared cache over a backend, with the rules of [`Policy::shared`]: responses are stored that say how long they are fresh, and that are
    /// not one user's alone.
    pub fn new<Kind>(backend: impl IntoBackend<Kind>) -> Self {
        // What may be wrong about a cache is set by none of what is set here.
        Self::builder(backend).build().expect("a layer without settings is valid")
    }

    /// Settings to start from.
    pub fn builder<Kind, T: IntoBackend<Kind>>(backend: T) -> CacheLayerBuilder<T::Backend> {
        let (backend, settings) = (backend.into_backend(), Settings::default());
        CacheLayerBuilder { backend, settings, clock: None, offload: None }
    }

    /// Removes responses from the cache.
    pub fn purge(&self) -> Purge {
        Purge::new(self.rules.clone())
    }

    #[cfg(feature = "status-page")]
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The cache that has the responses, for its statistics and its shutdown.
    pub fn cache(&self) -> &Cache<()> {
        &self.rules.cache
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = CacheService<S>;

    fn layer(&self, inner: S) -> CacheService<S> {
        CacheService::new(inner, self.rules.clone())
    }
}

/// Settings of a [`CacheLayer`].
#[must_use]
pub struct CacheLayerBuilder<B> {
    backend: B,
    settings: Settings,
    clock: Option<Arc<dyn Clock>>,
    offload: Option<Arc<dyn Offload>>,
}

impl<B> std::fmt::Debug for CacheLayerBuilder<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheLayerBuilder").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

impl<B: Backend> CacheLayerBuilder<B> {
    /// The name of this cache: the prefix of its keys, and what `Cache-Status` calls it. Default `http`. Layers over one backend that
    /// stand before different services need different names: otherwise what one has stored for a path is served by the other.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// What kind of cache it is, and what it does where the rules leave a choice. Default: a shared one.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// A response that does not say how long it is fresh is fresh for so long, also a 404 and the like. By default it is not stored, or only to be
    /// validated. **The cookies of requests do not count**: a handler that answers by a session needs them in the [key](Self::key), or a place
    /// outside of the layer. It changes the [policy](Self::policy), and has to come after that.
    pub fn ttl_when_unspecified(mut self, ttl: Duration) -> Self {
        self.settings.policy = self.settings.policy.ttl_when_unspecified(ttl);
        self
    }

    /// What of a request the key consists of. By default scheme, authority, path and query.
    pub fn key(mut self, rules: impl FnOnce(KeyRules) -> KeyRules) -> Self {
        self.settings.keys = rules(self.settings.keys);
        self
    }

    /// Also a part of the key that only the user knows how to find, such as the tenant that an outer middleware has found, or something in the
    /// path. **Requests without that part share one entry**: what finds it has to run first, and [`cache_if`](Self::cache_if) leaves others out. Default: none.
    ///
    /// ```
    /// # fn f(memory: hitbox::moka::MokaBackend) -> hitbox::core::BackendResult<()> {
    /// use hitbox_tower::CacheLayer;
    ///
    /// #[derive(Clone)]
    /// struct Tenant(String);
    ///
    /// let layer = CacheLayer::builder(memory)
    ///     .key_part("tenant", |request| Some(request.extensions.get::<Tenant>()?.0.clone()))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok(()) }
    /// ```
    pub fn key_part(
        mut self,
        name: impl Into<String>,
        part: impl Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.choice.parts.push((name.into(), Arc::new(part)));
        self
    }

    /// Requests by these methods only read, and their body says what: searches by `POST`, GraphQL, `QUERY`. They are answered from the cache, and
    /// their responses stored by the rules for those to a `GET`, under a key of which the method, `Content-Type`, `Content-Encoding` and the BLAKE3
    /// hash of the body are parts. They remove nothing from the cache. [`cache_if`](Self::cache_if) leaves out what does change something: that
    /// removes what is stored for its URI, as every request does that may change it. Default: bodies are not read.
    ///
    /// Bodies of up to `max_bytes` are read before anything else happens; requests with longer ones, with trailers, with conditions or ranges pass.
    /// `whole` makes the body that the service takes of what has been read: `axum::body::Body::new`. A client of reqwest sends a body once more after a
    /// redirect, if it is one of bytes: `|body| body.try_into_bytes().map_or_else(reqwest::Body::wrap, reqwest::Body::from)`.
    ///
    /// ```
    /// # fn f(memory: hitbox::moka::MokaBackend) -> hitbox::core::BackendResult<()> {
    /// use axum::body::Body;
    /// use hitbox_tower::CacheLayer;
    /// use http::Method;
    ///
    /// let layer = CacheLayer::builder(memory)
    ///     .key_body([Method::POST], 64 * 1024, Body::new)
    ///     .cache_if(|request| *request.method != Method::POST || request.uri.path() == "/search")
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok(()) }
    /// ```
    pub fn key_body<Q>(
        mut self,
        methods: impl IntoIterator<Item = Method>,
        max_bytes: usize,
        whole: impl Fn(RequestBody<Q>) -> Q + Send + Sync + 'static,
    ) -> Self
    where
        Q: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.settings.choice.by_body = Some(KeyBody::new(methods, max_bytes, whole));
        self
    }

    /// Only these requests are answered from the cache, and their responses stored; all others go on to the service. A `POST`, `PUT` or
    /// `DELETE` among them still removes what is stored for its URI. A second call replaces the first. Default: all that HTTP lets be cached.
    pub fn cache_if(mut self, takes: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.settings.choice.cached = Some(Arc::new(takes));
        self
    }

    /// Of the responses that the rules let be stored only these are. A policy says more: see [`policy`](Self::policy). Default: all of them.
    pub fn store_if(mut self, takes: impl Fn(&ResponseHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.settings.choice.stored = Some(Arc::new(takes));
        self
    }

    /// Responses with longer bodies, in bytes, are not stored: whoever asks gets them as they come. By default the layers of the expression
    /// decide, each by its own bound.
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.settings.choice.max_body = Some(bytes);
        self
    }

    /// Fields of responses that name their tags, separated by spaces or commas, such as `Surrogate-Key` and `Cache-Tag`:
    /// [`Purge::tag`] removes what carries them. Default: none.
    pub fn tags_from(mut self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        self.settings.tag_fields = fields.into_iter().collect();
        self
    }

    /// Where the URI of the client stands, if routers on the way to this layer have changed it: axum's `nest` takes off what it nests under, and
    /// leaves the whole as `OriginalUri`. Without this two nested routers with clones of one layer would share what they have under one path. Default: that
    /// of the request.
    ///
    /// ```
    /// # fn f(memory: hitbox::moka::MokaBackend) -> hitbox::core::BackendResult<()> {
    /// use axum::extract::OriginalUri;
    /// use hitbox_tower::CacheLayer;
    ///
    /// let layer = CacheLayer::builder(memory).original_uri(|found| Some(found.get::<OriginalUri>()?.0.clone())).build()?;
    /// # let _ = layer;
    /// # Ok(()) }
    /// ```
    pub fn original_uri(mut self, find: impl Fn(&Extensions) -> Option<Uri> + Send + Sync + 'static) -> Self {
        self.settings.original_uri = Some(Arc::new(find));
        self
    }

    /// All requests are of this scheme: `https` for a server behind TLS. Otherwise a request that says no scheme counts as one of `http`, as
    /// requests by HTTP/1 do, and those by HTTP/2 as of what they say: a resource would have two entries, and a change by one protocol would
    /// leave that of the other. URIs to [purge](Purge::uri) may say either then. Default: as requests say.
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.settings.scheme = Some(scheme);
        self
    }

    /// Whether `Cache-Status` tells the key. By default it does not.
    pub fn tell_key(mut self, tells: bool) -> Self {
        self.settings.tells_key = tells;
        self
    }

    /// Another clock: for tests. Default: that of the first layer.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The pool of background tasks, to be shared with others. Default: one of its own.
    pub fn offload(mut self, offload: Arc<dyn Offload>) -> Self {
        self.offload = Some(offload);
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// If a setting is wrong.
    pub fn build(self) -> BackendResult<CacheLayer> {
        let Self { backend, settings, clock, offload } = self;
        let clock = clock.unwrap_or_else(|| backend.layout().clock().clone());
        let offload = offload.unwrap_or_else(|| OffloadPool::builder().clock(clock.clone()).build().shared());
        // Of some bodies it is known only at their end how long they are.
        let backend = match settings.choice.max_body {
            Some(most) => backend.into_shared().admission(AdmissionRule::UpTo(most)).into_shared(),
            None => backend.into_shared(),
        };
        let builder =
            Cache::builder(backend).name(&settings.name).clock(clock.clone()).offload(offload.clone());
        let cache = builder.build()?;
        let (not_shared, heads) = (NotShared::new(), Heads::default());
        let rules = Rules {
            cache,
            settings,
            #[cfg(feature = "status-page")]
            observer: std::sync::OnceLock::new(),
            not_shared,
            heads,
            clock,
            offload,
        };
        Ok(CacheLayer { rules: Arc::new(rules) })
    }
}
