//! The service: clients that ask for prices through a cache in three layers. It runs as a process of its own, says on its output what
//! has happened in each tick, and is told on its input what to do.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use hdrhistogram::Histogram;
use hitbox::backend::LeafStatistics;
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, Compose, OffloadPool, RefillPolicy, Wrap};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use crate::Failure;

/// How often the service tells what it has done.
pub(crate) const TICK: Duration = Duration::from_millis(250);

const CLIENTS: u64 = 100;
/// What each client leaves between two of its calls: all together ask some 3,000 times in a second.
const PAUSE: Duration = Duration::from_millis(30);
const PRICES: f64 = 5_000.0;
/// Memory holds a part of the prices only, so that the layers below have something to do.
const IN_MEMORY: u64 = 500;
/// What one call of the source takes.
const SOURCE_TAKES: Duration = Duration::from_millis(25);
/// Everything that is cached carries this tag.
const TAG: &str = "catalogue";

/// What the service is told on its input, a line each.
pub(crate) const INVALIDATE: &str = "invalidate";

/// One layer in one tick.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Its path in the composition.
    pub(crate) path: String,
    /// Calls that it has answered.
    pub(crate) hits: u64,
    /// Calls of it that have failed.
    pub(crate) errors: u64,
    /// Calls of it fail, and none has been answered since.
    pub(crate) failing: bool,
}

/// What has happened in one tick, or in several.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tick {
    /// Calls of clients.
    pub(crate) calls: u64,
    /// Those that got an error.
    pub(crate) failures: u64,
    /// Calls of the source.
    pub(crate) source_calls: u64,
    /// What a call took, in microseconds: one half took no longer, and 99 of 100; of several ticks, in the worst.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) layers: Vec<Layer>,
}

impl Tick {
    /// Calls that the cache has answered.
    pub(crate) fn hits(&self) -> u64 {
        self.layers.iter().map(|layer| layer.hits).sum()
    }

    /// How many of a hundred calls `some` are. A call that is under way when a tick ends may count in two.
    pub(crate) fn percent(&self, some: u64) -> f64 {
        (some as f64 * 100.0 / self.calls.max(1) as f64).min(100.0)
    }

    /// The same with an earlier one.
    pub(crate) fn and(mut self, earlier: &Self) -> Self {
        self.calls += earlier.calls;
        self.failures += earlier.failures;
        self.source_calls += earlier.source_calls;
        self.p50_us = self.p50_us.max(earlier.p50_us);
        self.p99_us = self.p99_us.max(earlier.p99_us);
        for (layer, earlier) in self.layers.iter_mut().zip(&earlier.layers) {
            layer.hits += earlier.hits;
            layer.errors += earlier.errors;
        }
        self
    }
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    failures: AtomicU64,
    source_calls: AtomicU64,
}

struct Service {
    prices: Cache<u64>,
    counts: Counts,
    took: Mutex<Histogram<u64>>,
}

impl Service {
    async fn ask(self: &Arc<Self>, product: u64) {
        let started = Instant::now();
        let service = self.clone();
        let price = self.prices.entry(("price", product)).tag(TAG).get_or_load(move || async move {
            service.counts.source_calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(SOURCE_TAKES).await;
            Ok::<_, Failure>(product * 7 + 100)
        });
        let is_right = price.await.is_ok_and(|price| *price == product * 7 + 100);
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        self.counts.failures.fetch_add(u64::from(!is_right), Ordering::Relaxed);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.took.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    async fn client(self: Arc<Self>, seed: u64, which: Zipf<f64>) {
        let mut random = StdRng::seed_from_u64(seed);
        loop {
            self.ask(which.sample(&mut random) as u64).await;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Runs the service until its input ends.
pub(crate) async fn run(redis: &str, folder: PathBuf, metrics: Option<u16>) -> Result<(), Failure> {
    if let Some(port) = metrics {
        let metrics = hitbox::backend::metrics::prometheus()?;
        let routes = Router::new().route("/metrics", get(move || async move { metrics.render() }));
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        tokio::spawn(async move { axum::serve(listener, routes).await });
    }
    let pool = OffloadPool::new();
    let memory = MokaBackend::builder().max_entries(IN_MEMORY).build()?;
    let shared = RedisBackend::builder(redis).build()?.deadline(Duration::from_millis(30));
    let disk = DiskBackend::builder(folder).max_bytes(64 << 20).open().await?;
    let layers = memory
        .compose(shared, pool.shared())
        .with_refill(RefillPolicy::Always)
        .with_label("near")
        .compose(disk.clone(), pool.shared())
        .with_refill(RefillPolicy::Always)
        .with_label("prices");
    let prices = Cache::builder(layers)
        .offload(pool.shared())
        .name("prices")
        .ttl(Duration::from_secs(60))
        .stale(Duration::from_secs(600))
        .build()?;
    let took = Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?);
    let service = Arc::new(Service { prices, counts: Counts::default(), took });
    let which = Zipf::new(PRICES, 1.0)?;
    let clients: Vec<_> =
        (0..CLIENTS).map(|seed| tokio::spawn(service.clone().client(seed, which))).collect();
    let teller = tokio::spawn(tell(service.clone()));
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        if order == INVALIDATE {
            // An error says that a layer is away: what it holds is not served when it comes back.
            let _ = service.prices.invalidate_tags(&[TAG]).await;
        }
    }
    teller.abort();
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    service.prices.shutdown(Duration::from_secs(5)).await;
    disk.close().await;
    Ok(())
}

/// Says every tick what has happened in it.
async fn tell(service: Arc<Service>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
    let mut before: Vec<LeafStatistics> = service.prices.statistics().layers.leaves;
    loop {
        ticks.tick().await;
        let now = service.prices.statistics().layers.leaves;
        let layers = now.iter().zip(&before).map(|(now, before)| Layer {
            path: now.label.to_string(),
            hits: (now.hits + now.stale_hits) - (before.hits + before.stale_hits),
            errors: now.errors - before.errors,
            failing: now.failing,
        });
        let layers = layers.collect();
        let (p50_us, p99_us) = {
            let mut took = service.took.lock().unwrap_or_else(PoisonError::into_inner);
            let quantiles = (took.value_at_quantile(0.5), took.value_at_quantile(0.99));
            took.reset();
            quantiles
        };
        let counts = &service.counts;
        let tick = Tick {
            calls: take(&counts.calls),
            failures: take(&counts.failures),
            source_calls: take(&counts.source_calls),
            p50_us,
            p99_us,
            layers,
        };
        before = now;
        match serde_json::to_string(&tick) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("{error}"),
        }
    }
}
