//! One call for simultaneous reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use hitbox_core::{Accept, BackendResult, BoxFuture, CacheKey};

use super::{Wrapper, forward};
use crate::backend::Backend;
use crate::coherence::logical_clock;
use crate::completion::{Batch, Completion};
use crate::into::IntoBackend;
use crate::operation::{
    Answer, Answers, Invalidation, LeafSet, Maintained, Maintenance, ReadOptions, Removal, Write,
};
use crate::receipt::{Receipt, Receipts};

type Call = BoxFuture<'static, Answer>;
type Name = (CacheKey, Accept, bool);

/// Calls under way by what they read, each with its number and the logical time when it started.
#[derive(Default)]
struct Calls {
    under_way: HashMap<Name, (u64, u64, WeakShared<Call>)>,
    next: u64,
}

/// A backend in which reads of one key that meet share one call and its answer. Worth its cost in front of a slow layer.
///
/// A read that starts after a write has returned never joins a call that started before the write did.
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
    fn join(&self, key: &CacheKey, options: &ReadOptions) -> Shared<Call> {
        let name = (key.clone(), options.accept, options.absent);
        let mut calls = lock(&self.calls);
        // What a read that started before an invalidation brings is not for one that starts after it.
        let now = logical_clock::now();
        let under_way = calls.under_way.get(&name).filter(|(_, started, _)| *started == now);
        if let Some(call) = under_way.and_then(|(.., call)| call.upgrade()) {
            return call;
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
        if let Some(weak) = call.downgrade() {
            calls.under_way.insert(name, (number, now, weak));
        }
        call
    }

    /// Reads that start from now on make a call of their own.
    fn part<'k>(calls: &Mutex<Calls>, keys: impl Iterator<Item = &'k CacheKey>) {
        let mut calls = lock(calls);
        if calls.under_way.is_empty() {
            return;
        }
        for key in keys {
            for accept in [Accept::Fresh, Accept::Stale, Accept::Expired] {
                for absent in [false, true] {
                    calls.under_way.remove(&(key.clone(), accept, absent));
                }
            }
        }
    }

    /// The same after a call that changes these keys, or whichever keys.
    fn parting<'a, T: Send + 'a>(
        &'a self,
        keys: Option<Vec<CacheKey>>,
        call: Completion<'a, T>,
    ) -> Completion<'a, T> {
        call.map(move |result| {
            match &keys {
                Some(keys) => Self::part(&self.calls, keys.iter()),
                None => lock(&self.calls).under_way.clear(),
            }
            result
        })
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
        if calls.under_way.get(&self.name).is_some_and(|(number, ..)| *number == self.number) {
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
        // A read that leaves leaves out is its caller's alone.
        if options.skip != LeafSet::EMPTY {
            return forward::read(self, keys, options);
        }
        Completion::later(self.join(key, options).map(Batch::one))
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        let keys = writes.iter().map(|write| write.key.clone()).collect();
        self.parting(Some(keys), forward::write(self, writes))
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        let keys = removals.iter().map(|removal| removal.key.clone()).collect();
        self.parting(Some(keys), forward::remove(self, removals))
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        self.parting(None, forward::invalidate(self, invalidation))
    }

    fn observe<'a>(&'a self, change: &'a Invalidation) -> Completion<'a, Receipt> {
        self.parting(None, forward::observe(self, change))
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        let done = forward::maintain(self, work);
        if matches!(work, Maintenance::Erase { .. }) { self.parting(None, done) } else { done }
    }
}
