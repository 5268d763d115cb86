//! Invalidation through caches: random histories against a model, and what the typed API says.
//!
//! `HITBOX_OPERATIONS` sets how many operations the histories have (300,000 by default), `HITBOX_SEED` replays their
//! programs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use hitbox::backend::operation::{Batch, Presence};
use hitbox::backend::operation::{Removal, WriteOptions};
use hitbox::backend::{
    Backend, Compose, CompositionPolicy, DeleteStatus, OffloadPool, RaceReadPolicy, Raw, RefillPolicy, Store,
    Wrap,
};
use hitbox::core::{BackendResult, CacheKey, CacheValue, ErrorKind, Priority};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::{AnswerKind, Cache, Loaded, ToKey, stacks};
use hitbox_testkit::{number_from, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const KEYS: u64 = 10;
/// Keys from here on are in the namespace.
const INSIDE: u64 = 7;
const OPERATIONS_PER_TASK: u64 = 500;
const TASKS: u64 = 4;

fn tags_of(key: u64) -> [String; 2] {
    [format!("by2-{}", key % 2), format!("by3-{}", key % 3)]
}

/// For each value a moment by which its load or write had begun; per scope the beginning of the last invalidation that
/// has returned. No read that starts later may see what had begun before.
struct Model {
    now: AtomicU64,
    /// By value; later than all others before it is known.
    begun: Vec<AtomicU64>,
    values: AtomicU64,
    /// By tag: two of one kind, three of the other; the dependency; the namespace; everything.
    floors: [AtomicU64; 8],
}

impl Model {
    fn new(values: u64) -> Self {
        let begun = (0..=values).map(|_| AtomicU64::new(u64::MAX)).collect();
        Self { now: AtomicU64::new(0), begun, values: AtomicU64::new(0), floors: Default::default() }
    }

    /// A value that nobody else brings.
    fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::SeqCst)
    }

    /// By now its load or write has begun.
    fn has_begun(&self, value: u64) {
        self.begun[value as usize].store(self.tick(), Ordering::SeqCst);
    }

    fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    fn floor(&self, key: u64) -> u64 {
        let mut scopes = vec![key % 2, 2 + key % 3, 7];
        if key.is_multiple_of(4) {
            scopes.push(5);
        }
        if key >= INSIDE {
            scopes.push(6);
        }
        let floors = scopes.into_iter().map(|scope| self.floors[scope as usize].load(Ordering::SeqCst));
        floors.max().unwrap_or(0)
    }

    fn invalidated(&self, scope: usize, began: u64) {
        self.floors[scope].fetch_max(began, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ByEpochs,
    /// The keys of a tag are deleted, and nobody cares for what is under way. Wrong.
    ByDeletion,
}

/// A handle: a cache, and one for its namespace.
#[derive(Clone)]
struct Handle {
    outside: Cache<u64>,
    inside: Cache<u64>,
    way: Way,
}

impl Handle {
    fn new(backend: Arc<dyn Backend>, pool: &OffloadPool, way: Way) -> Self {
        let cache = |backend: Arc<dyn Backend>| {
            Cache::builder(backend).name("h").offload(pool.shared()).build().expect("a cache")
        };
        let inside = cache(Arc::new(backend.clone().namespace("n")));
        Self { outside: cache(backend), inside, way }
    }

    fn of(&self, key: u64) -> &Cache<u64> {
        if key >= INSIDE { &self.inside } else { &self.outside }
    }

    async fn invalidate(&self, scope: usize, as_cache: bool) -> Result<(), String> {
        if self.way == Way::ByDeletion {
            for key in 0..KEYS {
                let cache = self.of(key);
                let key = key.to_key("h").into_owned();
                let ticket = cache.backend().layout().begin_maintenance_write(&key);
                let removal = Removal::new(key).with_options(WriteOptions::of(&ticket));
                drop(cache.backend().remove(Batch::one(removal)).await);
            }
            return Ok(());
        }
        let name = match scope {
            0 | 1 => format!("by2-{scope}"),
            scope => format!("by3-{}", scope.saturating_sub(2)),
        };
        let done = match (scope, as_cache) {
            (0..5, _) => self.outside.invalidate_tags(&[&name]).await,
            (5, _) => self.inside.invalidate_dependencies(&["menu"]).await,
            (6, true) => self.inside.clear().await,
            (6, false) => self.outside.flush_namespace("n").await,
            _ => self.outside.clear().await,
        };
        done.map(drop).map_err(|error| error.to_string())
    }
}

async fn pause(random: &mut StdRng) {
    for _ in 0..random.random_range(0..3) {
        tokio::task::yield_now().await;
    }
}

/// One task's operations.
async fn play(handles: [Handle; 2], model: Arc<Model>, mut random: StdRng) -> Result<(), String> {
    for _ in 0..OPERATIONS_PER_TASK {
        let key = random.random_range(0..KEYS);
        let handle = &handles[random.random_range(0..2)];
        let cache = handle.of(key);
        let see = |value: Option<u64>, floor: u64, what: &str| {
            let begun = value.map(|value| model.begun[value as usize].load(Ordering::SeqCst));
            match begun {
                Some(begun) if begun < floor => Err(format!(
                    "{what} of key {key} brings what began by {begun}, before the invalidation at {floor}"
                )),
                _ => Ok(()),
            }
        };
        let marked = move |value: u64| {
            let mut loaded = Loaded::new(value);
            for tag in tags_of(key) {
                loaded = loaded.tag(&tag);
            }
            if key.is_multiple_of(4) { loaded.depends_on("menu") } else { loaded }
        };
        match random.random_range(0..100) {
            0..40 => {
                let floor = model.floor(key);
                see(cache.get(key).await.map_err(|e| e.to_string())?, floor, "a read")?;
            }
            40..65 => {
                let floor = model.floor(key);
                let (model, steps) = (model.clone(), random.random_range(0..6));
                let load = move |_| async move {
                    let value = model.value();
                    model.has_begun(value);
                    for _ in 0..steps {
                        tokio::task::yield_now().await;
                    }
                    Ok::<_, std::io::Error>(marked(value))
                };
                let loaded = cache.entry(key).get_or_load_with(load).await.map_err(|e| e.to_string())?;
                see(Some(loaded.value), floor, "a load")?;
            }
            65..75 => {
                let [one, other] = tags_of(key);
                let value = model.value();
                let mut entry = cache.entry(key).tag(&one).tag(&other);
                if key.is_multiple_of(4) {
                    entry = entry.depends_on("menu");
                }
                // It begins when it is polled for the first time.
                let mut insert = std::pin::pin!(entry.insert(value));
                let first = std::future::poll_fn(|cx| std::task::Poll::Ready(insert.as_mut().poll(cx))).await;
                model.has_begun(value);
                let inserted = match first {
                    std::task::Poll::Ready(inserted) => inserted,
                    std::task::Poll::Pending => {
                        pause(&mut random).await;
                        insert.await
                    }
                };
                inserted.map_err(|e| e.to_string())?;
            }
            75..85 => drop(cache.evict(key).await.map_err(|e| e.to_string())?),
            85..88 => drop(cache.remove(key).await.map_err(|e| e.to_string())?),
            _ => {
                let scope = random.random_range(0..8);
                let began = model.tick();
                handle.invalidate(scope, random.random_bool(0.5)).await?;
                model.invalidated(scope, began);
            }
        }
    }
    Ok(())
}

/// Two compositions over the same stores, and the disk, if there is one: what follows is a restart.
async fn open(folder: &Path, round: u64, pool: &OffloadPool) -> ([Arc<dyn Backend>; 2], Option<DiskBackend>) {
    let moka = || MokaBackend::builder().max_entries(100).build().expect("moka");
    let over = |l1: Arc<dyn Backend>, l2: Arc<dyn Backend>, policy: &CompositionPolicy| -> Arc<dyn Backend> {
        Arc::new(l1.compose_with(l2, pool.shared(), policy))
    };
    let filled = CompositionPolicy::new().refill(RefillPolicy::Always);
    let raced = CompositionPolicy::new().read(RaceReadPolicy::default()).refill(RefillPolicy::Awaited);
    if round % 4 == 3 {
        let cache: Arc<dyn Backend> = Arc::new(moka());
        return ([cache.clone(), cache], None);
    }
    let disk = DiskBackend::builder(folder).open().await.expect("disk");
    let (upper, lower): (Arc<dyn Backend>, Arc<dyn Backend>) = (Arc::new(moka()), Arc::new(disk.clone()));
    let handles = match round % 4 {
        0 => {
            let cache = over(upper, lower, &filled);
            [cache.clone(), cache]
        }
        1 => [over(upper.clone(), lower.clone(), &filled), over(upper, lower, &raced)],
        _ => {
            let middle: Arc<dyn Backend> = Arc::new(QuickBackend::builder().build().expect("quick"));
            let nest = |policy: &CompositionPolicy| {
                over(upper.clone(), over(middle.clone(), lower.clone(), policy), policy)
            };
            [nest(&filled), nest(&raced)]
        }
    };
    (handles, Some(disk))
}

fn histories(operations: u64, way: Way) -> Result<(), String> {
    let seed = seed();
    eprintln!("{operations} operations with HITBOX_SEED={seed}");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Arc::new(Model::new(operations));
        // Memory alone keeps nothing over a restart, and has a model of its own.
        let volatile = Arc::new(Model::new(operations));
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..operations.div_ceil(OPERATIONS_PER_TASK * TASKS) {
            if round % 50 == 0 {
                eprintln!("round {round}");
            }
            let pool = OffloadPool::builder().build();
            let (backends, disk) = open(folder.path(), round, &pool).await;
            let handles = backends.map(|backend| Handle::new(backend, &pool, way));
            let model = if disk.is_some() { &model } else { &volatile };
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| {
                    let random = StdRng::seed_from_u64(random.random());
                    tokio::spawn(play(handles.clone(), model.clone(), random))
                })
                .collect();
            for task in tasks {
                let verdict = task.await.map_err(|error| error.to_string())?;
                verdict.map_err(|what| format!("round {round} with HITBOX_SEED={seed}: {what}"))?;
            }
            pool.wait_all().await;
            pool.shutdown().await;
            drop((handles, pool));
            if let Some(disk) = disk {
                disk.close().await;
            }
        }
        Ok(())
    })
}

