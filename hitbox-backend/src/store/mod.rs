//! For authors of stores: the trait [`Store`], what its methods take and answer, and what stores in memory have in
//! common ([`memory`]).
//!
//! A store keeps entries and knows nothing of labels, codecs, counters, order or epochs: its [`Leaf`](crate::Leaf)
//! brings them.

mod body;
pub mod memory;

use std::task::Poll;

use async_trait::async_trait;
use futures_util::future::join_all;
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue};

pub use body::{StoreReader, StoreWriter, StoredBody, WrittenPart};

pub use crate::capability::Capabilities;
pub use crate::envelope::{Encoded, Raw, Unusable};
pub use crate::leaf::{LeafHandle, LeafOptions};
pub use crate::operation::TimeChange;
pub use crate::receipt::DeleteStatus;
pub use crate::stats::Occupancy;

/// Stores entries under keys. Implement [`read`](Self::read), [`write`](Self::write) and [`remove`](Self::remove); the
/// rest is built on them and may be done better.
///
/// A store that is given to `compose`, a wrapper or `Cache::builder` gets a [`Leaf`](crate::Leaf) of its own, with
/// default options. Two leaves around one store keep no order between their writes: clone the leaf, not the store.
///
/// # Cancellation
/// A dropped future may or may not have acted.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The stored entry, whatever its age, or nothing. A store of bytes answers with [`Raw::record`], and the leaf finds
    /// out what the bytes are.
    ///
    /// # Errors
    /// If it cannot be known whether there is an entry.
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>>;

    /// Stores an entry and replaces all that was there. Unless the store keeps live values the entry is encoded:
    /// [`Raw::to_record`] gives its bytes.
    ///
    /// # Errors
    /// If it is not certain that the entry is stored. [`NotAdmitted`](hitbox_core::ErrorKind::NotAdmitted) if the store keeps
    /// it out for want of room; then it has nothing under the key.
    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()>;

    /// Removes an entry.
    ///
    /// # Errors
    /// If it is not certain that the entry is gone.
    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus>;

    /// Removes an entry and says what it was, without its value, whatever its age. By default it is removed, and nothing more
    /// is known of it.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    async fn take(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.remove(key).await.map(Peek::of_removed)
    }

    /// The same of the entry with this identity alone ([`Raw::identity`]), in one step, whoever else writes: for stores that other processes
    /// share. [`Peek::Absent`] if there is none or another. A store that answers with nothing, as by default, is asked what it has first.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    async fn take_same(&self, key: &CacheKey, identity: u64) -> BackendResult<Option<Peek>> {
        let _ = (key, identity);
        Ok(None)
    }

    /// What this store can do. Asked once, when its leaf is made.
    fn capabilities(&self) -> Capabilities {
        Capabilities::PLAIN
    }

    /// A read that does not wait; pending if it would have to.
    fn try_read(&self, key: &CacheKey) -> Poll<Option<CacheValue<Raw>>> {
        let _ = key;
        Poll::Pending
    }

    /// A write that does not wait.
    ///
    /// # Errors
    /// The entry is handed back if it would have to.
    fn try_write(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
    ) -> Result<BackendResult<()>, CacheValue<Raw>> {
        let _ = key;
        Err(value)
    }

    /// A removal that does not wait; pending if it would have to.
    fn try_remove(&self, key: &CacheKey) -> Poll<BackendResult<DeleteStatus>> {
        let _ = key;
        Poll::Pending
    }

    /// What the stored entry says without its value, whatever its age. Has no effect on it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        let _ = key;
        Ok(Peek::Unknown)
    }

    /// Changes the times of the stored entry and leaves its value alone, which is neither read nor written: in one step,
    /// whoever else writes. Answers with the entry as it is then, of whatever age. A store that says
    /// [`Unknown`](Peek::Unknown), as by default, has the whole entry read and replaced.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn change_times(&self, key: &CacheKey, change: &TimeChange) -> BackendResult<Peek> {
        let _ = (key, change);
        Ok(Peek::Unknown)
    }

    /// Reads several keys; answers are in their order.
    async fn read_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        join_all(keys.iter().map(|key| self.read(key))).await
    }

    /// Writes several entries with different keys; answers are in their order.
    async fn write_batch(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        join_all(entries.into_iter().map(|(key, value)| async move { self.write(&key, value).await })).await
    }

    /// Removes several keys; answers are in their order.
    async fn remove_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        join_all(keys.iter().map(|key| self.remove(key))).await
    }

    /// Takes several keys; answers are in their order.
    async fn take_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Peek>> {
        self.remove_batch(keys).await.into_iter().map(|removed| removed.map(Peek::of_removed)).collect()
    }

    /// Stores an entry on a condition, in one step, whoever else writes: for stores that other processes share. Only
    /// called with the capability `writes_conditionally`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    async fn write_if(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        let _ = (key, value, condition);
        Err(BackendError::unsupported("a conditional write"))
    }

    /// Stores records of the leaf, each unless one with this version or a higher is stored, and then an entry. Says what came
    /// of each record; after a conflict it does not matter whether the entry is stored, nor what became of the records that
    /// follow, which may be left out. Only called with the capability `writes_conditionally`. By default one after the other;
    /// where each is a round trip, one for all is better.
    ///
    /// # Errors
    /// As [`write`](Self::write), of any of them.
    async fn write_after(
        &self,
        records: Vec<(CacheKey, CacheValue<Raw>)>,
        version: u64,
        key: &CacheKey,
        value: CacheValue<Raw>,
    ) -> BackendResult<Vec<Conditional>> {
        let mut came = Vec::with_capacity(records.len());
        for (key, record) in records {
            let condition = StoreCondition::IfNewer { version, ignoring: None };
            came.push(self.write_if(&key, record, &condition).await?);
            if let Some(Conditional::Conflict(_)) = came.last() {
                return Ok(came);
            }
        }
        self.write(key, value).await?;
        Ok(came)
    }

    /// What an entry would weigh in the bound of the store, by the same measure as in [`write`](Self::write); 0 if the store is not
    /// bound by weight, as by default. Asked again and again while a body is collected for the store, with an entry without content
    /// whose [`Raw::weight`] is that of what has come so far.
    ///
    /// # Errors
    /// [`TooLarge`](hitbox_core::ErrorKind::TooLarge) if the store could not take it, whatever else it has.
    fn weigh(&self, key: &CacheKey, entry: &CacheValue<Raw>) -> BackendResult<u64> {
        let _ = (key, entry);
        Ok(0)
    }

    /// The weight of all bodies that are being collected for the store now; it replaces that of the call before. A store that is bound
    /// by weight evicts entries until they and `weight` are within the bound together. The weight of a body is taken out just before
    /// the body is written, or when it is given up and nobody reads it any more. Calls come one after the other. By default nothing
    /// is done.
    ///
    /// # Errors
    /// [`TooLarge`](hitbox_core::ErrorKind::TooLarge) if it cannot have so much: the body that has grown is given up, and what was
    /// reserved before still is. Less than before is never refused.
    fn reserve(&self, weight: u64) -> BackendResult<()> {
        let _ = weight;
        Ok(())
    }

    /// Begins to take a body by chunks. `entry` is as its leaf would write it if the body were empty. A store that answers with
    /// nothing, as by default, is given bodies as a whole, when they have ended.
    ///
    /// # Errors
    /// If the store cannot take a body now.
    async fn begin_body(
        &self,
        key: &CacheKey,
        entry: &CacheValue<Raw>,
    ) -> BackendResult<Option<Box<dyn StoreWriter>>> {
        let _ = (key, entry);
        Ok(None)
    }

    /// Opens the stored entry, whatever its age, to hand out its body by chunks. Stores that take bodies by chunks do it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    async fn open_body(&self, key: &CacheKey) -> BackendResult<StoredBody> {
        let _ = key;
        Ok(StoredBody::Unsupported)
    }

    /// Removes a record that the leaf found damaged, unless it has been overwritten since.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    async fn discard(&self, key: &CacheKey, damaged: &CacheValue<Raw>) -> BackendResult<()> {
        let _ = (key, damaged);
        Ok(())
    }

    /// Lists keys, about `limit` of them, from `cursor` on; the first page starts at 0. Cursors should be small: each level
    /// of a nest takes a bit of them. The framework's own keys, which [`CacheKey::is_reserved`] tells, are left out.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) without the capability `enumerates`.
    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let _ = (cursor, limit);
        Err(BackendError::unsupported("listing keys"))
    }

    /// Counts the entries that a normal read may see, as far as their times tell.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) without the capability `counts`.
    async fn count(&self) -> BackendResult<u64> {
        Err(BackendError::unsupported("counting entries"))
    }

    /// Removes every entry, one by one if need be. Entries written meanwhile may go too.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) without the capability `erases`.
    async fn erase(&self) -> BackendResult<()> {
        Err(BackendError::unsupported("erasing all entries"))
    }

    /// Drops entries whose time is over, at most about `limit` of them, and does pending maintenance.
    ///
    /// # Errors
    /// Those of the store.
    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let _ = limit;
        Ok(Sweep::default())
    }

    /// Finishes what is under way and frees what the store has for itself, such as a lock. Calls that come later fail with
    /// [`Closed`](hitbox_core::ErrorKind::Closed) or find nothing. By default there is nothing to free.
    ///
    /// # Errors
    /// If something could not be freed.
    async fn close(&self) -> BackendResult<()> {
        Ok(())
    }

    /// A read has met an entry that is over: a good moment to drop some of those. Must not wait. By default nothing is done.
    fn reclaim(&self) {}

    /// All entries that are there were invalidated, and are served to nobody any more: a store in memory may drop them, in no
    /// time that grows with them. By default nothing is done.
    fn abandon(&self) {}

    /// What the store holds, if it can say without I/O.
    fn occupancy(&self) -> Option<Occupancy> {
        None
    }

    /// The name of the family of gauges that show what the store holds, as in `hitbox_<family>_entries`. Without one
    /// there are none.
    fn gauge_family(&self) -> Option<&'static str> {
        None
    }
}

