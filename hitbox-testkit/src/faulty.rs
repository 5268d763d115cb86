//! A backend that fails, stalls or hangs when it is told to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::operation::{Answers, LeafSet, Removal, TryRead, Write, WriteOptions};
use hitbox_backend::operation::{Batch, BodyReader, BodyWriter, Completion, Presence, Receipts, WrittenPart};
use hitbox_backend::wrap::{ReaderWrapper, Wrapper, forward};
use hitbox_backend::{Backend, IntoBackend, LeafOutcome, ReadOptions, Receipt};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind};

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A read, by key or in a batch, a look-up, or the opening of a body.
    Read,
    /// A write, conditional or not, single or in a batch, or the end of a body.
    Write,
    /// A delete.
    Remove,
    /// A refill.
    Install,
    /// The opening of a writer of a body.
    Begin,
    /// A chunk of a body that is written.
    Chunk,
    /// A chunk of a body that is read.
    ReadChunk,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing was done.
    Fail(ErrorKind),
    /// It is done, and reported as failed.
    FailAfter(ErrorKind),
    /// It is done so much later.
    Delay(Duration),
    /// It never answers, and nothing is done.
    Hang,
}

/// The faults of one backend; cloned handles share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    always: Vec<(Operation, Fault)>,
    nth: Vec<(Operation, u64, Fault)>,
    calls: Vec<(Operation, u64)>,
    held_up: usize,
}

impl Faults {
    /// Every such call from now on.
    pub fn always(&self, operation: Operation, fault: Fault) {
        let mut plan = self.lock();
        plan.always.retain(|(other, _)| *other != operation);
        plan.always.push((operation, fault));
    }

    /// The n-th such call from now on, counted from 1.
    pub fn nth(&self, operation: Operation, n: u64, fault: Fault) {
        let mut plan = self.lock();
        let made = plan.calls.iter().find(|(other, _)| *other == operation).map_or(0, |(_, calls)| *calls);
        plan.nth.push((operation, made + n, fault));
    }

    /// No more faults.
    pub fn clear(&self) {
        let mut plan = self.lock();
        plan.always.clear();
        plan.nth.clear();
    }

    /// Calls that are delayed or hang now.
    pub fn held_up(&self) -> usize {
        self.lock().held_up
    }

    fn hold(&self) -> Held<'_> {
        self.lock().held_up += 1;
        Held(self)
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_quiet(&self, operation: Operation) -> bool {
        let plan = self.lock();
        plan.nth.iter().all(|(other, ..)| *other != operation)
            && plan.always.iter().all(|(other, _)| *other != operation)
    }

    /// Counts a call and says what happens to it.
    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.lock();
        let call = match plan.calls.iter_mut().find(|(other, _)| *other == operation) {
            Some((_, calls)) => {
                *calls += 1;
                *calls
            }
            None => {
                plan.calls.push((operation, 1));
                1
            }
        };
        let once = plan.nth.iter().position(|(other, n, _)| *other == operation && *n == call);
        if let Some(index) = once {
            return Some(plan.nth.remove(index).2);
        }
        plan.always.iter().find(|(other, _)| *other == operation).map(|(_, fault)| *fault)
    }
}

/// A call that is held up.
struct Held<'a>(&'a Faults);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().held_up -= 1;
    }
}

/// A backend with faults in front of it.
pub struct Faulty {
    inner: Arc<dyn Backend>,
    gate: Gate,
}

/// Decides what happens to calls.
#[derive(Clone)]
struct Gate {
    faults: Faults,
    clock: Arc<dyn Clock>,
}

impl Gate {
    async fn pass<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = T> + Send,
        failed: impl FnOnce(ErrorKind) -> T + Send,
    ) -> T {
        match self.faults.next(operation) {
            None => work.await,
            Some(Fault::Fail(kind)) => failed(kind),
            Some(Fault::FailAfter(kind)) => {
                drop(work.await);
                failed(kind)
            }
            Some(Fault::Delay(delay)) => {
                let sleep = self.clock.sleep(delay);
                let held = self.faults.hold();
                sleep.await;
                drop(held);
                work.await
            }
            Some(Fault::Hang) => {
                let _held = self.faults.hold();
                std::future::pending().await
            }
        }
    }
}

fn error(inner: &dyn Backend, kind: ErrorKind) -> BackendError {
    let error = BackendError::new(kind, "an injected fault");
    match inner.layout().leaves() {
        [leaf] => error.at(leaf.path()),
        _ => error,
    }
}