#[test]
fn no_read_after_an_invalidation_sees_what_began_before_it() {
    let operations = number_from("HITBOX_OPERATIONS").unwrap_or(300_000);
    histories(operations, Way::ByEpochs).expect("what is invalidated stays so");
}

#[test]
fn histories_find_invalidation_by_deletion() {
    histories(1_000_000, Way::ByDeletion).expect_err("loads that were under way bring older values back");
}

async fn outcomes(
    cache: &Cache<u64>,
    ways: impl AsyncFn(&Cache<u64>, &str, u64) -> Option<AnswerKind>,
) -> Result<(), String> {
    cache.insert(1, 1).await.map_err(|e| e.to_string())?;
    let mut wrong = Vec::new();
    for (way, value, expected) in [
        ("normal", 2, Some(AnswerKind::Hit)),
        ("bypass", 3, Some(AnswerKind::Bypassed)),
        ("cache only", 4, Some(AnswerKind::Hit)),
        ("reload", 5, Some(AnswerKind::Loaded)),
        ("normal", 6, Some(AnswerKind::Hit)),
    ] {
        let kind = ways(cache, way, value).await;
        if kind != expected {
            wrong.push(format!("{way}: {kind:?}"));
        }
    }
    let stored = cache.get(1).await.map_err(|e| e.to_string())?;
    if stored != Some(5) {
        wrong.push(format!("{stored:?} is stored"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
}

#[tokio::test]
async fn compose_17_a_call_bypasses_reloads_or_reads_the_cache_only() {
    let pool = OffloadPool::builder().build();
    let memory = || MokaBackend::builder().build().expect("moka");
    let backends: [Arc<dyn Backend>; 3] = [
        Arc::new(memory()),
        Arc::new(memory().compose(memory(), pool.shared())),
        Arc::new(memory().compose(memory().compose(memory(), pool.shared()), pool.shared())),
    ];
    for backend in backends {
        let cache: Cache<u64> = Cache::builder(backend).offload(pool.shared()).build().expect("a cache");
        let ways = async |cache: &Cache<u64>, way: &str, value: u64| {
            let entry = cache.entry(1);
            let load = move || async move { Ok::<_, std::io::Error>(value) };
            let served = match way {
                "bypass" => entry.bypass().get_or_load(load).await.expect("a value"),
                "reload" => entry.reload().get_or_load(load).await.expect("a value"),
                "cache only" => {
                    let served = entry.get().await.expect("a read");
                    return served.value.map(|_| served.outcome.kind);
                }
                _ => entry.get_or_load(load).await.expect("a value"),
            };
            Some(served.outcome.kind)
        };
        outcomes(&cache, ways).await.expect("each call is answered as it asks");
        assert_eq!(*cache.entry(2).get().await.expect("a read"), None, "nothing is loaded for a read");
        // Who comes while a load is under way is told so.
        let (open, opened) = tokio::sync::oneshot::channel::<()>();
        let slow = cache.entry(3).get_or_load(move || async move {
            opened.await.ok();
            Ok::<_, std::io::Error>(3)
        });
        let late = async {
            while cache.statistics().loading == 0 {
                tokio::task::yield_now().await;
            }
            let late = cache.entry(3).get_or_load(|| async { Ok::<_, std::io::Error>(4) });
            let release = async {
                while cache.statistics().coalesced == 0 {
                    tokio::task::yield_now().await;
                }
                open.send(()).expect("it waits");
            };
            tokio::join!(late, release).0
        };
        let (first, late) = tokio::join!(slow, late);
        assert_eq!(first.expect("a value").outcome.kind, AnswerKind::Loaded);
        assert_eq!(late.expect("a value").outcome.kind, AnswerKind::Coalesced);
    }
}

#[tokio::test]
async fn compose_17_rejects_calls_that_all_do_the_same() {
    let cache: Cache<u64> = Cache::builder(stacks::memory(100).expect("memory")).build().expect("a cache");
    let same = async |cache: &Cache<u64>, _: &str, value: u64| {
        let load = move || async move { Ok::<_, std::io::Error>(value) };
        Some(cache.entry(1).get_or_load(load).await.expect("a value").outcome.kind)
    };
    outcomes(&cache, same).await.expect_err("it does not tell calls apart");
}

#[tokio::test]
async fn metadata_and_versions_come_with_the_value() {
    let pool = OffloadPool::builder().build();
    let memory = || MokaBackend::builder().build().expect("moka");
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let cache: Cache<u64> = Cache::builder(memory().compose(disk, pool.shared()))
        .offload(pool.shared())
        .build()
        .expect("a cache");
    cache
        .entry(1)
        .metadata("etag", "\"a\"")
        .priority(Priority::High)
        .insert_if_newer(1, 7)
        .await
        .expect("a write");
    for layer in ["upper", "lower"] {
        let served = cache.entry(1).get().await.expect("a read");
        assert_eq!((served.value, served.version()), (Some(1), Some(7)), "from the {layer} layer");
        assert_eq!(
            served.metadata().get("etag").map(|etag| &etag[..]),
            Some(&b"\"a\""[..]),
            "from the {layer} layer"
        );
        assert_eq!(cache.evict(1).await.expect("an eviction") == DeleteStatus::Missing, layer == "lower");
    }
    let error = cache.insert_if_newer(1, 2, 7).await.expect_err("the same version");
    assert_eq!(error.kind(), ErrorKind::VersionMismatch);
    assert_eq!(error.mismatch().map(|m| (m.existing, m.attempted)), Some((7, 7)));
    // A loader says so too, and what it has not modified stays.
    let load = |_| async { Ok::<_, std::io::Error>(Loaded::new(3).metadata("etag", "\"b\"").tag("red")) };
    let loaded = cache.entry(3).metadata("by", "caller").get_or_load_with(load).await.expect("a value");
    assert_eq!(loaded.metadata().len(), 2, "{:?}", loaded.metadata());
    let same = |_| async { Ok::<_, std::io::Error>(Loaded::not_modified()) };
    let kept = cache.entry(3).reload().get_or_load_with(same).await.expect("a value");
    assert_eq!((kept.value, kept.metadata().len()), (3, 2));
    assert_eq!(cache.contains(3).await.expect("a look"), Presence::Present);
    cache.invalidate_tags(&["red"]).await.expect("an invalidation");
    assert_eq!(cache.contains(3).await.expect("a look"), Presence::Absent);
}

#[tokio::test]
async fn prefixes_and_patterns_stay_within_their_cache() {
    let memory = MokaBackend::builder().build().expect("moka");
    let cache =
        |name: &str| -> Cache<u64> { Cache::builder(memory.clone()).name(name).build().expect("a cache") };
    let (users, orders) = (cache("us*ers"), cache("orders"));
    for id in [1_u64, 10, 11, 2] {
        users.insert(("user", id), id).await.expect("a write");
        orders.insert(("user", id), id).await.expect("a write");
    }
    assert_eq!(users.invalidate_matching("user:1?").await.expect("a pattern"), 2);
    assert_eq!(users.invalidate_prefix(("user", 1)).await.expect("a prefix"), 1);
    assert_eq!(users.invalidate_prefix(("user",)).await.expect("a prefix"), 1);
    assert_eq!(orders.invalidate_matching("**").await.expect("a pattern"), 4);
    let counts = orders.entry_counts().await.expect("counts");
    assert_eq!(counts.len(), 1);
    assert!(counts[0].is_empty().expect("it can count"));
    let statistics = orders.statistics();
    let table = statistics.to_string();
    assert!(table.contains("moka") && table.contains("total"), "{table}");
}

/// Three methods, as somebody writes them on a Monday.
#[derive(Default)]
struct Map(std::sync::Mutex<std::collections::HashMap<CacheKey, CacheValue<Raw>>>);

#[async_trait]
impl Store for Map {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.0.lock().expect("no panic").get(key).cloned())
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.lock().expect("no panic").insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::of(u32::from(self.0.lock().expect("no panic").remove(key).is_some())))
    }
}

#[tokio::test]
async fn a_cache_over_three_methods_has_tags() {
    let cache: Cache<u64> = Cache::builder(Map::default()).build().expect("a cache");
    cache.entry(1).tag("red").insert(1).await.expect("a write");
    cache.insert(2, 2).await.expect("a write");
    assert_eq!(cache.get(1).await.expect("a read"), Some(1));
    cache.invalidate_tags(&["red"]).await.expect("an invalidation");
    assert_eq!((cache.get(1).await.expect("a read"), cache.get(2).await.expect("a read")), (None, Some(2)));
    cache.clear().await.expect("an invalidation");
    assert_eq!(cache.get(2).await.expect("a read"), None);
}
