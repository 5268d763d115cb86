//! What the tests of the cache share: topologies, a source whose answers are in the test's hands, and caches with one
//! mistake each, which the checks must reject.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod careless;
pub(crate) mod gated;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use hitbox::backend::metrics::{self, PrometheusExport};
use hitbox::backend::{Backend, Compose, OffloadPool, RefillPolicy};
use hitbox::core::{BackendResult, BoxFuture, Clock, ManualClock};
use hitbox::{AfterTimeout, Cache, Load, LoadError, Loaded, OnStale, Response};
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation};
use tokio::sync::Semaphore;

/// What a check has found.
pub(crate) type Verdict = Result<(), String>;

/// Fails the check.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a cache is built over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    Memory,
    Moka,
    TwoLayers,
    /// The lower layer fails every call.
    FailingLower,
    /// Three leaves, boxed in between.
    Nest,
}

pub(crate) const TOPOLOGIES: [Topology; 5] =
    [Topology::Memory, Topology::Moka, Topology::TwoLayers, Topology::FailingLower, Topology::Nest];

/// Where a cache lives in a test.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) pool: OffloadPool,
    /// Of the lowest layer.
    pub(crate) faults: Faults,
    /// Its layers, from the top, for those who look behind.
    pub(crate) layers: Vec<MemoryBackend>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new();
        let pool = OffloadPool::builder().clock(Arc::new(clock.clone())).build();
        let layer = |label| MemoryBackend::labelled(label, Arc::new(clock.clone()));
        let layers = ["upper", "middle", "lower"].map(layer).to_vec();
        Self { clock, pool, faults: Faults::default(), layers }
    }

    pub(crate) fn backend(&self, topology: Topology) -> Arc<dyn Backend> {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let [upper, middle, lower] = [0, 1, 2].map(|index| self.layers[index].clone());
        let faulty = Faulty::new(lower, &self.faults, clock.clone());
        let refilled = |upper: Arc<dyn Backend>, lower: Arc<dyn Backend>| -> Arc<dyn Backend> {
            Arc::new(upper.compose(lower, self.pool.shared()).with_refill(RefillPolicy::Always))
        };
        match topology {
            Topology::Memory => Arc::new(faulty),
            Topology::Moka => {
                Arc::new(hitbox::moka::MokaBackend::builder().clock(clock).build().expect("moka"))
            }
            Topology::TwoLayers => refilled(Arc::new(upper), Arc::new(faulty)),
            Topology::FailingLower => {
                fail(&self.faults);
                refilled(Arc::new(upper), Arc::new(faulty))
            }
            Topology::Nest => refilled(Arc::new(upper), refilled(Arc::new(middle), Arc::new(faulty))),
        }
    }
}

/// Every call fails from now on.
pub(crate) fn fail(faults: &Faults) {
    for operation in [Operation::Read, Operation::Write, Operation::Remove, Operation::Install] {
        faults.always(operation, Fault::Fail(hitbox::core::ErrorKind::Connection));
    }
}

/// Settings of a cache, for those that have them and for those that ignore them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knobs {
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale: Duration,
    pub(crate) on_stale: OnStale,
    pub(crate) fail_safe: Duration,
    pub(crate) throttle: Option<Duration>,
    pub(crate) soft: Option<Duration>,
    pub(crate) hard: Option<Duration>,
    pub(crate) after_timeout: AfterTimeout,
    pub(crate) refresh_after: Option<f64>,
    pub(crate) absent: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) finish_abandoned: bool,
}

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type TestLoader =
    Box<dyn FnOnce(Load<u64>) -> BoxFuture<'static, Result<Loaded<u64>, BoxError>> + Send>;

/// A cache as the checks use it.
#[async_trait]
pub(crate) trait Loading: Send + Sync + 'static {
    async fn load(&self, key: u64, loader: TestLoader) -> Result<Response<u64>, LoadError>;
    async fn get(&self, key: u64) -> Option<u64>;
    async fn insert(&self, key: u64, value: u64) -> BackendResult<()>;
    async fn remove(&self, key: u64) -> BackendResult<()>;
    /// Loads under way.
    fn loading(&self) -> u64;
}

#[async_trait]
impl Loading for Cache<u64> {
    async fn load(&self, key: u64, loader: TestLoader) -> Result<Response<u64>, LoadError> {
        self.entry(key).get_or_load_with(loader).await
    }

    async fn get(&self, key: u64) -> Option<u64> {
        Cache::get(self, key).await.ok().flatten()
    }

    async fn insert(&self, key: u64, value: u64) -> BackendResult<()> {
        Cache::insert(self, key, value).await.map(drop)
    }

    async fn remove(&self, key: u64) -> BackendResult<()> {
        Cache::remove(self, key).await.map(drop)
    }

    fn loading(&self) -> u64 {
        self.statistics().loading
    }
}

/// A cache and the world that it is in.
#[derive(Clone)]
pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) cache: Arc<dyn Loading>,
    /// Calls that have looked and wait, or have their answer.
    pub(crate) polled: Arc<AtomicU64>,
}

impl Rig {
    pub(crate) fn new(world: World, cache: impl Loading) -> Self {
        Self { world, cache: Arc::new(cache), polled: Arc::default() }
    }

    /// Waits until so many calls wait for their answer.
    pub(crate) async fn waiting(&self, calls: u64) -> Verdict {
        until("all calls wait", || self.polled.load(Ordering::SeqCst) >= calls).await
    }
}

