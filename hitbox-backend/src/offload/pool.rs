//! The pool: workers that are spawned while there is work, and a queue in front of them.

use std::collections::{HashSet, VecDeque};
use std::fmt::{self, Debug};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use hitbox_core::{BoxFuture, Lane, Offload, Refusal, Refused, Subject, Task, TaskKind};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::OffloadPoolBuilder;
use crate::metrics::{Collector, Sample, Value, register_collector};

/// Runs background work with a bound on how much is under way. Clones share the pool.
///
/// When every handle is dropped, tasks that were taken still run to their end.
#[derive(Clone)]
pub struct OffloadPool(Arc<Pool>);

struct Pool {
    settings: OffloadPoolBuilder,
    /// Nothing if it was built outside a runtime.
    built_on: Option<Handle>,
    state: Mutex<State>,
    /// Tasks running or waiting.
    depth: watch::Sender<usize>,
    /// Raised to cancel what is under way.
    epoch: watch::Sender<u64>,
    /// Ends daemons tasks.
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    workers: usize,
    /// Tasks under way that somebody waits for.
    interactive: usize,
    /// Tasks under way that had begun before.
    begun: usize,
    queue: VecDeque<Task>,
    subjects: HashSet<(TaskKind, Subject)>,
    closed: bool,
    statistics: OffloadStatistics,
}

/// Counts of a pool since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffloadStatistics {
    /// Tasks taken.
    pub registered: u64,
    /// Tasks that ran to their end.
    pub completed: u64,
    /// Tasks that panicked.
    pub panicked: u64,
    /// Tasks cut at the time limit.
    pub timed_out: u64,
    /// Tasks cancelled, while they ran or waited.
    pub cancelled: u64,
    /// Tasks handed back for want of room.
    pub refused_full: u64,
    /// Tasks handed back since one of their kind and subject was under way.
    pub refused_duplicate: u64,
    /// Tasks handed back after the shutdown.
    pub refused_closed: u64,
    /// Tasks handed back outside any runtime.
    pub refused_no_runtime: u64,
    /// Tasks running or waiting now.
    pub depth: u64,
    /// Daemon tasks now; they are counted nowhere else.
    pub daemons: u64,
}

impl OffloadPoolBuilder {
    /// The pool. It may be built outside a runtime: tasks run on that of whoever registers them.
    pub fn build(self) -> OffloadPool {
        let built_on = self.runtime.clone().or_else(|| Handle::try_current().ok());
        let pool = Arc::new(Pool {
            settings: self,
            built_on,
            state: Mutex::default(),
            depth: watch::Sender::new(0),
            epoch: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        });
        let weak: std::sync::Weak<Pool> = Arc::downgrade(&pool);
        register_collector(weak);
        OffloadPool(pool)
    }
}

impl OffloadPool {
    /// A pool with default settings.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings to start from.
    pub fn builder() -> OffloadPoolBuilder {
        OffloadPoolBuilder::default()
    }

    /// This pool as compositions take it.
    pub fn shared(&self) -> Arc<dyn Offload> {
        Arc::new(self.clone())
    }

    /// Waits until no task runs or waits. Tasks that are registered meanwhile are waited for too.
    ///
    /// Dropping the future changes nothing.
    pub async fn wait_all(&self) {
        let mut depth = self.0.depth.subscribe();
        // The sender lives as long as `self`.
        let _ = depth.wait_for(|depth| *depth == 0).await;
    }

    /// Takes no more tasks, and waits for those that were taken.
    ///
    /// Dropping the future leaves the pool closed.
    pub async fn shutdown(&self) {
        self.0.lock().closed = true;
        self.0.closed.send_replace(true);
        self.wait_all().await;
    }

    /// Takes no more tasks, waits for those that were taken until the deadline, and cancels the rest; says how
    /// many those were.
    ///
    /// Dropping the future leaves the pool closed and cancels nothing.
    pub async fn shutdown_within(&self, deadline: Duration) -> u64 {
        let (ended, limit) = (std::pin::pin!(self.shutdown()), self.0.settings.clock.sleep(deadline));
        if let Either::Left(_) = select(ended, limit).await {
            return 0;
        }
        let cancelled = *self.0.depth.borrow() as u64;
        self.cancel_all();
        self.wait_all().await;
        cancelled
    }

