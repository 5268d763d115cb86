//! One line in the log when the store of a leaf fails, and one when it is back.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hitbox_core::{BackendError, BackendLabel, Clock, ErrorKind};

/// A store that comes and goes is told of once in so long.
const PAUSE: Duration = Duration::from_secs(10);

/// Errors of formats that are told of, each once.
const MAX_CODEC_ERRORS: usize = 64;

/// What has been told of a store.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// What does not work, as bits of [`Side`].
    failing: AtomicU8,
    /// Calls that failed since all of it last worked.
    failures: AtomicU64,
    /// The failure has been told of.
    is_told: AtomicBool,
    /// Monotonic milliseconds when one was last told of, and one more; 0 before the first.
    told_at: AtomicU64,
    /// What has been told of values that the format cannot carry. Each error names its type.
    codec_errors: Mutex<BTreeSet<String>>,
}

/// What works or fails by itself: a folder that has become read-only is read all the same.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Reads = 1,
    Changes = 2,
}

/// Whether such an error says that the store is out of order, and not that it refused one entry.
const fn is_outage(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Connection
            | ErrorKind::Timeout
            | ErrorKind::Io
            | ErrorKind::Protocol
            | ErrorKind::Configuration
    )
}

impl Health {
    pub(super) fn failed(&self, path: BackendLabel, clock: &dyn Clock, side: Side, error: &BackendError) {
        if error.kind() == ErrorKind::Codec && self.is_codec_news(error) {
            let cause = error.source().map(ToString::to_string);
            tracing::warn!(
                backend = %path, %error, cause,
                "a cache layer cannot store a value in its format and does without it; further ones count as errors of the layer"
            );
        }
        if !is_outage(error.kind()) {
            return;
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.tell(path, clock, error);
        // Last: whoever finds it working again tells of that only if the failure has been told of.
        self.failing.fetch_or(side as u8, Ordering::AcqRel);
    }

    /// Tells of an outage, once, and not too often.
    fn tell(&self, path: BackendLabel, clock: &dyn Clock, error: &BackendError) {
        if self.is_told.load(Ordering::Relaxed) {
            return;
        }
        let now = clock.monotonic().as_millis() as u64 + 1;
        let told_at = self.told_at.load(Ordering::Relaxed);
        let is_due = told_at == 0 || now.saturating_sub(told_at) >= PAUSE.as_millis() as u64;
        if is_due && !self.is_told.swap(true, Ordering::Relaxed) {
            self.told_at.store(now, Ordering::Relaxed);
            tracing::warn!(backend = %path, %error, "a cache layer fails; the others do without it until it is back");
        }
    }

    fn is_codec_news(&self, error: &BackendError) -> bool {
        let mut told = self.codec_errors.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MAX_CODEC_ERRORS && told.insert(error.to_string())
    }

    /// Whether something does not work.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) != 0
    }

    #[inline]
    pub(super) fn answered(&self, path: BackendLabel, side: Side) {
        if self.failing.load(Ordering::Acquire) & side as u8 != 0 {
            self.recovered(path, side);
        }
    }

    #[cold]
    fn recovered(&self, path: BackendLabel, side: Side) {
        if self.failing.fetch_and(!(side as u8), Ordering::AcqRel) & !(side as u8) != 0 {
            return;
        }
        let failed_calls = self.failures.swap(0, Ordering::Relaxed);
        if self.is_told.swap(false, Ordering::Relaxed) {
            tracing::info!(backend = %path, failed_calls, "a cache layer is back");
        }
    }
}
