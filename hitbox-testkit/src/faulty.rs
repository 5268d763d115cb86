//! A backend that fails, stalls or hangs when it is told to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hitbox_backend::{
    Adoption, Answer, Backend, LeafSet, Outcome, Presence, ReadOptions, Receipt, RemoveItem, Ticket, TryRead,
    WriteItem, WriteOptions, adopt, forward,
};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind};

use hitbox_backend::Raw;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A read, by key or in a batch, or a look-up.
    Read,
    /// A write.
    Write,
    /// A delete.
    Remove,
    /// A refill.
    Install,
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
    faults: Faults,
    clock: Arc<dyn Clock>,
}

impl Faulty {
    /// `inner` with these faults; delays run on `clock`.
    pub fn new(inner: impl Backend, faults: &Faults, clock: Arc<dyn Clock>) -> Self {
        Self { inner: Arc::new(inner), faults: faults.clone(), clock }
    }

    async fn call<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = T> + Send,
        failed: impl FnOnce(ErrorKind) -> T,
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

    fn error(&self, kind: ErrorKind) -> BackendError {
        let error = BackendError::new(kind, "an injected fault");
        match &self.inner.leaves()[..] {
            [leaf] => error.at(leaf.path()),
            _ => error,
        }
    }

    fn receipt(&self, kind: ErrorKind) -> Receipt {
        let lines = self.inner.leaves().into_iter().map(|leaf| {
            let error = BackendError::new(kind, "an injected fault").at(leaf.path());
            Receipt::of(leaf.path(), Outcome::of_error(error))
        });
        let whole = lines.reduce(|all, line| {
            let error = all.error().cloned();
            all.join(line, error)
        });
        whole.unwrap_or_default()
    }
}

#[async_trait]
impl Backend for Faulty {
    forward!(self => self.inner; store, facts, capabilities, names);

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        if self.faults.is_quiet(Operation::Read) {
            self.inner.try_read(key, options)
        } else {
            TryRead::WouldWait(LeafSet::EMPTY)
        }
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        self.call(Operation::Read, self.inner.read_with(key, options), |kind| Err(self.error(kind))).await
    }

    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        let failed = |kind| keys.iter().map(|_| Err(self.error(kind))).collect();
        self.call(Operation::Read, self.inner.read_many(keys, options), failed).await
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        self.call(Operation::Read, self.inner.contains(key), |kind| Err(self.error(kind))).await
    }

    async fn open_reader(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn hitbox_backend::BodyReader>>> {
        self.inner.open_reader(key, options).await
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        let work = self.inner.write_with(key, value, options);
        self.call(Operation::Write, work, |kind| self.receipt(kind)).await
    }

    async fn write_if_newer_with(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        options: &WriteOptions,
    ) -> Receipt {
        let work = self.inner.write_if_newer_with(key, value, options);
        self.call(Operation::Write, work, |kind| self.receipt(kind)).await
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        let work = self.inner.remove_with(key, options);
        self.call(Operation::Remove, work, |kind| self.receipt(kind)).await
    }

    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        let count = items.len();
        let failed = |kind| (0..count).map(|_| self.receipt(kind)).collect();
        self.call(Operation::Write, self.inner.write_many(items), failed).await
    }

    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        let count = items.len();
        let failed = |kind| (0..count).map(|_| self.receipt(kind)).collect();
        self.call(Operation::Remove, self.inner.remove_many(items), failed).await
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        let work = self.inner.install_if(key, value, ticket);
        self.call(Operation::Install, work, |kind| self.receipt(kind)).await
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let (faults, clock) = (self.faults.clone(), self.clock.clone());
        Some(Arc::new(Self { inner: adopt(&self.inner, adoption), faults, clock }))
    }
}
