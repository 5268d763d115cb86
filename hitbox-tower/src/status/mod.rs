//! A page that shows what a cache does as it does it.

mod hot_keys;
mod observer;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hitbox::CacheStatistics;
use hitbox::core::{BackendResult, CacheKey};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use serde::Serialize;
use tower_service::Service;

use crate::body::CacheBody;
use crate::choice::RequestHead;
use crate::layer::{CacheLayer, Rules};

use observer::Observed;
pub(crate) use observer::{AnsweredBy, Observer};

const PAGE: &str = include_str!("page.html");
/// The page is one file, and asks nobody but its own server.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Browsers let no other site send it unasked.
const PURGE_FIELD: &str = "x-purge";

type Guard = Arc<dyn Fn(&RequestHead<'_>) -> bool + Send + Sync>;

/// A service with a page for people, and the same as JSON for programs: per layer what it found, holds and dropped, whether it fails, and how fast
/// it answered; the hit ratio of the last ten minutes; the keys that are asked for most. With a guard, also a form that purges.
///
/// It stands at any path, as axum's `nest_service` places it. `…/status.json` is the JSON. The page needs nothing from elsewhere.
///
/// **It shows keys**: URLs, and what else is part of them, such as cookies. Put it where only you see it.
///
/// ```
/// # fn f(memory: hitbox::moka::MokaBackend) {
/// use axum::Router;
/// use axum::routing::get;
/// use hitbox_tower::CacheLayer;
///
/// let cache = CacheLayer::new(memory);
/// let app: Router = Router::new()
///     .route("/items/{id}", get(async || "an item"))
///     .layer(cache.clone())
///     // Added after the layer: it is not cached.
///     .nest_service("/cache", cache.status_page());
/// # let _ = app;
/// # }
/// ```
#[derive(Clone)]
pub struct StatusPage {
    rules: Arc<Rules>,
    may_purge: Option<Guard>,
}

impl std::fmt::Debug for StatusPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusPage").field("name", &self.rules.settings.name).finish_non_exhaustive()
    }
}

impl CacheLayer {
    /// A page that shows what this cache does. From now on the layer counts its answers, and looks at one request of eight closely: its key, and how
    /// long its answer took.
    pub fn status_page(&self) -> StatusPage {
        let rules = self.rules();
        rules.observer.get_or_init(|| Observer::new(rules.monotonic()));
        StatusPage { rules: rules.clone(), may_purge: None }
    }
}

/// Whether a browser sends this for another site than the page's own: one that reads or purges in the name of its user.
fn is_of_other_site(head: &RequestHead<'_>) -> bool {
    let said = |name: HeaderName| head.headers.get(name).map(HeaderValue::as_bytes);
    if let Some(site) = said(HeaderName::from_static("sec-fetch-site")) {
        return !matches!(site, b"same-origin" | b"none");
    }
    let Some(origin) = said(header::ORIGIN) else { return false };
    let of_page =
        head.uri.authority().map(|of_page| of_page.as_str().as_bytes()).or_else(|| said(header::HOST));
    let origin = Uri::try_from(origin).ok();
    let of_sender =
        origin.as_ref().and_then(|origin| origin.authority()).map(|sender| sender.as_str().as_bytes());
    of_sender.is_none() || of_sender != of_page
}

/// What the JSON says.
#[derive(Serialize)]
struct Status<'r> {
    name: &'r str,
    #[serde(flatten)]
    observed: Observed,
    /// Counts since the cache was built, and its layers.
    cache: CacheStatistics,
    /// Whether who asks may purge.
    may_purge: bool,
}

/// What was purged.
#[derive(Serialize)]
struct Purged {
    /// How many entries, where that is known.
    entries: Option<u64>,
}

/// What a request to purge names.
enum Target {
    Uri(Uri),
    Key(CacheKey),
    Tag(String),
    Pattern(String),
}

impl Target {
    fn parse(query: &str) -> Result<Self, &'static str> {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let (Some((by, value)), None) = (pairs.next(), pairs.next()) else {
            return Err("say one of `uri`, `key`, `tag` and `pattern`\n");
        };
        if value.is_empty() {
            return Err("say what is to be purged\n");
        }
        match &*by {
            "uri" => value.parse().map(Self::Uri).map_err(|_| "this is no URI\n"),
            "key" => CacheKey::from_text(value.as_bytes()).map(Self::Key).ok_or("this is no key\n"),
            "tag" => Ok(Self::Tag(value.into_owned())),
            "pattern" => Ok(Self::Pattern(value.into_owned())),
            _ => Err("what is purged has a `uri`, a `key`, a `tag` or a `pattern`\n"),
        }
    }
}

