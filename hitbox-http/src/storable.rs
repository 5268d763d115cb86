//! What may be stored (RFC 9111, 3).

use http::{HeaderMap, Method, StatusCode, header};
use thiserror::Error;

use crate::directives::{RequestDirectives, ResponseDirectives};
use crate::freshness::is_heuristic;
use crate::policy::Policy;
use crate::vary::Vary;

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotStorable {
    /// Only what answers a `GET` is.
    #[error("only responses to GET are stored")]
    Method,
    /// A status that is not final, that says nothing of the resource by itself, or of which nothing is to be stored.
    #[error("responses of this status are not stored")]
    Status,
    /// `no-store` of the request.
    #[error("the request says no-store")]
    RequestNoStore,
    /// `no-store` of the response.
    #[error("the response says no-store")]
    NoStore,
    /// `private`, and the cache is shared.
    #[error("the response is private")]
    Private,
    /// The request had `Authorization`, and the response does not say that others may have it.
    #[error("the request had Authorization, and the response does not say that others may have it")]
    Authorization,
    /// It sets cookies.
    #[error("the response sets cookies")]
    SetCookie,
    /// `Vary: *`: no other request is like it.
    #[error("the response says Vary: *")]
    VaryStar,
    /// It does not say that it may be stored, by itself or by its status.
    #[error("the response does not say how long it is fresh")]
    Unspecified,
    /// It is never fresh, and nobody could ask whether it is still right.
    #[error("the response is never fresh, and has no validator")]
    NeverOfUse,
    /// It has more fields or tags than are kept.
    #[error("the response has more fields or tags than are stored")]
    TooManyFields,
    /// Its body is longer than those that are kept.
    #[error("the body is longer than those that are stored")]
    TooLong,
    /// The user of the cache has said that it is not.
    #[error("the settings of the cache leave it out")]
    LeftOut,
    /// The client was redirected: it answers another URI.
    #[error("the client was redirected to another resource")]
    Redirected,
    /// `Vary` names a field that is added behind the cache, which cannot tell the variants apart.
    #[error("the response varies by a field that is added behind the cache")]
    VariesUnseen,
}

/// Errors that say that something is wrong with a request or its client, as a limit that it is over, and nothing of the resource.
const OF_CLIENT: [StatusCode; 7] = [
    StatusCode::BAD_REQUEST,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::EXPECTATION_FAILED,
    StatusCode::TOO_EARLY,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];

/// Of these no cache is to store any response, whatever it says (RFC 6585, 3 to 6).
const NEVER_STORED: [StatusCode; 4] = [
    StatusCode::PRECONDITION_REQUIRED,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::NETWORK_AUTHENTICATION_REQUIRED,
];

pub(crate) fn is_of_client(status: StatusCode) -> bool {
    OF_CLIENT.contains(&status)
}

impl NotStorable {
    /// Whether a response of this status is not stored because of the request alone: the response to another may be, and what is stored for
    /// others stays.
    pub fn is_of_request(self, status: StatusCode) -> bool {
        matches!(self, Self::Method | Self::RequestNoStore | Self::Authorization) || is_of_client(status)
    }
}

/// Statuses of the registry of IANA whose rules of caching are those of any response.
fn is_understood(status: StatusCode) -> bool {
    status.canonical_reason().is_some()
}

/// Whether a response to this request may be stored by a cache of this policy.
///
/// # Errors
/// If not: says why.
pub fn may_store(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    policy: &Policy,
) -> Result<(), NotStorable> {
    if method != Method::GET {
        return Err(NotStorable::Method);
    }
    let is_part = matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    if status.is_informational() || is_part || NEVER_STORED.contains(&status) {
        return Err(NotStorable::Status);
    }
    let directives = ResponseDirectives::of(response, policy);
    let ignores = policy.fixed_ttl.is_some();
    if !ignores && policy.heeds_requests && RequestDirectives::of(request).no_store {
        return Err(NotStorable::RequestNoStore);
    }
    // Whoever understands the status goes by what it says instead (RFC 9111, 5.2.2.3).
    let overrides = directives.must_understand && is_understood(status);
    if directives.must_understand && !is_understood(status) {
        return Err(NotStorable::Status);
    }
    if directives.no_store && !overrides && !ignores {
        return Err(NotStorable::NoStore);
    }
    if policy.is_shared {
        if directives.private {
            return Err(NotStorable::Private);
        }
        let for_others = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
        if request.contains_key(header::AUTHORIZATION) && !for_others {
            return Err(NotStorable::Authorization);
        }
    }
    if response.contains_key(header::SET_COOKIE)
        && !policy.stores_set_cookie
        && !directives.fields.contains(&header::SET_COOKIE)
    {
        return Err(NotStorable::SetCookie);
    }
    if Vary::of(response).is_none() {
        return Err(NotStorable::VaryStar);
    }
    let is_explicit = directives.public
        || directives.max_age.is_some()
        || directives.s_maxage.is_some() && policy.is_shared
        || directives.private && !policy.is_shared
        || !directives.are_targeted && response.contains_key(header::EXPIRES);
    let is_kept = ignores && status.is_success();
    if is_explicit && !ignores || is_kept || !ignores && is_heuristic(status) {
        return Ok(());
    }
    Err(NotStorable::Unspecified)
}
