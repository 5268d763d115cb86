//! What became of a request, for whoever looks at the answer (`Cache-Status`, RFC 9211).

use std::time::Duration;

use http::HeaderValue;
use sfv::{Integer, KeyRef, ListSerializer, StringRef, TokenRef};

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
pub struct CacheStatusField {
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
    pub key: Option<String>,
    /// Which layer had it, or why it was not stored.
    pub detail: Option<String>,
}

impl CacheStatusField {
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

    /// As the cache of this name says it.
    pub fn to_value(&self, cache: &str) -> Option<HeaderValue> {
        let mut list = ListSerializer::new();
        // A name that is no token is written as a text.
        let mut member = match TokenRef::from_str(cache) {
            Ok(token) => list.bare_item(token),
            Err(_) => list.bare_item(&*text(cache)),
        };
        if self.hit {
            member = member.parameter(KeyRef::constant("hit"), true);
        }
        if let Some(why) = self.forwarded {
            member = member.parameter(KeyRef::constant("fwd"), TokenRef::constant(why.token()));
        }
        if let Some(status) = self.forwarded_status {
            member = member.parameter(KeyRef::constant("fwd-status"), status);
        }
        if let Some(ttl) = self.ttl.and_then(|ttl| Integer::try_from(ttl).ok()) {
            member = member.parameter(KeyRef::constant("ttl"), ttl);
        }
        if self.stored {
            member = member.parameter(KeyRef::constant("stored"), true);
        }
        if self.collapsed {
            member = member.parameter(KeyRef::constant("collapsed"), true);
        }
        if let Some(said) = &self.key {
            member = member.parameter(KeyRef::constant("key"), &*text(said));
        }
        if let Some(said) = &self.detail {
            member.parameter(KeyRef::constant("detail"), &*text(said));
        }
        HeaderValue::from_str(&list.finish()?).ok()
    }
}

/// A text as such a field may have it: what is no visible character of ASCII becomes a question mark.
fn text(said: &str) -> sfv::String {
    let plain = |found: char| if found == ' ' || found.is_ascii_graphic() { found } else { '?' };
    sfv::String::from_string(said.chars().map(plain).collect())
        .unwrap_or_else(|_| StringRef::constant("").to_owned())
}
