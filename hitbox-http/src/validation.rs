//! Conditional requests: those that a cache answers, and those that it makes (RFC 9110, 13; RFC 9111, 4.3).

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::date::{self, date_of};
use crate::freshness::modified;
use crate::head::StoredHead;

/// Fields with which a request makes conditions.
const CONDITIONS: [HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Fields that a "not modified" has of the response that it stands for (RFC 9110, 15.4.5).
const OF_NOT_MODIFIED: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_LOCATION,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
];

/// What the conditions of a request come to, with a stored response at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precondition {
    /// There is none, or it is met: the response is to be sent.
    Met,
    /// Whoever asks has it already.
    NotModified,
}

/// An entity tag: whether it is weak, and what stands between its quotes.
fn tag(text: &[u8]) -> (bool, &[u8]) {
    let text = text.trim_ascii();
    let (is_weak, text) = text.strip_prefix(b"W/").map_or((false, text), |text| (true, text));
    (is_weak, text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text))
}

/// Whether two tags are the same, even if they are weak (RFC 9110, 8.8.3.2).
fn are_weakly_same(one: &[u8], other: &[u8]) -> bool {
    tag(one).1 == tag(other).1
}

/// Whether two tags are the same and neither is weak.
pub(crate) fn are_strongly_same(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (one.trim_ascii(), other.trim_ascii());
    one.starts_with(b"\"") && one == other
}

/// The tags of a field, one by one. Commas within quotes are part of a tag.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let tags = line.split(move |byte| {
        if *byte == b'"' {
            is_quoted = !is_quoted;
        }
        *byte == b',' && !is_quoted
    });
    tags.map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty())
}

impl Precondition {
    /// What a request's `If-None-Match` and `If-Modified-Since` come to with a stored response. The second counts if the first is not
    /// there.
    pub fn of(request: &HeaderMap, stored: &StoredHead) -> Self {
        if stored.status != StatusCode::OK {
            return Self::Met;
        }
        if request.contains_key(header::IF_NONE_MATCH) {
            let known = stored.headers.get(header::ETAG);
            let mut lines = request.get_all(header::IF_NONE_MATCH).into_iter();
            let is_known = lines.any(|line| {
                let mut asked = tags(line.as_bytes());
                asked.any(|asked| {
                    asked == b"*" || known.is_some_and(|known| are_weakly_same(asked, known.as_bytes()))
                })
            });
            return if is_known { Self::NotModified } else { Self::Met };
        }
        let since = date_of(request, header::IF_MODIFIED_SINCE);
        match since {
            // A date says nothing of what is less than a second.
            Some(since)
                if modified(&stored.headers, stored.came).as_millis() / 1000 <= since.as_millis() / 1000 =>
            {
                Self::NotModified
            }
            _ => Self::Met,
        }
    }
}

impl StoredHead {
    /// The fields of a "not modified" that stands for it.
    pub fn not_modified(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in &OF_NOT_MODIFIED {
            for value in self.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        headers
    }
}

/// Takes out the conditions of a request, and its range: what is to be stored has to come as a whole.
pub fn remove_preconditions(request: &mut HeaderMap) {
    for name in &CONDITIONS {
        request.remove(name);
    }
    request.remove(header::RANGE);
}

/// Makes a request ask whether a stored response is still right, in place of its own conditions.
pub fn add_validators(request: &mut HeaderMap, stored: &StoredHead) {
    remove_preconditions(request);
    if let Some(tag) = stored.headers.get(header::ETAG) {
        request.insert(header::IF_NONE_MATCH, tag.clone());
    }
    // As it was written: origins compare it as a text.
    if let Some(changed) = stored.headers.get(header::LAST_MODIFIED)
        && date::parse(changed).is_some()
    {
        request.insert(header::IF_MODIFIED_SINCE, changed.clone());
    }
}