/// What a store says of an entry without its value.
#[derive(Clone, Debug)]
pub enum Peek {
    /// There is one, of whatever age.
    Entry(CacheValue<()>),
    /// There is none.
    Absent,
    /// It cannot be said without reading it.
    Unknown,
}

impl Peek {
    const fn of_removed(status: DeleteStatus) -> Self {
        match status {
            DeleteStatus::Missing => Self::Absent,
            DeleteStatus::Deleted(_) => Self::Unknown,
        }
    }
}

/// On which condition a store stores an entry. A stored entry with the identity `ignoring` does not count: the leaf has
/// found that its time is over or that it has been invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreCondition {
    /// Unless a stored entry has this version or a higher one.
    IfNewer {
        /// The version of the new entry.
        version: u64,
        /// The identity of an entry that does not count.
        ignoring: Option<u64>,
    },
    /// Unless there is a stored entry.
    IfAbsent {
        /// The identity of an entry that does not count.
        ignoring: Option<u64>,
    },
    /// If the stored entry has this identity.
    IfSame(u64),
}

/// What came of a conditional write.
#[derive(Clone, Debug)]
pub enum Conditional {
    /// The entry is stored.
    Written,
    /// Nothing has changed: this is stored, with this identity ([`Raw::identity`]); or, for `IfSame`, nothing is.
    Conflict(Option<(CacheValue<()>, u64)>),
}

/// Some keys of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys. A key may be on two pages while the store changes.
    pub keys: Vec<CacheKey>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<u64>,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Entries that were dropped.
    pub dropped: u64,
    /// Whether it stopped at its limit.
    pub cut_short: bool,
}