    /// Cancels what runs and what waits. New tasks are taken.
    pub fn cancel_all(&self) {
        let waiting: Vec<Task> = {
            let mut state = self.0.lock();
            let waiting: Vec<Task> = state.queue.drain(..).collect();
            state.statistics.cancelled += waiting.len() as u64;
            for task in &waiting {
                state.release(task.kind, task.subject.as_ref());
            }
            // With the lock, so that a task is taken before this or after it.
            self.0.epoch.send_modify(|epoch| *epoch += 1);
            waiting
        };
        self.0.depth.send_modify(|depth| *depth -= waiting.len());
        for task in waiting {
            let kind = task.kind;
            drop_safely(task, kind);
        }
    }

    /// Counts since the pool was built.
    pub fn statistics(&self) -> OffloadStatistics {
        let depth = *self.0.depth.borrow() as u64;
        OffloadStatistics { depth, ..self.0.lock().statistics }
    }
}

impl Default for OffloadPool {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for OffloadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OffloadPool").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

impl Offload for OffloadPool {
    fn idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.wait_all())
    }

    fn runs_on_callers_runtime(&self) -> bool {
        self.0.settings.runtime.is_none() && Handle::try_current().is_ok()
    }

    fn register(&self, task: Task) -> Result<(), Refused> {
        let mut state = self.0.lock();
        let Some(runtime) = self.0.runtime() else {
            state.statistics.refused_no_runtime += 1;
            return Err(Refused { task, why: Refusal::NoRuntime });
        };
        let lane = match task.lane {
            Lane::Begun if state.begun >= self.0.settings.queue => Lane::Background,
            lane => lane,
        };
        let name = task.subject.clone().map(|subject| (task.kind, subject));
        let why = if state.closed {
            state.statistics.refused_closed += 1;
            Refusal::Closed
        } else if name.as_ref().is_some_and(|name| state.subjects.contains(name)) {
            state.statistics.refused_duplicate += 1;
            Refusal::Duplicate
        } else if !state.has_room(&self.0.settings, task.lane) {
            state.statistics.refused_full += 1;
            Refusal::Full
        } else {
            state.subjects.extend(name);
            if lane == Lane::Daemon {
                state.statistics.daemons += 1;
            } else {
                state.statistics.registered += 1;
                self.0.depth.send_modify(|depth| *depth += 1);
            }
            if lane == Lane::Background && state.workers >= self.0.settings.workers {
                state.queue.push_back(task);
                return Ok(());
            }
            match lane {
                Lane::Interactive => state.interactive += 1,
                Lane::Begun => state.begun += 1,
                Lane::Daemon => {}
                _ => state.workers += 1,
            }
            let epoch = self.0.epoch.subscribe();
            drop(state);
            let current = Some((task.kind, task.subject.clone()));
            let worker = Worker { pool: self.0.clone(), lane, current, epoch };
            #[expect(clippy::disallowed_methods, reason = "this is the offload")]
            runtime.spawn(worker.run(task));
            return Ok(());
        };
        drop(state);
        Err(Refused { task, why })
    }
}

impl Pool {
    /// The runtime that was asked for; else that of the caller, which lives. The one that the pool was built on may have
    /// ended, as that of another test has.
    fn runtime(&self) -> Option<Handle> {
        let current = || Handle::try_current().ok();
        self.settings.runtime.clone().or_else(current).or_else(|| self.built_on.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, settings: &OffloadPoolBuilder, lane: Lane) -> bool {
        match lane {
            Lane::Interactive => self.interactive < settings.interactive,
            // It may wait for what waits in the queue.
            Lane::Begun => self.begun < settings.queue || self.workers < settings.workers,
            Lane::Daemon => self.statistics.daemons < settings.interactive as u64,
            _ => self.workers < settings.workers || self.queue.len() < settings.queue,
        }
    }

    fn release(&mut self, kind: TaskKind, subject: Option<&Subject>) {
        if let Some(subject) = subject {
            self.subjects.remove(&(kind, subject.clone()));
        }
    }
}

/// How a task ended.
enum End {
    Completed,
    Panicked,
    TimedOut,
    Cancelled,
    /// Its runtime has ended.
    Lost,
}

/// Runs tasks until none waits. Dropped half-way, with its runtime, it counts its task as cancelled.
struct Worker {
    pool: Arc<Pool>,
    /// Only a worker of the background lane takes further tasks from the queue.
    lane: Lane,
    current: Option<(TaskKind, Option<Subject>)>,
    /// Has changed if everything was cancelled since the current task was taken.
    epoch: watch::Receiver<u64>,
}

impl Worker {
    async fn run(mut self, first: Task) {
        let mut next = Some(first);
        while let Some(task) = next {
            let end = self.perform(task).await;
            next = self.finish(end);
        }
    }

