//! Bodies of stores that take and hand them out by chunks.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_core::{BackendError, BackendResult, CacheValue};

use super::{Conditional, StoreCondition};
use crate::envelope::Raw;

/// A body on its way into a store. Nothing of it is under its key before it is committed. Dropped, it leaves nothing; nor does a
/// process that dies.
///
/// # Cancellation
/// A dropped future of `chunk` leaves the writer of no use. One of `commit` may or may not have stored the entry.
#[async_trait]
pub trait StoreWriter: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// If they cannot be kept; the writer is of no use then.
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()>;

    /// What has been written so far, for those who read it while more comes; nothing, as by default, if that cannot be read.
    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        None
    }

    /// Ends the body, and replaces all that is under the key with it, in one step. The entry is the one that the writer was
    /// opened with, with other times and with the epochs of its tags.
    ///
    /// # Errors
    /// If it is not certain that the entry is stored.
    async fn commit(self: Box<Self>, entry: CacheValue<Raw>) -> BackendResult<()>;

    /// The same on a condition, in one step, whoever else writes: for stores that other processes share. After a conflict the writer is
    /// what it was. Only called with the capability `writes_conditionally`.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    async fn commit_if(
        &mut self,
        entry: &CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        let _ = (entry, condition);
        Err(BackendError::unsupported("a conditional write of a body"))
    }

    /// Gives the body up, and waits until nothing of it is left.
    async fn abort(self: Box<Self>);
}

/// What has been written of a body so far, while more comes. It can be read for as long as somebody holds it, whatever becomes of
/// the body.
#[async_trait]
pub trait WrittenPart: Send + Sync {
    /// Bytes from the front that can be read by now. They become no fewer.
    fn readable(&self) -> u64;

    /// Whether there will be no more. By default it cannot be said, and there may be.
    fn has_ended(&self) -> bool {
        false
    }

    /// The bytes from `at` on, which is before the end of those that are [`readable`](Self::readable): at least one, and at most
    /// `limit`.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes>;
}

/// A body in a store. What is read of it is of this body alone, whatever happens to its key.
#[async_trait]
pub trait StoreReader: Send + Sync {
    /// Header and attributes of its record: see the [wire format](crate::envelope::wire).
    fn start(&self) -> &[u8];

    /// Bytes in the body, if it is stored as it came.
    fn body_len(&self) -> u64;

    /// The bytes from `at` on, which is before the end: as many as the store has at hand, at least one and at most `limit`.
    ///
    /// # Errors
    /// [`Codec`](hitbox_core::ErrorKind::Codec) if they are not what was written; [`Conflict`](hitbox_core::ErrorKind::Conflict) if the
    /// body is gone by now; others if they cannot be read.
    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes>;

    /// Replaces header and attributes of its record with those of this entry, which has the identity of the record, unless the key has
    /// something else by now. A store that answers with nothing, as by default, has the body copied.
    ///
    /// # Errors
    /// If it is not certain that it is done.
    async fn replace_entry(&self, entry: &CacheValue<Raw>) -> BackendResult<Option<Conditional>> {
        let _ = entry;
        Ok(None)
    }

    /// Removes the body, which is damaged, unless its key has something else by now.
    ///
    /// # Errors
    /// If it is not certain that it is gone.
    async fn discard(&self) -> BackendResult<()>;
}

/// What a store answers that is asked for a body.
pub enum StoredBody {
    /// There is one; or an entry that is no body, which its start tells.
    There(Box<dyn StoreReader>),
    /// There is nothing under the key.
    Absent,
    /// The store hands out entries as a whole.
    Unsupported,
}
