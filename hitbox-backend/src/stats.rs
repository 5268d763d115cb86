//! Counters: ours, striped so that no two threads write one cache line, and the truth that metrics show.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hitbox_core::{BackendLabel, ErrorKind};

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
    /// A read found a copy past its time, or one whose scopes were invalidated.
    Outdated,
    /// A read found a damaged record.
    Damaged,
    /// A read found a record that it cannot use and must not touch.
    Foreign,
    /// A copy could not be decoded as the type that was asked for.
    Undecodable,
    /// A read met a copy that is hidden after a failed write.
    Hidden,
    /// A value was stored.
    Write,
    /// A value came from a lower layer and was stored.
    Refill,
    /// A refill was given up, since something was written meanwhile.
    RefillSuperseded,
    /// A delete was carried out.
    Remove,
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
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; EVENTS]);

/// The counters of one leaf.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    stripes: [Stripe; STRIPES],
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

impl Counters {
    #[inline(always)]
    pub(crate) fn add(&self, event: Event, amount: u64) {
        let stripe = stripe_of_thread();
        let counter = &self.stripes[stripe % STRIPES].0[event as usize];
        if stripe < OWNED {
            // Nobody else writes there, so no locked instruction is needed.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        } else {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, event: Event) -> u64 {
        self.stripes.iter().map(|stripe| stripe.0[event as usize].load(Ordering::Relaxed)).sum()
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
    const ALL: [ErrorKind; 13] = [
        ErrorKind::Connection,
        ErrorKind::Timeout,
        ErrorKind::Codec,
        ErrorKind::TooLarge,
        ErrorKind::VersionMismatch,
        ErrorKind::Unsupported,
        ErrorKind::RequiredLayer,
        ErrorKind::AllLayers,
        ErrorKind::Overloaded,
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

/// A store that can say what it holds.
pub trait Occupied: Send + Sync {
    /// What it holds now.
    fn occupancy(&self) -> Occupancy;
}

/// What a leaf holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupancy {
    /// Entries, expired ones that are still stored included.
    pub entries: u64,
    /// Bytes, in the leaf's own measure.
    pub bytes: u64,
    /// The bound on entries, if there is one.
    pub max_entries: Option<u64>,
    /// The bound on bytes, if there is one.
    pub max_bytes: Option<u64>,
    /// Entries put out for want of room.
    pub evictions: u64,
    /// Entries dropped since their time was over.
    pub expirations: u64,
}

impl Occupancy {
    /// So many entries of so many bytes.
    pub fn new(entries: u64, bytes: u64) -> Self {
        Self { entries, bytes, ..Self::default() }
    }

    /// The same with these bounds.
    pub fn with_bounds(self, max_entries: Option<u64>, max_bytes: Option<u64>) -> Self {
        Self { max_entries, max_bytes, ..self }
    }

    /// The same with these counts of dropped entries.
    pub fn with_dropped(self, evictions: u64, expirations: u64) -> Self {
        Self { evictions, expirations, ..self }
    }
}

/// A leaf's statistics at one moment. Counts are since the view of the leaf was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeafStatistics {
    /// The leaf's dotted path.
    pub label: BackendLabel,
    /// Reads answered with a fresh copy.
    pub hits: u64,
    /// Reads answered with a stale copy.
    pub stale_hits: u64,
    /// Reads answered with nothing.
    pub misses: u64,
    /// Copies that were met and not served: past their time, invalidated, hidden, damaged, foreign or
    /// not decodable.
    pub unusable: u64,
    /// Values stored by writes.
    pub writes: u64,
    /// Values stored by refills.
    pub refills: u64,
    /// Refills given up since something was written meanwhile.
    pub refills_superseded: u64,
    /// Deletes carried out.
    pub removes: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Bytes handed out (byte-storing leaves).
    pub bytes_read: u64,
    /// Bytes taken in (byte-storing leaves).
    pub bytes_written: u64,
    /// What it holds, if it can say.
    pub occupancy: Option<Occupancy>,
}

impl Counters {
    pub(crate) fn snapshot(&self, label: BackendLabel, occupancy: Option<Occupancy>) -> LeafStatistics {
        let sum = |events: &[Event]| events.iter().map(|event| self.get(*event)).sum();
        LeafStatistics {
            label,
            hits: self.get(Event::Hit),
            stale_hits: self.get(Event::Stale),
            misses: self.get(Event::Miss),
            unusable: sum(&[
                Event::Outdated,
                Event::Damaged,
                Event::Foreign,
                Event::Undecodable,
                Event::Hidden,
            ]),
            writes: self.get(Event::Write),
            refills: self.get(Event::Refill),
            refills_superseded: self.get(Event::RefillSuperseded),
            removes: self.get(Event::Remove),
            errors: sum(&[Event::ReadError, Event::WriteError, Event::RemoveError]),
            bytes_read: self.get(Event::BytesRead),
            bytes_written: self.get(Event::BytesWritten),
            occupancy,
        }
    }
}
