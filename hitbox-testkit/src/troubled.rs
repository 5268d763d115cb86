//! A backend whose bodies are in trouble.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::operation::{BodyWriter, Completion, WriteOptions, WrittenPart};
use hitbox_backend::wrap::{Wrapper, forward};
use hitbox_backend::{Backend, Receipt};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};
use tokio::sync::Semaphore;

/// What becomes of bodies that are written.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// They cannot be begun.
    IsAway,
    /// Whoever begins one waits for ever.
    HangsAtOnce,
    /// It takes so many chunks, and then never answers.
    HangsAfter(usize),
    /// It takes so long to begin, and for each chunk.
    IsSlow(Duration),
    /// It takes so many chunks, and then fails.
    FailsAfter(usize),
    /// Its commits wait for a permit.
    Commits(Arc<Semaphore>),
}

/// A backend whose bodies are in trouble when they are written.
#[derive(Clone)]
pub struct Troubled {
    inner: Arc<dyn Backend>,
    trouble: Trouble,
}

impl Troubled {
    /// Has the bodies of a backend in trouble.
    pub fn new(inner: Arc<dyn Backend>, trouble: Trouble) -> Self {
        Self { inner, trouble }
    }

    fn in_trouble(&self, writer: Box<dyn BodyWriter>) -> Box<dyn BodyWriter> {
        Box::new(TroubledWriter { writer, trouble: self.trouble.clone(), taken: 0 })
    }
}

impl Wrapper for Troubled {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, trouble: self.trouble.clone() })
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        match self.trouble {
            Trouble::HangsAtOnce => return Completion::later(std::future::pending()),
            Trouble::IsAway => {
                let away = BackendError::new(ErrorKind::Connection, "it is away");
                return Completion::later(std::future::ready(Err(away)));
            }
            Trouble::IsSlow(time) => {
                let (this, key) = (self.clone(), key.clone());
                return Completion::later(async move {
                    tokio::time::sleep(time).await;
                    let opened = this.inner.open_writer(&key, entry, options).await;
                    opened.map(|writer| this.in_trouble(writer))
                });
            }
            Trouble::HangsAfter(_) | Trouble::FailsAfter(_) | Trouble::Commits(_) => {}
        }
        forward::open_writer(self, key, entry, options)
            .map(|opened| opened.map(|writer| self.in_trouble(writer)))
    }
}

struct TroubledWriter {
    writer: Box<dyn BodyWriter>,
    trouble: Trouble,
    taken: usize,
}

#[async_trait]
impl BodyWriter for TroubledWriter {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        self.taken += 1;
        match self.trouble {
            Trouble::HangsAfter(chunks) if self.taken > chunks => std::future::pending().await,
            Trouble::FailsAfter(chunks) if self.taken > chunks => {
                Err(BackendError::new(ErrorKind::Io, "no room"))
            }
            Trouble::IsSlow(time) => {
                tokio::time::sleep(time).await;
                self.writer.chunk(chunk).await
            }
            _ => self.writer.chunk(chunk).await,
        }
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        self.writer.written()
    }

    fn let_go(&mut self) {
        self.writer.let_go();
    }

    async fn finish(self: Box<Self>) -> Receipt {
        if let Trouble::Commits(gate) = &self.trouble {
            // A gate that was closed lets all through.
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
        }
        self.writer.finish().await
    }

    async fn abort(self: Box<Self>) {
        self.writer.abort().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        self.writer.leave_out().await
    }
}
