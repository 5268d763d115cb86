//! What became of a request, for whoever looks at the answer (`Cache-Status`, RFC 9211).

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::Duration;

use http::HeaderValue;
use sfv::TokenRef;
use smallvec::SmallVec;

/// Why a request went on to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forwarded {
    /// The cache was told not to answer it.
    Bypass,
    /// Its method is one that goes to the origin.
    Method,
    /// Nothing was stored under its URI.
    UriMiss,
    /// What was stored under its URI answers other requests.
    VaryMiss,
    /// What was stored is fresh, and the request wanted it validated.
    Request,
    /// What was stored is stale.
    Stale,
    /// A part was asked for, and not all of it is stored.
    Partial,
}

impl Forwarded {
    const fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// One member of `Cache-Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatusField<'a> {
    /// It was answered without the origin.
    pub hit: bool,
    /// Why it was not.
    pub forwarded: Option<Forwarded>,
    /// What the origin answered, if that is not the status of the answer.
    pub forwarded_status: Option<u16>,
    /// For how long the answer is fresh; negative if it is stale.
    pub ttl: Option<i64>,
    /// The answer was stored.
    pub stored: bool,
    /// Somebody else's request to the origin answered this one too.
    pub collapsed: bool,
    /// The key.
    pub key: Option<Cow<'a, str>>,
    /// Which layer had it, or why it was not stored.
    pub detail: Option<Cow<'a, str>>,
}

impl CacheStatusField<'_> {
    /// It was answered without the origin.
    pub fn hit() -> Self {
        Self { hit: true, ..Self::default() }
    }

    /// It went on to the origin.
    pub fn forwarded(why: Forwarded) -> Self {
        Self { forwarded: Some(why), ..Self::default() }
    }

    /// How long an answer is fresh that has this lifetime and age.
    #[must_use]
    pub fn with_ttl(mut self, lifetime: Duration, age: Duration) -> Self {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        // More than the 15 digits that an integer may have would be none.
        const MOST: i64 = 999_999_999_999_999;
        self.ttl = Some(seconds(lifetime).saturating_sub(seconds(age)).clamp(-MOST, MOST));
        self
    }

    /// The same, with texts of its own.
    pub fn into_owned(self) -> CacheStatusField<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        CacheStatusField {
            hit: self.hit,
            forwarded: self.forwarded,
            forwarded_status: self.forwarded_status,
            ttl: self.ttl,
            stored: self.stored,
            collapsed: self.collapsed,
            key: self.key.map(owned),
            detail: self.detail.map(owned),
        }
    }

    /// As the cache of this name says it.
    pub fn to_value(&self, cache: &str) -> Option<HeaderValue> {
        let mut out = Line::default();
        // A name that is no token is written as a text.
        match TokenRef::from_str(cache) {
            Ok(token) => out.push_str(token.as_str()),
            Err(_) => out.push_quoted(cache),
        }
        // Each is written as RFC 9651, 4.1 has it. Writing to memory never fails.
        if self.hit {
            out.push_str(";hit");
        }
        if let Some(why) = self.forwarded {
            out.push_str(";fwd=");
            out.push_str(why.token());
        }
        if let Some(status) = self.forwarded_status {
            let _ = write!(out, ";fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(out, ";ttl={ttl}");
        }
        if self.stored {
            out.push_str(";stored");
        }
        if self.collapsed {
            out.push_str(";collapsed");
        }
        for (name, said) in [(";key=", &self.key), (";detail=", &self.detail)] {
            if let Some(said) = said {
                out.push_str(name);
                out.push_quoted(said);
            }
        }
        HeaderValue::from_bytes(&out.0).ok()
    }
}

/// What is put together without the heap, if it is as short as usual.
#[derive(Default)]
struct Line(SmallVec<[u8; 128]>);

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

impl Line {
    fn push_str(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A text as such a field may have it: what is no visible character of ASCII becomes a question mark.
    fn push_quoted(&mut self, said: &str) {
        self.0.push(b'"');
        for found in said.chars() {
            match found {
                '"' | '\\' => self.0.extend([b'\\', found as u8]),
                found if found == ' ' || found.is_ascii_graphic() => self.0.push(found as u8),
                _ => self.0.push(b'?'),
            }
        }
        self.0.push(b'"');
    }
}
