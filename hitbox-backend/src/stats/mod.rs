//! Counters: ours, striped so that no two threads write one cache line, and the truth that metrics show.

mod snapshot;
#[cfg(feature = "table")]
mod table;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hitbox_core::ErrorKind;

pub use snapshot::{EntryCount, LeafStatistics, Occupancy, Statistics};

/// What a leaf counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Event {
    /// A read was answered with a fresh copy.
    Hit,
    /// A read found no usable copy.
    Miss,
    /// A read was answered with a stale copy.
    Stale,
    /// A read found a copy past its time.
    Outdated,
    /// A read found a copy of which a scope was invalidated.
    Invalidated,
    /// A read found a damaged record.
    Damaged,
    /// A read found a record that it cannot use and must not touch.
    Foreign,
    /// A copy could not be decoded as the type that was asked for.
    Undecodable,
    /// A read met a copy that is outdated, since a write or delete of its key failed here.
    Dirty,
    /// A value was stored.
    Write,
    /// A value came from a lower layer and was stored.
    Refill,
    /// A refill was given up, since something was written meanwhile.
    RefillSuperseded,
    /// A delete was carried out.
    Remove,
    /// A scope was given a new epoch.
    Invalidation,
    /// A conditional write met an equal or newer version.
    VersionMismatch,
    /// A look found an entry that a read would find.
    Present,
    /// A look found none.
    Absent,
    /// A look could not tell.
    Maybe,
    /// A value was left out by the layer's rule of admission.
    NotAdmitted,
    /// A filter kept a read from asking for a key that is not there.
    Filtered,
    /// A filter let a read pass for a key that is not there.
    FalsePositive,
    /// A copy was found and not served, since another layer's was: counted here instead of as a hit.
    Unserved,
    /// Bytes before compression.
    CompressIn,
    /// Bytes after compression.
    CompressOut,
    /// Values that were not compressed, since they are small, compressed already, or it did not pay.
    CompressSkipped,
    /// A read failed.
    ReadError,
    /// A write failed or was refused.
    WriteError,
    /// A delete failed.
    RemoveError,
    /// Bytes handed out by hits of byte-storing leaves.
    BytesRead,
    /// Bytes taken in by writes of byte-storing leaves.
    BytesWritten,
}

const EVENTS: usize = Event::BytesWritten as usize + 1;
/// Threads that have a stripe of their own; all others share one more.
const OWNED: usize = 31;
const STRIPES: usize = OWNED + 1;

/// One thread's share of the counters, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe<const N: usize>([AtomicU64; N]);

/// Counters, striped so that no two threads write one cache line.
#[derive(Debug)]
pub struct Striped<const N: usize>([Stripe<N>; STRIPES]);

impl<const N: usize> Default for Striped<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Stripe(std::array::from_fn(|_| AtomicU64::new(0)))))
    }
}

/// The counters of one leaf.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    striped: Striped<EVENTS>,
    /// By operation (read, write, remove) and kind.
    errors: [[AtomicU64; ErrorKinds::COUNT]; 3],
}

/// A thread's right to write to a stripe alone; it goes to another thread when this one ends.
struct Lease(usize);

/// Stripes of threads that have ended.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

thread_local! {
    /// The stripe of this thread, `STRIPES` before it has one.
    static MINE: Cell<usize> = const { Cell::new(STRIPES) };
    static LEASE: Lease = Lease::take();
}

impl Lease {
    fn take() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(free.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed)).min(OWNED))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        MINE.set(OWNED);
        if self.0 < OWNED {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
        }
    }
}

#[inline]
fn stripe_of_thread() -> usize {
    let mine = MINE.get();
    if mine < STRIPES { mine } else { lease_stripe() }
}

#[cold]
fn lease_stripe() -> usize {
    // While the thread ends there is no lease any more.
    let stripe = LEASE.try_with(|lease| lease.0).unwrap_or(OWNED);
    MINE.set(stripe);
    stripe
}

impl<const N: usize> Striped<N> {
    /// Adds to the counter with this index.
    #[inline(always)]
    pub fn add(&self, index: usize, amount: u64) {
        let stripe = stripe_of_thread();
        let counter = &self.0[stripe % STRIPES].0[index];
        if stripe < OWNED {
            // Nobody else writes there, so no locked instruction is needed.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        } else {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// What the counter with this index has come to.
    pub fn get(&self, index: usize) -> u64 {
        let stripes = self.0.iter().map(|stripe| stripe.0[index].load(Ordering::Relaxed));
        stripes.fold(0, u64::wrapping_add)
    }
}

impl Counters {
    #[inline(always)]
    pub(crate) fn add(&self, event: Event, amount: u64) {
        self.striped.add(event as usize, amount);
    }

    /// The cache line, of 128 bytes, in which this thread counts.
    pub(crate) fn line(&self, event: Event) -> usize {
        let stripe = &self.striped.0[stripe_of_thread() % STRIPES];
        std::ptr::from_ref(&stripe.0[event as usize]) as usize / 128
    }

    /// Takes back one that turned out to be another: stripes wrap around, their sum does not.
    pub(crate) fn take_back(&self, event: Event) {
        self.add(event, 1_u64.wrapping_neg());
    }

    pub(crate) fn get(&self, event: Event) -> u64 {
        self.striped.get(event as usize)
    }

    /// Whether nothing was ever counted.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "asked only by the exporter"))]
    pub(crate) fn is_zero(&self) -> bool {
        (0..EVENTS).all(|event| self.striped.get(event) == 0)
    }

    /// Counts a failure: `event` says of what.
    pub(crate) fn add_error(&self, event: Event, kind: ErrorKind) {
        self.add(event, 1);
        let operation = match event {
            Event::ReadError => 0,
            Event::RemoveError => 2,
            _ => 1,
        };
        self.errors[operation][ErrorKinds::index(kind)].fetch_add(1, Ordering::Relaxed);
    }

    /// Failures by operation and kind, without those that never occurred.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "asked only by the exporter"))]
    pub(crate) fn each_error(&self, mut show: impl FnMut(usize, &'static str, u64)) {
        for (operation, kinds) in self.errors.iter().enumerate() {
            for (kind, count) in ErrorKinds::ALL.iter().zip(kinds) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    show(operation, kind.as_str(), count);
                }
            }
        }
    }
}

struct ErrorKinds;

impl ErrorKinds {
    const ALL: [ErrorKind; 16] = [
        ErrorKind::Connection,
        ErrorKind::Timeout,
        ErrorKind::Codec,
        ErrorKind::TooLarge,
        ErrorKind::VersionMismatch,
        ErrorKind::Conflict,
        ErrorKind::Unsupported,
        ErrorKind::Range,
        ErrorKind::RequiredLayer,
        ErrorKind::AllLayers,
        ErrorKind::Overloaded,
        ErrorKind::NotAdmitted,
        ErrorKind::Io,
        ErrorKind::Protocol,
        ErrorKind::Configuration,
        ErrorKind::Closed,
    ];
    const COUNT: usize = Self::ALL.len();

    fn index(kind: ErrorKind) -> usize {
        Self::ALL.iter().position(|known| *known == kind).unwrap_or(Self::COUNT - 1)
    }
}
