//! Files and index together. Everything here blocks, and runs on threads for that.
//!
//! Two locks: the index (short, never held over I/O), and one of the shelves (held over the rename or
//! removal of one file, so that file and index change together).

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use hitbox_backend::core::{BackendError, BackendResult, CacheKey, CacheValue};
use hitbox_backend::store::Page;
use tokio::sync::Notify;

use crate::digest::Digest;
use crate::error::{io_error, io_kind};
use crate::files::{Files, Temporary};
use crate::index::{Entry, Index, space};
use crate::object::{self, Object};
use crate::pinned::Pinned;
use crate::room::Reserved;
use crate::start::class_of;
use crate::stored::Examined;

const SHELVES: usize = 64;
/// How often a write is tried again.
pub(crate) const TRIES: u32 = 8;

#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) files: Files,
    index: Mutex<Index>,
    /// Told when an operation has ended.
    ended: Notify,
    /// What came of releasing the folder.
    released: OnceLock<BackendResult<()>>,
    pub(crate) pinned: Pinned,
    shelves: [Mutex<()>; SHELVES],
    /// Changes of objects in their place, by shelf: odd while one is made.
    changes: [AtomicU64; SHELVES],
    pub(crate) max_bytes: u64,
    pub(crate) evicted: AtomicU64,
    pub(crate) expired: AtomicU64,
    /// Where the next sweep goes on: one that was cut short must not look at the same entries again.
    swept_to: Mutex<Digest>,
    /// Objects that could not be removed.
    pub(crate) left: AtomicU64,
}

/// A write or delete that has its place in the order; ends when dropped, whether it was carried out or not.
#[derive(Debug)]
pub(crate) struct Operation {
    store: Arc<Objects>,
    pub(crate) digest: Digest,
    pub(crate) sequence: u64,
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.store.index().end(self.digest, self.sequence);
        self.store.release_if_closed();
        self.store.ended.notify_waiters();
    }
}

