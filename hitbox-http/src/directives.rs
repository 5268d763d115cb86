//! Directives of `Cache-Control` (RFC 9111, 5.2), of requests and of responses.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::list::{self, Argument};
use crate::policy::Policy;

/// More seconds than these count as so many (RFC 9111, 1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// Seconds, or nothing if the argument is no number.
fn seconds(argument: &Argument) -> Option<Duration> {
    let Argument::Text(text) = argument else { return None };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(text.parse().unwrap_or(MOST_SECONDS).min(MOST_SECONDS)))
}

/// A limit that is said twice is the smaller; one that cannot be read is none at all, so that what it limits is stale.
fn limit(known: &mut Option<Duration>, argument: &Argument) {
    let said = seconds(argument).unwrap_or(Duration::ZERO);
    *known = Some(known.map_or(said, |known| known.min(said)));
}

/// What a request asks of caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestDirectives {
    /// `no-cache`: nothing is to be served without the origin having been asked.
    pub no_cache: bool,
    /// `no-store`: neither the request nor its response is to be stored.
    pub no_store: bool,
    /// `only-if-cached`: the origin is not to be asked.
    pub only_if_cached: bool,
    /// `max-age`: how old a response may be.
    pub max_age: Option<Duration>,
    /// `min-fresh`: how long a response has to stay fresh.
    pub min_fresh: Option<Duration>,
    /// `max-stale`: how long a response may be stale; [`Duration::MAX`] if it says no number.
    pub max_stale: Option<Duration>,
    /// `stale-if-error` (RFC 5861).
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Whether the origin is to be asked for this very request: an answer to one that came before it is none for it.
    pub fn wants_its_own(&self) -> bool {
        self.no_store || self.no_cache || self.max_age.is_some_and(|most| most.is_zero())
    }

    /// Those of these headers. `Pragma: no-cache` counts if there is no `Cache-Control`.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for (name, argument) in list::members(headers, header::CACHE_CONTROL) {
            match name.as_str() {
                "no-cache" => directives.no_cache = true,
                "no-store" => directives.no_store = true,
                "only-if-cached" => directives.only_if_cached = true,
                "max-age" => limit(&mut directives.max_age, &argument),
                // One that cannot be read asks for more than anything offers.
                "min-fresh" => directives.min_fresh = Some(seconds(&argument).unwrap_or(Duration::MAX)),
                "max-stale" if argument == Argument::None => directives.max_stale = Some(Duration::MAX),
                "max-stale" => limit(&mut directives.max_stale, &argument),
                "stale-if-error" => limit(&mut directives.stale_if_error, &argument),
                _ => {}
            }
        }
        if !headers.contains_key(header::CACHE_CONTROL) {
            directives.no_cache = list::names(headers, header::PRAGMA).any(|name| name == "no-cache");
        }
        directives
    }
}

/// What a response says to caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseDirectives {
    /// `max-age`. Zero if it is no number.
    pub max_age: Option<Duration>,
    /// `s-maxage`, for shared caches. Zero if it is no number.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861).
    pub stale_if_error: Option<Duration>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without fields: nothing is to be served without the origin having been asked.
    pub no_cache: bool,
    /// `private` without fields.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`: it is not served stale, whatever happens.
    pub must_revalidate: bool,
    /// `proxy-revalidate`: the same for shared caches.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246): while it is fresh it does not change.
    pub immutable: bool,
    /// Fields that `no-cache` and `private` name: they are not to be stored.
    pub fields: Vec<HeaderName>,
    /// They come from a field for this kind of cache (RFC 9213): `Cache-Control` and `Expires` do not count then.
    pub are_targeted: bool,
}

impl ResponseDirectives {
    /// Those of these headers that count for a cache of this policy.
    pub fn of(headers: &HeaderMap, policy: &Policy) -> Self {
        policy.targeted.iter().find_map(|field| targeted(headers, field, policy)).unwrap_or_else(|| {
            let mut directives = Self::default();
            for (name, argument) in list::members(headers, header::CACHE_CONTROL) {
                directives.add(&name, &argument, policy);
            }
            directives
        })
    }

