//! Bodies by chunks, for those who may not block.

use std::mem;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use hitbox_backend::core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};
use hitbox_backend::envelope::wire::{self, CHUNK_BYTES};
use hitbox_backend::store::{Conditional, Raw, StoreReader, StoreWriter, StoredBody, WrittenPart};

use crate::calls::{Calls, drop_elsewhere};
use crate::store::digest;
use crate::stored::{Reading, StoredFile};
use crate::window::{Bringing, Look};
use crate::written::{WrittenBody, WrittenFile};

/// Bytes that go to a thread together, and come from one: whole chunks.
const TOGETHER: usize = 4 * CHUNK_BYTES;

/// The record of a body without its payload, in so much room or more, and its identity.
fn start_of(key: &CacheKey, entry: &CacheValue<Raw>, room: usize) -> BackendResult<(Vec<u8>, u64)> {
    match entry.data().as_encoded() {
        Some(frame) => Ok((wire::encode_body_start_within(room, key, entry, frame), frame.identity)),
        None => Err(BackendError::new(ErrorKind::Codec, "a live value reached a store of bytes")),
    }
}

/// A body that calls on several threads may have, one after the other; nothing once it has failed, or was given up.
type Shared = Arc<Mutex<Option<WrittenBody>>>;

fn lock(body: &Shared) -> MutexGuard<'_, Option<WrittenBody>> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

fn given_up() -> BackendError {
    BackendError::new(ErrorKind::Closed, "the body was given up when one of its chunks failed")
}

/// A body on its way to the disk.
pub(crate) struct DiskWriter {
    calls: Calls,
    key: CacheKey,
    /// What is left for header and attributes of its record, in bytes.
    room: usize,
    /// Nothing once it is another's to end.
    body: Option<Shared>,
    /// What has come and is not a whole part yet.
    rest: Vec<u8>,
    /// Bytes that have come.
    len: u64,
    /// A chunk has failed, or was given up before it was written.
    is_broken: bool,
}

impl Drop for DiskWriter {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            drop_elsewhere(body);
        }
    }
}

impl DiskWriter {
    pub(crate) async fn begin(calls: &Calls, key: &CacheKey, entry: &CacheValue<Raw>) -> BackendResult<Self> {
        let (start, identity) = start_of(key, entry, 0)?;
        let (encoded, open, room) = (key.clone(), calls.begin_body()?, wire::room_of_body_start(start.len()));
        let (key, of_writer) = (key.clone(), calls.clone());
        // The writer is made there: if nobody waits for it any more, its file goes where it may block.
        let begin = calls.run(move |store| {
            let body = WrittenBody::begin(store, encoded.as_encoded(), room, identity, open)?;
            let body = Some(Arc::new(Mutex::new(Some(body))));
            Ok(Self { calls: of_writer, key, room, body, rest: Vec::new(), len: 0, is_broken: false })
        });
        begin.await
    }

    fn shared(&self) -> BackendResult<Shared> {
        self.body.clone().filter(|_| !self.is_broken).ok_or_else(given_up)
    }

    /// Has what has come written.
    async fn flush(&mut self) -> BackendResult<()> {
        let (shared, bytes) = (self.shared()?, mem::take(&mut self.rest));
        self.is_broken = true;
        let writing = self.calls.begin_writing(bytes.len()).await;
        let put = self.calls.run(move |_| {
            let _writing = writing;
            let mut body = lock(&shared);
            let put = body.as_mut().ok_or_else(given_up)?.put(&bytes);
            if put.is_err() {
                *body = None;
            }
            put.map(|()| bytes)
        });
        self.rest = put.await?;
        self.rest.clear();
        self.is_broken = false;
        Ok(())
    }
}

