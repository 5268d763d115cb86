//! The answer to a request that went on.

use std::sync::Arc;

use hitbox::Body as StoredBody;
use hitbox::backend::Backend;
use hitbox::core::{BoxFuture, CacheKey, Timestamp};
use hitbox_http::{CacheStatusField, Forwarded, RequestDirectives, Verdict};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;

use crate::ask::{Arrived, Load, Unstored};
use crate::body::{CacheBody, Trailers};
use crate::exchange::{Answer, Exchange, Kept};
use crate::heads::Head;
use crate::load::{Outcome, Slot};
use crate::lookup::{self, Lookup, Stored, variants_of};
use crate::service::HttpService;

/// A request that has gone on, or waited for another that has.
struct End<S> {
    exchange: Exchange<S>,
    asked: Kept,
    primary: CacheKey,
    /// When it went on.
    since: Timestamp,
    lookup: Lookup,
    why: Forwarded,
}

impl<S> Exchange<S> {
    /// Has the service answer: once for all who ask for the same meanwhile, if it `may_share` and the response is one for others.
    pub(crate) async fn load<Q>(
        self,
        request: Request<Q>,
        primary: CacheKey,
        lookup: Lookup,
        why: Forwarded,
        may_share: bool,
    ) -> Answer<S::Answer, S::Fault>
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let (rules, headers, since) = (&self.rules, request.headers(), self.rules.now());
        let is_part = lookup.stored.is_none() && headers.contains_key(header::RANGE);
        if is_part {
            return self.pass_on(request, Forwarded::Partial).await;
        }
        if request.method() == Method::HEAD {
            let asked = Kept::of(&request, rules);
            let answer = self.clone().pass_on(request, why).await;
            let failed_with = match &answer {
                Ok(response) if response.status().is_server_error() => Some(response.status()),
                Ok(_) => return answer,
                Err(_) => None,
            };
            let stale = End { exchange: self, asked, primary, since, lookup, why }.stale(failed_with);
            return stale.map_or(answer, Ok);
        }
        let is_own = rules.settings.policy.is_shared() && headers.contains_key(header::AUTHORIZATION)
            || rules.settings.policy.heeds_requests() && RequestDirectives::of(headers).wants_its_own();
        let shares = may_share && !is_own && !rules.not_shared.contains(&lookup.key, rules.monotonic());
        let asked = Kept::of(&request, rules);
        // The load of the resource itself has a right of its own to all that it may lead to.
        let needs_permit = !shares || lookup.key != primary;
        let load = Load {
            rules: self.rules.clone(),
            asked: asked.clone(),
            primary: primary.clone(),
            key: lookup.key.clone(),
            looked: lookup.looked,
            validates: why == Forwarded::Request,
            variants: lookup.variants.clone(),
            stored: lookup.stored.as_ref().map(|stored| (stored.head.head.clone(), stored.body.generation())),
            permit: needs_permit.then(|| Arc::new(rules.cache.backend().layout().load_permit(&primary))),
        };
        let slot = Slot::new(request);
        let inner = self.inner.clone();
        let load = Arc::new(load);
        let body = if shares { load.share(inner, &slot).await } else { load.alone(inner, &slot).await };
        End { exchange: self, asked, primary, since, lookup, why }.answer(slot, body).await
    }

    /// The service answers, and nothing is stored.
    async fn pass_on<Q>(self, request: Request<Q>, why: Forwarded) -> Answer<S::Answer, S::Fault>
    where
        S: HttpService<Q>,
    {
        let mut response = self.inner.ask(request).await?;
        self.rules.tell_status(response.headers_mut(), &CacheStatusField::forwarded(why));
        Ok(response.map(CacheBody::passed))
    }
}