impl Objects {
    pub(crate) fn new(files: Files, index: Index, max_bytes: u64, left: u64) -> BackendResult<Self> {
        let pinned = Pinned::found(&files, index.entries())?;
        let store = Self {
            files,
            pinned,
            index: Mutex::new(index),
            ended: Notify::new(),
            released: OnceLock::new(),
            shelves: std::array::from_fn(|_| Mutex::new(())),
            changes: std::array::from_fn(|_| AtomicU64::new(0)),
            max_bytes,
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            swept_to: Mutex::new(0),
            left: AtomicU64::new(left),
        };
        // The bound may be smaller than it was.
        let evicted = store.index().reserve(0, max_bytes);
        store.discard_evicted(&evicted);
        Ok(store)
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shelf(&self, digest: Digest) -> MutexGuard<'_, ()> {
        self.shelves[digest as usize % SHELVES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changes_of(&self, digest: Digest) -> &AtomicU64 {
        &self.changes[digest as usize % SHELVES]
    }

    /// Whether what has been read since `changes` were counted is no mix of what was and what is.
    pub(crate) fn is_unchanged(&self, digest: Digest, changes: u64) -> bool {
        fence(Ordering::Acquire);
        changes.is_multiple_of(2) && self.changes_of(digest).load(Ordering::Relaxed) == changes
    }

    /// Gives the next operation on a key its place in the order.
    pub(crate) fn begin(self: &Arc<Self>, digest: Digest) -> Operation {
        let sequence = self.index().begin(digest);
        Operation { store: self.clone(), digest, sequence }
    }

    /// The same when all that was begun before has ended: a write whose caller has left may be under way.
    pub(crate) async fn begin_settled(self: &Arc<Self>, digest: Digest) -> Operation {
        let before = self.index().last_begun();
        self.settled(Some(digest), before).await;
        self.begin(digest)
    }

    /// Work that is no operation on a key, and must have ended before the folder is released.
    pub(crate) fn work(self: &Arc<Self>) -> Operation {
        self.begin(0)
    }

    /// Waits for operations that have begun before, also for those whose caller has left: on one key, or on any. Never
    /// called on a thread that they may need.
    pub(crate) async fn settled(&self, digest: Option<Digest>, sequence: u64) {
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.index().has_settled(digest, sequence) {
                return;
            }
            ended.await;
        }
    }

    /// Lets nothing begin any more, waits for what is under way, and has the folder released, which the last operation does
    /// if nobody waits.
    pub(crate) async fn close(&self) -> BackendResult<()> {
        self.files.close();
        loop {
            self.release_if_closed();
            if let Some(released) = self.released.get() {
                return released.clone();
            }
            self.settled(None, u64::MAX).await;
        }
    }

    fn release_if_closed(&self) {
        if self.files.is_closed() && self.index().is_idle() {
            self.released.get_or_init(|| self.files.release());
        }
    }

    pub(crate) fn holds(&self, digest: Digest) -> bool {
        self.index().get(digest).is_some()
    }

    /// The record of this key, if it can be had without waiting; nothing if there is none.
    pub(crate) fn read_in_place(&self, digest: Digest, key: &[u8]) -> Poll<Option<Bytes>> {
        let Some(entry) = self.index().touch(digest) else { return Poll::Ready(None) };
        let changes = self.changes_of(digest).load(Ordering::Acquire);
        let file = self.files.read_in_place(digest, entry.sequence, entry.bytes);
        if !self.is_unchanged(digest, changes) {
            return Poll::Pending;
        }
        match file.map(|file| object::decode(key, file)) {
            Some(Object::Record(record)) => Poll::Ready(Some(record)),
            // What else it may be is looked at where it can be put right.
            _ => Poll::Pending,
        }
    }

    /// The file of a key, with what it is; nothing if there is none.
    pub(crate) fn examine(
        &self,
        digest: Digest,
        key: &[u8],
    ) -> BackendResult<Option<(Entry, File, Examined)>> {
        let Some(entry) = self.index().get(digest) else { return Ok(None) };
        let Some(file) = self.files.open_object(digest)? else { return Ok(None) };
        let examined = Examined::of(&file, key, entry.bytes);
        let examined = examined.map_err(|e| io_error("look at", &self.files.path(digest), e))?;
        Ok(Some((entry, file, examined)))
    }

    /// The object under this name. Of one whose file has more than so many bytes only its start is read.
    fn look(&self, digest: Digest, key: &[u8], longest: u64) -> BackendResult<Option<Object>> {
        if self.index().get(digest).is_some_and(|entry| entry.bytes > longest) {
            return Ok(self.examine(digest, key)?.map(|(_, _, examined)| match examined {
                Examined::Body { .. } => Object::TooLong,
                Examined::Other(object) => object,
            }));
        }
        Ok(self.files.read(digest)?.map(|file| object::decode(key, file)))
    }

    /// The object under this name, unless its file is longer than so many bytes.
    pub(crate) fn read(&self, digest: Digest, key: &[u8], longest: u64) -> BackendResult<Option<Object>> {
        let Some(entry) = self.index().get(digest) else { return Ok(None) };
        let changes = self.changes_of(digest).load(Ordering::Acquire);
        let mut object = self.look(digest, key, longest)?;
        let is_sure = object.is_some() && (entry.bytes <= longest || object == Some(Object::TooLong));
        if !is_sure || !self.is_unchanged(digest, changes) {
            let _shelf = self.shelf(digest);
            object = self.look(digest, key, longest)?;
            if object.is_none() {
                // Evicted or overwritten since; or somebody removed the file.
                self.index().remove_if_same(digest, entry.sequence);
            }
        }
        if matches!(object, Some(Object::Record(_))) {
            self.index().touch(digest);
        }
        Ok(object)
    }

    /// Removes a damaged object, unless it has been overwritten: `record` is what was found, if it was a record.
    pub(crate) fn remove_damaged(
        self: &Arc<Self>,
        digest: Digest,
        key: &[u8],
        record: Option<&[u8]>,
        longest: u64,
    ) -> BackendResult<()> {
        let _work = self.work();
        self.hold()?;
        let _shelf = self.shelf(digest);
        let Some(entry) = self.index().get(digest) else { return Ok(()) };
        let Some(object) = self.look(digest, key, longest)? else { return Ok(()) };
        let is_same = match object {
            Object::Record(found) => record.is_some_and(|record| found == record),
            Object::Damaged => true,
            Object::OtherKey | Object::Newer | Object::TooLong => false,
        };
        if is_same && self.index().remove_if_same(digest, entry.sequence) {
            self.pinned.forget(digest);
            self.files.remove(digest)?;
        }
        Ok(())
    }

    /// Removes an object, unless another write than this one has made it.
    pub(crate) fn remove_if_made_by(self: &Arc<Self>, digest: Digest, sequence: u64) -> BackendResult<()> {
        let _work = self.work();
        self.hold()?;
        let _shelf = self.shelf(digest);
        if self.index().remove_if_same(digest, sequence) {
            self.pinned.forget(digest);
            self.files.remove(digest)?;
        }
        Ok(())
    }

    pub(crate) fn write(
        self: &Arc<Self>,
        operation: &Operation,
        key: &[u8],
        record: &[u8],
        value: &CacheValue<()>,
    ) -> BackendResult<()> {
        let space = space(object::file_len(key, record));
        if space > self.max_bytes {
            return Err(BackendError::too_large("an entry", space, self.max_bytes));
        }
        let file = object::encode(key, record);
        let mut tries = 0;
        loop {
            match self.try_write(operation, &file, key, value) {
                Err(error)
                    if tries < TRIES && self.is_put_right(&error, space.saturating_mul(1 << tries))? =>
                {
                    tries += 1
                }
                written => return written,
            }
        }
    }

    /// Before files are changed: makes sure that the folder is there, and is nobody else's.
    pub(crate) fn hold(&self) -> BackendResult<()> {
        if self.files.hold()? { self.restore_pinned(None) } else { Ok(()) }
    }

    /// Whether a write that failed is worth another try, for which so much of others may be put out.
    pub(crate) fn is_put_right(&self, error: &BackendError, space: u64) -> BackendResult<bool> {
        match io_kind(error) {
            // The folder, or part of it, was removed.
            Some(io::ErrorKind::NotFound) => {
                self.files.restore()?;
                self.restore_pinned(None).map(|()| true)
            }
            // Others than this store have filled the file system.
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                let evicted = self.index().put_out(space);
                self.discard_evicted(&evicted);
                Ok(!evicted.is_empty())
            }
            _ => Ok(false),
        }
    }

