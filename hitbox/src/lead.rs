//! How the load of a call begins: within the call as far as it gets at once, in a task, or within the call to its end.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hitbox_backend::internal::Decoded;
use hitbox_backend::operation::LeafSet;
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{CacheKey, Task, TaskKind};

use crate::call::{Call, Mode};
use crate::cycle;
use crate::events::CacheEvent;
use crate::flight::{Flight, LoadCompletion, Waiting};
use crate::inline::Inline;
use crate::load::{LoadEnd, LoadPlan, LoadResult, Loader, LoaderFn};
use crate::shared::Shared;

/// How far a call is with its load once it has looked.
pub(crate) enum Lead<'l, V: Cacheable, L> {
    /// It does not lead yet: what it has found, or the leaves that have nothing.
    Open(Result<Option<Decoded<V>>, LeafSet>, L),
    /// It leads. The load is handed back if it has to run within the call.
    Led(Waiting<LoadEnd<V>>, Option<Inline<'l>>),
    /// It has led, and all is done.
    Ended(LoadResult<V>),
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Whether a call that has found nothing may run its loader before it waits. Not if it has a timeout, which holds for
    /// a loader that blocks its thread, too; nor within a loader, since loads that call for loads would use up the stack;
    /// nor if loads belong to another runtime.
    fn may_lead_at_once(&self, key: &CacheKey, call: &Call) -> bool {
        call.mode == Mode::Normal
            && call.soft_timeout.or(self.settings.soft_timeout).is_none()
            && call.hard_timeout.or(self.settings.hard_timeout).is_none()
            && !cycle::is_within_load()
            && self.offload.runs_on_callers_runtime()
            && !self.throttle.is_on(key, || self.monotonic())
    }

    /// Leads the load of what is nowhere, and lets it get as far as it can, unless another is under way or has ended since
    /// this call looked.
    #[inline(never)]
    pub(crate) fn lead_at_once<'l, L: FnOnce() -> Loader<'l, V>>(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        completions: u64,
        first: Result<Option<Decoded<V>>, LeafSet>,
        loader: L,
    ) -> Lead<'l, V, L>
    where
        B: 'l,
    {
        if !matches!(first, Ok(None)) || !self.may_lead_at_once(key, call) {
            return Lead::Open(first, loader);
        }
        self.reconcile_if_dirty();
        let permit = || self.backend.layout().load_permit(key);
        let led = self.flights.lead_alone(key, Some(completions), self.last_invalidation(), permit);
        let Some((completion, waiting)) = led else { return Lead::Open(first, loader) };
        self.count_look(None);
        self.events.tell(|| CacheEvent::Miss { key });
        let inline = self.start_at_once(completion, key, loader(), LoadPlan::of(call, None));
        match waiting.flight.end() {
            Some(Ok(result)) => Lead::Ended(result),
            _ => Lead::Led(waiting, inline),
        }
    }

    /// Starts the load that a call leads. If it has to run within the call, it is returned.
    pub(crate) fn start<'l>(
        self: &Arc<Self>,
        completion: LoadCompletion<LoadEnd<V>>,
        key: &CacheKey,
        loader: Loader<'l, V>,
        plan: LoadPlan,
    ) -> Option<Inline<'l>>
    where
        B: 'l,
    {
        let flight = completion.flight.clone();
        match loader {
            Loader::Scoped(loader) => {
                let run = self.work(completion, key, loader, plan);
                Some(Inline::Borrowing(flight.run_within_call(Box::pin(run))))
            }
            Loader::Detached(loader) => {
                let task = self.task(completion, key, loader, plan);
                self.go_on_in_background(&flight, task)
            }
        }
    }

    /// Starts the load that a call leads, and lets it get as far as it can at once. It goes on in the background only if
    /// it has to wait: a task costs more than all the rest of a load that does not.
    fn start_at_once<'l>(
        self: &Arc<Self>,
        completion: LoadCompletion<LoadEnd<V>>,
        key: &CacheKey,
        loader: Loader<'l, V>,
        plan: LoadPlan,
    ) -> Option<Inline<'l>>
    where
        B: 'l,
    {
        let Loader::Detached(loader) = loader else { return self.start(completion, key, loader, plan) };
        let flight = completion.flight.clone();
        let mut task = self.task(completion, key, loader, plan);
        // Who goes on with it polls it again, and is woken.
        match task.work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => None,
            Poll::Pending => self.go_on_in_background(&flight, task),
        }
    }

    /// The load as a task that its caller waits for.
    fn task(
        self: &Arc<Self>,
        completion: LoadCompletion<LoadEnd<V>>,
        key: &CacheKey,
        loader: LoaderFn<'static, V>,
        plan: LoadPlan,
    ) -> Task {
        if self.settings.finish_abandoned {
            completion.flight.go_on();
        }
        let run = self.work(completion, key, loader, plan);
        Task::new(TaskKind::LOAD, run).interactive()
    }

    /// Hands a load over. If it is not taken, it has to run within the call.
    fn go_on_in_background<'l>(&self, flight: &Arc<Flight<LoadEnd<V>>>, task: Task) -> Option<Inline<'l>> {
        let refused = self.offload.register(task).err()?;
        Some(Inline::Owned(flight.run_within_call(refused.task.work)))
    }
}