#[async_trait]
impl StoreWriter for DiskWriter {
    async fn chunk(&mut self, mut chunk: Bytes) -> BackendResult<()> {
        self.shared()?;
        let max = self.calls.objects.max_bytes;
        self.len = self.len.saturating_add(chunk.len() as u64);
        if self.len > max {
            // Nobody is put out for it.
            self.is_broken = true;
            return Err(BackendError::too_large("a body", self.len, max));
        }
        while chunk.has_remaining() {
            let more = chunk.len().min(TOGETHER - self.rest.len());
            self.rest.extend_from_slice(&chunk[..more]);
            chunk.advance(more);
            if self.rest.len() == TOGETHER {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        let file = lock(self.body.as_ref()?).as_ref()?.file();
        Some(Arc::new(DiskPart { calls: self.calls.clone(), file }))
    }

    async fn commit(mut self: Box<Self>, entry: CacheValue<Raw>) -> BackendResult<()> {
        let (start, _) = start_of(&self.key, &entry, self.room)?;
        let (shared, rest, entry) = (self.shared()?, mem::take(&mut self.rest), entry.map(drop));
        let operation = self.calls.objects.begin(digest(&self.key));
        let writing = self.calls.begin_writing(rest.len()).await;
        let commit = self.calls.run(move |_| {
            let _writing = writing;
            let mut body = lock(&shared).take().ok_or_else(given_up)?;
            body.put(&rest)?;
            body.commit(&operation, &start, &entry)
        });
        let committed = commit.await;
        self.body = None;
        committed
    }

    /// Waits for a chunk whose caller has left, too.
    async fn abort(mut self: Box<Self>) {
        let Some(shared) = self.body.clone() else { return };
        let dropped = self.calls.run(move |_| {
            drop(lock(&shared).take());
            Ok(())
        });
        match dropped.await {
            Ok(()) => self.body = None,
            Err(error) => tracing::debug!(%error, "a body was given up, and its file is removed later"),
        }
    }
}

/// What is on the disk of a body that is being written.
struct DiskPart {
    calls: Calls,
    file: WrittenFile,
}

impl Drop for DiskPart {
    fn drop(&mut self) {
        if self.file.is_unnamed() {
            drop_elsewhere(self.file.clone());
        }
    }
}

#[async_trait]
impl WrittenPart for DiskPart {
    fn readable(&self) -> u64 {
        self.file.readable()
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        let len = limit.min(self.file.readable().saturating_sub(at)).min(TOGETHER as u64) as usize;
        let file = self.file.clone();
        self.calls.run(move |_| file.read(at, len).map(Bytes::from)).await
    }
}

/// A body on the disk.
pub(crate) struct DiskReader {
    calls: Calls,
    key: CacheKey,
    /// Header and attributes of its record.
    start: Vec<u8>,
    file: Reading,
}

impl Drop for DiskReader {
    fn drop(&mut self) {
        if Arc::strong_count(&self.file) == 1 && self.file.is_gone() {
            drop_elsewhere(Arc::clone(&self.file));
        }
    }
}

impl DiskReader {
    /// Opens the body of a key, unless its file has at most `whole` bytes: that is read as cheaply as a part of it.
    pub(crate) async fn open(calls: &Calls, key: &CacheKey, whole: u64) -> BackendResult<StoredBody> {
        let (wanted, digest) = (key.clone(), digest(key));
        let entry = calls.objects.index().get(digest);
        match entry {
            None => return Ok(StoredBody::Absent),
            Some(entry) if entry.bytes <= whole => return Ok(StoredBody::Unsupported),
            Some(_) => {}
        }
        let files = calls.open_files.clone();
        let opened =
            calls.run(move |store| StoredFile::open(store, &files, digest, wanted.as_encoded())).await?;
        Ok(match opened {
            Some((file, start)) => {
                let (calls, key) = (calls.clone(), key.clone());
                StoredBody::There(Box::new(Self { calls, key, start, file: file.reading() }))
            }
            // Its file is gone, which is put right where entries are read as a whole.
            None => StoredBody::Unsupported,
        })
    }
}

impl DiskReader {
    /// Has chunks brought, which the caller was told are missing.
    fn bring(&self, chunks: Range<u64>) -> impl FnOnce() -> BackendResult<Bytes> + Send + use<> {
        let file = Arc::clone(&self.file);
        let bringing = Bringing::new(file.window.clone(), chunks.clone());
        move || {
            let bytes = Bytes::from(file.read(chunks)?);
            bringing.brought(&bytes, file.is_read_by_one());
            Ok(bytes)
        }
    }

    /// Has chunks brought that will be asked for next.
    fn read_ahead(&self, chunks: Range<u64>) {
        if let Some(missing) = self.file.window.look_ahead(chunks) {
            let bring = self.bring(missing);
            self.calls.begin(move || {
                // Who asks for them meets the error, and reads again.
                if let Err(error) = bring() {
                    tracing::trace!(%error, "a part of a body could not be read ahead");
                }
            });
        }
    }
}

#[async_trait]
impl StoreReader for DiskReader {
    fn start(&self) -> &[u8] {
        &self.start
    }

    fn body_len(&self) -> u64 {
        self.file.len
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        let (chunk, together) = (CHUNK_BYTES as u64, TOGETHER as u64);
        let first = at / chunk;
        let end = at.saturating_add(limit).min(first * chunk + together).min(self.file.len);
        let part = |first: u64, bytes: &Bytes| {
            let from = first * chunk;
            let end = (end - from).min(bytes.len() as u64);
            bytes.slice((at - from) as usize..end as usize)
        };
        let wanted = at.saturating_add(limit).min(self.file.len).div_ceil(chunk);
        let next = end.div_ceil(chunk)..wanted.min(end.div_ceil(chunk) + together / chunk);
        loop {
            let mut came = pin!(self.file.window.came());
            came.as_mut().enable();
            match self.file.window.look(first..end.div_ceil(chunk)) {
                Look::There(first, bytes) => {
                    self.read_ahead(next);
                    return Ok(part(first, &bytes));
                }
                Look::Coming => came.await,
                Look::Missing(chunks) => {
                    let bring = self.bring(chunks);
                    let read = self.calls.run(move |_| bring());
                    self.read_ahead(next);
                    return Ok(part(first, &read.await?));
                }
            }
        }
    }

    /// In its place, if it fits there.
    async fn replace_entry(&self, entry: &CacheValue<Raw>) -> BackendResult<Option<Conditional>> {
        let (start, _) = start_of(&self.key, entry, self.start.len())?;
        if start.len() != self.start.len() {
            return Ok(None);
        }
        let (key, entry) = (self.key.clone(), entry.clone().map(drop));
        let operation = self.calls.objects.begin_settled(digest(&key)).await;
        let (file, before) = (Arc::clone(&self.file), self.start.clone());
        let replace = self
            .calls
            .run(move |_| file.replace_start(&operation, key.as_encoded(), (&before, &start), &entry));
        Ok(Some(if replace.await? { Conditional::Written } else { Conditional::Conflict(None) }))
    }

    async fn discard(&self) -> BackendResult<()> {
        let file = Arc::clone(&self.file);
        self.calls.run(move |_| file.discard()).await
    }
}
