//! A store whose calls meet and fail at random, and policies at random: for runs that look for orders of events that nobody
//! has thought of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use hitbox_backend::policy::Loser;
use hitbox_backend::store::{
    Capabilities, Conditional, DeleteStatus, LeafOptions, Page, Peek, Raw, Store, StoreCondition, TimeChange,
};
use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{
    Backend, CompositionPolicy, Leaf, OptimisticParallelWritePolicy, ParallelReadPolicy, RaceReadPolicy,
    RaceWritePolicy, RefillPolicy, SequentialReadPolicy, SequentialWritePolicy,
};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind};
use rand::Rng;

/// A store whose calls stand still for a random while before and after they act. While `fails` says so, one in twenty
/// fails: half of them before they act, half after.
pub struct Unsteady<S> {
    store: Arc<S>,
    fails: Arc<AtomicBool>,
}

/// Lets others go first, up to three times.
pub async fn dawdle() {
    let times = rand::rng().random_range(0..4);
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

impl<S: Store> Unsteady<S> {
    /// The store of a leaf, made unsteady, in a leaf of its own.
    pub fn leaf(
        leaf: &impl Wrapper<Inner = Leaf<S>>,
        label: &str,
        clock: Arc<dyn Clock>,
        fails: &Arc<AtomicBool>,
    ) -> Arc<dyn Backend> {
        let store = Self { store: leaf.inner().store().clone(), fails: fails.clone() };
        Arc::new(Leaf::new(store, LeafOptions::new(label).with_clock(clock)))
    }

    async fn pass<T>(&self, call: impl Future<Output = BackendResult<T>>) -> BackendResult<T> {
        dawdle().await;
        let fault = if self.fails.load(Ordering::SeqCst) { rand::rng().random_range(0..40) } else { 40 };
        if fault == 0 {
            return Err(BackendError::new(ErrorKind::Connection, "an injected fault"));
        }
        let answer = call.await;
        dawdle().await;
        if fault == 1 {
            return Err(BackendError::new(ErrorKind::Timeout, "an injected fault"));
        }
        answer
    }
}

#[async_trait]
impl<S: Store> Store for Unsteady<S> {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.pass(self.store.read(key)).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.pass(self.store.write(key, value)).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.pass(self.store.remove(key)).await
    }

    async fn write_if(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        self.pass(self.store.write_if(key, value, condition)).await
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.pass(self.store.peek(key)).await
    }

    async fn change_times(&self, key: &CacheKey, change: &TimeChange) -> BackendResult<Peek> {
        self.pass(self.store.change_times(key, change)).await
    }

    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        self.pass(self.store.keys(cursor, limit)).await
    }

    async fn erase(&self) -> BackendResult<()> {
        self.pass(self.store.erase()).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.answers_at_once = false;
        capabilities
    }
}

impl<S> std::fmt::Debug for Unsteady<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unsteady").field("fails", &self.fails).finish_non_exhaustive()
    }
}

/// Any combination of the policies that there are.
pub fn random_policy(random: &mut impl Rng) -> CompositionPolicy {
    let policy = CompositionPolicy::new();
    let policy = match random.random_range(0..3) {
        0 => policy.read(SequentialReadPolicy),
        1 => policy.read(RaceReadPolicy::default()),
        _ => policy.read(ParallelReadPolicy),
    };
    let policy = match random.random_range(0..5) {
        0 => policy.write(SequentialWritePolicy::new()),
        1 => policy.write(SequentialWritePolicy::durable_first()),
        2 => policy.write(OptimisticParallelWritePolicy),
        3 => policy.write(RaceWritePolicy { loser: Loser::Finish }),
        _ => policy.write(RaceWritePolicy { loser: Loser::Drop }),
    };
    policy.refill(match random.random_range(0..4) {
        0 => RefillPolicy::Always,
        1 => RefillPolicy::Awaited,
        2 => RefillPolicy::NthHit(2),
        _ => RefillPolicy::Never,
    })
}
