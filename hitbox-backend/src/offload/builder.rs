//! The settings of a pool.

use std::sync::Arc;
use std::time::Duration;

use hitbox_core::{Clock, Lane, TaskKind};
use tokio::runtime::Handle;

use crate::clock::SystemClock;

/// Settings of an [`OffloadPool`](super::OffloadPool).
#[derive(Clone, Debug)]
pub struct OffloadPoolBuilder {
    pub(super) workers: usize,
    pub(super) queue: usize,
    pub(super) interactive: usize,
    timeout: Option<Duration>,
    timeouts: Vec<(TaskKind, Option<Duration>)>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Option<Handle>,
}

impl Default for OffloadPoolBuilder {
    fn default() -> Self {
        Self {
            workers: 64,
            queue: 4096,
            interactive: 1024,
            timeout: Some(Duration::from_secs(30)),
            timeouts: Vec::new(),
            clock: Arc::new(SystemClock),
            runtime: None,
        }
    }
}

impl OffloadPoolBuilder {
    /// Tasks that run at once, at least 1. Default 64.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Tasks that wait beside those that run; and as many that do not wait, as they had begun when their callers left. Default
    /// 4,096.
    #[must_use]
    pub fn queue(mut self, queue: usize) -> Self {
        self.queue = queue;
        self
    }

    /// Interactive tasks, which somebody waits for, that run at once, beside the workers. Default 1,024.
    #[must_use]
    pub fn interactive(mut self, interactive: usize) -> Self {
        self.interactive = interactive;
        self
    }

    /// Cuts tasks after so long. Default 30 s; `None` lets them run. Interactive tasks and loads have limits of their own,
    /// and are not cut.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same for tasks of one kind. Default: that of all.
    #[must_use]
    pub fn timeout_of(mut self, kind: TaskKind, timeout: Option<Duration>) -> Self {
        self.timeouts.retain(|(known, _)| *known != kind);
        self.timeouts.push((kind, timeout));
        self
    }

    /// How long a task may take.
    pub(super) fn timeout_for(&self, kind: TaskKind, lane: Lane) -> Option<Duration> {
        let own = self.timeouts.iter().find(|(known, _)| *known == kind).map(|(_, timeout)| *timeout);
        let is_bounded = matches!(lane, Lane::Background | Lane::Begun) && kind != TaskKind::LOAD;
        own.unwrap_or(self.timeout.filter(|_| is_bounded))
    }

    /// The clock of the time limit. Default the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The runtime that runs the tasks. Default that of whoever registers one, or else the one that `build` is called on.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }
}
