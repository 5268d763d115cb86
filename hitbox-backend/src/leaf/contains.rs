//! Whether a leaf has an entry that a read would find.

use hitbox_core::{BackendResult, CacheKey, Operation, RecordKind};

use super::Leaf;
use crate::operation::Presence;
use crate::stats::Event;
use crate::store::{Peek, Store};

impl<S: Store> Leaf<S> {
    pub(super) async fn look(&self, key: &CacheKey) -> BackendResult<Presence> {
        let presence = match self.presence(key).await {
            Ok(presence) => presence,
            Err(error) => {
                return Err(self.handle.failed(Event::ReadError, error.during(Operation::Contains)));
            }
        };
        let event = match presence {
            Presence::Present => Event::Present,
            Presence::Absent => Event::Absent,
            Presence::Maybe => Event::Maybe,
        };
        self.handle.count(event, 1);
        Ok(presence)
    }

    async fn presence(&self, key: &CacheKey) -> BackendResult<Presence> {
        self.handle.check_key(key)?;
        if self.handle.coherence().is_dirty(key) {
            return Ok(Presence::Absent);
        }
        let entry = match self.store.peek(key).await? {
            Peek::Entry(entry) => entry,
            Peek::Absent => return Ok(Presence::Absent),
            Peek::Unknown => return Ok(Presence::Maybe),
        };
        let is_value = entry.details().is_none_or(|details| details.kind == RecordKind::Value);
        let is_readable = is_value
            && entry.is_readable(self.handle.clock().now())
            && self.still_counts(key, &entry).await?;
        Ok(if is_readable { Presence::Present } else { Presence::Absent })
    }
}
