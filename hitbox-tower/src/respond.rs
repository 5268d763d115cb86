//! Answers that are made of stored responses.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future;
use hitbox::Body;
use hitbox_http::{CacheStatusField, Precondition, Requested, StoredHead, requested_range};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use crate::body::{CacheBody, Trailers};
use crate::heads::{Head, tell};
use crate::layer::Rules;

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What is said of a representation, and of how long it may be used.
const OF_REPRESENTATION: [&str; 19] = [
    "age",
    "cache-control",
    "cache-groups",
    "cdn-cache-control",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-type",
    "digest",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "repr-digest",
    "surrogate-control",
];

/// So long the rest of a body is read that its client does not need.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What a request asks of a stored response.
pub(crate) struct Asked<'r> {
    pub(crate) method: &'r Method,
    pub(crate) headers: &'r HeaderMap,
}

impl Rules {
    /// The answer that a stored response gives. Its age is told if it `is_stored`, and does not come from the origin just now.
    pub(crate) fn respond<A>(
        &self,
        asked: &Asked<'_>,
        stored: &Head,
        body: Body,
        trailers: Trailers,
        is_stored: bool,
        status: CacheStatusField<'_>,
    ) -> Response<CacheBody<A>> {
        let age = stored.terms.age(self.now());
        self.respond_of_age(age, asked, stored, (body, trailers), is_stored, status)
    }

    /// The same of a response that has this age by now.
    pub(crate) fn respond_of_age<A>(
        &self,
        age: Duration,
        asked: &Asked<'_>,
        stored: &Head,
        (mut body, trailers): (Body, Trailers),
        is_stored: bool,
        status: CacheStatusField<'_>,
    ) -> Response<CacheBody<A>> {
        let head = &stored.head;
        let status = status.with_ttl(stored.terms.freshness.lifetime, age);
        let told = |mut fields: HeaderMap| {
            if is_stored {
                tell(&mut fields, &self.settings.name, age.as_secs(), &status);
            } else {
                self.tell_status(&mut fields, &status);
            }
            fields
        };
        let (code, headers, body) = match Precondition::of(asked.headers, head) {
            Precondition::NotModified => {
                if !is_stored && !status.collapsed {
                    // It comes now, the client has it already, and it is stored as it is read.
                    let limit = self.sleep(LONGEST_REST);
                    let rest = async move { while let Ok(Some(_)) = body.chunk().await {} };
                    self.in_background(async move { drop(future::select(pin!(rest), limit).await) });
                }
                (StatusCode::NOT_MODIFIED, told(head.not_modified()), CacheBody::empty())
            }
            _ => {
                let headers = match is_stored {
                    true => stored.answered(&self.settings.name, age.as_secs(), status).fields.clone(),
                    false => told(head.headers.clone()),
                };
                // Only a GET has ranges (RFC 9110, 14.2).
                let none = HeaderMap::new();
                let ranges = if asked.method == Method::GET { asked.headers } else { &none };
                let (code, headers, left) = select(ranges, head, headers, &mut body, is_stored);
                let body = match left {
                    _ if asked.method == Method::HEAD => CacheBody::empty(),
                    Left::Nothing => CacheBody::empty(),
                    Left::Bytes(left) => CacheBody::stored(body, left, trailers),
                };
                (code, headers, body)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = code;
        *response.headers_mut() = headers;
        response
    }

    /// Tells what became of a request, after what caches nearer to the origin tell.
    pub(crate) fn tell_status(&self, headers: &mut HeaderMap, status: &CacheStatusField<'_>) {
        if let Some(value) = status.to_value(&self.settings.name) {
            headers.append(CACHE_STATUS, value);
        }
    }

    /// Nothing is stored, and the origin is not to be asked (RFC 9111, 5.2.1.7).
    pub(crate) fn only_if_cached<A>(&self) -> Response<CacheBody<A>> {
        self.refuse(StatusCode::GATEWAY_TIMEOUT, "nothing is stored for this request\n")
    }

    /// There is no answer.
    pub(crate) fn refuse<A>(&self, code: StatusCode, why: &'static str) -> Response<CacheBody<A>> {
        let mut response = Response::new(CacheBody::whole(Bytes::from_static(why.as_bytes())));
        *response.status_mut() = code;
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        self.tell_status(response.headers_mut(), &CacheStatusField::default());
        response
    }
}

/// The bytes that a `Content-Length` declares.
pub(crate) fn length_of(declared: &HeaderValue) -> Option<u64> {
    let text = declared.to_str().ok()?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// What there is to send.
enum Left {
    Nothing,
    /// So many bytes, if anybody knows.
    Bytes(Option<u64>),
}

/// All of a stored response, or the part that is asked for.
fn select(
    asked: &HeaderMap,
    head: &StoredHead,
    mut headers: HeaderMap,
    body: &mut Body,
    is_stored: bool,
) -> (StatusCode, HeaderMap, Left) {
    let declared = |headers: &HeaderMap| headers.get(header::CONTENT_LENGTH).and_then(length_of);
    // What comes from the origin just now may have trailers, unless it says how long it is.
    let Some(length) = body.len().filter(|_| is_stored || declared(&headers).is_some()) else {
        let left = Left::Bytes(declared(&headers));
        return (head.status, headers, left);
    };
    match requested_range(asked, head, length) {
        Requested::Unsatisfiable => {
            // It is no representation of the resource: what is said of that does not hold for it.
            OF_REPRESENTATION.iter().for_each(|name| drop(headers.remove(*name)));
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{length}")) {
                headers.insert(header::CONTENT_RANGE, range);
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, headers, Left::Nothing)
        }
        Requested::Part(part) if body.seek(part.bytes.clone()).is_ok() => {
            let left = part.bytes.end - part.bytes.start;
            // They are of the whole content (RFC 9530, 2).
            for digest in ["content-digest", "content-md5"] {
                headers.remove(digest);
            }
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(left));
            headers.extend(part.content_range().map(|range| (header::CONTENT_RANGE, range)));
            (StatusCode::PARTIAL_CONTENT, headers, Left::Bytes(Some(left)))
        }
        _ => (head.status, headers, Left::Bytes(Some(length))),
    }
}