impl<S> End<S> {
    async fn answer<Q>(
        self,
        slot: Slot<Q, S::Answer, S::Fault>,
        body: Option<StoredBody>,
    ) -> Answer<S::Answer, S::Fault>
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        match (slot.take_outcome(), body) {
            (Some(Outcome::Stored(arrived)), Some(body)) => Ok(self.stored_now(arrived, body)),
            (Some(Outcome::Elsewhere(arrived, body)), record) => {
                // It is empty. Who has not read its end has left, and it would not be stored.
                if let Some(mut record) = record
                    && let Err(error) = record.chunk().await
                {
                    tracing::debug!(cache = %self.exchange.rules.settings.name, %error, "a record of variants was lost");
                }
                Ok(self.stored_now(arrived, body))
            }
            (Some(Outcome::Unstored(unstored)), body) => self.unstored(unstored, body).await,
            (None, Some(body)) => self.of_another(slot, body).await,
            (Some(Outcome::Stored(_)), None) => Ok(self.lost()),
            (None, None) => match slot.take_request() {
                // What another request brought is not for this one.
                Some(request) => self.again(request, false).await,
                None => Ok(self.lost()),
            },
        }
    }

    fn status(&self) -> CacheStatusField<'static> {
        let mut status = CacheStatusField::forwarded(self.why);
        status.key = self.exchange.rules.settings.tells_key.then(|| self.lookup.key.to_string().into());
        status
    }

    /// The response that this request brought, which is being stored.
    fn stored_now<A>(&self, arrived: Arrived, body: StoredBody) -> Response<CacheBody<A>> {
        let mut status = self.status();
        status.stored = true;
        let Arrived { head, extensions, trailers } = arrived;
        let head = Head::new(head, None, &self.exchange.rules.settings.policy);
        let mut response = self.respond(&head, body, trailers, false, status);
        *response.extensions_mut() = extensions;
        response
    }

    fn respond<A>(
        &self,
        head: &Head,
        body: StoredBody,
        trailers: Trailers,
        is_stored: bool,
        status: CacheStatusField<'_>,
    ) -> Response<CacheBody<A>> {
        self.exchange.rules.respond(&self.asked.asked(), head, body, trailers, is_stored, status)
    }

    /// What this request brought is not stored.
    async fn unstored<A, E>(mut self, unstored: Unstored<A, E>, body: Option<StoredBody>) -> Answer<A, E> {
        let rules = self.exchange.rules.clone();
        match unstored {
            Unstored::Failed(error) => match self.stale(None) {
                Some(stale) => Ok(stale),
                None => Err(error),
            },
            Unstored::Own(response, _) if response.status().is_server_error() => {
                match self.stale(Some(response.status())) {
                    Some(stale) => Ok(stale),
                    None => Ok(self.own(response, None)),
                }
            }
            Unstored::Own(response, why) => {
                // What is so because of the request says nothing of the response to others.
                if why.is_some_and(|why| !why.is_of_request(response.status())) {
                    rules.not_shared.remember(&self.lookup.key, rules.monotonic());
                    if self.lookup.stored.is_some() {
                        rules.remove_in_background(self.lookup.key.clone());
                    }
                }
                Ok(self.own(response, why.map(|why| why.to_string())))
            }
            Unstored::ValidatedOwn(head, why) => {
                let mut status = self.status();
                status.forwarded_status = Some(StatusCode::NOT_MODIFIED.as_u16());
                let stored = self.lookup.stored.take();
                if why.is_none_or(|why| !why.is_of_request(StatusCode::NOT_MODIFIED)) {
                    rules.remove_in_background(self.lookup.key.clone());
                }
                let head = Head::new(head, None, &rules.settings.policy);
                match stored {
                    Some(stored) => Ok(self.respond(&head, stored.body, Trailers::default(), true, status)),
                    None => Ok(self.lost()),
                }
            }
            Unstored::Validated(head, own) => {
                let mut status = self.status();
                status.forwarded_status = Some(StatusCode::NOT_MODIFIED.as_u16());
                status.stored = true;
                let found = body.and_then(|body| Some((rules.head_of(&self.lookup.key, &body)?, body)));
                // What has been validated is at hand, even if no layer has it any more.
                let known = || {
                    let head = Arc::new(Head::new(head, None, &rules.settings.policy));
                    self.lookup.stored.take().map(|stored| (head, stored.body))
                };
                let Some((head, body)) = found.or_else(known) else { return Ok(self.lost()) };
                let mut response = self.respond(&head, body, Trailers::default(), true, status);
                response.headers_mut().extend(own);
                Ok(response)
            }
            Unstored::Lost => Ok(self.lost()),
        }
    }

    fn own<A>(&self, mut response: Response<A>, detail: Option<String>) -> Response<CacheBody<A>> {
        let mut status = self.status();
        status.detail = detail.map(Into::into);
        self.exchange.rules.tell_status(response.headers_mut(), &status);
        response.map(CacheBody::passed)
    }

    /// What is stored, if it may be served although the service has failed, or has answered with an error of this status.
    fn stale<A>(&mut self, code: Option<StatusCode>) -> Option<Response<CacheBody<A>>> {
        let Stored { head, body } = self.lookup.stored.take()?;
        let rules = &self.exchange.rules;
        let may_serve = match head.terms.verdict(&self.asked.headers, rules.now(), &rules.settings.policy) {
            Verdict::Validate { on_error, .. } if code.is_some() => on_error,
            Verdict::Validate { when_disconnected, .. } => when_disconnected,
            _ => true,
        };
        if !may_serve {
            return None;
        }
        let mut status = self.status();
        status.forwarded_status = code.map(|code| code.as_u16());
        status.detail = Some("served since the origin failed".into());
        Some(self.respond(&head, body, Trailers::default(), true, status))
    }

    /// Whether what somebody else's request has brought may answer this one too.
    fn may_share(&self, head: &Head) -> bool {
        let rules = &self.exchange.rules;
        let may_share = rules.may_share(&head.head, self.since, &self.asked.headers);
        if !may_share {
            rules.learn_sharing(&self.lookup.key, &head.head);
        }
        may_share
    }

    /// What somebody else's request brought.
    async fn of_another<Q>(
        self,
        slot: Slot<Q, S::Answer, S::Fault>,
        body: StoredBody,
    ) -> Answer<S::Answer, S::Fault>
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let rules = &self.exchange.rules;
        let head = rules.head_of(&self.lookup.key, &body);
        let may_share = head.as_ref().map(|head| self.may_share(head));
        if let (Some(head), Some(true)) = (head, may_share) {
            let mut status = self.status();
            status.collapsed = true;
            return Ok(self.respond(&head, body, Trailers::default(), false, status));
        }
        let Some(request) = slot.take_request() else { return Ok(self.lost()) };
        if may_share == Some(false) {
            return self.again(request, false).await;
        }
        let Some(variants) = variants_of(&body) else { return self.again(request, false).await };
        // The response has variants. This request may wait for the one that it is for.
        let Some(key) = variants.keys(&self.primary, &self.asked.headers).next() else {
            return self.again(request, false).await;
        };
        let end = body.entry().lifetime().expire();
        let lookup = lookup::look_for_variant(&self.exchange.rules, key, variants, end).await;
        if lookup.stored.as_ref().is_some_and(|stored| !self.may_share(&stored.head)) {
            return Self { lookup, ..self }.again(request, false).await;
        }
        let Some(Stored { head, body }) = lookup.stored else {
            return Self { lookup, ..self }.again(request, true).await;
        };
        // It was small, and is stored already.
        let mut status = self.status();
        status.collapsed = true;
        Ok(self.respond(&head, body, Trailers::default(), true, status))
    }

    /// Goes on once more.
    fn again<Q>(self, request: Request<Q>, may_share: bool) -> BoxFuture<'static, Answer<S::Answer, S::Fault>>
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let Self { exchange, primary, lookup, why, .. } = self;
        Box::pin(exchange.load(request, primary, lookup, why, may_share))
    }

    /// The request has gone on, and nothing came of it.
    fn lost<A>(mut self) -> Response<CacheBody<A>> {
        let stale = self.stale(None);
        stale.unwrap_or_else(|| {
            self.exchange.rules.refuse(StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time\n")
        })
    }
}
