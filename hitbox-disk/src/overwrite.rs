//! Changes of an object in its place: its times, or all that stands before its payload.

use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_backend::core::{BackendResult, CacheValue};
use hitbox_backend::envelope::wire;
use hitbox_backend::store::TimeChange;

use crate::digest::Digest;
use crate::object;
use crate::objects::{Objects, Operation};
use crate::start::Start;

impl Objects {
    /// Changes the times of the entry of this key in its file.
    pub(crate) fn change_times(
        &self,
        operation: &Operation,
        key: &[u8],
        schema: u32,
        change: &TimeChange,
    ) -> BackendResult<Option<CacheValue<()>>> {
        self.hold()?;
        let (digest, sequence) = (operation.digest, operation.sequence);
        let _shelf = self.shelf(digest);
        if self.index().is_superseded(digest, sequence) || !self.holds(digest) {
            return Ok(None);
        }
        let start = self.files.start(digest)?.filter(|start| start.key == key && start.schema == schema);
        let Some(Start { entry, record, .. }) = start else { return Ok(None) };
        let entry = match change.apply(entry) {
            Ok(entry) => entry,
            Err(entry) => return Ok(Some(entry)),
        };
        let Some(header) = wire::with_times(&record, &entry) else { return Ok(None) };
        Ok(self.overwrite_start(digest, key, &header, &entry)?.then_some(entry))
    }

    /// Overwrites the record of this key from its beginning, and says whether there is one; the lock of its shelf is held. A
    /// crash in between may leave a header that fails its checksum: then the entry is lost, as any may be.
    pub(crate) fn overwrite_start(
        &self,
        digest: Digest,
        key: &[u8],
        start: &[u8],
        entry: &CacheValue<()>,
    ) -> BackendResult<bool> {
        let _changing = Changing::begin(self.changes_of(digest));
        let is_there = self.files.overwrite(digest, start, object::file_len(key, &[]))?;
        if is_there {
            self.index().change_times(digest, entry);
        }
        Ok(is_there)
    }
}

/// A change of an object in its place; ends when dropped.
struct Changing<'a>(&'a AtomicU64);

impl<'a> Changing<'a> {
    fn begin(changes: &'a AtomicU64) -> Self {
        changes.fetch_add(1, Ordering::AcqRel);
        Self(changes)
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