    fn try_write(
        self: &Arc<Self>,
        operation: &Operation,
        file: &[u8],
        key: &[u8],
        value: &CacheValue<()>,
    ) -> BackendResult<()> {
        self.hold()?;
        let bytes = file.len() as u64;
        let reserved = self.make_room(space(bytes));
        let temporary = self.files.write_temporary(file)?;
        self.put_in_place(operation, temporary, key, value, reserved, (bytes, file))
    }

    /// Makes a file visible that has been written, of so many bytes; of those that are kept in memory too, with what is in it.
    pub(crate) fn put_in_place(
        &self,
        operation: &Operation,
        temporary: Temporary,
        key: &[u8],
        value: &CacheValue<()>,
        reserved: Reserved,
        (bytes, file): (u64, &[u8]),
    ) -> BackendResult<()> {
        let Operation { digest, sequence, .. } = *operation;
        let shelf = self.shelf(digest);
        if self.index().is_superseded(digest, sequence) {
            return Ok(());
        }
        let made = self.files.install(temporary, digest)?;
        let entry = Entry::new(bytes, value, class_of(key), sequence);
        self.index().insert(digest, entry);
        self.pinned.keep(digest, entry, file);
        reserved.keep();
        drop(shelf);
        // Bodies that are being written may have left it less room than it was to have.
        let evicted = self.index().reserve(0, self.max_bytes);
        self.discard_evicted(&evicted);
        if made { self.restore_pinned(Some(digest)) } else { Ok(()) }
    }

