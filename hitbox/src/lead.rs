//! How the load of a call begins: within the call as far as it gets at once, in a task, or within the call to its end.

use std::sync::Arc;
use std::task::{Context, Waker};

use hitbox_backend::internal::Decoded;
use hitbox_backend::operation::LeafSet;
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{CacheKey, Task, TaskKind};

use crate::call::{Call, Mode};
use crate::cycle;
use crate::events::CacheEvent;
use crate::flight::{LoadCompletion, Waiting};
use crate::inline::Inline;
use crate::load::{LoadEnd, LoadPlan, LoadResult, Loader};
use crate::shared::Shared;

/// How far a call is with its load, which is not over.
pub(crate) enum Lead<'l, V: Cacheable, L> {
    /// It does not lead yet: what it has found, or the leaves that have nothing.
    Open(Result<Option<Decoded<V>>, LeafSet>, L),
    /// It leads. The load is handed back if it has to run within the call.
    Led(Waiting<LoadEnd<V>>, Option<Inline<'l>>),
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
    /// this call looked. What it has brought, if it is over.
    #[inline(never)]
    pub(crate) fn lead_at_once<'l, L: FnOnce() -> Loader<'l, V>>(
        self: &Arc<Self>,
        key: &CacheKey,
        call: &Call,
        completions: u64,
        first: Result<Option<Decoded<V>>, LeafSet>,
        loader: L,
    ) -> Result<LoadResult<V>, Lead<'l, V, L>>
    where
        B: 'l,
    {
        if !matches!(first, Ok(None)) || !self.may_lead_at_once(key, call) {
            return Err(Lead::Open(first, loader));
        }
        self.reconcile_if_dirty();
        let permit = || self.backend.layout().load_permit(key);
        let led = self.flights.lead_alone(key, Some(completions), self.last_invalidation(), permit);
        let Some((completion, waiting)) = led else { return Err(Lead::Open(first, loader)) };
        self.count_look(None);
        self.events.tell(|| CacheEvent::Miss { key });
        let inline = self.start(completion, key, loader(), LoadPlan::of(call, None), true);
        match waiting.flight.end() {
            Some(Ok(result)) => Ok(result),
            _ => Err(Lead::Led(waiting, inline)),
        }
    }

    /// Starts the load that a call leads. If it has to run within the call, it is returned.
    ///
    /// With `at_once` the load gets as far as it can here, and goes on in the background only if it has to wait: a task costs more than
    /// all the rest of a load that does not.
    pub(crate) fn start<'l>(
        self: &Arc<Self>,
        completion: LoadCompletion<LoadEnd<V>>,
        key: &CacheKey,
        loader: Loader<'l, V>,
        plan: LoadPlan,
        at_once: bool,
    ) -> Option<Inline<'l>>
    where
        B: 'l,
    {
        let flight = completion.flight.clone();
        let loader = match loader {
            Loader::Detached(loader) => loader,
            Loader::Scoped(loader) => {
                let work = self.work(completion, key, loader, plan);
                return Some(Inline::Borrowing(flight.run_within_call(Box::pin(work))));
            }
        };
        if self.settings.finish_abandoned {
            flight.go_on();
        }
        let work = self.work(completion, key, loader, plan);
        let mut task = Task::new(TaskKind::LOAD, work).interactive();
        // Who goes on with it polls it again, and is woken.
        if at_once && task.work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return None;
        }
        let refused = self.offload.register(task).err()?;
        Some(Inline::Owned(flight.run_within_call(refused.task.work)))
    }
}
