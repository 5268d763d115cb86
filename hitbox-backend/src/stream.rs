//! Bodies by chunks. The defaults buffer; backends that can stream override them.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};

use crate::backend::{Backend, WriteOptions};
use crate::envelope::Raw;
use crate::read::Found;
use crate::receipt::Receipt;

/// The largest body that the buffering defaults take, in bytes.
pub const MAX_BUFFERED_BODY: u64 = 64 * 1024 * 1024;

const CHUNK: usize = 64 * 1024;

/// Takes a body by chunks. Dropping it unfinished leaves nothing behind.
#[async_trait]
pub trait BodyWriter: Send {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// If it cannot be stored; the writer is of no use then.
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()>;

    /// Ends the body and makes the entry visible.
    async fn finish(self: Box<Self>) -> Receipt;
}

/// Hands out a body by chunks.
#[async_trait]
pub trait BodyReader: Send {
    /// The entry without its body.
    fn entry(&self) -> &CacheValue<()>;

    /// Bytes in the whole body.
    fn len(&self) -> u64;

    /// Whether the body has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes on at `range.start` and ends before `range.end`, which is clamped to the length.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the range starts behind the end of the body or of itself.
    fn seek(&mut self, range: Range<u64>) -> BackendResult<()>;

    /// The next chunk, `None` at the end.
    ///
    /// # Errors
    /// If the body cannot be read on.
    async fn chunk(&mut self) -> BackendResult<Option<Bytes>>;
}

/// Collects chunks and writes them as one value.
pub(crate) struct BufferedWriter<B: ?Sized> {
    backend: Arc<B>,
    key: CacheKey,
    entry: CacheValue<()>,
    body: BytesMut,
}

impl<B: Backend + ?Sized> BufferedWriter<B> {
    pub(crate) fn new(backend: Arc<B>, key: CacheKey, entry: CacheValue<()>) -> Self {
        Self { backend, key, entry, body: BytesMut::new() }
    }
}

#[async_trait]
impl<B: Backend + ?Sized> BodyWriter for BufferedWriter<B> {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        let size = self.body.len() as u64 + chunk.len() as u64;
        if size > MAX_BUFFERED_BODY {
            return Err(BackendError::too_large("a buffered body", size, MAX_BUFFERED_BODY));
        }
        self.body.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Receipt {
        let body = self.body.freeze();
        let value = self.entry.map(|()| Raw::live(body));
        self.backend.write_with(&self.key, value, &WriteOptions::default()).await
    }
}

/// Hands out a value that is in memory already.
pub(crate) struct BufferedReader {
    entry: CacheValue<()>,
    body: Bytes,
    at: Range<usize>,
}

impl BufferedReader {
    pub(crate) fn open(found: Option<Found>) -> BackendResult<Option<Box<dyn BodyReader>>> {
        let Some(found) = found else { return Ok(None) };
        let body: Bytes = found.value.data().decode()?;
        let at = 0..body.len();
        Ok(Some(Box::new(Self { entry: found.value.map(|_| ()), body, at })))
    }
}

#[async_trait]
impl BodyReader for BufferedReader {
    fn entry(&self) -> &CacheValue<()> {
        &self.entry
    }

    fn len(&self) -> u64 {
        self.body.len() as u64
    }

    fn seek(&mut self, range: Range<u64>) -> BackendResult<()> {
        let end = range.end.min(self.len());
        if range.start > range.end || range.start > end || (range.start == end && range.start > 0) {
            let message = format!("{}..{} is no range of {} bytes", range.start, range.end, self.len());
            return Err(BackendError::new(ErrorKind::Unsupported, message));
        }
        self.at = range.start as usize..end as usize;
        Ok(())
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        if self.at.is_empty() {
            return Ok(None);
        }
        let end = self.at.end.min(self.at.start + CHUNK);
        let chunk = self.body.slice(self.at.start..end);
        self.at.start = end;
        Ok(Some(chunk))
    }
}
