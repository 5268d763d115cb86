//! Background work as a dependency: who spawns is chosen by the application.

use std::fmt::{self, Debug};

use crate::{BoxFuture, CacheKey};

/// Names a class of background work in limits, counters and metrics: `refill`, `write`, `reconcile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKind(pub &'static str);

impl TaskKind {
    /// Fills an upper layer from a lower one.
    pub const REFILL: Self = Self("refill");
    /// Finishes a write or delete whose caller has its answer or has gone.
    pub const WRITE: Self = Self("write");
    /// Finishes a read that lost a race.
    pub const READ: Self = Self("read");
    /// Brings layers up to date that failed earlier.
    pub const RECONCILE: Self = Self("reconcile");
    /// Loads a value from the source.
    pub const LOAD: Self = Self("load");
    /// Notes that an entry with an idle time has been read.
    pub const TOUCH: Self = Self("touch");
}

/// A piece of background work.
pub struct Task {
    /// Its class.
    pub kind: TaskKind,
    /// Two tasks of one kind and subject are never under way at once: the second is refused.
    pub subject: Option<Subject>,
    /// How it runs beside others.
    pub lane: Lane,
    /// The work. Dropping it unfinished must leave everything in a state from which others go on.
    pub work: BoxFuture<'static, ()>,
}

/// How a task runs beside others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lane {
    /// When there is room.
    #[default]
    Background,
    /// At once or not at all, since somebody waits for it. It has time limits of its own.
    Interactive,
    /// At once or not at all, since it has begun and holds what others wait for, as the turn of a key: it must not wait for
    /// them. It has the time limits of [`Background`](Self::Background).
    Begun,
    /// At once, for as long as there is anything to do: nobody waits for its end, and a shutdown cancels it.
    Daemon,
}

/// What a task is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Who does it: keys of different owners are different subjects.
    pub owner: u64,
    /// The key it is done for.
    pub key: CacheKey,
}

impl Task {
    /// Work that runs beside any other.
    pub fn new(kind: TaskKind, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { kind, subject: None, lane: Lane::Background, work: Box::pin(work) }
    }

    /// Work of which one per subject is enough.
    pub fn unique(kind: TaskKind, subject: Subject, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { kind, subject: Some(subject), lane: Lane::Background, work: Box::pin(work) }
    }

    /// The same work, which somebody waits for.
    #[must_use]
    pub fn interactive(self) -> Self {
        Self { lane: Lane::Interactive, ..self }
    }

    /// The same work, which has begun and holds what others wait for.
    #[must_use]
    pub fn begun(self) -> Self {
        Self { lane: Lane::Begun, ..self }
    }

    /// The same work, which goes on for as long as there is anything to do.
    #[must_use]
    pub fn daemon(self) -> Self {
        Self { lane: Lane::Daemon, ..self }
    }
}

impl Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("kind", &self.kind)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

/// Why a task was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Queue and workers are full.
    Full,
    /// A task of this kind and subject is under way.
    Duplicate,
    /// The offload has been shut down.
    Closed,
    /// There is nothing that it could run on: no runtime was given to it, and the caller is on none.
    NoRuntime,
}

/// A task handed back to whoever registered it.
#[derive(Debug)]
pub struct Refused {
    /// The task, untouched.
    pub task: Task,
    /// Why.
    pub why: Refusal,
}

/// Runs background work.
pub trait Offload: Debug + Send + Sync + 'static {
    /// Takes the task or hands it back. Never waits.
    ///
    /// # Errors
    /// [`Refused`] holds the task and the reason.
    fn register(&self, task: Task) -> Result<(), Refused>;

    /// Whether a task that is registered now would run on the runtime of whoever calls, who may then poll it once before registering it: what the
    /// task makes of timers and sockets belongs to the runtime on which it is polled first. By default nobody knows.
    fn runs_on_callers_runtime(&self) -> bool {
        false
    }

    /// Completes when nothing that it has taken is under way; tasks that go on for as long as there is anything to do are
    /// not waited for. Dropping the future changes nothing. By default it completes at once.
    fn idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
