//! Bodies that are written, followed or read in a wrong way.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::operation::{
    Batch, BodyReader, BodyWriter, Completion, Content, Reach, Receipts, Removal, Target, Write,
    WriteOptions, WrittenPart,
};
use hitbox_backend::wrap::{ReaderWrapper, Wrapper, forward};
use hitbox_backend::{Backend, Raw, ReadOptions, Receipt};
use hitbox_core::{BackendResult, CacheKey, CacheValue};

/// What is wrong with bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyDefect {
    /// The last chunk never comes.
    LosesLastChunk,
    /// What has been written is there before the end.
    ShowsUnfinished,
    /// What can be read of a body that is being written is not what came.
    MistakesWritten,
    /// What can be read of a body that is being written is that of the writer before.
    MixesWriters,
    /// A range has no end.
    IgnoresEnds,
    /// Any range will do.
    TakesAnyRange,
    /// Metadata make an entry where there is none.
    CreatesWithMetadata,
    /// What has come in between is not noticed.
    StoresLate,
    /// Where one layer fails nothing is stored.
    FailsWithALayer,
    /// Each reader has a generation of its own.
    Renumbers,
    /// A purge of one generation is one of all.
    PurgesAnyGeneration,
    /// An eviction is a purge.
    EvictsFromAll,
    /// Metadata have no size.
    ForgetsMetadata,
}

/// A backend whose bodies have a defect.
pub struct BodyDefective {
    inner: Arc<dyn Backend>,
    defect: BodyDefect,
    before: Arc<Mutex<Option<Arc<dyn WrittenPart>>>>,
}

impl BodyDefective {
    /// A backend with this defect.
    pub fn new(inner: Arc<dyn Backend>, defect: BodyDefect) -> Self {
        Self { inner, defect, before: Arc::default() }
    }
}

impl fmt::Debug for BodyDefective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyDefective").field("defect", &self.defect).finish_non_exhaustive()
    }
}

impl Wrapper for BodyDefective {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self::new(inner, self.defect))
    }

    fn write(&self, mut writes: Batch<Write>) -> Completion<'_, Receipts> {
        if self.defect == BodyDefect::CreatesWithMetadata {
            for write in writes.iter_mut() {
                if matches!(write.content, Content::Renewal(_)) {
                    write.content = Content::Entry(CacheValue::new(Raw::from(Bytes::new())));
                }
            }
        }
        forward::write(self, writes)
    }

    fn remove(&self, mut removals: Batch<Removal>) -> Completion<'_, Receipts> {
        for removal in removals.iter_mut() {
            match self.defect {
                BodyDefect::PurgesAnyGeneration => removal.target = Target::Any,
                BodyDefect::EvictsFromAll => removal.reach = Reach::All,
                _ => {}
            }
        }
        forward::remove(self, removals)
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        let defect = self.defect;
        forward::open_reader(self, key, options).map(move |opened| {
            Ok(opened?.map(|reader| Box::new(DefectiveReader { reader, defect }) as Box<dyn BodyReader>))
        })
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        let (inner, key, defect, before) =
            (self.inner.clone(), key.clone(), self.defect, self.before.clone());
        Completion::later(async move {
            let writer = inner.open_writer(&key, entry.clone(), options).await?;
            let written = writer.written();
            let mut known = before.lock().unwrap_or_else(PoisonError::into_inner);
            let previous = std::mem::replace(&mut *known, written);
            drop(known);
            let held = Vec::new();
            Ok(Box::new(DefectiveWriter { inner, key, entry, writer, defect, previous, held })
                as Box<dyn BodyWriter>)
        })
    }
}

struct DefectiveWriter {
    inner: Arc<dyn Backend>,
    key: CacheKey,
    entry: CacheValue<()>,
    writer: Box<dyn BodyWriter>,
    defect: BodyDefect,
    /// What the writer before has written.
    previous: Option<Arc<dyn WrittenPart>>,
    /// Chunks that are written later.
    held: Vec<Bytes>,
}

struct Mistaken(Arc<dyn WrittenPart>);

#[async_trait]
impl WrittenPart for Mistaken {
    fn readable(&self) -> u64 {
        self.0.readable()
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        Ok(self.0.read_at(at, limit).await?.iter().map(|byte| !byte).collect())
    }
}

#[async_trait]
impl BodyWriter for DefectiveWriter {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        match self.defect {
            BodyDefect::LosesLastChunk => match std::mem::replace(&mut self.held, vec![chunk]).pop() {
                Some(before) => self.writer.chunk(before).await,
                None => Ok(()),
            },
            BodyDefect::StoresLate => {
                self.held.push(chunk);
                Ok(())
            }
            BodyDefect::ShowsUnfinished => {
                let write =
                    Write::new(self.key.clone(), self.entry.clone().map(|()| Raw::from(chunk.clone())));
                drop(self.inner.write(Batch::one(write)).await);
                self.writer.chunk(chunk).await
            }
            _ => self.writer.chunk(chunk).await,
        }
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        let written = self.writer.written();
        match self.defect {
            BodyDefect::MistakesWritten => {
                written.map(|part| Arc::new(Mistaken(part)) as Arc<dyn WrittenPart>)
            }
            BodyDefect::MixesWriters => self.previous.clone().or(written),
            _ => written,
        }
    }

    fn let_go(&mut self) {
        self.writer.let_go();
    }

    async fn finish(self: Box<Self>) -> Receipt {
        if self.defect == BodyDefect::FailsWithALayer {
            let receipt = self.writer.finish().await;
            if receipt.leaves().iter().any(|leaf| leaf.outcome.error().is_some()) {
                drop(self.inner.remove(Batch::one(Removal::new(self.key))).await);
            }
            return receipt;
        }
        if self.defect != BodyDefect::StoresLate {
            return self.writer.finish().await;
        }
        let late = self.inner.open_writer(&self.key, self.entry, WriteOptions::default()).await;
        let Ok(mut late) = late else { return Receipt::default() };
        for chunk in self.held {
            if late.chunk(chunk).await.is_err() {
                return Receipt::default();
            }
        }
        late.finish().await
    }

    async fn abort(self: Box<Self>) {
        self.writer.abort().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        self.writer.leave_out().await
    }
}

struct DefectiveReader {
    reader: Box<dyn BodyReader>,
    defect: BodyDefect,
}

#[async_trait]
impl ReaderWrapper for DefectiveReader {
    fn reader(&self) -> &dyn BodyReader {
        &*self.reader
    }

    fn reader_mut(&mut self) -> &mut dyn BodyReader {
        &mut *self.reader
    }

    fn generation(&self) -> u64 {
        match self.defect {
            BodyDefect::Renumbers => std::ptr::from_ref(&*self.reader).addr() as u64,
            _ => self.reader.generation(),
        }
    }

    fn size(&self) -> Option<u64> {
        match self.defect {
            BodyDefect::ForgetsMetadata => self.reader.len(),
            _ => self.reader.size(),
        }
    }

    fn seek(&mut self, range: Range<u64>) -> BackendResult<()> {
        match self.defect {
            BodyDefect::IgnoresEnds => self.reader.seek(range.start..u64::MAX),
            BodyDefect::TakesAnyRange => self.reader.seek(range).or(Ok(())),
            _ => self.reader.seek(range),
        }
    }
}
