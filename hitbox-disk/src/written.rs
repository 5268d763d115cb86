//! Bodies on their way into files: written from the front, with room left for what is known at the end. Everything here blocks.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_backend::core::{BackendError, BackendResult, CacheValue, ErrorKind};
use hitbox_backend::envelope::wire::{self, Framing};

use crate::calls::OpenBody;
use crate::files::Temporary;
use crate::object;
use crate::objects::{Objects, Operation, TRIES};
use crate::room::Reserved;
use crate::stored;

/// A body that is being written into a file that nobody sees yet.
pub(crate) struct WrittenBody {
    store: Arc<Objects>,
    key: Vec<u8>,
    temporary: Temporary,
    /// Where the payload begins in the file.
    payload_at: u64,
    framing: Framing,
    /// Bytes of the payload that are in the file.
    readable: Arc<AtomicU64>,
    reserved: Reserved,
    _open: OpenBody,
}

/// What is in the file of a body that is being written. Its payload never changes once it is there.
#[derive(Clone)]
pub(crate) struct WrittenFile {
    file: Arc<File>,
    payload_at: u64,
    readable: Arc<AtomicU64>,
}

impl WrittenFile {
    pub(crate) fn readable(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    /// Some of the payload, which is there.
    pub(crate) fn read(&self, at: u64, len: usize) -> BackendResult<Vec<u8>> {
        let failed = |error| {
            BackendError::new(ErrorKind::Io, "a body that is being written cannot be read").with_source(error)
        };
        stored::read_exact_at(&self.file, len, self.payload_at + at).map_err(failed)
    }

    /// Whether the file has no name, and goes when it is closed.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() == 0)
    }
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
        let readable = Arc::default();
        Ok(Self {
            readable,
            store,
            key: key.to_owned(),
            temporary,
            payload_at,
            framing,
            reserved,
            _open: open,
        })
    }

    pub(crate) fn file(&self) -> WrittenFile {
        let (file, readable) = (self.temporary.file.clone(), self.readable.clone());
        WrittenFile { file, payload_at: self.payload_at, readable }
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
        self.readable.store(payload, Ordering::Release);
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
