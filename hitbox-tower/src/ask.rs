//! The service is asked, and what it answers is looked at: whether it may be stored, and under which key.

use std::sync::Arc;

use hitbox::backend::Backend;
use hitbox::backend::internal::LoadPermit;
use hitbox::core::{CacheKey, Scope, Timestamp};
use hitbox_http::{
    NotStorable, StoredHead, Vary, Verdict, add_validators, may_store, remove_preconditions, storable_fields,
};
use http::header::Entry;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;

use crate::body::Trailers;
use crate::choice::{NotToStore, ResponseHead};
use crate::exchange::Kept;
use crate::layer::Rules;
use crate::lookup::Variants;
use crate::respond::length_of;
use crate::service::HttpService;

impl Rules {
    /// Whether a response that was brought for one request may answer another one, which has waited for it since then: if it may be used without being
    /// validated (RFC 9111, 4). For who waited already when it came it may have become stale on its way.
    pub(crate) fn may_share(&self, head: &StoredHead, since: Timestamp, request: &HeaderMap) -> bool {
        let (policy, terms) = (&self.settings.policy, head.terms(&self.settings.policy));
        let verdict = || terms.verdict(request, self.now(), policy);
        since <= head.came && terms.is_ever_fresh() || !matches!(verdict(), Verdict::Validate { .. })
    }

    /// Remembers whether requests for what is under a key wait for each other in vain, now that this was brought for one of them.
    pub(crate) fn learn_sharing(&self, key: &CacheKey, head: &StoredHead) {
        // As far as it is not for what one request says.
        if self.may_share(head, head.came, &HeaderMap::new()) {
            self.not_shared.forget(key);
        } else {
            self.not_shared.remember(key, self.monotonic());
        }
    }
}

/// A response with more fields, or more tags, is not stored.
const MOST_FIELDS: usize = 512;
const MOST_TAGS: usize = 128;

/// Tells the length of a body that is known, as a server would: it could not say it of one that is passed on by chunks. Nothing relies on it: there
/// may be trailers, which a length that the service declares excludes.
fn tell_length(head: &mut StoredHead, known: Option<u64>) {
    // Neither has a length (RFC 9110, 8.6; RFC 9112, 6.2).
    let has_none =
        head.status == StatusCode::NO_CONTENT || head.headers.contains_key(header::TRANSFER_ENCODING);
    if let (Some(known), Entry::Vacant(length)) = (known, head.headers.entry(header::CONTENT_LENGTH))
        && !has_none
    {
        length.insert(HeaderValue::from(known));
    }
}

/// A response as it came, without its body.
pub(crate) struct Arrived {
    pub(crate) head: StoredHead,
    pub(crate) extensions: Extensions,
    pub(crate) trailers: Trailers,
}

impl Arrived {
    pub(crate) fn into_response<A>(self, body: A) -> Response<A> {
        let mut response = Response::new(body);
        *response.status_mut() = self.head.status;
        *response.headers_mut() = self.head.headers;
        *response.extensions_mut() = self.extensions;
        response
    }
}

/// A response that may be stored.
pub(crate) struct Storable<A> {
    pub(crate) arrived: Arrived,
    /// What is stored of it.
    pub(crate) head: StoredHead,
    pub(crate) vary: Vary,
    pub(crate) tags: Vec<String>,
    pub(crate) body: A,
}

/// A response, or none, that is not stored.
pub(crate) enum Unstored<A, E> {
    Failed(E),
    /// It is for the one request alone. It says why, unless somebody else is storing a response just now.
    Own(Response<A>, Option<NotStorable>),
    /// What is stored is still right, and this is what it says now. The fields are for the one request alone.
    Validated(StoredHead, HeaderMap),
    /// The same, and what it says now is for the one request alone. It says why, unless it is another variant now.
    ValidatedOwn(StoredHead, Option<NotStorable>),
    /// It came, and was lost while the cache shut down.
    Lost,
}

