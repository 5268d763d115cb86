//! A stampede: a thousand tasks ask for one cold key. How often the source is asked, and when the last of them has its
//! answer; and the same where the task that came first goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hitbox::{Cache, Compose};
pub use hitbox_core::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::measure::Env;

/// Tasks that ask.
pub const TASKS: u64 = 1_000;
/// How long the source takes.
pub const SOURCE: Duration = Duration::from_millis(50);
const ROUNDS: u64 = 9;
/// Who has no answer by then hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the source.
pub type Load = Box<dyn FnOnce() -> BoxFuture<'static, u64> + Send + Sync>;

/// A cache that loads.
pub trait Loads: Send + Sync {
    /// The value of a key, loaded if it is not there.
    fn get(&self, key: u64, load: Load) -> BoxFuture<'static, u64>;
}

/// Makes one.
pub type Contender = (&'static str, fn(&Env) -> Arc<dyn Loads>);

/// What came of the stampedes through one cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stampeded {
    /// The cache.
    pub name: String,
    /// With all tasks there to the end.
    pub whole: Course,
    /// With the first one gone.
    pub headless: Course,
}

/// How stampedes went: the worst count of loads, the median time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Course {
    /// Calls of the source.
    pub loads: u64,
    /// Milliseconds to the last answer.
    pub millis: f64,
    /// Tasks without an answer after 5 s.
    pub hang: u64,
}

impl Loads for Cache<u64> {
    fn get(&self, key: u64, load: Load) -> BoxFuture<'static, u64> {
        let cache = self.clone();
        Box::pin(async move {
            let load = move || async move { Ok::<_, std::convert::Infallible>(load().await) };
            cache.get_or_load(key, load).await.expect("a value")
        })
    }
}

/// Ours.
pub fn contenders() -> Vec<Contender> {
    fn cache(env: &Env, backend: impl hitbox_backend::Backend) -> Arc<dyn Loads> {
        Arc::new(Cache::<u64>::builder(backend).offload(env.pool.shared()).build().expect("a cache"))
    }
    fn memory() -> hitbox_moka::MokaBackend {
        hitbox_moka::MokaBackend::builder().max_entries(1 << 20).build().expect("memory")
    }
    vec![
        ("hitbox, memory", |env| cache(env, memory())),
        ("hitbox, memory over memory", |env| cache(env, memory().compose(memory(), env.pool.shared()))),
    ]
}

async fn stampede(cache: &dyn Loads, key: u64, headless: bool) -> Course {
    let calls = Arc::new(AtomicU64::new(0));
    let task = || {
        let calls = calls.clone();
        let load: Load = Box::new(move || {
            Box::pin(async move {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(SOURCE).await;
                key
            })
        });
        tokio::spawn(cache.get(key, load))
    };
    let started = Instant::now();
    let first = task();
    if headless {
        while calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
    let rest: Vec<_> = (1..TASKS).map(|_| task()).collect();
    if headless {
        // All have come by then.
        tokio::time::sleep(SOURCE / 2).await;
        first.abort();
    }
    let mut hang = 0;
    for task in rest {
        let patience = PATIENCE.saturating_sub(started.elapsed());
        match tokio::time::timeout(patience, task).await {
            Ok(value) => assert_eq!(value.expect("no panic"), key),
            Err(_) => hang += 1,
        }
    }
    let millis = started.elapsed().as_secs_f64() * 1_000.0;
    Course { loads: calls.load(Ordering::SeqCst), millis, hang }
}

/// Stampedes through every cache.
pub fn all(contenders: &[Contender]) -> Vec<Stampeded> {
    let env = Env::new();
    let course = |cache: &dyn Loads, keys: std::ops::Range<u64>, headless| {
        let mut rounds: Vec<Course> = keys.map(|key| env.block_on(stampede(cache, key, headless))).collect();
        rounds.sort_by(|a, b| a.millis.total_cmp(&b.millis));
        Course {
            loads: rounds.iter().map(|round| round.loads).max().unwrap_or(0),
            millis: rounds[rounds.len() / 2].millis,
            hang: rounds.iter().map(|round| round.hang).max().unwrap_or(0),
        }
    };
    let one = |(name, make): &Contender| {
        eprintln!("stampeding through {name} …");
        let cache = { env.block_on(async { make(&env) }) };
        Stampeded {
            name: (*name).to_owned(),
            whole: course(&*cache, 0..ROUNDS, false),
            headless: course(&*cache, ROUNDS..2 * ROUNDS, true),
        }
    };
    contenders.iter().map(one).collect()
}

/// The results as a table in Markdown.
pub fn table(all: &[Stampeded]) -> String {
    let mut table = String::from(
        "| cache | loads | ms to the last answer | loads, the first gone | ms to the last answer |\n\
         |---|--:|--:|--:|--:|\n",
    );
    let millis = |course: &Course| match course.hang {
        0 => format!("{:.1}", course.millis),
        hang => format!("{hang} tasks hang"),
    };
    for Stampeded { name, whole, headless } in all {
        let (whole_ms, headless_ms) = (millis(whole), millis(headless));
        table += &format!("| {name} | {} | {whole_ms} | {} | {headless_ms} |\n", whole.loads, headless.loads);
    }
    table
}
