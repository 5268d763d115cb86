//! A stored response without its body, and how it is written down.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hitbox_core::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use thiserror::Error;

use crate::date;
use crate::directives::ResponseDirectives;
use crate::fields::storable_fields;
use crate::freshness::Freshness;
use crate::policy::Policy;
use crate::storable::is_of_client;

/// Fields that a "not modified" does not replace: they say how the body is written, which it does not bring, or what it was compared by
/// (RFC 9111, 3.2).
const KEPT: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    HeaderName::from_static("content-md5"),
];

/// More fields than these are not read.
const MOST_FIELDS: usize = 1024;

/// A stored response without its body: its status, its fields, and when it was asked for and came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredHead {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, as they came.
    pub headers: HeaderMap,
    /// When it was asked for, or validated last.
    pub asked: Timestamp,
    /// When it, or its last validation, came.
    pub came: Timestamp,
}

/// What is stored is no head of a response.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the stored head of a response cannot be read")]
pub struct HeadError;

impl StoredHead {
    /// A response that was asked for and came at these times.
    pub fn new(status: StatusCode, headers: HeaderMap, asked: Timestamp, came: Timestamp) -> Self {
        Self { status, headers, asked, came }
    }

    /// What it says to caches of this policy.
    pub fn directives(&self, policy: &Policy) -> ResponseDirectives {
        ResponseDirectives::of(&self.headers, policy)
    }

    /// How long it is fresh.
    pub fn freshness(&self, policy: &Policy) -> Freshness {
        Freshness::of(self.status, &self.headers, &self.directives(policy), (self.asked, self.came), policy)
    }

    /// How old it is now (RFC 9111, 4.2.3).
    pub fn age(&self, now: Timestamp, policy: &Policy) -> Duration {
        self.terms(policy).age(now)
    }

    /// Whether the origin can be asked whether it is still right.
    pub fn has_validator(&self) -> bool {
        self.headers.contains_key(header::ETAG) || self.headers.contains_key(header::LAST_MODIFIED)
    }

    /// Whether it can answer any request but the one that brought it: it is fresh for a while, even if that is over when it comes, can be validated, or
    /// says that it may be served stale. An error of one client only as long as it is fresh.
    pub fn is_of_use(&self, policy: &Policy) -> bool {
        let (terms, is_set) =
            (self.terms(policy), |time: Option<Duration>| time.is_some_and(|time| !time.is_zero()));
        let said = &terms.directives;
        let may_be_stale = is_set(said.stale_while_revalidate) || is_set(said.stale_if_error);
        let may_outlive = self.has_validator() || !said.is_never_stale(policy) && may_be_stale;
        terms.is_ever_fresh() || may_outlive && !is_of_client(self.status)
    }

    /// How long it is fresh, and kept beyond, from when it came.
    pub fn kept(&self, policy: &Policy) -> (Duration, Duration) {
        let (freshness, directives) = (self.freshness(policy), self.directives(policy));
        let fresh =
            if directives.is_validated_always(policy) { Duration::ZERO } else { freshness.remaining() };
        let on_error = directives.stale_if_error.or(policy.stale_on_error);
        let mut beyond = directives.stale_while_revalidate.max(on_error).unwrap_or_default();
        if self.has_validator() {
            beyond = beyond.max(policy.keep_stale);
        }
        if !directives.is_never_stale(policy) {
            beyond = beyond.max(policy.stale_when_disconnected);
        }
        (fresh, beyond)
    }

    /// Freshened by a "not modified" with these fields (RFC 9111, 4.3.4): what it says replaces what was stored, but for what describes the body.
    #[must_use]
    pub fn freshened(&self, news: &HeaderMap, asked: Timestamp, came: Timestamp) -> Self {
        let mut headers = self.headers.clone();
        let news = storable_fields(news, &ResponseDirectives::default());
        // They were those of the response that was validated.
        headers.remove(header::AGE);
        headers.remove(header::DATE);
        for name in news.keys().filter(|name| !KEPT.contains(name)) {
            headers.remove(name);
            for value in news.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        Self { status: self.status, headers, asked, came }.dated()
    }

    /// With the date when it came, if it says none (RFC 9110, 6.6.1).
    #[must_use]
    pub fn dated(mut self) -> Self {
        if !self.headers.contains_key(header::DATE)
            && let Some(came) = date::format(self.came)
        {
            self.headers.insert(header::DATE, came);
        }
        self
    }

    /// The same as bytes: text as HTTP/1.1 has it, after a line with the times.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.headers.len() * 48);
        let mut first = String::with_capacity(48);
        let (asked, came) = (self.asked.as_millis(), self.came.as_millis());
        // Writing to a string never fails.
        let _ = write!(first, "{asked} {came}\r\nHTTP/1.1 {}\r\n", self.status.as_u16());
        out.put_slice(first.as_bytes());
        for (name, value) in &self.headers {
            out.put_slice(name.as_str().as_bytes());
            out.put_slice(b": ");
            out.put_slice(value.as_bytes());
            out.put_slice(b"\r\n");
        }
        out.put_slice(b"\r\n");
        out.freeze()
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(stored: &[u8]) -> Result<Self, HeadError> {
        let end = stored.windows(2).position(|pair| pair == b"\r\n").ok_or(HeadError)?;
        let times = std::str::from_utf8(&stored[..end]).map_err(|_| HeadError)?;
        let (asked, came) = times.split_once(' ').ok_or(HeadError)?;
        let time = |text: &str| text.parse().map(Timestamp::from_millis).map_err(|_| HeadError);
        let (asked, came) = (time(asked)?, time(came)?);

        let head = &stored[end + 2..];
        let lines = head.windows(2).filter(|pair| *pair == b"\r\n").count();
        if lines > MOST_FIELDS + 2 {
            return Err(HeadError);
        }
        let mut fields = vec![httparse::EMPTY_HEADER; lines];
        let mut response = httparse::Response::new(&mut fields);
        let read = response.parse(head).map_err(|_| HeadError)?;
        if read != httparse::Status::Complete(head.len()) {
            return Err(HeadError);
        }
        let status = StatusCode::from_u16(response.code.ok_or(HeadError)?).map_err(|_| HeadError)?;
        let mut headers = HeaderMap::with_capacity(response.headers.len());
        for field in response.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError)?;
            headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| HeadError)?);
        }
        Ok(Self { status, headers, asked, came })
    }
}
