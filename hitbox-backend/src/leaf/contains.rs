//! Whether a leaf has an entry that a read would find.

use futures_util::future::join_all;
use hitbox_core::{BackendResult, CacheKey, Operation};

use super::Leaf;
use crate::operation::Presence;
use crate::stats::Event;
use crate::store::{Peek, Store};

/// Keys that are looked at together.
const PAGE: usize = 1_000;

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

    /// How many keys are present, by looking at each. Those of stores that cannot be looked at count as present.
    pub(super) async fn count_present(&self) -> BackendResult<u64> {
        let (mut count, mut cursor) = (0, Some(0));
        while let Some(from) = cursor {
            let page = self.store.keys(from, PAGE).await?;
            let looks = page.keys.iter().map(|key| self.presence(key));
            for present in join_all(looks).await {
                count += u64::from(present? != Presence::Absent);
            }
            cursor = page.next;
        }
        Ok(count)
    }

    async fn presence(&self, key: &CacheKey) -> BackendResult<Presence> {
        self.handle.check_key(key)?;
        if self.handle.coherence().is_dirty(key) {
            return Ok(Presence::Absent);
        }
        let held = self.epochs().held_against(key);
        let entry = match self.store.peek(key).await? {
            Peek::Entry(entry) => entry,
            Peek::Absent => return Ok(Presence::Absent),
            Peek::Unknown => return Ok(Presence::Maybe),
        };
        let is_readable = entry.is_readable(self.handle.clock().now())
            && !held.means(&entry)
            && self.still_counts(key, &entry).await?;
        Ok(if is_readable { Presence::Present } else { Presence::Absent })
    }
}
