//! Ranges of complete stored responses (RFC 9110, 14).

use std::ops::Range;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::date::date_of;
use crate::head::StoredHead;
use crate::validation::are_strongly_same;

/// Bytes of a body, and how many it has in all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByteRange {
    /// Which.
    pub bytes: Range<u64>,
    /// Of how many.
    pub of: u64,
}

impl ByteRange {
    /// The `Content-Range` that says so.
    pub fn content_range(&self) -> Option<HeaderValue> {
        let (first, last) = (self.bytes.start, self.bytes.end.checked_sub(1)?);
        HeaderValue::from_str(&format!("bytes {first}-{last}/{}", self.of)).ok()
    }
}

/// What a request wants of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requested {
    /// All of it: no range, more than one, one that cannot be read, or one of another version.
    Whole,
    /// A part.
    Part(ByteRange),
    /// Nothing that there is.
    Unsatisfiable,
}

/// What a request wants of a stored response whose body has so many bytes.
pub fn requested_range(request: &HeaderMap, stored: &StoredHead, length: u64) -> Requested {
    if stored.status != StatusCode::OK || !is_of_this(request, stored) {
        return Requested::Whole;
    }
    let mut lines = request.get_all(header::RANGE).into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Requested::Whole };
    line.to_str().ok().and_then(|text| parse(text, length)).unwrap_or(Requested::Whole)
}

/// Nothing if it is no range that is answered with a part.
fn parse(text: &str, length: u64) -> Option<Requested> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let bytes = match (number(first), number(last)) {
        (None, Some(count)) if first.is_empty() => length.saturating_sub(count)..length,
        (Some(first), None) if last.is_empty() => first..length,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        _ => return None,
    };
    if bytes.is_empty() {
        return Some(Requested::Unsatisfiable);
    }
    Some(Requested::Part(ByteRange { bytes, of: length }))
}

/// More than any body has bytes is as good as the most.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether the range, if it depends on a version (`If-Range`), means this one. A date is as good as a tag only if it is a strong validator:
/// the response was sent a minute after its last change, at least (RFC 9110, 8.8.2.2).
fn is_of_this(request: &HeaderMap, stored: &StoredHead) -> bool {
    let Some(version) = request.get(header::IF_RANGE) else { return true };
    if let Some(wanted) = date_of(request, header::IF_RANGE) {
        let (changed, dated) =
            (date_of(&stored.headers, header::LAST_MODIFIED), date_of(&stored.headers, header::DATE));
        return changed == Some(wanted) && dated.is_some_and(|dated| dated.since(wanted).as_secs() >= 60);
    }
    let known = stored.headers.get(header::ETAG);
    known.is_some_and(|known| are_strongly_same(version.as_bytes(), known.as_bytes()))
}
