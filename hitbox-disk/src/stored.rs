//! Bodies that are there, read by chunks. Everything here blocks.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hitbox_backend::core::{BackendError, BackendResult, CacheValue, ErrorKind};
use hitbox_backend::envelope::wire::{self, CHUNK_BYTES};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};

use crate::digest::{Digest, DigestMap};
use crate::error::io_error;
use crate::object::{self, Object};
use crate::objects::{Objects, Operation};
use crate::start::{Look, Start};
use crate::window::{Kept, Window};

/// What a file is, as far as it can be told without its payload.
pub(crate) enum Examined {
    /// A record of the key that was asked for.
    Body {
        /// Header and attributes.
        start: Vec<u8>,
        /// Where its payload begins in the file.
        payload_at: u64,
        /// Bytes of its payload.
        len: u64,
    },
    Other(Object),
}

impl Examined {
    /// Looks at a file that had so many bytes when it was written.
    pub(crate) fn of(file: &File, key: &[u8], written: u64) -> io::Result<Self> {
        let start = match Start::parse(file) {
            Look::Entry(start) if start.key == key => start.record,
            Look::Entry(_) => return Ok(Self::Other(Object::OtherKey)),
            Look::Newer => return Ok(Self::Other(Object::Newer)),
            Look::Damaged => return Ok(Self::Other(Object::Damaged)),
        };
        if start.is_empty() {
            let record_at = object::file_len(key, &[]);
            let mut start = vec![0; wire::HEADER_BYTES + wire::MAX_ATTRIBUTES_BYTES as usize];
            let read = read_some_at(file, &mut start, record_at)?;
            let is_damaged = wire::is_start_damaged(&start[..read]);
            return Ok(Self::Other(if is_damaged { Object::Damaged } else { Object::Newer }));
        }
        let (bytes, payload_at) = (file.metadata()?.len(), object::file_len(key, &start));
        let mut said = [0; 8];
        let has_said = read_some_at(file, &mut said, bytes.saturating_sub(8))? == said.len();
        let len = bytes.checked_sub(payload_at).and_then(wire::payload_len);
        Ok(match len.filter(|len| bytes == written && has_said && u64::from_le_bytes(said) == *len) {
            Some(len) => Self::Body { start, payload_at, len },
            None => Self::Other(Object::Damaged),
        })
    }
}

/// Reads until the buffer is full or the file ends.
fn read_some_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Reads so many bytes into memory that nothing was written to before.
pub(crate) fn read_exact_at(file: &File, len: usize, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let from = at + bytes.len() as u64;
        match pread(file, spare_capacity(&mut bytes), from) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // There may have been room for more.
    bytes.truncate(len);
    Ok(bytes)
}

/// The files of bodies that are being read, which all who read one share.
#[derive(Clone, Default)]
pub(crate) struct OpenFiles(Arc<Shared>);

#[derive(Default)]
struct Shared {
    files: Mutex<DigestMap<Weak<StoredFile>>>,
    kept: Kept,
}

impl OpenFiles {
    fn files(&self) -> MutexGuard<'_, DigestMap<Weak<StoredFile>>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that is there, or was when it was opened.
pub(crate) struct StoredFile {
    store: Arc<Objects>,
    open: OpenFiles,
    digest: Digest,
    /// The write that made it.
    sequence: u64,
    file: File,
    identity: u64,
    payload_at: u64,
    pub(crate) len: u64,
    pub(crate) window: Arc<Window>,
    /// How many read it.
    readers: AtomicU64,
}

/// One who reads it.
pub(crate) struct Reading(Arc<StoredFile>);

impl Deref for Reading {
    type Target = Arc<StoredFile>;

    fn deref(&self) -> &Arc<StoredFile> {
        &self.0
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        let mut files = self.open.files();
        if files.get(&self.digest).is_some_and(|file| file.strong_count() == 0) {
            files.remove(&self.digest);
        }
    }
}

impl StoredFile {
    /// One more reads it.
    pub(crate) fn reading(self: Arc<Self>) -> Reading {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reading(self)
    }

    /// Whether one reads it alone.
    pub(crate) fn is_read_by_one(&self) -> bool {
        self.readers.load(Ordering::Relaxed) < 2
    }

