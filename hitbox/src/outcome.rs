//! How a call was answered.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use hitbox_core::{CacheStatus, Details, ResponseSource, Timestamp};

/// A value and how it came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served<T> {
    /// What was asked for.
    pub value: T,
    /// How it came.
    pub outcome: Outcome,
    /// The remarks that are kept with the entry.
    pub metadata: BTreeMap<String, String>,
    /// The version it was written under.
    pub version: Option<u64>,
}

impl<T> Served<T> {
    /// A value without metadata or version.
    pub const fn new(value: T, outcome: Outcome) -> Self {
        Self { value, outcome, metadata: BTreeMap::new(), version: None }
    }

    /// With what is kept beside the value.
    #[inline]
    pub(crate) fn with(mut self, details: Option<&Details>) -> Self {
        if let Some(details) = details {
            self.metadata.clone_from(&details.metadata);
            self.version = details.version;
        }
        self
    }
}

impl<T> Deref for Served<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// How a call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// By what.
    pub how: How,
    /// The leaf that had the value, by its dotted path; else the source.
    pub source: ResponseSource,
    /// From then on a normal read does not see the value any more; `None` if that never comes, or if it was not
    /// stored.
    pub expires: Option<Timestamp>,
}

/// By what a call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum How {
    /// By a fresh copy.
    Hit,
    /// By a stale copy; where a loader was given, as the settings for stale copies say.
    Stale,
    /// By nothing: there was no copy and no loader.
    Miss,
    /// By this call's loader.
    Loaded,
    /// By the load of another call that was under way.
    Coalesced,
    /// By the loader, past the cache.
    Bypassed,
    /// By an older copy, since the load failed or has failed just now.
    StaleOnError,
    /// By an older copy, since the load takes long. It goes on.
    StaleOnTimeout,
}

impl Outcome {
    pub(crate) const fn of_source(how: How, expires: Option<Timestamp>) -> Self {
        Self { how, source: ResponseSource::Upstream, expires }
    }

    /// The remaining life at `now`; `None` if it has no end.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        self.expires.map(|end| end.since(now))
    }

    /// The same in the terms of backends.
    pub const fn status(&self) -> CacheStatus {
        match self.how {
            How::Hit => CacheStatus::Hit,
            How::Stale | How::StaleOnError | How::StaleOnTimeout => CacheStatus::Stale,
            How::Miss | How::Loaded | How::Coalesced | How::Bypassed => CacheStatus::Miss,
        }
    }
}
