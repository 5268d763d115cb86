//! Bodies in files: written from the front, with room left for what is known at the end, and read by chunks. Everything here
//! blocks.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hitbox_backend::core::{BackendError, BackendResult, CacheValue, ErrorKind};
use hitbox_backend::envelope::wire::{self, CHUNK_BYTES, Framing};

use crate::calls::OpenBody;
use crate::error::io_error;
use crate::files::Temporary;
use crate::index::Digest;
use crate::object::{self, Object};
use crate::objects::{Objects, Operation, TRIES};
use crate::room::Reserved;
use crate::start::{Look, Start};

/// A body that is being written into a file that nobody sees yet.
pub(crate) struct WrittenBody {
    store: Arc<Objects>,
    key: Vec<u8>,
    temporary: Temporary,
    /// Where the payload begins in the file.
    payload_at: u64,
    framing: Framing,
    reserved: Reserved,
    _open: OpenBody,
}

impl WrittenBody {
    /// Begins the body of a key whose record has so many bytes of header and attributes, and this identity.
    pub(crate) fn begin(
        store: &Arc<Objects>,
        key: &[u8],
        start_len: usize,
        identity: u64,
        open: OpenBody,
    ) -> BackendResult<Self> {
        let _work = store.work();
        store.hold()?;
        let mut tries = 0;
        let temporary = loop {
            match store.files.new_temporary() {
                Err(error) if tries < TRIES && store.is_put_right(&error, 0)? => tries += 1,
                made => break made?,
            }
        };
        let payload_at = object::file_len(key, &[]) + start_len as u64;
        let (store, framing) = (store.clone(), Framing::new(identity));
        let mut reserved = Reserved::for_body(store.clone());
        reserved.grow(payload_at + wire::trailer_len(0))?;
        Ok(Self { store, key: key.to_owned(), temporary, payload_at, framing, reserved, _open: open })
    }

    /// Appends whole chunks, or the end.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> BackendResult<()> {
        // The folder is nobody else's before this has ended: entries may be put out for it.
        let _work = self.store.work();
        self.store.hold()?;
        let at = self.payload_at + self.framing.payload_len();
        let payload = self.framing.payload_len() + bytes.len() as u64;
        self.reserved.grow(self.payload_at + payload + wire::trailer_len(payload))?;
        self.write(bytes, at)?;
        self.framing.add(bytes);
        Ok(())
    }

    /// Writes into the file; others are put out if the file system is full.
    fn write(&self, bytes: &[u8], at: u64) -> BackendResult<()> {
        let mut tries = 0;
        loop {
            match self.store.files.write_into(&self.temporary, bytes, at) {
                Err(error)
                    if tries < TRIES && self.store.is_put_right(&error, (bytes.len() as u64) << tries)? =>
                {
                    tries += 1
                }
                written => return written,
            }
        }
    }

    /// Makes the body visible: `start` are header and attributes of its record.
    pub(crate) fn commit(
        self,
        operation: &Operation,
        start: &[u8],
        entry: &CacheValue<()>,
    ) -> BackendResult<()> {
        // It may have been closed since, and be somebody else's.
        self.store.hold()?;
        let before = object::encode(&self.key, start);
        if before.len() as u64 != self.payload_at {
            // It would overwrite the body, or leave a gap.
            let message = "the tags or the metadata of a body have changed since it began";
            return Err(BackendError::new(ErrorKind::Conflict, message));
        }
        self.write(&before, 0)?;
        let (end, behind) = (self.payload_at + self.framing.payload_len(), self.framing.trailer());
        self.write(&behind, end)?;
        let Self { store, key, temporary, reserved, .. } = self;
        store.files.sync_temporary(&temporary)?;
        let bytes = end + behind.len() as u64;
        let stored = store.put_in_place(operation, temporary, &key, entry, reserved, (bytes, &before));
        if let Err(error) = &stored {
            // This body is lost with its folder; the next one finds it made again.
            store.is_put_right(error, 0)?;
        }
        stored
    }
}

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

/// A body that is there, or was when it was opened.
pub(crate) struct StoredFile {
    store: Arc<Objects>,
    digest: Digest,
    /// The write that made it.
    sequence: u64,
    file: File,
    /// Header and attributes of its record.
    pub(crate) start: Vec<u8>,
    identity: u64,
    payload_at: u64,
    pub(crate) len: u64,
}

impl StoredFile {
    /// Opens the body of a key; nothing if there is none, or what is there has to be looked at where entries are read as a
    /// whole.
    pub(crate) fn open(store: &Arc<Objects>, digest: Digest, key: &[u8]) -> BackendResult<Option<Self>> {
        let look = || -> BackendResult<Option<Self>> {
            let Some((entry, file, examined)) = store.examine(digest, key)? else { return Ok(None) };
            let Examined::Body { start, payload_at, len } = examined else { return Ok(None) };
            let (store, sequence) = (store.clone(), entry.sequence);
            let identity = wire::identity_of(&start).unwrap_or(0);
            Ok(Some(Self { store, digest, sequence, file, start, identity, payload_at, len }))
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
        let mut bytes = vec![0; (to - from) as usize];
        self.file.read_exact_at(&mut bytes, self.payload_at + from).map_err(failed)?;
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

    /// Removes it, unless something else is there by now.
    pub(crate) fn discard(&self) -> BackendResult<()> {
        self.store.remove_if_made_by(self.digest, self.sequence)
    }

    /// Whether its file has no name any more, so that it goes when it is closed.
    pub(crate) fn is_gone(&self) -> bool {
        self.store.index().get(self.digest).is_none_or(|entry| entry.sequence != self.sequence)
    }
}