/// Where a response is stored.
pub(crate) enum Place {
    /// Under the key that is being loaded.
    Here,
    Elsewhere(CacheKey),
    /// Under a key that only another record of variants leads to.
    NewVariant(Variants, CacheKey),
}

/// A load of one response: of what, and what is known of it.
pub(crate) struct Load {
    pub(crate) rules: Arc<Rules>,
    pub(crate) asked: Kept,
    /// The key of the resource.
    pub(crate) primary: CacheKey,
    /// The key that is being loaded: that of the resource, or of a variant.
    pub(crate) key: CacheKey,
    /// How many loads had ended when it was looked for.
    pub(crate) looked: u64,
    /// The request wants the origin to be asked, whatever is stored.
    pub(crate) validates: bool,
    /// The record of variants, and until when it is kept.
    pub(crate) variants: Option<(Variants, Option<Timestamp>)>,
    /// What is stored, and the generation of its body.
    pub(crate) stored: Option<(StoredHead, u64)>,
    /// The right to store what is brought where the load of the key has none: it ends when the resource is removed, as that of the load does.
    pub(crate) permit: Option<Arc<LoadPermit>>,
}

impl Load {
    /// Asks the service for a response that can be stored.
    pub(crate) async fn ask<S, Q>(
        &self,
        inner: S,
        mut request: Request<Q>,
    ) -> Result<Storable<S::Answer>, Unstored<S::Answer, S::Fault>>
    where
        S: HttpService<Q>,
    {
        let rules = &self.rules;
        match &self.stored {
            // Conditions on what is no GET or HEAD mean something else (RFC 9110, 13.1.2).
            Some((head, _))
                if head.has_validator() && !rules.settings.choice.is_by_body(request.extensions()) =>
            {
                add_validators(request.headers_mut(), head)
            }
            _ => remove_preconditions(request.headers_mut()),
        }
        if let Some(capability) = rules.settings.policy.surrogate_capability() {
            request.headers_mut().append("surrogate-capability", capability);
        }
        let asked = rules.now();
        let mut response = inner.ask(request).await.map_err(Unstored::Failed)?;
        let came = rules.now();
        // It is for this layer, and for none around it.
        let by_client = response.extensions_mut().remove::<NotToStore>().map(|NotToStore(why)| why);
        if let Some((head, _)) = &self.stored
            && response.status() == StatusCode::NOT_MODIFIED
            // It says nothing of what is stored here.
            && by_client != Some(NotStorable::Redirected)
        {
            return Err(self.validated(head.freshened(response.headers(), asked, came), by_client));
        }
        // What is stored is better than an error, even than one that could be stored.
        let is_better = || self.may_serve_on_error() || self.leads_away(response.headers());
        if response.status().is_server_error() && is_better() {
            return Err(Unstored::Own(response, None));
        }
        let (parts, body) = response.into_parts();
        let known = body.size_hint().exact();
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(length_of).or(known);
        let too_long = rules.settings.choice.is_too_long(length).then_some(NotStorable::TooLong);
        let refused = self.refused(parts.status, &parts.headers, by_client);
        if let Some(why) = refused.or(too_long) {
            return Err(Unstored::Own(Response::from_parts(parts, body), Some(why)));
        }
        let mut arrived = StoredHead::new(parts.status, parts.headers, asked, came);
        let directives = arrived.directives(&rules.settings.policy);
        let kept = storable_fields(&arrived.headers, &directives);
        let head = StoredHead::new(arrived.status, kept, asked, came).dated();
        let tags = rules.tags_of(&arrived.headers, &self.asked.uri, &self.asked.headers);
        let vary = Vary::of(&arrived.headers).unwrap_or_default();
        tell_length(&mut arrived, known);
        let arrived = Arrived { head: arrived, extensions: parts.extensions, trailers: Trailers::to_come() };
        let storable = Storable { arrived, head, vary, tags, body };
        let is_of_use = storable.head.is_of_use(&rules.settings.policy);
        let has_room = storable.head.headers.len() <= MOST_FIELDS && storable.tags.len() <= MOST_TAGS;
        let why = match (is_of_use, has_room) {
            (true, true) => return Ok(storable),
            (false, _) => NotStorable::NeverOfUse,
            _ => NotStorable::TooManyFields,
        };
        let Storable { arrived, body, .. } = storable;
        Err(Unstored::Own(arrived.into_response(body), Some(why)))
    }

