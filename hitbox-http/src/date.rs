//! Dates of HTTP (RFC 9110, 5.6.7), in milliseconds.

use std::time::{Duration, UNIX_EPOCH};

use hitbox_core::Timestamp;
use http::header::AsHeaderName;
use http::{HeaderMap, HeaderValue};

/// The date that a field says: nothing if it is not there, or no date, or there more than once.
pub(crate) fn date_of(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Timestamp> {
    let mut lines = headers.get_all(name).into_iter();
    let (first, more) = (lines.next()?, lines.next());
    if more.is_some() { None } else { parse(first) }
}

/// A date.
pub(crate) fn parse(value: &HeaderValue) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()?;
    let since = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// The same as a field says it. Milliseconds are left out.
pub(crate) fn format(at: Timestamp) -> Option<HeaderValue> {
    // The last second of the year 9999, which is as far as the form goes.
    const LAST: u64 = 253_402_300_799;
    let at = UNIX_EPOCH + Duration::from_secs((at.as_millis() / 1000).min(LAST));
    HeaderValue::from_str(&httpdate::fmt_http_date(at)).ok()
}
