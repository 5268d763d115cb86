//! Whether a stored response may answer a request (RFC 9111, 4).

use std::time::Duration;

use hitbox_core::Timestamp;
use http::{HeaderMap, header};

use crate::directives::{RequestDirectives, ResponseDirectives};
use crate::freshness::{Freshness, age_of};
use crate::head::StoredHead;
use crate::policy::Policy;

/// Whether a stored response may answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It may.
    Fresh,
    /// It may, and it is to be validated meanwhile (RFC 5861).
    StaleWhileRevalidate,
    /// It may, since the request takes stale ones.
    StaleAllowed,
    /// Not before the origin has said that it is still right. If the origin fails it may, as long as these say.
    Validate {
        /// It may be served if the origin cannot be reached.
        when_disconnected: bool,
        /// It may be served if the origin answers with an error (RFC 5861).
        on_error: bool,
        /// It would be fresh: the request wants to have it validated.
        by_request: bool,
    },
}

/// What a response says of its use, read once for all requests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// How long it is fresh.
    pub freshness: Freshness,
    /// What it says to caches.
    pub directives: ResponseDirectives,
    came: Timestamp,
    is_ever_fresh: bool,
}

impl StoredHead {
    /// What it says of its use to a cache of this policy.
    pub fn terms(&self, policy: &Policy) -> Terms {
        let (freshness, directives) = (self.freshness(policy), self.directives(policy));
        let is_ever_fresh =
            age_of(&self.headers) < freshness.lifetime && !directives.is_validated_always(policy);
        Terms { freshness, directives, came: self.came, is_ever_fresh }
    }

    /// Whether it may answer a request with these fields now.
    pub fn verdict(&self, request: &HeaderMap, now: Timestamp, policy: &Policy) -> Verdict {
        self.terms(policy).verdict(request, now, policy)
    }
}

impl Terms {
    /// How old the response is now (RFC 9111, 4.2.3).
    pub fn age(&self, now: Timestamp) -> Duration {
        self.freshness.initial_age.saturating_add(now.since(self.came))
    }

    /// Whether the response was fresh when its origin sent it, as far as it says. It may have become stale on its way.
    pub fn is_ever_fresh(&self) -> bool {
        self.is_ever_fresh
    }

    /// Whether the response may answer a request with these fields now.
    pub fn verdict(&self, request: &HeaderMap, now: Timestamp, policy: &Policy) -> Verdict {
        let asked = if policy.heeds_requests { RequestDirectives::of(request) } else { Default::default() };
        let (freshness, said) = (&self.freshness, &self.directives);
        let age = self.age(now);
        let is_fresh = age < freshness.lifetime && !said.is_validated_always(policy);

        let is_young = asked.max_age.is_none_or(|most| age <= most)
            && asked
                .min_fresh
                .is_none_or(|least| age.checked_add(least).is_some_and(|then| then <= freshness.lifetime));
        if is_fresh && is_young && !asked.no_cache {
            return Verdict::Fresh;
        }

        let never_stale = said.is_never_stale(policy);
        let stale_for = if is_fresh { Duration::ZERO } else { age.saturating_sub(freshness.lifetime) };
        if !never_stale && !asked.no_cache && is_young && !is_fresh {
            if said.stale_while_revalidate.is_some_and(|most| stale_for < most) {
                return Verdict::StaleWhileRevalidate;
            }
            if asked.max_stale.is_some_and(|most| stale_for <= most) {
                return Verdict::StaleAllowed;
            }
        }
        let on_error = said.stale_if_error.or(policy.stale_on_error).max(asked.stale_if_error);
        let on_error = on_error.is_some_and(|most| stale_for < most);
        Verdict::Validate {
            when_disconnected: !never_stale && (on_error || stale_for < policy.stale_when_disconnected),
            on_error: !never_stale && on_error,
            by_request: is_fresh,
        }
    }
}

/// Whether a request has conditions that a cache cannot answer for its origin.
pub fn is_conditional(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_MATCH) || request.contains_key(header::IF_UNMODIFIED_SINCE)
}
