//! One request: what is stored answers it, or the service does.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use hitbox::core::{CacheKey, Timestamp};
use hitbox_http::{
    CacheStatusField, Forwarded, RequestDirectives, Verdict, invalidated_groups, invalidated_uris,
    is_conditional, is_unsafe, remove_preconditions, says_two_hosts,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;

use crate::body::{CacheBody, Trailers};
use crate::key_body;
use crate::layer::Rules;
use crate::lookup::{self, Begun, Lookup};
use crate::respond::Asked;
use crate::service::HttpService;
use crate::watch::Watch;

/// What a request needs: the rules, and a service of its own.
#[derive(Clone)]
pub(crate) struct Exchange<S> {
    pub(crate) rules: Arc<Rules>,
    pub(crate) inner: S,
}

/// A validation in the background is given up if its response has not begun after so long.
const LONGEST_VALIDATION: Duration = Duration::from_secs(60);

pub(crate) type Answer<A, E> = Result<Response<CacheBody<A>>, E>;

/// What stays of a request once it has gone on.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

impl Kept {
    pub(crate) fn of<Q>(request: &Request<Q>, rules: &Rules) -> Self {
        let (uri, headers) = (rules.settings.uri_of(request).into_owned(), request.headers().clone());
        // The rules for the response are those for one to a GET.
        let is_by_body = rules.settings.choice.is_by_body(request.extensions());
        let method = if is_by_body { Method::GET } else { request.method().clone() };
        Self { method, uri, headers }
    }

    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked { method: &self.method, headers: &self.headers }
    }
}

/// Whether a request is one that a stored response may answer.
fn is_cacheable<Q: Body>(request: &Request<Q>, rules: &Rules) -> bool {
    let has_body = request.body().size_hint().upper() != Some(0) && !request.body().is_end_stream();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD) && !has_body;
    (is_read || rules.settings.choice.is_by_body(request.extensions()))
        && !is_conditional(request.headers())
        && !says_two_hosts(&rules.settings.said_uri(request), request.headers())
        && !request.headers().contains_key(header::UPGRADE)
}

impl<S> Exchange<S> {
    /// Answers a request whose body is to be read first, if it is a part of the key.
    pub(crate) async fn run<Q>(self, mut request: Request<Q>) -> Answer<S::Answer, S::Fault>
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let rules = self.rules.clone();
        key_body::forget(request.extensions_mut());
        // The user is asked once whether it is cached: he may answer otherwise the next time.
        let by_body = rules.settings.choice.by_body(request.method());
        let is_cached = by_body.map(|_| rules.settings.is_cached(&request));
        if let (Some(by_body), Some(true)) = (by_body, is_cached) {
            request = Box::pin(by_body.read(request)).await;
        }
        let key = if !is_cacheable(&request, &rules) {
            None
        } else if let Some(is_cached) = is_cached {
            is_cached.then(|| rules.settings.key(&request))
        } else {
            rules.settings.key_of(&request)
        };
        let Some(key) = key else { return Box::pin(self.pass(request, is_cached == Some(true))).await };
        let watch = Watch::begin(&rules, &key);
        let lookup = lookup::look(&rules, &key, request.headers()).await;
        self.decide(request, key, lookup, watch).await
    }

    /// Answers a request with what was found, or by the service.
    pub(crate) async fn decide<Q>(
        self,
        request: Request<Q>,
        key: CacheKey,
        lookup: Lookup,
        watch: Watch,
    ) -> Answer<S::Answer, S::Fault>
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let rules = self.rules.clone();
        let Some(stored) = &lookup.stored else {
            let why = if lookup.variants.is_some() { Forwarded::VaryMiss } else { Forwarded::UriMiss };
            return Box::pin(self.go_on(request, key, lookup, why, watch)).await;
        };
        let label = stored.body.label();
        let now = rules.now();
        let verdict = stored.head.terms.verdict(request.headers(), now, &rules.settings.policy);
        match verdict {
            Verdict::Fresh | Verdict::StaleAllowed => {
                let answer = rules.hit(&request, lookup, now);
                watch.hit(&rules, label);
                Ok(answer)
            }
            Verdict::StaleWhileRevalidate => {
                let found = lookup.key.clone();
                let answer = rules.hit(&request, lookup, now);
                watch.hit(&rules, label);
                self.validate_in_background(request, key, found);
                Ok(answer)
            }
            Verdict::Validate { by_request, .. } => {
                let why = if by_request { Forwarded::Request } else { Forwarded::Stale };
                Box::pin(self.go_on(request, key, lookup, why, watch)).await
            }
            // What a later version of the rules says is not known here.
            _ => Box::pin(self.go_on(request, key, lookup, Forwarded::Stale, watch)).await,
        }
    }

    /// Asks the origin, unless the request does not want that.
    async fn go_on<Q>(
        self,
        request: Request<Q>,
        primary: CacheKey,
        lookup: Lookup,
        why: Forwarded,
        watch: Watch,
    ) -> Answer<S::Answer, S::Fault>
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let rules = self.rules.clone();
        if rules.settings.policy.heeds_requests() && RequestDirectives::of(request.headers()).only_if_cached {
            return Ok(rules.only_if_cached());
        }
        let answer = self.load(request, primary, lookup, why, true).await;
        watch.forwarded(&rules);
        answer
    }

    /// The service answers, and nothing is stored. What it changes is removed, unless the request is one whose body says what it reads.
    pub(crate) async fn pass<Q>(self, request: Request<Q>, reads_by_body: bool) -> Answer<S::Answer, S::Fault>
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let Self { rules, inner } = self;
        let kept = Kept::of(&request, &rules);
        let changes = is_unsafe(&kept.method) && !reads_by_body;
        Watch::passed(&rules);
        let mut response = inner.ask(request).await?;
        if changes {
            rules.invalidate(&kept, response.status(), response.headers()).await;
        }
        let is_read = matches!(kept.method, Method::GET | Method::HEAD);
        let why = if is_read || !changes && is_unsafe(&kept.method) {
            Forwarded::Bypass
        } else {
            Forwarded::Method
        };
        // A connection that becomes another protocol has no caches.
        if !response.status().is_informational() {
            let mut status = CacheStatusField::forwarded(why);
            if says_two_hosts(&kept.uri, &kept.headers) {
                status.detail = Some("the request says two hosts".into());
            }
            rules.tell_status(response.headers_mut(), &status);
        }
        Ok(response.map(CacheBody::passed))
    }

    /// Has what is stored for a request, and was `found` under this key, validated while its answer is on its way.
    fn validate_in_background<Q>(self, mut request: Request<Q>, key: CacheKey, found: CacheKey)
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let rules = self.rules.clone();
        if *request.method() == Method::HEAD {
            *request.method_mut() = Method::GET;
        }
        // It is stored as all of it is read, and an answer to a condition or of a range is not all.
        remove_preconditions(request.headers_mut());
        rules.clone().once_in_background(found, async move {
            let lookup = lookup::look(&rules, &key, request.headers()).await;
            // Another may have done it while this waited for its turn.
            let Some(stored) = &lookup.stored else { return };
            let verdict = stored.head.terms.verdict(request.headers(), rules.now(), &rules.settings.policy);
            if verdict == Verdict::Fresh {
                return;
            }
            let load = self.load(request, key, lookup, Forwarded::Stale, true);
            // Others wait for their turn.
            let answer = match select(pin!(load), rules.sleep(LONGEST_VALIDATION)).await {
                Either::Left((Ok(answer), _)) if answer.body().is_stored() => answer,
                Either::Left(_) | Either::Right(_) => return,
            };
            // It is stored as it is read.
            let mut body = pin!(answer.into_body());
            while let Some(Ok(_)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
        });
    }
}

