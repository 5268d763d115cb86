//! When moka drops an entry: at the end of its physical life.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hitbox_backend::Raw;
use hitbox_core::{CacheKey, CacheValue, Clock};
use moka::Expiry;

/// Translates the absolute end of an entry's life into moka's relative one.
pub(crate) struct DropAt(pub(crate) Arc<dyn Clock>);

impl DropAt {
    fn after(&self, value: &CacheValue<Raw>) -> Option<Duration> {
        value.lifetime().drop_at().map(|end| end.since(self.0.now()))
    }
}

impl Expiry<CacheKey, CacheValue<Raw>> for DropAt {
    fn expire_after_create(&self, _: &CacheKey, value: &CacheValue<Raw>, _: Instant) -> Option<Duration> {
        self.after(value)
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        value: &CacheValue<Raw>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.after(value)
    }
}
