//! Cuts calls that take too long.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use hitbox_core::{
    BackendError, BackendResult, BoxFuture, CacheKey, CacheValue, Clock, ErrorKind, Operation,
};

use super::{Wrapper, forward};
use crate::backend::Backend;
use crate::completion::Completion;
use crate::into::IntoBackend;
use crate::leaf::failure;
use crate::operation::{ReadOptions, WriteOptions};
use crate::receipt::Receipt;
use crate::stats::Event;
use crate::store::WrittenPart;
use crate::stream::{BodyReader, BodyWriter, ReaderWrapper};

/// A backend whose calls are cut after a limit, whatever they are; of bodies every chunk is a call. A read that is cut is
/// a failed read. A write or delete that is cut has an unknown outcome in each leaf, so that compositions do not serve
/// what it may have left.
pub struct Deadline {
    inner: Arc<dyn Backend>,
    limit: Limit,
}

#[derive(Clone)]
struct Limit {
    time: Duration,
    clock: Arc<dyn Clock>,
}

impl Limit {
    /// What comes of `call` in time.
    async fn cut<T>(&self, operation: Operation, call: BoxFuture<'_, T>) -> BackendResult<T> {
        match select(call, self.clock.sleep(self.time)).await {
            Either::Left((result, _)) => Ok(result),
            Either::Right(_) => {
                let message = format!("it took longer than {} ms", self.time.as_millis());
                Err(BackendError::new(ErrorKind::Timeout, message).during(operation))
            }
        }
    }
}

impl Deadline {
    /// Cuts the calls of `inner` after `limit`.
    pub fn new<Kind>(inner: impl IntoBackend<Kind>, limit: Duration) -> Self {
        Self::of(inner.into_shared(), limit)
    }

    fn of(inner: Arc<dyn Backend>, time: Duration) -> Self {
        let clock = inner.layout().clock().clone();
        Self { inner, limit: Limit { time, clock } }
    }
}

impl Wrapper for Deadline {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self::of(inner, self.limit.time))
    }

    fn guard<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        call: impl FnOnce() -> Completion<'a, T> + Send + 'a,
        failed: impl FnOnce(BackendError) -> T + Send + 'a,
    ) -> Completion<'a, T> {
        match call() {
            Completion::Later(work) => {
                Completion::later(async move { self.limit.cut(operation, work).await.unwrap_or_else(failed) })
            }
            done => done,
        }
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        forward::open_reader(self, key, options).map(|opened| {
            let limit = self.limit.clone();
            Ok(opened?.map(|reader| Box::new(CutReader { reader, limit }) as Box<dyn BodyReader>))
        })
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        forward::open_writer(self, key, entry, options).map(|opened| {
            let (writer, limit, inner) = (opened?, self.limit.clone(), self.inner.clone());
            Ok(Box::new(CutWriter { writer, limit, inner }) as Box<dyn BodyWriter>)
        })
    }
}

struct CutReader {
    reader: Box<dyn BodyReader>,
    limit: Limit,
}

#[async_trait]
impl ReaderWrapper for CutReader {
    fn reader(&self) -> &dyn BodyReader {
        &*self.reader
    }

    fn reader_mut(&mut self) -> &mut dyn BodyReader {
        &mut *self.reader
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        self.limit.cut(Operation::ReadBody, self.reader.chunk()).await?
    }
}

struct CutWriter {
    writer: Box<dyn BodyWriter>,
    limit: Limit,
    inner: Arc<dyn Backend>,
}

impl CutWriter {
    async fn end(limit: Limit, inner: Arc<dyn Backend>, end: BoxFuture<'_, Receipt>) -> Receipt {
        let cut = limit.cut(Operation::WriteBody, end).await;
        cut.unwrap_or_else(|error| failure::receipt(inner.layout(), Event::WriteError, error))
    }
}

#[async_trait]
impl BodyWriter for CutWriter {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        self.limit.cut(Operation::WriteBody, self.writer.chunk(chunk)).await?
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        self.writer.written()
    }

    fn let_go(&mut self) {
        self.writer.let_go();
    }

    async fn finish(self: Box<Self>) -> Receipt {
        Self::end(self.limit, self.inner, self.writer.finish()).await
    }

    async fn abort(self: Box<Self>) {
        // What is left behind is given up with the future.
        if let Err(error) = self.limit.cut(Operation::WriteBody, self.writer.abort()).await {
            tracing::debug!(%error, "a body could not be given up in time");
        }
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        Self::end(self.limit, self.inner, self.writer.leave_out()).await
    }
}
