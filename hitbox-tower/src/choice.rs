//! What the user of a layer decides by himself: which requests are answered from the cache, which responses are stored, and what else is
//! part of the key.

use std::sync::Arc;

use crate::key_body::{self, KeyBody};
use hitbox_http::NotStorable;
use http::{Extensions, HeaderMap, Method, Request, StatusCode, Uri};

/// A request without its body.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestHead<'r> {
    /// The method.
    pub method: &'r Method,
    /// The URI, as its client said it.
    pub uri: &'r Uri,
    /// The fields.
    pub headers: &'r HeaderMap,
    /// What layers around this one have left there.
    pub extensions: &'r Extensions,
}

impl<'r> RequestHead<'r> {
    pub(crate) fn of<Q>(request: &'r Request<Q>, uri: &'r Uri) -> Self {
        Self { method: request.method(), uri, headers: request.headers(), extensions: request.extensions() }
    }
}

/// A response without its body, and what was asked for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResponseHead<'r> {
    /// The URI of the request, as its client said it.
    pub uri: &'r Uri,
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: &'r HeaderMap,
}

/// Left by a client in the extensions of a response that must not be stored, for a reason that the rules cannot see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotToStore(pub(crate) NotStorable);

type OfRequest<T> = Arc<dyn Fn(&RequestHead<'_>) -> T + Send + Sync>;
type OfResponse<T> = Arc<dyn Fn(&ResponseHead<'_>) -> T + Send + Sync>;

/// What is decided by functions of the user.
#[derive(Clone, Default)]
pub(crate) struct Choice {
    pub(crate) cached: Option<OfRequest<bool>>,
    pub(crate) stored: Option<OfResponse<bool>>,
    /// Further parts of the key, by their names.
    pub(crate) parts: Vec<(String, OfRequest<Option<String>>)>,
    /// Requests whose body is a part of the key.
    pub(crate) by_body: Option<KeyBody>,
    /// Longer bodies are not stored, in bytes.
    pub(crate) max_body: Option<u64>,
}

impl Choice {
    /// Whether a stored response may answer this request, and its own be stored.
    pub(crate) fn is_cached(&self, request: &RequestHead<'_>) -> bool {
        self.cached.as_ref().is_none_or(|cached| cached(request))
    }

    /// Whether a response that the rules let be stored is stored.
    pub(crate) fn is_stored(&self, response: &ResponseHead<'_>) -> bool {
        self.stored.as_ref().is_none_or(|stored| stored(response))
    }

    /// Whether a body of so many bytes is too long, if anybody knows how many.
    pub(crate) fn is_too_long(&self, length: Option<u64>) -> bool {
        length.zip(self.max_body).is_some_and(|(length, most)| length > most)
    }

    /// Whether requests have no further parts of their keys.
    pub(crate) fn has_no_parts(&self) -> bool {
        self.parts.is_empty() && self.by_body.is_none()
    }

    /// The further parts of the key of a request.
    pub(crate) fn parts_of(&self, request: &RequestHead<'_>) -> Vec<(&str, Option<String>)> {
        let parts = self.parts.iter().map(|(name, part)| (name.as_str(), part(request)));
        let of_body = self.by_body.as_ref().and_then(|_| key_body::parts_of(request));
        parts.chain(of_body.into_iter().flatten()).collect()
    }

    /// How to read the body of a request by this method, if it is a part of the key.
    pub(crate) fn by_body(&self, method: &Method) -> Option<&KeyBody> {
        self.by_body.as_ref().filter(|by_body| by_body.takes(method))
    }

    /// Whether the body of this request has been read, and is a part of its key.
    pub(crate) fn is_by_body(&self, extensions: &Extensions) -> bool {
        self.by_body.is_some() && key_body::is_read(extensions)
    }
}
