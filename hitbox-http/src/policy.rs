//! What kind of cache this is, and what it does where the rules leave a choice.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// What kind of cache decides, and what it does where the rules leave a choice.
///
/// ```
/// # use std::time::Duration;
/// # use hitbox_http::Policy;
/// let policy = Policy::shared().ttl_when_unspecified(Duration::from_secs(30));
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) is_shared: bool,
    pub(crate) heuristic: Option<f64>,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) fixed_ttl: Option<Duration>,
    pub(crate) targeted: Vec<HeaderName>,
    pub(crate) surrogate: Option<String>,
    pub(crate) stale_when_disconnected: Duration,
    pub(crate) stale_on_error: Option<Duration>,
    pub(crate) keep_stale: Duration,
    pub(crate) stores_set_cookie: bool,
    pub(crate) heeds_requests: bool,
}

impl Policy {
    /// A cache that many users share, such as that of a server or a proxy. What is for one user alone is not stored: responses that are
    /// `private`, that set cookies, or that answer requests with `Authorization` and do not say that others may have them.
    pub fn shared() -> Self {
        Self {
            is_shared: true,
            heuristic: None,
            default_ttl: None,
            fixed_ttl: None,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            surrogate: None,
            stale_when_disconnected: Duration::from_secs(24 * 60 * 60),
            stale_on_error: None,
            keep_stale: Duration::from_secs(24 * 60 * 60),
            stores_set_cookie: false,
            heeds_requests: true,
        }
    }

    /// The cache of one user, such as that of a client. No field targets it.
    pub fn private() -> Self {
        Self { is_shared: false, targeted: Vec::new(), stores_set_cookie: true, ..Self::shared() }
    }

    /// A shared cache that keeps each successful answer to a `GET` for so long, whatever its `Cache-Control` and `Expires` and those of
    /// requests say. What says that it is for one user alone is still not stored: `private`, a cookie that is set, or `Authorization` in the request. **The
    /// cookies of requests do not count**: an answer that depends on them needs them in the key, or a place outside of the layer.
    pub fn fixed(ttl: Duration) -> Self {
        Self { fixed_ttl: Some(ttl), targeted: Vec::new(), heeds_requests: false, ..Self::shared() }
    }

    /// A response that does not say how long it is fresh is fresh for so long. By default it is not fresh at all. As for [`fixed`](Self::fixed), the cookies of
    /// requests do not count.
    #[must_use]
    pub fn ttl_when_unspecified(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// A response that does not say how long it is fresh, but when it was changed, is fresh for this fraction of the time since then, up
    /// to a day (RFC 9111, 4.2.2; usual is 0.1). By default it is not fresh at all.
    #[must_use]
    pub fn heuristic(mut self, fraction: f64) -> Self {
        self.heuristic = Some(if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 });
        self
    }

    /// Fields whose directives count in place of those of `Cache-Control` (RFC 9213): the first of them that a response has. By default a
    /// shared cache looks at `CDN-Cache-Control`.
    #[must_use]
    pub fn targeted(mut self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        self.targeted = fields.into_iter().collect();
        self
    }

    /// Reads `Surrogate-Control` before other such fields, and tells origins so, under this name, in `Surrogate-Capability`: for origins that
    /// speak to caches in that older way. Default: it does not.
    #[must_use]
    pub fn surrogate(mut self, name: impl Into<String>) -> Self {
        self.targeted.insert(0, HeaderName::from_static("surrogate-control"));
        self.surrogate = Some(name.into());
        self
    }

    /// What requests to the origin say of this cache, in `Surrogate-Capability`.
    pub fn surrogate_capability(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("{}=\"Surrogate/1.0\"", self.surrogate.as_ref()?)).ok()
    }

    /// A response that has been stale for up to so long is served when the origin cannot be reached, unless it says that it must not be.
    /// By default a day.
    #[must_use]
    pub fn stale_when_disconnected(mut self, stale: Duration) -> Self {
        self.stale_when_disconnected = stale;
        self
    }

    /// A response that does not say `stale-if-error` is served for so long after it was fresh when the origin answers with a status from 500 on, unless it
    /// says that it must not be. By default it is not. Handlers of axum cannot fail but by such a status.
    #[must_use]
    pub fn stale_on_error(mut self, stale: Duration) -> Self {
        self.stale_on_error = Some(stale);
        self
    }

    /// A response that can be validated is kept for so long after it was fresh, at least. By default a day.
    #[must_use]
    pub fn keep_stale(mut self, keep: Duration) -> Self {
        self.keep_stale = keep;
        self
    }

    /// Whether responses that set cookies are stored, with these. A shared cache would hand the cookie of one user to all others. Default:
    /// that of a private one does, that of a shared one does not.
    #[must_use]
    pub fn store_set_cookie(mut self, stores: bool) -> Self {
        self.stores_set_cookie = stores;
        self
    }

    /// Whether the `Cache-Control` of requests counts, with which a client can have the origin asked. By default it does, as RFC 9111
    /// wants it.
    #[must_use]
    pub fn heed_requests(mut self, heeds: bool) -> Self {
        self.heeds_requests = heeds;
        self
    }

    /// Whether many users share the cache.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether the `Cache-Control` of requests counts.
    pub fn heeds_requests(&self) -> bool {
        self.heeds_requests
    }
}

impl Default for Policy {
    /// [`Policy::shared`].
    fn default() -> Self {
        Self::shared()
    }
}
