//! What is measured, and how. A subject is a few operations that do the same work; one of them is the
//! reference. Operations of a subject are timed in turns, so that what disturbs one disturbs all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hitbox_backend::OffloadPool;
use hitbox_testkit::RedisServer;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, Runtime};

/// Performs an operation so many times.
pub type Repeat = Box<dyn FnMut(u64)>;

/// One way to do what the subject is about.
pub struct Operation {
    /// Its name, unique within the subject.
    pub name: String,
    make: Box<dyn Fn(&Env) -> Repeat>,
}

/// What a subject's operations are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// Instructions, counted by callgrind, and time beside them.
    Instructions,
    /// Time alone: other threads or processes take part.
    Time,
}

/// An operation must not cost more than so many times another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The operation.
    pub operation: String,
    /// What it is divided by.
    pub reference: String,
    /// The largest ratio.
    pub at_most: f64,
}

/// Operations that are compared.
pub struct Subject {
    /// A short name for files and filters.
    pub name: &'static str,
    /// What it shows, for people.
    pub title: &'static str,
    /// By what it is judged.
    pub measure: Measure,
    /// The first one is the reference of the table.
    pub operations: Vec<Operation>,
    /// What has to hold.
    pub targets: Vec<Target>,
}

impl Subject {
    /// A subject without operations.
    pub fn new(name: &'static str, title: &'static str, measure: Measure) -> Self {
        Self { name, title, measure, operations: Vec::new(), targets: Vec::new() }
    }

    /// The same with another operation.
    #[must_use]
    pub fn operation(mut self, name: &str, make: impl Fn(&Env) -> Repeat + 'static) -> Self {
        self.operations.push(Operation { name: name.to_owned(), make: Box::new(make) });
        self
    }

    /// The same with something that has to hold.
    #[must_use]
    pub fn target(mut self, operation: &str, reference: &str, at_most: f64) -> Self {
        let (operation, reference) = (operation.to_owned(), reference.to_owned());
        self.targets.push(Target { operation, reference, at_most });
        self
    }
}

/// What operations are made in.
pub struct Env {
    runtime: Runtime,
    /// Runs background work.
    pub pool: OffloadPool,
}

impl Env {
    /// A runtime with two workers.
    ///
    /// # Panics
    /// If there can be none.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        // One recorder per process: the first one stays.
        #[cfg(feature = "metrics")]
        let _ = hitbox_backend::metrics::prometheus();
        let pool = {
            let _entered = runtime.enter();
            OffloadPool::new()
        };
        Self { runtime, pool }
    }

    /// The runtime.
    pub fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// Waits for a future.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A Redis server of this run.
    pub fn redis(&self) -> &'static RedisServer {
        let _entered = self.runtime.enter();
        RedisServer::shared()
    }

    /// Repeats an asynchronous operation on some state, one after the other. The operation is given its
    /// number.
    pub fn repeat<S: 'static>(&self, state: S, operation: impl AsyncFn(&S, u64) + 'static) -> Repeat {
        let handle = self.handle();
        Box::new(move |times| {
            handle.block_on(async {
                for number in 0..times {
                    operation(&state, number).await;
                }
            });
        })
    }

    /// The same with so many tasks at once, which share the work.
    pub fn repeat_in_tasks<S, F>(
        &self,
        tasks: u64,
        state: S,
        operation: impl Fn(S, u64) -> F + Clone + Send + Sync + 'static,
    ) -> Repeat
    where
        S: Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        let handle = self.handle();
        Box::new(move |times| {
            let running: Vec<_> = (0..tasks)
                .map(|task| {
                    let (state, operation) = (state.clone(), operation.clone());
                    handle.spawn(async move {
                        let mut number = task;
                        while number < times {
                            operation(state.clone(), number).await;
                            number += tasks;
                        }
                    })
                })
                .collect();
            handle.block_on(async {
                for task in running {
                    task.await.expect("an operation does not panic");
                }
            });
        })
    }
}

impl Default for Env {
    fn default() -> Self {
        Self::new()
    }
}

/// Repeats an operation on two threads at once; each does all of them.
pub fn repeat_in_threads<S: Send + Sync + 'static>(
    state: S,
    operation: impl Fn(&S, u64) + Send + Sync + 'static,
) -> Repeat {
    let shared = Arc::new((state, operation));
    Box::new(move |times| {
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let shared = shared.clone();
                scope.spawn(move || {
                    for number in 0..times {
                        (shared.1)(&shared.0, number + thread * times);
                    }
                });
            }
        });
    })
}

