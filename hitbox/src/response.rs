//! How a call was answered.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hitbox_core::{CacheStatus, Details, ResponseSource, Timestamp};

/// A value and how it came.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Response<T> {
    /// What was asked for.
    pub value: T,
    /// How it came.
    pub outcome: Outcome,
    details: Option<Arc<Details>>,
}

impl<T> Response<T> {
    /// A value without anything beside it.
    pub const fn new(value: T, outcome: Outcome) -> Self {
        Self { value, outcome, details: None }
    }

    /// The same with what is kept beside the value.
    #[inline]
    pub(crate) fn with(mut self, details: Option<Arc<Details>>) -> Self {
        self.details = details;
        self
    }

    /// The same around what `change` makes of the value; nothing if that is nothing.
    pub(crate) fn and_then<U>(self, change: impl FnOnce(T) -> Option<U>) -> Option<Response<U>> {
        let Self { value, outcome, details } = self;
        Some(Response { value: change(value)?, outcome, details })
    }

    /// The metadata that is kept with the entry.
    pub fn metadata(&self) -> &BTreeMap<String, Bytes> {
        static NONE: BTreeMap<String, Bytes> = BTreeMap::new();
        self.details.as_ref().map_or(&NONE, |details| &details.metadata)
    }

    /// The version that the entry was written under.
    pub fn version(&self) -> Option<u64> {
        self.details.as_ref()?.version
    }
}

impl<T> Deref for Response<T> {
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
    pub kind: AnswerKind,
    /// The leaf that had the value, by its dotted path; else the source.
    pub source: ResponseSource,
    /// From then on a normal read does not see the value any more; `None` if that never comes, or if it was not
    /// stored.
    pub expires: Option<Timestamp>,
}

/// By what a call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnswerKind {
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
    /// An answer of the source, or of nobody.
    pub const fn new(kind: AnswerKind, expires: Option<Timestamp>) -> Self {
        Self { kind, source: ResponseSource::Upstream, expires }
    }

    /// The same answer from a leaf.
    #[must_use]
    pub const fn with_source(self, source: ResponseSource) -> Self {
        Self { source, ..self }
    }

    /// The remaining life at `now`; `None` if it has no end.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        self.expires.map(|end| end.since(now))
    }

    /// The same in the terms of backends.
    pub const fn status(&self) -> CacheStatus {
        match self.kind {
            AnswerKind::Hit => CacheStatus::Hit,
            AnswerKind::Stale | AnswerKind::StaleOnError | AnswerKind::StaleOnTimeout => CacheStatus::Stale,
            AnswerKind::Miss | AnswerKind::Loaded | AnswerKind::Coalesced | AnswerKind::Bypassed => {
                CacheStatus::Miss
            }
        }
    }
}
