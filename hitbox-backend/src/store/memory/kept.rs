//! Entries whose values are dropped where nobody holds a lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_core::CacheValue;

use crate::envelope::Raw;

/// An entry in a store that drops it where it likes, also under its locks. The destructor of a user's value may use the
/// cache, or panic: so the value outlives the entry until [`drop_buried`], which stores call when they hold no lock.
#[derive(Clone)]
pub struct Kept {
    value: CacheValue<Raw>,
    /// For its destructor.
    _grave: Grave,
}

impl Kept {
    /// The entry as it is stored. Its clones are for readers, and drop what they have at once.
    pub fn new(value: CacheValue<Raw>) -> Self {
        let grave = Grave { value: Some(value.data().clone()), is_model: false };
        Self { value, _grave: grave }
    }

    /// The same for a store that keeps a clone of what it is given.
    pub fn to_be_cloned(value: CacheValue<Raw>) -> Self {
        let grave = Grave { value: Some(value.data().clone()), is_model: true };
        Self { value, _grave: grave }
    }

    /// The entry.
    #[inline]
    pub fn value(&self) -> &CacheValue<Raw> {
        &self.value
    }

    /// The entry, for who has it from the store.
    #[inline]
    pub fn into_value(self) -> CacheValue<Raw> {
        self.value
    }
}

/// The value of an entry in the store; a reader's copy has none.
struct Grave {
    value: Option<Raw>,
    /// It is what the store is given to make its own of.
    is_model: bool,
}

impl Clone for Grave {
    #[inline]
    fn clone(&self) -> Self {
        Self { value: self.value.as_ref().filter(|_| self.is_model).cloned(), is_model: false }
    }
}

impl Drop for Grave {
    #[inline]
    fn drop(&mut self) {
        if let Some(value) = self.value.take_if(|_| !self.is_model) {
            bury(value);
        }
    }
}

/// Values whose entries are gone, of all stores of the process.
static BURIED: Mutex<Vec<Raw>> = Mutex::new(Vec::new());
static IS_ANY_BURIED: AtomicBool = AtomicBool::new(false);

fn buried() -> MutexGuard<'static, Vec<Raw>> {
    BURIED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
#[inline(never)]
fn bury(value: Raw) {
    buried().push(value);
    IS_ANY_BURIED.store(true, Ordering::Release);
}

/// Drops the values whose entries are gone. A destructor that panics harms nobody.
#[inline]
pub fn drop_buried() {
    if IS_ANY_BURIED.load(Ordering::Relaxed) {
        drop_all_buried();
    }
}

#[cold]
#[inline(never)]
fn drop_all_buried() {
    let values = {
        let mut buried = buried();
        IS_ANY_BURIED.store(false, Ordering::Relaxed);
        std::mem::take(&mut *buried)
    };
    for value in values {
        if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
            tracing::error!("the destructor of a cached value panicked");
        }
    }
}