    /// Removes the entry, and says what it was.
    pub(crate) fn remove(&self, operation: &Operation) -> BackendResult<Option<Entry>> {
        self.hold()?;
        let Operation { digest, sequence, .. } = *operation;
        let _shelf = self.shelf(digest);
        if self.index().is_superseded(digest, sequence) {
            return Ok(None);
        }
        self.files.remove(digest)?;
        self.pinned.forget(digest);
        Ok(self.index().remove(digest, sequence))
    }

    /// The keys of some entries, and where the next page starts.
    pub(crate) fn keys(&self, from: u64, limit: usize) -> BackendResult<Page> {
        self.files.check_open()?;
        let (digests, next) = self.index().page(from, limit);
        let mut keys = Vec::with_capacity(digests.len());
        for digest in digests {
            let start = self.files.start(digest).unwrap_or_else(|error| {
                // It is no hit either.
                tracing::warn!(%error, "an object that cannot be read is not listed");
                None
            });
            // What is damaged or has been removed meanwhile has no key.
            let key = start.and_then(|start| CacheKey::from_encoded(&start.key).ok());
            keys.extend(key.filter(|key| !key.is_reserved()));
        }
        Ok(Page { keys, next })
    }

    /// What the entry of this key says without its payload.
    pub(crate) fn peek(
        &self,
        digest: Digest,
        key: &[u8],
        schema: u32,
    ) -> BackendResult<Option<CacheValue<()>>> {
        if !self.holds(digest) {
            return Ok(None);
        }
        let changes = self.changes_of(digest).load(Ordering::Acquire);
        let mut start = self.files.start(digest)?;
        if !self.is_unchanged(digest, changes) {
            let _shelf = self.shelf(digest);
            start = self.files.start(digest)?;
        }
        Ok(start.filter(|start| start.key == key && start.schema == schema).map(|start| start.entry))
    }

    /// Entries that a normal read may see at `now`.
    pub(crate) fn visible(&self, now: u64) -> BackendResult<u64> {
        self.files.check_open()?;
        let (mut all, mut from) = (0, Some(0));
        while let Some(start) = from {
            let (some, next) = self.index().visible(start, now);
            (all, from) = (all + some, next);
        }
        Ok(all)
    }

    pub(crate) fn erase(self: &Arc<Self>) -> BackendResult<()> {
        self.hold()?;
        let digests = self.index().digests();
        for digest in digests {
            self.remove(&self.begin(digest))?;
        }
        Ok(())
    }

    /// Removes entries whose time is over; says how many, and whether more are left.
    pub(crate) fn sweep(self: &Arc<Self>, now: u64, limit: usize) -> BackendResult<(u64, bool)> {
        let _work = self.work();
        self.hold()?;
        let mut swept_to = self.swept_to.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, mut start, mut has_turned) = (*swept_to, *swept_to, false);
        let mut dropped = 0;
        loop {
            let (expired, next) = self.index().take_expired(start, now, limit - dropped);
            dropped += expired.len();
            self.expired.fetch_add(expired.len() as u64, Ordering::Relaxed);
            self.discard(&expired);
            start = next.unwrap_or(0);
            let is_round = (next.is_none() && (has_turned || first == 0)) || (has_turned && start >= first);
            has_turned |= next.is_none();
            *swept_to = if is_round { 0 } else { start };
            // It stopped at one that is over: none is left to be dropped by this sweep.
            let is_over = |digest| self.index().get(digest).is_some_and(|entry| entry.drop_at <= now);
            if is_round || (dropped == limit && next.is_some_and(is_over)) {
                return Ok((dropped as u64, !is_round));
            }
        }
    }
}
