//! A backend that writes down what it is asked.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::operation::{Answers, Removal, TryRead, Write, WriteOptions};
use hitbox_backend::operation::{Batch, BodyReader, BodyWriter, Completion, Presence, Receipts, WrittenPart};
use hitbox_backend::wrap::{Wrapper, forward};
use hitbox_backend::{Backend, IntoBackend, ReadOptions, Receipt};
use hitbox_core::{BackendResult, CacheKey, CacheValue};

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A read that was answered without waiting.
    TryRead(CacheKey),
    /// A read that was begun.
    Read(CacheKey),
    /// A batch of reads.
    ReadMany(Vec<CacheKey>),
    /// A look-up.
    Contains(CacheKey),
    /// A write, or a body that is finished.
    Write(CacheKey),
    /// A batch of writes.
    WriteMany(Vec<CacheKey>),
    /// A delete.
    Remove(CacheKey),
    /// A batch of deletes.
    RemoveMany(Vec<CacheKey>),
    /// A refill.
    Install(CacheKey),
}

impl Call {
    /// Whether it asks for the value of one key, waiting or not.
    pub fn is_read_of(&self, key: &CacheKey) -> bool {
        matches!(self, Self::TryRead(read) | Self::Read(read) if read == key)
    }

    /// Whether it asks for values.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::TryRead(_) | Self::Read(_) | Self::ReadMany(_))
    }
}

/// What was recorded; cloned handles share it.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Vec<Call>>>);

impl Recording {
    /// The calls since the last time, in their order.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, call: Call) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

/// A backend whose calls are recorded.
pub struct Recorder {
    inner: Arc<dyn Backend>,
    recording: Recording,
}

impl Recorder {
    /// Records the calls of `inner`.
    pub fn new<Kind>(inner: impl IntoBackend<Kind>, recording: &Recording) -> Self {
        Self { inner: inner.into_shared(), recording: recording.clone() }
    }
}

impl Wrapper for Recorder {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, recording: self.recording.clone() })
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        let answer = forward::try_read(self, key, options);
        if !matches!(answer, TryRead::WouldWait(_)) {
            self.recording.push(Call::TryRead(key.clone()));
        }
        answer
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        // A layer whose leaves have all answered already is asked for form's sake only.
        if !options.skip.covers(self.inner.layout().set()) {
            self.recording.push(match keys {
                [key] => Call::Read(key.clone()),
                keys => Call::ReadMany(keys.to_vec()),
            });
        }
        forward::read(self, keys, options)
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        self.recording.push(Call::Contains(key.clone()));
        forward::contains(self, key)
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        self.recording.push(match &writes[..] {
            [write] if write.condition.is_refill() => Call::Install(write.key.clone()),
            [write] => Call::Write(write.key.clone()),
            writes => Call::WriteMany(writes.iter().map(|write| write.key.clone()).collect()),
        });
        forward::write(self, writes)
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        self.recording.push(match &removals[..] {
            [removal] => Call::Remove(removal.key.clone()),
            removals => Call::RemoveMany(removals.iter().map(|removal| removal.key.clone()).collect()),
        });
        forward::remove(self, removals)
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        self.recording.push(Call::Read(key.clone()));
        forward::open_reader(self, key, options)
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        let opened = forward::open_writer(self, key, entry, options);
        opened.map(|opened| {
            let (writer, key, recording) = (opened?, key.clone(), self.recording.clone());
            Ok(Box::new(RecordedWriter { writer, key, recording }) as Box<dyn BodyWriter>)
        })
    }
}

/// A body whose end is recorded as a write.
struct RecordedWriter {
    writer: Box<dyn BodyWriter>,
    key: CacheKey,
    recording: Recording,
}

#[async_trait]
impl BodyWriter for RecordedWriter {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        self.writer.chunk(chunk).await
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        self.writer.written()
    }

    fn let_go(&mut self) {
        self.writer.let_go();
    }

    async fn finish(self: Box<Self>) -> Receipt {
        self.recording.push(Call::Write(self.key));
        self.writer.finish().await
    }

    async fn abort(self: Box<Self>) {
        self.writer.abort().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        self.recording.push(Call::Remove(self.key));
        self.writer.leave_out().await
    }
}
