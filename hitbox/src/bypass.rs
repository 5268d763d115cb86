//! Calls past the cache.

use std::sync::Arc;

use hitbox_backend::{Backend, Cacheable};
use hitbox_core::CacheKey;

use crate::error::{LoadError, LoadErrorKind};
use crate::events::count;
use crate::get_or_load::Answer;
use crate::load::Loader;
use crate::loaded::{Load, Payload};
use crate::response::{AnswerKind, Outcome, Response};
use crate::shared::Shared;
use crate::timeouts::Timeouts;

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Nothing is read, joined or stored.
    pub(crate) async fn bypass(
        &self,
        key: &CacheKey,
        loader: Loader<'_, V>,
        mut timeouts: Timeouts,
    ) -> Answer<V> {
        let load = || Load { key: key.clone(), previous: Arc::new(|| Box::pin(std::future::ready(None))) };
        count(&self.events.counts.loads);
        let work = match loader {
            Loader::Detached(loader) => loader.start(load),
            Loader::Scoped(loader) => loader.start(load),
        };
        let Ok(loaded) = timeouts.hard.bound(work).await else { return Err(self.timed_out(key)) };
        let loaded = loaded.map_err(|error| LoadError::of_loader(key, error))?;
        let value = match loaded.payload {
            Payload::Value(value) => Some(value),
            Payload::Absent => None,
            Payload::NotModified(_) => return Err(LoadError::new(LoadErrorKind::NothingToKeep, key)),
            Payload::Declined => return Err(LoadError::new(LoadErrorKind::Declined, key)),
        };
        let details = loaded.options.details();
        Ok(Response::new(value, Outcome::new(AnswerKind::Bypassed, None)).with(details))
    }
}