    /// Opens the body of a key, with header and attributes of its record; nothing if there is none, or what is there has to be
    /// looked at where entries are read as a whole.
    pub(crate) fn open(
        store: &Arc<Objects>,
        open: &OpenFiles,
        digest: Digest,
        key: &[u8],
    ) -> BackendResult<Option<(Arc<Self>, Vec<u8>)>> {
        let look = || -> BackendResult<Option<(Arc<Self>, Vec<u8>)>> {
            let Some((entry, file, examined)) = store.examine(digest, key)? else { return Ok(None) };
            let Examined::Body { start, payload_at, len } = examined else { return Ok(None) };
            let (sequence, identity) = (entry.sequence, wire::identity_of(&start).unwrap_or(0));
            // Dropped after the lock: the last of those who read it gives its place back.
            let other;
            let mut files = open.files();
            other = files.get(&digest).and_then(Weak::upgrade);
            if let Some(other) = &other
                && (other.sequence, other.identity) == (sequence, identity)
            {
                return Ok(Some((other.clone(), start)));
            }
            let (store, window) = (store.clone(), Arc::new(Window::new(&open.0.kept)));
            let open = open.clone();
            let opened = Arc::new(Self {
                store,
                open,
                digest,
                sequence,
                file,
                identity,
                payload_at,
                len,
                window,
                readers: AtomicU64::new(0),
            });
            files.insert(digest, Arc::downgrade(&opened));
            Ok(Some((opened, start)))
        };
        let changes = store.changes_of(digest).load(Ordering::Acquire);
        let mut found = look()?;
        if found.is_none() || !store.is_unchanged(digest, changes) {
            // It may have been overwritten meanwhile.
            let _shelf = store.shelf(digest);
            found = look()?;
        }
        if found.is_some() {
            store.index().touch(digest);
        }
        Ok(found)
    }

    /// The bytes of some whole chunks, which are verified.
    pub(crate) fn read(&self, chunks: Range<u64>) -> BackendResult<Vec<u8>> {
        let chunk_bytes = CHUNK_BYTES as u64;
        let (from, to) = (chunks.start * chunk_bytes, (chunks.end * chunk_bytes).min(self.len));
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                BackendError::new(ErrorKind::Codec, "the file of a body was cut").with_source(error)
            }
            _ => io_error("read", &self.store.files.path(self.digest), error),
        };
        let bytes =
            read_exact_at(&self.file, (to - from) as usize, self.payload_at + from).map_err(failed)?;
        let mut sums = vec![0; (chunks.end - chunks.start) as usize * 8];
        let sums_at = self.payload_at + self.len + chunks.start * 8;
        self.file.read_exact_at(&mut sums, sums_at).map_err(failed)?;
        let mut parts = bytes.chunks(CHUNK_BYTES).zip(sums.chunks_exact(8));
        match parts.position(|(chunk, sum)| !wire::verifies_chunk(self.identity, chunk, sum)) {
            None => Ok(bytes),
            Some(index) => {
                let at = from + index as u64 * chunk_bytes;
                let message = format!("the chunk at byte {at} of a body is not what was written");
                Err(BackendError::new(ErrorKind::Codec, message))
            }
        }
    }

    /// Replaces header and attributes of its record, which are `before`, with others of the same length; says whether they were still
    /// there.
    pub(crate) fn replace_start(
        &self,
        operation: &Operation,
        key: &[u8],
        (before, after): (&[u8], &[u8]),
        entry: &CacheValue<()>,
    ) -> BackendResult<bool> {
        let store = &self.store;
        store.hold()?;
        let _shelf = store.shelf(self.digest);
        if self.is_gone() || store.index().is_superseded(self.digest, operation.sequence) {
            return Ok(false);
        }
        // A change of times whose caller has left may have come first.
        let failed = |error| io_error("read", &store.files.path(self.digest), error);
        let stored = read_exact_at(&self.file, before.len(), object::file_len(key, &[])).map_err(failed)?;
        Ok(stored == before && store.overwrite_start(self.digest, key, after, entry)?)
    }

    /// Removes it, unless something else is there by now.
    pub(crate) fn discard(&self) -> BackendResult<()> {
        self.store.remove_if_made_by(self.digest, self.sequence)
    }

    /// Whether its file has no name any more, so that it goes when it is closed.
    pub(crate) fn is_gone(&self) -> bool {
        self.store.index().get(self.digest).is_none_or(|entry| entry.sequence != self.sequence)
    }
}
