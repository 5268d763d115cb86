//! A backend that writes down what it is asked.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hitbox_backend::{
    Adoption, Answer, Backend, BodyReader, Presence, Raw, ReadOptions, Receipt, RemoveItem, Ticket, TryRead,
    WriteItem, WriteOptions, adopt, forward,
};
use hitbox_core::{BackendResult, CacheKey, CacheValue};

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A read that was answered or begun.
    Read(CacheKey),
    /// A batch of reads.
    ReadMany(Vec<CacheKey>),
    /// A look-up.
    Contains(CacheKey),
    /// A write.
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
    pub fn new(inner: impl Backend, recording: &Recording) -> Self {
        Self { inner: Arc::new(inner), recording: recording.clone() }
    }
}

#[async_trait]
impl Backend for Recorder {
    forward!(self => self.inner; store, facts, capabilities, names, versions);

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        let answer = self.inner.try_read(key, options);
        if !matches!(answer, TryRead::WouldWait(_)) {
            self.recording.push(Call::Read(key.clone()));
        }
        answer
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        // A layer whose leaves have all answered already is asked for form's sake only.
        let leaves = self.inner.leaves();
        if leaves.iter().any(|leaf| !options.skip.contains(leaf.position())) {
            self.recording.push(Call::Read(key.clone()));
        }
        self.inner.read_with(key, options).await
    }

    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        self.recording.push(Call::ReadMany(keys.to_vec()));
        self.inner.read_many(keys, options).await
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        self.recording.push(Call::Contains(key.clone()));
        self.inner.contains(key).await
    }

    async fn open_reader(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn BodyReader>>> {
        self.recording.push(Call::Read(key.clone()));
        self.inner.open_reader(key, options).await
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        self.recording.push(Call::Write(key.clone()));
        self.inner.write_with(key, value, options).await
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        self.recording.push(Call::Remove(key.clone()));
        self.inner.remove_with(key, options).await
    }

    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        self.recording.push(Call::WriteMany(items.iter().map(|item| item.key.clone()).collect()));
        self.inner.write_many(items).await
    }

    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        self.recording.push(Call::RemoveMany(items.iter().map(|item| item.key.clone()).collect()));
        self.inner.remove_many(items).await
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        self.recording.push(Call::Install(key.clone()));
        self.inner.install_if(key, value, ticket).await
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let recording = self.recording.clone();
        Some(Arc::new(Self { inner: adopt(&self.inner, adoption), recording }))
    }
}