fn receipt(inner: &dyn Backend, kind: ErrorKind) -> Receipt {
    let lines = inner.layout().paths().map(|path| {
        let error = BackendError::new(kind, "an injected fault").at(path);
        Receipt::of(path, LeafOutcome::of_error(error))
    });
    let whole = lines.reduce(|all, line| {
        let error = all.error().cloned();
        all.join(line, error)
    });
    whole.unwrap_or_default()
}

impl Faulty {
    /// `inner` with these faults; delays run on `clock`.
    pub fn new<Kind>(inner: impl IntoBackend<Kind>, faults: &Faults, clock: Arc<dyn Clock>) -> Self {
        Self { inner: inner.into_shared(), gate: Gate { faults: faults.clone(), clock } }
    }

    /// A call goes through at once if no fault is planned for it; else its fate is decided when it is polled.
    fn call<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        work: impl FnOnce() -> Completion<'a, T> + Send + 'a,
        failed: impl FnOnce(ErrorKind) -> T + Send + 'a,
    ) -> Completion<'a, T> {
        if self.gate.faults.is_quiet(operation) {
            return work();
        }
        Completion::later(async move {
            // Nothing is done before the gate lets it pass.
            self.gate.pass(operation, async move { work().await }, failed).await
        })
    }

    fn receipts(&self, kind: ErrorKind, count: usize) -> Receipts {
        (0..count).map(|_| receipt(&*self.inner, kind)).collect()
    }
}

impl Wrapper for Faulty {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, gate: self.gate.clone() })
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        if self.gate.faults.is_quiet(Operation::Read) {
            forward::try_read(self, key, options)
        } else {
            TryRead::WouldWait(LeafSet::EMPTY)
        }
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        let failed = |kind| keys.iter().map(|_| Err(error(&*self.inner, kind))).collect();
        self.call(Operation::Read, || forward::read(self, keys, options), failed)
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        let failed = |kind| Err(error(&*self.inner, kind));
        self.call(Operation::Read, || forward::contains(self, key), failed)
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        let are_refills = !writes.is_empty() && writes.iter().all(|write| write.condition.is_refill());
        let operation = if are_refills { Operation::Install } else { Operation::Write };
        let count = writes.len();
        self.call(operation, || forward::write(self, writes), move |kind| self.receipts(kind, count))
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        let count = removals.len();
        let failed = move |kind| self.receipts(kind, count);
        self.call(Operation::Remove, || forward::remove(self, removals), failed)
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        let failed = |kind| Err(error(&*self.inner, kind));
        let opened = self.call(Operation::Read, || forward::open_reader(self, key, options), failed);
        opened.map(|opened| {
            let faulty = |reader| {
                let (inner, gate) = (self.inner.clone(), self.gate.clone());
                Box::new(FaultyReader { reader, inner, gate }) as Box<dyn BodyReader>
            };
            Ok(opened?.map(faulty))
        })
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        let failed = |kind| Err(error(&*self.inner, kind));
        let open = || forward::open_writer(self, key, entry, options);
        self.call(Operation::Begin, open, failed).map(|opened| {
            let (writer, inner, gate) = (opened?, self.inner.clone(), self.gate.clone());
            Ok(Box::new(FaultyWriter { writer, inner, gate }) as Box<dyn BodyWriter>)
        })
    }
}

/// A body whose chunks may fail.
struct FaultyReader {
    reader: Box<dyn BodyReader>,
    inner: Arc<dyn Backend>,
    gate: Gate,
}

#[async_trait]
impl ReaderWrapper for FaultyReader {
    fn reader(&self) -> &dyn BodyReader {
        &*self.reader
    }

    fn reader_mut(&mut self) -> &mut dyn BodyReader {
        &mut *self.reader
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        let Self { reader, inner, gate } = self;
        gate.pass(Operation::ReadChunk, reader.chunk(), |kind| Err(error(&**inner, kind))).await
    }
}

/// A body whose chunks may fail, and whose end may as a write does.
struct FaultyWriter {
    writer: Box<dyn BodyWriter>,
    inner: Arc<dyn Backend>,
    gate: Gate,
}

#[async_trait]
impl BodyWriter for FaultyWriter {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        let Self { writer, inner, gate } = self;
        let failed = |kind| Err(error(&**inner, kind));
        gate.pass(Operation::Chunk, writer.chunk(chunk), failed).await
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        self.writer.written()
    }

    fn let_go(&mut self) {
        self.writer.let_go();
    }

    async fn finish(self: Box<Self>) -> Receipt {
        let Self { writer, inner, gate } = *self;
        gate.pass(Operation::Write, writer.finish(), |kind| receipt(&*inner, kind)).await
    }

    async fn abort(self: Box<Self>) {
        self.writer.abort().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        let Self { writer, inner, gate } = *self;
        gate.pass(Operation::Remove, writer.leave_out(), |kind| receipt(&*inner, kind)).await
    }
}
