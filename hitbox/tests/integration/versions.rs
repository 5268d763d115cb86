//! Concurrent histories of processes that raise versions over one Redis. Expressions with connections and memories of their
//! own stand for processes.
//!
//! `HITBOX_SEED` replays what is done (not the scheduling), `HITBOX_RUNS` sets how many histories there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hitbox::backend::operation::{Condition, Write};
use hitbox::backend::{
    Backend, CacheBackend, Compose, CompositionPolicy, OffloadPool, RaceWritePolicy, RefillPolicy,
    SystemClock,
};
use hitbox::core::{BoxFuture, CacheKey, CacheValue, Clock, ErrorKind, Offload, Timestamp};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::redis::{RedisBackend, RedisBuilder};
use hitbox_testkit::broken::Rewrites;
use hitbox_testkit::{Fault, Faults, Faulty, Operation, RedisServer, number_from, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const KEYS: usize = 2;
const STEPS: usize = 12;

fn pool() -> Arc<dyn Offload> {
    OffloadPool::new().shared()
}

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

fn builder(server: &RedisServer) -> RedisBuilder {
    RedisBackend::builder(&server.url()).deadline(Duration::from_secs(10))
}

fn redis(server: &RedisServer) -> RedisBackend {
    builder(server).build().expect("redis")
}

/// What has been acknowledged of each key, and the keys' names in this history.
#[derive(Clone)]
struct Run {
    newest: Arc<[AtomicU64; KEYS]>,
    number: u64,
}

impl Run {
    fn key(&self, key: usize) -> CacheKey {
        CacheKey::builder("versioned").part("run", self.number).part("key", key).build()
    }

    /// One process: versions around those that it knows of, reads of its own, and of the shared layers.
    async fn process(
        self,
        process: Arc<dyn Backend>,
        shared: Vec<RedisBackend>,
        seed: u64,
    ) -> Result<(), String> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut own = [0; KEYS];
        for step in 0..STEPS {
            let (index, jump) = (random.random_range(0..KEYS), random.random_range(0..8));
            let (key, newest) = (self.key(index), &self.newest[index]);
            let before = newest.load(Ordering::SeqCst);
            let context = |what: String| format!("step {step}, {key}: {what}");
            match random.random_range(0..10) {
                0..2 => {
                    let found = version_in(&*process, &key).await.map_err(context)?;
                    if found < own[index] {
                        return Err(context(format!("{found} is served after its own {}", own[index])));
                    }
                    continue;
                }
                2..4 => {
                    let found = version_in(&shared[0], &key).await.map_err(context)?;
                    if found < before {
                        return Err(context(format!("{found} is shared after {before} was acknowledged")));
                    }
                    continue;
                }
                _ => {}
            }
            let version = (before + jump).saturating_sub(3).max(1);
            match process.set_if_newer(&key, CacheValue::new(version), version).await {
                Ok(_) if version <= before => {
                    return Err(context(format!("{version} was taken after {before}")));
                }
                Ok(_) => {
                    own[index] = version;
                    newest.fetch_max(version, Ordering::SeqCst);
                }
                Err(error) if error.kind() == ErrorKind::VersionMismatch => {}
                Err(error) => return Err(context(error.to_string())),
            }
        }
        Ok(())
    }
}

/// The version that is found, 0 if there is none.
async fn version_in(backend: &dyn Backend, key: &CacheKey) -> Result<u64, String> {
    let found = backend.get_one::<u64>(key).await.map_err(|error| error.to_string())?;
    Ok(found.map_or(0, CacheValue::into_data))
}

