//! Destructors of values, kept until nobody holds a lock.
//!
//! A store in memory drops entries where it likes, also under its locks. The destructor of a user's value may use the
//! cache, or panic. So whatever is dropped during a call of such a store is kept until the call has ended. And since stores drop
//! some of it later, when somebody else in the process happens to tidy up (crossbeam's epochs do), no destructor of a cached
//! value lets a panic out.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Content;

/// Values wait for the end of the outermost call.
const ANY: u32 = 1 << 31;

thread_local! {
    /// Calls of stores that this thread is in, and [`ANY`] if values wait for their end: one word, since hits pay for it.
    static STATE: Cell<u32> = const { Cell::new(0) };
    static DROPPED: Dropped = const { Dropped { last: Cell::new(None), others: RefCell::new(Vec::new()) } };
}

/// The values that wait. As a rule it is one.
struct Dropped {
    last: Cell<Option<Arc<dyn Content>>>,
    others: RefCell<Vec<Arc<dyn Content>>>,
}

impl Dropped {
    fn push(&self, value: Arc<dyn Content>) {
        if let Some(other) = self.last.replace(Some(value)) {
            self.others.borrow_mut().push(other);
        }
    }

    fn pop(&self) -> Option<Arc<dyn Content>> {
        self.last.take().or_else(|| self.others.borrow_mut().pop())
    }
}

/// A call of a store that drops values under its locks. When it ends, which must be where no lock is held, the values are
/// dropped; a destructor that panics harms nobody.
///
/// ```
/// use hitbox_backend::store::memory::DeferredDrops;
/// fn put() {
///     let _drops = DeferredDrops::begin();
///     // Values that are put out here are dropped at the end.
/// }
/// # put();
/// ```
#[derive(Debug)]
pub struct DeferredDrops(
    /// It belongs to its thread.
    PhantomData<*const ()>,
);

impl DeferredDrops {
    /// The call begins.
    #[inline]
    #[must_use]
    pub fn begin() -> Self {
        STATE.set(STATE.get() + 1);
        Self(PhantomData)
    }
}

impl Drop for DeferredDrops {
    #[inline]
    fn drop(&mut self) {
        let state = STATE.get() - 1;
        STATE.set(state);
        // The outermost call ends.
        if state == ANY {
            drop_all();
        }
    }
}

/// A value is dropped here.
#[inline]
pub(super) fn dropping(value: &Arc<dyn Content>) {
    if STATE.get() != 0 {
        defer(value);
    }
}

#[cold]
#[inline(never)]
fn defer(value: &Arc<dyn Content>) {
    // A thread that ends has no place for it.
    if DROPPED.try_with(|dropped| dropped.push(value.clone())).is_ok() {
        STATE.set(STATE.get() | ANY);
    }
}

#[cold]
#[inline(never)]
fn drop_all() {
    // As if in a call: what these destructors have dropped waits here too, however many have others dropped in turn. Each
    // within the other would need a stack without end.
    STATE.set(1);
    while let Ok(Some(value)) = DROPPED.try_with(Dropped::pop) {
        drop(value);
    }
    STATE.set(0);
}

/// Drops what holds a user's value. A panic of its destructor is its own.
pub(super) fn contain<T>(value: T) {
    if std::mem::needs_drop::<T>() && catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        tracing::error!("the destructor of a cached value panicked");
    }
}
