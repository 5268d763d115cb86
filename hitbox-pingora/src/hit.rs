//! A response that was found.

use std::any::Any;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hitbox_backend::Body;
use hitbox_core::{BackendError, BackendLabel};
use pingora_cache::eviction::CacheEntryId;
use pingora_cache::storage::HandleHit;
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, Storage};
use pingora_error::{Error, ErrorType, Result};

/// The most that is handed out at a time of what has been waiting, in bytes.
const MOST_AT_ONCE: usize = 1024 * 1024;

/// The body of a response that was found, complete or on its way.
///
/// A read may be dropped and made again; nothing is lost. A body that is stored can be read from any place any number of times; one
/// that comes from the place where it is. It stays what it is when its key is purged or stored anew meanwhile.
#[derive(Debug)]
pub struct BodyHit {
    /// Whoever reads has it for himself. The lock is for those who ask what it is, since readers cannot be shared by threads.
    body: Mutex<Body>,
    generation: u64,
    /// The body had not come to its end when it was found.
    is_on_its_way: bool,
    /// Something has been read.
    has_begun: bool,
}

impl BodyHit {
    pub(crate) fn stored(body: Body) -> Self {
        let generation = body.generation();
        Self { generation, body: Mutex::new(body), is_on_its_way: false, has_begun: false }
    }

    pub(crate) fn on_its_way(body: Body) -> Self {
        Self { is_on_its_way: true, ..Self::stored(body) }
    }

    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Body) -> T) -> T {
        question(&self.body.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn reader(&mut self) -> &mut Body {
        self.body.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dotted path of the layer from which it is read, as `outer.inner.moka`. Of one that is on its way: the last layer it goes to.
    pub fn layer(&self) -> BackendLabel {
        self.ask(|body| body.label())
    }

    /// Whether the body was still being written when it was found.
    pub const fn is_on_its_way(&self) -> bool {
        self.is_on_its_way
    }

    /// The body itself, for those who read it otherwise.
    pub fn into_body(self) -> Body {
        self.body.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl HandleHit for BodyHit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let joins = self.is_on_its_way && self.has_begun;
        let body = self.reader();
        let first = match body.chunk_at_once() {
            Some(read) => read,
            None => body.chunk().await,
        };
        let Some(first) = first.map_err(failed)? else { return Ok(None) };
        if !joins {
            // The client has the first byte as soon as it is there.
            self.has_begun = true;
            return Ok(Some(first));
        }
        // Pingora reads a response of the origin and this body in turns, and takes several chunks of the former for one of the
        // latter: who reads them one by one falls further and further behind.
        let mut joined: Option<BytesMut> = None;
        while joined.as_ref().map_or(first.len(), |joined| joined.len()) < MOST_AT_ONCE {
            // An error is for the next read to find.
            let Some(Ok(Some(chunk))) = body.chunk_at_once() else { break };
            joined.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&chunk);
        }
        Ok(Some(joined.map_or(first, BytesMut::freeze)))
    }

    async fn finish(
        self: Box<Self>,
        _storage: &'static (dyn Storage + Sync),
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    /// What comes is held for the one who asked for it, up to the place where he is, and once.
    fn can_seek_multipart(&self) -> bool {
        !self.is_on_its_way
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        let end = end.map_or(u64::MAX, |end| end as u64);
        self.reader().seek(start as u64..end).map_err(failed)
    }

    fn should_count_access(&self) -> bool {
        !self.is_on_its_way
    }

    fn get_eviction_weight(&self) -> usize {
        match self.ask(|body| body.size()) {
            Some(size) if !self.is_on_its_way => usize::try_from(size).unwrap_or(usize::MAX),
            _ => 0,
        }
    }

    fn entry_id(&self) -> Option<CacheEntryId> {
        Some(CacheEntryId::new(self.generation))
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

/// An error of a layer as Pingora has it.
pub(crate) fn failed(error: BackendError) -> Box<Error> {
    Error::because(ErrorType::InternalError, "a layer of the cache failed", error)
}
