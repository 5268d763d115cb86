//! One call for simultaneous reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use hitbox_core::{Accept, BoxFuture, CacheKey, Freshness};

use super::{Wrapper, forward};
use crate::backend::Backend;
use crate::completion::{Batch, Completion};
use crate::into::IntoBackend;
use crate::layout::StateAtRest;
use crate::operation::{Answer, Answers, LeafSet, ReadOptions};
use crate::stats::Event;

type Call = BoxFuture<'static, Answer>;
type Name = (CacheKey, Accept, LeafSet, bool, bool);

/// A call that some readers wait for.
#[derive(Clone)]
struct Reading {
    number: u64,
    /// The state of the key when the call started, unless it was being written. What is written to any leaf, or
    /// invalidated, makes it another.
    state: Option<StateAtRest>,
    call: WeakShared<Call>,
    /// A reader has had the answer that the leaf has counted.
    is_counted: Arc<AtomicBool>,
}

/// Calls under way by what they read.
#[derive(Default)]
struct Calls {
    under_way: HashMap<Name, Reading>,
    next: u64,
}

/// A backend in which reads of one key that meet share one call and its answer. Worth its cost in front of a slow layer.
///
/// A read that starts after a write has returned never joins a call that started before the write did, through whichever
/// handle of the store the write came.
pub struct Coalesce {
    inner: Arc<dyn Backend>,
    calls: Arc<Mutex<Calls>>,
}

impl Coalesce {
    /// Shares the reads of `inner`.
    pub fn new<Kind>(inner: impl IntoBackend<Kind>) -> Self {
        Self { inner: inner.into_shared(), calls: Arc::default() }
    }

    /// The call under way, or a new one. It ends when all its readers are gone.
    fn join(&self, key: &CacheKey, options: &ReadOptions) -> (Shared<Call>, Arc<AtomicBool>) {
        // Leaves of others have answered before.
        let skip = options.skip.intersection(self.inner.layout().set());
        let name = (key.clone(), options.accept, skip, options.absent, options.background);
        let state = self.inner.layout().state_at_rest(key);
        let mut calls = lock(&self.calls);
        let same = calls.under_way.get(&name).filter(|reading| state.is_some() && reading.state == state);
        if let Some(reading) = same
            && let Some(call) = reading.call.upgrade()
        {
            return (call, reading.is_counted.clone());
        }
        let number = calls.next;
        calls.next += 1;
        let under_way = UnderWay { calls: self.calls.clone(), name: name.clone(), number };
        let (inner, options) = (self.inner.clone(), options.clone());
        let work = async move {
            let answers = inner.read(std::slice::from_ref(&under_way.name.0), &options).await;
            drop(under_way);
            answers.into_one().unwrap_or(Ok(None))
        };
        let call: Shared<Call> = FutureExt::boxed(work).shared();
        let is_counted = Arc::<AtomicBool>::default();
        if let Some(weak) = call.downgrade() {
            let reading = Reading { number, state, call: weak, is_counted: is_counted.clone() };
            calls.under_way.insert(name, reading);
        }
        (call, is_counted)
    }

    /// The leaf has counted one hit for all readers of a call: the others are counted here.
    fn count(&self, answer: &Answer, options: &ReadOptions, is_counted: &AtomicBool) {
        let Ok(Some(found)) = answer else { return };
        if is_counted.swap(true, Ordering::Relaxed)
            && let Some(leaf) = self.inner.layout().leaf(found.leaf)
        {
            let hit = if found.freshness == Freshness::Fresh { Event::Hit } else { Event::Stale };
            leaf.handle().count_read(hit, options);
        }
    }
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that has not ended. A newer one of the same name stays.
struct UnderWay {
    calls: Arc<Mutex<Calls>>,
    name: Name,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut calls = lock(&self.calls);
        if calls.under_way.get(&self.name).is_some_and(|reading| reading.number == self.number) {
            calls.under_way.remove(&self.name);
        }
    }
}

impl Wrapper for Coalesce {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, calls: Arc::default() })
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        let [key] = keys else { return forward::read(self, keys, options) };
        let (call, is_counted) = self.join(key, options);
        Completion::later(call.map(move |answer| {
            self.count(&answer, options, &is_counted);
            Batch::one(answer)
        }))
    }
}