    async fn perform(&mut self, task: Task) -> End {
        // The sender lives as long as the pool.
        if self.epoch.has_changed().unwrap_or(false) {
            drop_safely(task.work, task.kind);
            return End::Cancelled;
        }
        let work = AssertUnwindSafe(task.work).catch_unwind();
        let limit = match self.pool.settings.timeout_for(task.kind, self.lane) {
            Some(limit) => Either::Left(self.pool.settings.clock.sleep(limit)),
            None => Either::Right(std::future::pending()),
        };
        let mut closed = self.pool.closed.subscribe();
        let is_daemon = self.lane == Lane::Daemon;
        let cancelled = std::pin::pin!(async {
            tokio::select! {
                _ = self.epoch.changed() => {}
                _ = closed.wait_for(|closed| *closed), if is_daemon => {}
            }
        });
        let (end, rest) = match select(work, select(limit, cancelled)).await {
            Either::Left((Ok(()), _)) => return End::Completed,
            Either::Left((Err(_), _)) => {
                tracing::error!(kind = task.kind.0, "a background task panicked");
                return End::Panicked;
            }
            Either::Right((Either::Left(_), rest)) => (End::TimedOut, rest),
            Either::Right((Either::Right(_), rest)) => (End::Cancelled, rest),
        };
        drop_safely(rest, task.kind);
        end
    }

    /// Frees the task's subject and takes the next task, or ends the worker.
    fn finish(&mut self, end: End) -> Option<Task> {
        let next = {
            let mut state = self.pool.lock();
            let counter = match end {
                _ if self.lane == Lane::Daemon => None,
                End::Completed => Some(&mut state.statistics.completed),
                End::Panicked => Some(&mut state.statistics.panicked),
                End::TimedOut => Some(&mut state.statistics.timed_out),
                End::Cancelled | End::Lost => Some(&mut state.statistics.cancelled),
            };
            if let Some(counter) = counter {
                *counter += 1;
            }
            if let Some((kind, subject)) = self.current.take() {
                state.release(kind, subject.as_ref());
            }
            // What waits is left to workers of runtimes that go on, if there are any.
            let leaves_rest = matches!(end, End::Lost) && state.workers > 1;
            let takes_next = self.lane == Lane::Background && !leaves_rest;
            let next = if takes_next { state.queue.pop_front() } else { None };
            match (&next, self.lane) {
                (Some(task), _) => {
                    self.current = Some((task.kind, task.subject.clone()));
                    self.epoch.mark_unchanged();
                }
                (None, Lane::Interactive) => state.interactive -= 1,
                (None, Lane::Begun) => state.begun -= 1,
                (None, Lane::Daemon) => state.statistics.daemons -= 1,
                (None, _) => state.workers -= 1,
            }
            next
        };
        if self.lane != Lane::Daemon {
            self.pool.depth.send_modify(|depth| *depth -= 1);
        }
        next
    }
}

/// Drops what was cut. A panic in its drop is its own, and not that of the tasks behind it.
fn drop_safely<T>(rest: T, kind: TaskKind) {
    if std::panic::catch_unwind(AssertUnwindSafe(|| drop(rest))).is_err() {
        tracing::error!(kind = kind.0, "a background task panicked when it was dropped");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The runtime is going away: what this worker had will not run; nor what still waits, if it is the last.
        while self.current.is_some() {
            let _ = self.finish(End::Lost);
        }
    }
}

impl Collector for Pool {
    fn collect(&self, add: &mut dyn FnMut(Sample)) {
        let depth = *self.depth.borrow() as u64;
        let OffloadStatistics {
            registered,
            completed,
            panicked,
            timed_out,
            cancelled,
            refused_full,
            refused_duplicate,
            refused_closed,
            refused_no_runtime,
            ..
        } = self.lock().statistics;
        let mut counter = |name, value, reason| {
            add(Sample { name, labels: [reason, ("", "")], value: Value::Counter(value) });
        };
        counter("hitbox_offload_registered_total", registered, ("", ""));
        counter("hitbox_offload_completed_total", completed, ("", ""));
        counter("hitbox_offload_panicked_total", panicked, ("", ""));
        counter("hitbox_offload_timed_out_total", timed_out, ("", ""));
        counter("hitbox_offload_cancelled_total", cancelled, ("", ""));
        counter("hitbox_offload_refused_total", refused_full, ("reason", "full"));
        counter("hitbox_offload_refused_total", refused_duplicate, ("reason", "duplicate"));
        counter("hitbox_offload_refused_total", refused_closed, ("reason", "closed"));
        counter("hitbox_offload_refused_total", refused_no_runtime, ("reason", "no_runtime"));
        add(Sample {
            name: "hitbox_offload_depth",
            labels: [("", ""), ("", "")],
            value: Value::Gauge(depth),
        });
    }
}