    /// Whether what is stored may be served in the place of an error (RFC 5861).
    fn may_serve_on_error(&self) -> bool {
        let (rules, policy) = (&self.rules, &self.rules.settings.policy);
        self.stored.as_ref().is_some_and(|(head, _)| {
            let verdict = head.verdict(&self.asked.headers, rules.now(), policy);
            !matches!(verdict, Verdict::Validate { on_error: false, .. })
        })
    }

    /// Whether a response with these fields would have the variants that are stored found no more.
    fn leads_away(&self, response: &HeaderMap) -> bool {
        let is_here = |vary: &Vary| matches!(self.place(vary), Place::Here);
        self.variants.is_some() && !Vary::of(response).as_ref().is_some_and(is_here)
    }

    /// Why a response is not stored: by the rules, for a reason that the client has, or since the user does not want it.
    fn refused(
        &self,
        status: StatusCode,
        response: &HeaderMap,
        by_client: Option<NotStorable>,
    ) -> Option<NotStorable> {
        let Kept { method, uri, headers } = &self.asked;
        let by_rules = may_store(method, headers, status, response, &self.rules.settings.policy).err();
        let is_wanted =
            || self.rules.settings.choice.is_stored(&ResponseHead { uri, status, headers: response });
        by_rules.or(by_client).or_else(|| (!is_wanted()).then_some(NotStorable::LeftOut))
    }

    /// Whether a response that was validated stays stored, as it is now.
    fn validated<A, E>(&self, head: StoredHead, by_client: Option<NotStorable>) -> Unstored<A, E> {
        let policy = &self.rules.settings.policy;
        let stored = self.stored.as_ref().and_then(|(stored, _)| Vary::of(&stored.headers));
        let is_same_variant = Vary::of(&head.headers) == stored;
        let why = self.refused(head.status, &head.headers, by_client);
        if why.is_some() || !is_same_variant {
            return Unstored::ValidatedOwn(head, why);
        }
        let kept = storable_fields(&head.headers, &head.directives(policy));
        let mut own = head.headers;
        kept.keys().for_each(|name| drop(own.remove(name)));
        Unstored::Validated(StoredHead::new(head.status, kept, head.asked, head.came), own)
    }

    /// Whether nothing of the resource was removed since the service was asked, nor anything that carries these tags.
    pub(crate) fn is_current(&self, tags: &[String]) -> bool {
        let scopes: Vec<Scope> = tags.iter().map(|tag| Scope::tag(tag.as_str())).collect();
        let layout = self.rules.cache.backend().layout();
        self.permit
            .as_ref()
            .is_none_or(|permit| permit.is_current() && !layout.is_superseded(&self.primary, &scopes, permit))
    }

    /// Where a response belongs that varies so.
    pub(crate) fn place(&self, vary: &Vary) -> Place {
        let of_variant =
            |variants: &Variants| vary.key(&self.asked.headers).of_variant(&self.primary, variants.edition);
        let key = match self.variants.as_ref().map(|(variants, _)| variants) {
            _ if vary.is_empty() => self.primary.clone(),
            Some(known) if known.sets.contains(vary) => of_variant(known),
            known => {
                // Its edition is new. Were it the old one, a record that was removed meanwhile would be back, and with it what was removed.
                let mut variants = Variants::new(vary.clone());
                variants.sets.extend(known.iter().flat_map(|known| known.sets.iter().cloned()));
                let key = of_variant(&variants);
                return Place::NewVariant(variants, key);
            }
        };
        if key == self.key { Place::Here } else { Place::Elsewhere(key) }
    }
}
