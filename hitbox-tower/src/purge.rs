//! Removing responses.

use std::borrow::Cow;
use std::sync::Arc;

use hitbox::core::BackendResult;
use hitbox_http::{KeyRules, url_pattern};
use http::{HeaderMap, Uri};

use crate::layer::Rules;

/// Removes responses from the cache of a [`CacheLayer`](crate::CacheLayer), from all of its layers. What is being loaded meanwhile is not
/// stored.
#[derive(Clone)]
pub struct Purge {
    rules: Arc<Rules>,
}

impl std::fmt::Debug for Purge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Purge").field("name", &self.rules.settings.name).finish_non_exhaustive()
    }
}

impl Purge {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self { rules }
    }

    /// Removes what is stored for a URI: all variants, and for each value of what else is part of the key.
    ///
    /// The URI is that which requests have: an absolute one with the host that clients name, such as `http://shop/items?page=2`; scheme and host in any
    /// case. A request whose URI says no scheme, as by HTTP/1 on a server, counts as `http`, unless the layer has a [`scheme`](crate::CacheLayerBuilder::scheme). Another query is another URI. Nothing is an error that is not stored.
    ///
    /// # Errors
    /// If any layer failed: it may still be there.
    ///
    /// # Cancellation
    /// It may or may not have been removed, and is on its way to be.
    pub async fn uri(&self, uri: &Uri) -> BackendResult<()> {
        let none = HeaderMap::new();
        self.rules.purge_uri(&self.rules.settings.with_scheme(Cow::Borrowed(uri), &none), &none).await
    }

    /// Makes all responses with a tag invalid, whatever their number.
    ///
    /// # Errors
    /// As [`uri`](Self::uri).
    pub async fn tag(&self, tag: &str) -> BackendResult<()> {
        self.rules.cache.invalidate_tags(&[tag]).await.map(drop)
    }

    /// Removes what is stored for all URIs like this one: `*` stands for any text, as in `*://shop/items/*`, and all else for itself, so that the host is
    /// written in lower case and a query is part of what has to match. Says how many entries that were; 0 means that nothing was like it.
    ///
    /// # Errors
    /// As [`uri`](Self::uri).
    pub async fn matching(&self, pattern: &str) -> BackendResult<u64> {
        self.rules.cache.invalidate_matching(&url_pattern(pattern)).await
    }

    /// Removes everything from the backend, also what other layers and caches have there.
    ///
    /// # Errors
    /// As [`uri`](Self::uri).
    pub async fn all(&self) -> BackendResult<()> {
        self.rules.cache.clear().await.map(drop)
    }
}

impl Rules {
    /// Removes what is stored for a URI. Its authority is that of the request if it has none.
    pub(crate) async fn purge_uri(&self, uri: &Uri, request: &HeaderMap) -> BackendResult<()> {
        // Variants are found through the entry under this key.
        let key = KeyRules::default().key(&self.settings.name, uri, request);
        if self.settings.is_keyed_by_uri_alone() {
            return self.cache.remove(key).await.map(drop);
        }
        let invalidated = self.cache.invalidate_tags(&[&self.uri_tag(uri, request)]).await;
        // What was stored before keys had more may have this key, and no tag.
        self.cache.remove(self.settings.keys.of_uri().key(&self.settings.name, uri, request)).await?;
        invalidated.map(drop)
    }

    /// The tag of all responses of this layer of one URI, where the key has more than that.
    pub(crate) fn uri_tag(&self, uri: &Uri, request: &HeaderMap) -> String {
        format!("uri:{}", self.settings.keys.of_uri().key(&self.settings.name, uri, request))
    }
}
