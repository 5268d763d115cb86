//! How long a response is fresh, and how old it is (RFC 9111, 4.2).

use std::time::Duration;

use hitbox_core::Timestamp;
use http::{HeaderMap, StatusCode, header};

use crate::date::{self, date_of};
use crate::directives::ResponseDirectives;
use crate::policy::Policy;

/// No response is heuristically fresh for longer (RFC 9111, 4.2.2 has 24 hours as the least that is worth a warning).
const MOST_HEURISTIC: Duration = Duration::from_secs(24 * 60 * 60);

/// Statuses whose responses may be fresh without saying so (RFC 9110, 15.1).
const HEURISTIC: [u16; 12] = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501];

/// How long a response is fresh, and what may become of it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freshness {
    /// For how long it is fresh, from its origin on.
    pub lifetime: Duration,
    /// Somebody said so: the response, or the settings of the cache for such as do not.
    pub is_explicit: bool,
    /// How old it was when it came.
    pub initial_age: Duration,
}

impl Freshness {
    /// For how long it is fresh from when it came.
    pub fn remaining(&self) -> Duration {
        self.lifetime.saturating_sub(self.initial_age)
    }

    /// Of a response with these fields that was asked for and came at these times.
    pub(crate) fn of(
        status: StatusCode,
        headers: &HeaderMap,
        directives: &ResponseDirectives,
        (asked, came): (Timestamp, Timestamp),
        policy: &Policy,
    ) -> Self {
        let lifetime = explicit(headers, directives, came, policy);
        let is_explicit = lifetime.is_some();
        let lifetime =
            lifetime.or_else(|| heuristic(status, headers, directives, came, policy)).unwrap_or_default();
        Self { lifetime, is_explicit, initial_age: initial_age(headers, asked, came) }
    }
}

fn explicit(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    came: Timestamp,
    policy: &Policy,
) -> Option<Duration> {
    if policy.fixed_ttl.is_some() {
        return policy.fixed_ttl;
    }
    let of_shared = directives.s_maxage.filter(|_| policy.is_shared);
    if let Some(lifetime) = of_shared.or(directives.max_age) {
        return Some(lifetime);
    }
    if !directives.are_targeted && headers.contains_key(header::EXPIRES) {
        let dated = date_of(headers, header::DATE).unwrap_or(came);
        // What cannot be read is over (RFC 9111, 5.3).
        return Some(date_of(headers, header::EXPIRES).map_or(Duration::ZERO, |end| end.since(dated)));
    }
    None
}

/// Whether a response of this status may be fresh without saying so.
pub(crate) fn is_heuristic(status: StatusCode) -> bool {
    HEURISTIC.contains(&status.as_u16())
}

fn heuristic(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    came: Timestamp,
    policy: &Policy,
) -> Option<Duration> {
    if !is_heuristic(status) && !directives.public {
        return None;
    }
    let by_age = policy.heuristic.and_then(|fraction| {
        let changed = date_of(headers, header::LAST_MODIFIED)?;
        let dated = date_of(headers, header::DATE).unwrap_or(came);
        Some(dated.since(changed).mul_f64(fraction).min(MOST_HEURISTIC))
    });
    by_age.or(policy.default_ttl)
}

/// The age that a response had when it came (RFC 9111, 4.2.3).
fn initial_age(headers: &HeaderMap, asked: Timestamp, came: Timestamp) -> Duration {
    let apparent = date_of(headers, header::DATE).map_or(Duration::ZERO, |dated| came.since(dated));
    let said = age_of(headers).saturating_add(came.since(asked));
    apparent.max(said)
}

/// What `Age` says. More than any lifetime if that cannot be read, or is said twice: then nobody knows how old it is.
pub(crate) fn age_of(headers: &HeaderMap) -> Duration {
    let mut lines = headers.get_all(header::AGE).into_iter();
    let Some(line) = lines.next() else { return Duration::ZERO };
    let text = line.to_str().unwrap_or_default().trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || lines.next().is_some() {
        return Duration::MAX;
    }
    text.parse().map_or(Duration::MAX, Duration::from_secs)
}

/// When it was changed last, as far as anybody knows (RFC 9111, 4.3.2).
pub(crate) fn modified(headers: &HeaderMap, came: Timestamp) -> Timestamp {
    let changed = date_of(headers, header::LAST_MODIFIED);
    changed.or_else(|| date::date_of(headers, header::DATE)).unwrap_or(came)
}
