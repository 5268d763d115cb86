//! A layer's own idle time.

use std::sync::Arc;
use std::time::Duration;

use hitbox_core::{CacheKey, CacheValue};

use super::Wrapper;
use crate::backend::Backend;
use crate::into::IntoBackend;

/// A backend whose entries end when they are not read for some time. Other layers keep theirs: over a layer without a limit,
/// memory holds what is read now.
///
/// A write and a refill begin the time anew, and so does a read, noted at most an eighth of the time late; one that a layer
/// above answers is none of this layer. An entry that brings a shorter idle time keeps it. Layers that are filled from this
/// one, by a refill or a repair after a failure, take the idle time over.
pub struct Idle {
    inner: Arc<dyn Backend>,
    time: Duration,
}

impl Idle {
    /// Ends entries of `inner` that are not read for `time`.
    ///
    /// # Panics
    /// If `time` is under a millisecond: nothing would ever be found.
    pub fn new<Kind>(inner: impl IntoBackend<Kind>, time: Duration) -> Self {
        assert!(time.as_millis() > 0, "with an idle time under a millisecond nothing is ever found");
        Self { inner: inner.into_shared(), time }
    }
}

impl Wrapper for Idle {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, time: self.time })
    }

    fn change(&self, _: &CacheKey, entry: CacheValue<()>) -> CacheValue<()> {
        let mut details = entry.details().cloned().unwrap_or_default();
        details.idle = Some(details.idle.map_or(self.time, |own| own.min(self.time)));
        details.touched = Some(self.inner.layout().clock().now());
        let epoch = entry.namespace_epoch();
        entry.with_details(details).with_namespace_epoch(epoch)
    }
}