    /// Whether a cache of this policy has to have it validated each time.
    pub(crate) fn is_validated_always(&self, policy: &Policy) -> bool {
        self.no_cache && policy.fixed_ttl.is_none()
    }

    /// Whether a cache of this policy may not serve it stale, whatever happens.
    pub(crate) fn is_never_stale(&self, policy: &Policy) -> bool {
        let of_shared = policy.is_shared && (self.proxy_revalidate || self.s_maxage.is_some());
        self.is_validated_always(policy) || self.must_revalidate || of_shared
    }

    fn add(&mut self, name: &str, argument: &Argument, policy: &Policy) {
        match name {
            "max-age" => limit(&mut self.max_age, argument),
            "s-maxage" => limit(&mut self.s_maxage, argument),
            "stale-while-revalidate" => limit(&mut self.stale_while_revalidate, argument),
            "stale-if-error" => limit(&mut self.stale_if_error, argument),
            "no-store" => self.no_store = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "immutable" => self.immutable = true,
            "no-cache" => match fields(argument) {
                Some(fields) => self.fields.extend(fields),
                None => self.no_cache = true,
            },
            "private" => match fields(argument) {
                // The one user of a cache that is not shared may have them.
                Some(fields) => self.fields.extend(fields.into_iter().filter(|_| policy.is_shared)),
                None => self.private = true,
            },
            _ => {}
        }
    }
}

/// The fields that an argument names, if it does, and nothing but fields.
fn fields(argument: &Argument) -> Option<Vec<HeaderName>> {
    let Argument::Text(text) = argument else { return None };
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Option<Vec<_>> = names.map(|name| name.parse().ok()).collect();
    names.filter(|names| !names.is_empty())
}

/// The directives of a field for this kind of cache. Nothing if there is no such field, or it cannot be read: then it is as if it
/// were not there (RFC 9213, 2.1).
fn targeted(headers: &HeaderMap, field: &HeaderName, policy: &Policy) -> Option<ResponseDirectives> {
    if !headers.contains_key(field) {
        return None;
    }
    let mut directives = ResponseDirectives { are_targeted: true, ..ResponseDirectives::default() };
    if field == "surrogate-control" {
        return surrogate(headers, field, policy, &mut directives).then_some(directives);
    }
    let lines: Vec<&[u8]> = headers.get_all(field).into_iter().map(|line| line.as_bytes()).collect();
    let dictionary: Dictionary = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    for (name, entry) in &dictionary {
        let argument = match entry {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::Boolean(true) => Argument::None,
                // Such a directive is not there.
                BareItem::Boolean(false) => continue,
                BareItem::Integer(number) => Argument::Text(number.to_string()),
                BareItem::String(text) => Argument::Text(text.as_str().to_owned()),
                _ => Argument::Invalid,
            },
            ListEntry::InnerList(_) => Argument::Invalid,
        };
        directives.add(name.as_str(), &argument, policy);
    }
    Some(directives)
}

/// `Surrogate-Control` (W3C note "Edge Architecture Specification", 2001), which has another grammar: a directive may name the one cache that it is
/// for, and `max-age` may say for how long the response may be stale too, which is not made use of. Says whether any directive is for this cache.
fn surrogate(headers: &HeaderMap, field: &HeaderName, policy: &Policy, to: &mut ResponseDirectives) -> bool {
    let own = policy.surrogate.as_deref();
    let is_for_this = |target: &str| own.is_some_and(|own| own.eq_ignore_ascii_case(target.trim()));
    let mut is_any = false;
    for (name, argument) in list::members(headers, field) {
        let (name, of_name) =
            name.split_once(';').map_or((&*name, None), |(name, target)| (name, Some(target)));
        let (argument, of_argument) = match &argument {
            Argument::Text(text) => {
                let (text, target) =
                    text.split_once(';').map_or((&**text, None), |(text, own)| (text, Some(own)));
                let text = text.split_once('+').map_or(text, |(fresh, _)| fresh);
                (Argument::Text(text.to_owned()), target.map(str::to_owned))
            }
            _ => (argument, None),
        };
        if of_name.or(of_argument.as_deref()).is_none_or(is_for_this) {
            is_any = true;
            to.add(name, &argument, policy);
        }
    }
    is_any
}
