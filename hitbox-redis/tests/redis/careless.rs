//! Redis backends with one mistake each: what the checks must reject.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::operation::Answers;
use hitbox_backend::operation::Completion;
use hitbox_backend::wrap::{Wrapper, forward};
use hitbox_backend::{Backend, ReadOptions};
use hitbox_core::{BackendResult, CacheKey};
use hitbox_redis::RedisBackend;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    Nothing,
    /// Asks whether the server is there before it asks for a value.
    TwoTrips,
    /// A clone opens a connection of its own.
    ConnectionPerClone,
    /// Calls are never cut.
    NoDeadline,
    /// Its address, with the password, is shown.
    ShowsAddress,
}

/// A Redis backend with or without a mistake.
pub(crate) struct Careless {
    mistake: Mistake,
    url: String,
    pub(crate) redis: RedisBackend,
}

impl Careless {
    pub(crate) fn new(mistake: Mistake, url: &str, deadline: Duration) -> BackendResult<Self> {
        let deadline = if mistake == Mistake::NoDeadline { Duration::from_secs(3_600) } else { deadline };
        let redis = RedisBackend::builder(url).deadline(deadline).build()?;
        Ok(Self { mistake, url: url.to_owned(), redis })
    }
}

impl Clone for Careless {
    fn clone(&self) -> Self {
        let redis = if self.mistake == Mistake::ConnectionPerClone {
            RedisBackend::builder(&self.url).build().expect("redis")
        } else {
            self.redis.clone()
        };
        Self { redis, url: self.url.clone(), ..*self }
    }
}

impl fmt::Debug for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mistake == Mistake::ShowsAddress {
            write!(f, "Redis at {}", self.url)
        } else {
            self.redis.fmt(f)
        }
    }
}

impl Wrapper for Careless {
    type Inner = RedisBackend;

    fn inner(&self) -> &RedisBackend {
        &self.redis
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        inner
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        if self.mistake != Mistake::TwoTrips {
            return forward::read(self, keys, options);
        }
        Completion::later(async move {
            match self.redis.ping().await {
                Ok(()) => forward::read(self, keys, options).await,
                Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }
}