/// What callgrind counted of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Instructions.
    pub instructions: f64,
    /// Calls of the allocator that ask for memory.
    pub allocations: f64,
}

/// What an operation cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// The operation.
    pub operation: String,
    /// Nanoseconds per operation, in each round.
    pub nanos: Vec<f64>,
    /// What callgrind counted.
    pub counts: Option<Counts>,
}

impl Cost {
    /// The median of the rounds, in nanoseconds.
    pub fn median(&self) -> f64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The fastest and the slowest round.
    pub fn range(&self) -> (f64, f64) {
        let fold = |start: f64, choose: fn(f64, f64) -> f64| self.nanos.iter().copied().fold(start, choose);
        (fold(f64::INFINITY, f64::min), fold(0.0, f64::max))
    }
}

/// What the operations of a subject cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The subject's short name.
    pub subject: String,
    /// Its title.
    pub title: String,
    /// By what it is judged.
    pub measure: Measure,
    /// One per operation.
    pub costs: Vec<Cost>,
    /// What has to hold.
    pub targets: Vec<Target>,
}

impl Measured {
    /// The ratio of two operations: of instructions if both have them, else the median of the rounds'
    /// ratios of time.
    pub fn ratio(&self, operation: &str, reference: &str) -> Option<f64> {
        let cost = |name: &str| self.costs.iter().find(|cost| cost.operation == name);
        let (operation, reference) = (cost(operation)?, cost(reference)?);
        match (operation.counts, reference.counts) {
            (Some(a), Some(b)) if self.measure == Measure::Instructions => {
                Some(a.instructions / b.instructions)
            }
            _ => Some(time_ratio(operation, reference)),
        }
    }
}

/// The median of the rounds' ratios.
pub fn time_ratio(operation: &Cost, reference: &Cost) -> f64 {
    let mut ratios: Vec<f64> = operation.nanos.iter().zip(&reference.nanos).map(|(a, b)| a / b).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Measure {
    /// A round of one operation takes about so long: longer where other processes take part.
    const fn round(self) -> Duration {
        match self {
            Self::Instructions => Duration::from_millis(20),
            Self::Time => Duration::from_millis(80),
        }
    }
}

fn time(repeat: &mut Repeat, times: u64) -> Duration {
    let started = Instant::now();
    repeat(times);
    started.elapsed()
}

/// How often an operation fits into a round.
fn calibrate(repeat: &mut Repeat, round: Duration) -> u64 {
    let mut times = 64;
    loop {
        let took = time(repeat, times);
        if took >= round / 4 || times >= 1 << 24 {
            let per_operation = took.as_secs_f64() / times as f64;
            return ((round.as_secs_f64() / per_operation) as u64).clamp(64, 1 << 24);
        }
        times *= 4;
    }
}

/// Times the operations of a subject in turns.
pub fn time_subject(subject: &Subject, rounds: usize) -> Measured {
    let env = Env::new();
    let mut made: Vec<(u64, Repeat)> = Vec::new();
    for operation in &subject.operations {
        let mut repeat = (operation.make)(&env);
        made.push((calibrate(&mut repeat, subject.measure.round()), repeat));
    }
    let named = subject.operations.iter().map(|operation| operation.name.clone());
    let mut costs: Vec<Cost> = named.map(|operation| Cost { operation, ..Cost::default() }).collect();
    for _ in 0..rounds {
        for ((times, repeat), cost) in made.iter_mut().zip(&mut costs) {
            cost.nanos.push(time(repeat, *times).as_nanos() as f64 / *times as f64);
        }
    }
    Measured {
        subject: subject.name.to_owned(),
        title: subject.title.to_owned(),
        measure: subject.measure,
        costs,
        targets: subject.targets.clone(),
    }
}

/// Performs one operation `times` times, after a start, within [`measured_section`].
///
/// # Panics
/// If there is no such operation.
pub fn run_once(subject: &Subject, operation: &str, times: u64) {
    let env = Env::new();
    let operation = subject.operations.iter().find(|known| known.name == operation).expect("an operation");
    let mut repeat = (operation.make)(&env);
    repeat(256);
    measured_section(&mut repeat, times);
}

/// What callgrind collects: it is told the name of this function.
#[inline(never)]
pub fn measured_section(repeat: &mut Repeat, times: u64) {
    repeat(times);
}