impl StatusPage {
    /// Who may purge. Default: nobody. What a browser sends for another site is refused beside that; a guard that goes by the address of the user
    /// alone has to look at `Host` too, or another site can get a name for the address of this one.
    #[must_use]
    pub fn purge_if(mut self, may_purge: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.may_purge = Some(Arc::new(may_purge));
        self
    }

    fn may_purge(&self, head: &RequestHead<'_>) -> bool {
        self.may_purge.as_ref().is_some_and(|may_purge| may_purge(head))
    }

    fn status(&self, may_purge: bool) -> Option<Status<'_>> {
        let rules = &self.rules;
        let observed = rules.observer.get()?.observed(rules.monotonic(), rules.now());
        Some(Status { name: &rules.settings.name, observed, cache: rules.cache.statistics(), may_purge })
    }

    async fn purge(&self, target: Target) -> BackendResult<Purged> {
        let purge = crate::purge::Purge::new(self.rules.clone());
        let entries = match target {
            Target::Uri(uri) => purge.uri(&uri).await.map(|()| None),
            Target::Tag(tag) => purge.tag(&tag).await.map(|()| None),
            Target::Key(key) => self.rules.cache.remove(key).await.map(|_| None),
            Target::Pattern(pattern) => purge.matching(&pattern).await.map(Some),
        };
        entries.map(|entries| Purged { entries })
    }

    async fn answer<B>(&self, request: Request<B>) -> Response<CacheBody<B>> {
        let head = RequestHead::of(&request, request.uri());
        let may_purge = self.may_purge(&head);
        let is_read = matches!(*head.method, Method::GET | Method::HEAD);
        match head.uri.path().rsplit('/').next() {
            Some("purge") if *head.method != Method::POST => {
                refuse(StatusCode::METHOD_NOT_ALLOWED, "this is a POST\n")
            }
            Some("purge" | "status.json") if is_of_other_site(&head) => refuse(
                StatusCode::FORBIDDEN,
                "this is for the page alone; a proxy in front of it has to leave `Host` as it is\n",
            ),
            Some("purge") if !may_purge => refuse(StatusCode::FORBIDDEN, "you may not purge\n"),
            Some("purge") if !head.headers.contains_key(PURGE_FIELD) => {
                refuse(StatusCode::FORBIDDEN, "a request to purge has a field `x-purge`\n")
            }
            Some("purge") => match Target::parse(head.uri.query().unwrap_or_default()) {
                Err(why) => refuse(StatusCode::BAD_REQUEST, why),
                Ok(target) => match self.purge(target).await {
                    Ok(purged) => json(&purged),
                    Err(error) => {
                        tracing::warn!(cache = %self.rules.settings.name, %error, "a purge from the status page failed");
                        plain(StatusCode::BAD_GATEWAY, format!("it may still be there: {error}\n").into())
                    }
                },
            },
            _ if !is_read => refuse(StatusCode::METHOD_NOT_ALLOWED, "this is a GET\n"),
            Some("status.json") => json(&self.status(may_purge)),
            _ => {
                let page = Bytes::from_static(PAGE.as_bytes());
                let mut page = whole(StatusCode::OK, "text/html; charset=utf-8", page);
                let policy = HeaderValue::from_static(CONTENT_POLICY);
                page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                page
            }
        }
    }
}

fn json<B>(said: &impl Serialize) -> Response<CacheBody<B>> {
    match serde_json::to_vec(said) {
        Ok(text) => whole(StatusCode::OK, "application/json", text.into()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n").into()),
    }
}

fn refuse<B>(code: StatusCode, why: &'static str) -> Response<CacheBody<B>> {
    plain(code, Bytes::from_static(why.as_bytes()))
}

fn plain<B>(code: StatusCode, text: Bytes) -> Response<CacheBody<B>> {
    whole(code, "text/plain; charset=utf-8", text)
}

fn whole<B>(code: StatusCode, kind: &'static str, text: Bytes) -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::whole(text));
    *response.status_mut() = code;
    let fields = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(fields);
    response
}

impl<B: Send + 'static> Service<Request<B>> for StatusPage {
    type Response = Response<CacheBody<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let page = self.clone();
        Box::pin(async move { Ok(page.answer(request).await) })
    }
}