/// What Prometheus reads. There is one recorder per process.
pub(crate) fn export() -> &'static PrometheusExport {
    static EXPORT: OnceLock<PrometheusExport> = OnceLock::new();
    EXPORT.get_or_init(|| metrics::prometheus().expect("no other recorder"))
}

/// The real thing.
pub(crate) fn cache(world: &World, topology: Topology, knobs: &Knobs) -> Cache<u64> {
    named_cache("test", world, topology, knobs)
}

pub(crate) fn named_cache(name: &str, world: &World, topology: Topology, knobs: &Knobs) -> Cache<u64> {
    let mut builder = Cache::builder(world.backend(topology))
        .name(name)
        .offload(world.pool.shared())
        .stale(knobs.stale)
        .on_stale(knobs.on_stale)
        .fail_safe(knobs.fail_safe)
        .after_timeout(knobs.after_timeout)
        // Tests wait for others to sleep on the clock.
        .load_limit(None)
        .finish_abandoned(knobs.finish_abandoned);
    if let Some(ttl) = knobs.ttl {
        builder = builder.ttl(ttl);
    }
    if let Some(throttle) = knobs.throttle {
        builder = builder.throttle(throttle);
    }
    if let Some(soft) = knobs.soft {
        builder = builder.soft_timeout(soft);
    }
    if let Some(hard) = knobs.hard {
        builder = builder.hard_timeout(hard);
    }
    if let Some(share) = knobs.refresh_after {
        builder = builder.refresh_after(share);
    }
    if let Some(absent) = knobs.absent {
        builder = builder.absent_ttl(absent);
    }
    if let Some(idle) = knobs.idle {
        builder = builder.idle(idle);
    }
    builder.build().expect("a cache")
}

pub(crate) fn rig(topology: Topology, knobs: &Knobs) -> Rig {
    let world = World::new();
    let cache = cache(&world, topology, knobs);
    Rig::new(world, cache)
}

/// AnswerKind a check gets its cache.
pub(crate) type Make<'m> = &'m (dyn Fn(&Knobs) -> Rig + Sync);

/// Runs a check over the real cache in every topology.
pub(crate) async fn passes<F: Future<Output = Verdict>>(check: impl Fn(Topology, Rig) -> F, knobs: Knobs) {
    for topology in TOPOLOGIES {
        let verdict = check(topology, rig(topology, &knobs)).await;
        assert_eq!(verdict, Ok(()), "over {topology:?}");
    }
}

/// Shows that a check rejects a mistake.
pub(crate) async fn rejects<F: Future<Output = Verdict>>(
    check: impl Fn(Topology, Rig) -> F,
    mistake: careless::Mistake,
    knobs: Knobs,
) {
    let world = World::new();
    let cache = careless::Careless::new(mistake, world.backend(Topology::Memory), &knobs);
    let verdict = check(Topology::Memory, Rig::new(world, cache)).await;
    assert!(verdict.is_err(), "the check accepts a cache that is wrong: {mistake:?}");
}

/// A source: counts its calls and answers when it is let.
#[derive(Clone)]
pub(crate) struct Source {
    calls: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
}

impl Source {
    /// One that answers at once.
    pub(crate) fn open() -> Self {
        Self { calls: Arc::default(), gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }

    /// One that answers as often as it is let.
    pub(crate) fn closed() -> Self {
        Self { calls: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Lets so many calls answer.
    pub(crate) fn answer(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    /// A loader that answers with this.
    pub(crate) fn with(
        &self,
        loaded: impl FnOnce() -> Result<Loaded<u64>, BoxError> + Send + 'static,
    ) -> TestLoader {
        let source = self.clone();
        Box::new(move |_| {
            Box::pin(async move {
                source.calls.fetch_add(1, Ordering::SeqCst);
                source.gate.acquire().await.expect("it is never closed").forget();
                loaded()
            })
        })
    }

    pub(crate) fn value(&self, value: u64) -> TestLoader {
        self.with(move || Ok(Loaded::new(value)))
    }

    pub(crate) fn error(&self) -> TestLoader {
        self.with(|| Err("the source is down".into()))
    }

    pub(crate) fn panic(&self) -> TestLoader {
        self.with(|| panic!("the loader panics"))
    }
}

/// Waits for something that others bring about.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Verdict {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    // A watchdog: no test waits for it.
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .map_err(|_| format!("it never happens: {what}"))
}

/// Starts a call that goes on by itself.
pub(crate) fn call(
    rig: &Rig,
    key: u64,
    loader: TestLoader,
) -> tokio::task::JoinHandle<Result<Response<u64>, LoadError>> {
    let (cache, polled) = (rig.cache.clone(), rig.polled.clone());
    tokio::spawn(async move {
        let mut load = cache.load(key, loader);
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(load.as_mut().poll(cx))).await;
        polled.fetch_add(1, Ordering::SeqCst);
        match first {
            std::task::Poll::Ready(answer) => answer,
            std::task::Poll::Pending => load.await,
        }
    })
}

/// The answer of such a call, which must come.
pub(crate) async fn answer<T>(call: tokio::task::JoinHandle<T>) -> Result<T, String> {
    let answer = tokio::time::timeout(Duration::from_secs(20), call).await;
    answer.map_err(|_| "a call hangs".to_owned())?.map_err(|error| format!("a call ended badly: {error}"))
}