/// What can be said of a request without waiting.
pub(crate) enum AtOnce<A> {
    /// It is answered by what is stored, which is at hand and fresh.
    Hit(Response<CacheBody<A>>),
    /// This was found.
    Found(CacheKey, Lookup, Watch),
    /// It has begun to be looked for.
    Begun(CacheKey, Begun, Watch),
    /// It goes on, whatever is stored.
    Passes,
    /// Nothing: its body is to be read first.
    Nothing,
}

impl Rules {
    /// Answers a request if that needs neither waiting nor the service.
    pub(crate) fn at_once<Q: Body, A>(&self, request: &Request<Q>) -> AtOnce<A> {
        if self.settings.choice.by_body.is_some() {
            return AtOnce::Nothing;
        }
        let key = if is_cacheable(request, self) { self.settings.key_of(request) } else { None };
        let Some(key) = key else { return AtOnce::Passes };
        let watch = Watch::begin(self, &key);
        let lookup = match lookup::begin(self, &key).at_once(self, &key) {
            Ok(lookup) => lookup,
            Err(begun) => return AtOnce::Begun(key, begun, watch),
        };
        let Some(stored) = &lookup.stored else { return AtOnce::Found(key, lookup, watch) };
        let label = stored.body.label();
        let now = self.now();
        match stored.head.terms.verdict(request.headers(), now, &self.settings.policy) {
            Verdict::Fresh | Verdict::StaleAllowed => {
                let answer = self.hit(request, lookup, now);
                watch.hit(self, label);
                AtOnce::Hit(answer)
            }
            _ => AtOnce::Found(key, lookup, watch),
        }
    }

    fn hit<Q, A>(&self, request: &Request<Q>, lookup: Lookup, now: Timestamp) -> Response<CacheBody<A>> {
        let mut status = CacheStatusField::hit();
        status.key = self.settings.tells_key.then(|| lookup.key.to_string().into());
        let asked = Asked { method: request.method(), headers: request.headers() };
        match lookup.stored {
            Some(stored) => {
                let label = stored.body.label();
                status.detail = Some(label.as_str().into());
                let (age, body) = (stored.head.terms.age(now), (stored.body, Trailers::default()));
                self.respond_of_age(age, &asked, &stored.head, body, true, status)
            }
            None => self.only_if_cached(),
        }
    }

    /// Removes what the answer to an unsafe request makes invalid. The answer waits for it: who made the change is to see it.
    async fn invalidate(&self, asked: &Kept, status: StatusCode, headers: &HeaderMap) {
        for uri in invalidated_uris(&asked.method, &asked.uri, &asked.headers, status, headers) {
            if let Err(error) = self.purge_uri(&uri, &asked.headers).await {
                tracing::warn!(cache = %self.settings.name, %uri, %error, "what was changed could not be removed");
            }
        }
        if !status.is_success() && !status.is_redirection() {
            return;
        }
        let groups = invalidated_groups(headers, &asked.uri, &asked.headers);
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        if !groups.is_empty()
            && let Err(error) = self.cache.invalidate_tags(&groups).await
        {
            tracing::warn!(cache = %self.settings.name, %error, "groups could not be invalidated");
        }
    }
}