/// One history. The first of the shared layers decides; at the end all have what was acknowledged last.
async fn history(
    processes: &[Arc<dyn Backend>],
    shared: &[RedisBackend],
    seed: u64,
    number: u64,
) -> Result<(), String> {
    let run = Run { newest: Arc::default(), number };
    let tasks = processes.iter().zip(0..).map(|(process, index)| {
        let seed = seed.wrapping_mul(31).wrapping_add(index);
        tokio::spawn(run.clone().process(process.clone(), shared.to_vec(), seed))
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    for index in 0..KEYS {
        let (key, newest) = (run.key(index), run.newest[index].load(Ordering::SeqCst));
        for (layer, shared) in shared.iter().enumerate() {
            let found = version_in(shared, &key).await?;
            if found != newest {
                return Err(format!("{key}: layer {layer} has {found}, and {newest} was acknowledged last"));
            }
        }
    }
    Ok(())
}

/// A process that decides about versions by what it has seen itself.
fn decide_alone(write: &mut Write) {
    if matches!(write.condition, Condition::IfNewer(_)) {
        write.condition = Condition::Always;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c10_histories_of_processes_never_take_an_older_version() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    let (seed, runs) = (seed(), number_from("HITBOX_RUNS").unwrap_or(300));
    eprintln!("{runs} histories with HITBOX_SEED={seed}");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let race = CompositionPolicy::new().write(RaceWritePolicy::default());
    let twice = redis(&server);
    let processes: Vec<Arc<dyn Backend>> = vec![
        moka().compose(redis(&server).compose(disk, pool()), pool()).shared(),
        moka().compose(redis(&server), pool()).with_policy(&race).shared(),
        // One store in two places.
        twice.clone().compose(moka().compose(twice, pool()), pool()).shared(),
    ];
    let shared = [redis(&server)];
    for run in 0..runs {
        let verdict = history(&processes, &shared, seed.wrapping_add(run), run).await;
        assert!(verdict.is_ok(), "run {run} of HITBOX_SEED={seed}: {verdict:?}");
    }
}

/// Two servers, one over the other: the lower one decides, and the upper one does not go back either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_c10_no_shared_layer_goes_back() {
    let (near, far) = (RedisServer::start(), RedisServer::start());
    let (seed, runs) = (seed(), number_from("HITBOX_RUNS").unwrap_or(300));
    eprintln!("{runs} histories with HITBOX_SEED={seed}");
    let process = || redis(&near).compose(redis(&far), pool()).with_refill(RefillPolicy::Always);
    let processes: Vec<Arc<dyn Backend>> =
        vec![process().shared(), process().shared(), moka().compose(process(), pool()).shared()];
    let shared = [redis(&far), redis(&near)];
    for run in 0..runs {
        let verdict = history(&processes, &shared, seed.wrapping_add(run), run).await;
        assert!(verdict.is_ok(), "run {run} of HITBOX_SEED={seed}: {verdict:?}");
    }
}

/// The machine's clock, and a millisecond that does not end.
#[derive(Debug)]
struct OneMillisecond;

impl Clock for OneMillisecond {
    fn now(&self) -> Timestamp {
        static NOW: LazyLock<Timestamp> = LazyLock::new(|| SystemClock.now());
        *NOW
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(duration)
    }
}

/// A removal that a shared layer has missed does not make what it has newer than what is written afterwards: versions begin
/// anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_outlived_its_removal_is_older_whatever_its_version() {
    let (near, far) = (RedisServer::start(), RedisServer::start());
    let clocks: [Arc<dyn Clock>; 2] = [Arc::new(OneMillisecond), Arc::new(SystemClock)];
    let histories = [(6, 1, true), (6, 1, false), (1, 1, true), (1, 1, false)];
    let runs = clocks.iter().flat_map(|clock| histories.map(|history| (clock, history)));
    for (run, (clock, (first, then, is_back))) in runs.enumerate() {
        let faults = Faults::default();
        let near = builder(&near).clock(clock.clone()).build().expect("redis");
        let far = builder(&far).clock(clock.clone()).build().expect("redis");
        let faulty = Faulty::new(near.clone(), &faults, Arc::new(SystemClock));
        let both = faulty.compose(far, pool());
        let key = CacheKey::builder("removed").part("run", run as u64).build();
        let write =
            async |value: u64, version| both.set_if_newer(&key, CacheValue::new(value), version).await;
        write(100, first).await.expect("a write");
        faults.always(Operation::Remove, Fault::Fail(ErrorKind::Connection));
        drop(both.delete_one(&key).await);
        assert!(both.get_one::<u64>(&key).await.expect("a read").is_none(), "run {run}: it is removed");
        if is_back {
            faults.clear();
        } else {
            faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
        }
        write(200, then).await.expect("a write");
        faults.clear();
        let converges = async {
            loop {
                let found = both.get_one::<u64>(&key).await.expect("a read").map(CacheValue::into_data);
                assert_eq!(found, Some(200), "run {run}");
                let there = near.get_one::<u64>(&key).await.expect("a read").map(CacheValue::into_data);
                if there == Some(200) {
                    return;
                }
                assert!(there.is_none_or(|there| there == 100), "run {run}: {there:?}");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), converges).await.expect("it is brought up to date");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_reject_a_process_that_decides_alone() {
    let server = RedisServer::start();
    let processes: Vec<Arc<dyn Backend>> = vec![
        moka().compose(redis(&server), pool()).shared(),
        Arc::new(Rewrites::new(moka().compose(redis(&server), pool()).shared(), decide_alone)),
    ];
    let shared = [redis(&server)];
    for run in 0..300 {
        if history(&processes, &shared, run, run).await.is_err() {
            return;
        }
    }
    panic!("it was not found");
}
