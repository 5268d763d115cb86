//! What a layer is told, and what follows of it for a request.

use std::borrow::Cow;
use std::sync::Arc;

use hitbox::core::CacheKey;
use hitbox_http::{KeyRules, Policy, with_scheme};
use http::uri::Scheme;
use http::{Extensions, HeaderMap, HeaderName, Request, Uri};

use crate::choice::{Choice, RequestHead};

pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) keys: KeyRules,
    pub(crate) choice: Choice,
    pub(crate) tag_fields: Vec<HeaderName>,
    pub(crate) tells_key: bool,
    pub(crate) original_uri: Option<OriginalUri>,
    pub(crate) scheme: Option<Scheme>,
}

pub(crate) type OriginalUri = Arc<dyn Fn(&Extensions) -> Option<Uri> + Send + Sync>;

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "http".to_owned(),
            policy: Policy::shared(),
            keys: KeyRules::default(),
            choice: Choice::default(),
            tag_fields: Vec::new(),
            tells_key: false,
            original_uri: None,
            scheme: None,
        }
    }
}

impl Settings {
    /// The URI of a request, as its client said it.
    pub(crate) fn uri_of<'r, Q>(&self, request: &'r Request<Q>) -> Cow<'r, Uri> {
        self.with_scheme(self.said_uri(request), request.headers())
    }

    /// The same, with the scheme that it has.
    pub(crate) fn said_uri<'r, Q>(&self, request: &'r Request<Q>) -> Cow<'r, Uri> {
        let original = self.original_uri.as_ref().and_then(|original| original(request.extensions()));
        original.map_or(Cow::Borrowed(request.uri()), Cow::Owned)
    }

    /// A URI with the scheme that all have, if that is set.
    pub(crate) fn with_scheme<'r>(&self, uri: Cow<'r, Uri>, request: &HeaderMap) -> Cow<'r, Uri> {
        let scheme = self.scheme.as_ref().filter(|scheme| uri.scheme() != Some(scheme));
        scheme.and_then(|scheme| with_scheme(&uri, request, scheme)).map_or(uri, Cow::Owned)
    }

    /// The key of a request, unless its user lets it pass.
    pub(crate) fn key_of<Q>(&self, request: &Request<Q>) -> Option<CacheKey> {
        let uri = self.uri_of(request);
        let head = RequestHead::of(request, &uri);
        self.choice.is_cached(&head).then(|| self.key_with(&uri, &head))
    }

    /// The key of a request whose user has been asked.
    pub(crate) fn key<Q>(&self, request: &Request<Q>) -> CacheKey {
        let uri = self.uri_of(request);
        self.key_with(&uri, &RequestHead::of(request, &uri))
    }

    fn key_with(&self, uri: &Uri, head: &RequestHead<'_>) -> CacheKey {
        if self.choice.has_no_parts() {
            return self.keys.key(&self.name, uri, head.headers);
        }
        self.keys.key_with(&self.name, uri, head.headers, &self.choice.parts_of(head))
    }

    /// Whether the user does not let a request pass.
    pub(crate) fn is_cached<Q>(&self, request: &Request<Q>) -> bool {
        let uri = self.uri_of(request);
        self.choice.is_cached(&RequestHead::of(request, &uri))
    }

    /// Whether the URI alone is the key, and all of it.
    pub(crate) fn is_keyed_by_uri_alone(&self) -> bool {
        self.keys.is_of_uri_alone() && self.choice.has_no_parts()
    }
}
