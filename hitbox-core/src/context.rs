//! What a call reports about how it was answered.

use crate::BackendLabel;

/// How a read was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheStatus {
    /// By a fresh copy.
    Hit,
    /// By no copy.
    #[default]
    Miss,
    /// By a copy past its end of fresh.
    Stale,
}

/// Where the value came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResponseSource {
    /// Not from the cache: what it guards has to be asked.
    #[default]
    Upstream,
    /// From the leaf with this dotted path.
    Backend(BackendLabel),
}

/// Whether an upper layer is being filled from a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// No layer is filled.
    #[default]
    Direct,
    /// At least one layer above the one that answered is filled from it.
    Refill,
}

/// Reports status, source and read mode of the last call it was passed to.
///
/// It only reports: no later call depends on what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheContext {
    status: CacheStatus,
    source: ResponseSource,
    read_mode: ReadMode,
}

impl CacheContext {
    /// A context of a call that found nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the read was answered.
    pub const fn status(&self) -> CacheStatus {
        self.status
    }

    /// Which leaf answered.
    pub const fn source(&self) -> &ResponseSource {
        &self.source
    }

    /// Whether an upper layer is being filled from this read.
    pub const fn read_mode(&self) -> ReadMode {
        self.read_mode
    }

    /// Records a call's answer. For those who answer calls.
    pub const fn record(&mut self, status: CacheStatus, source: ResponseSource, read_mode: ReadMode) {
        self.status = status;
        self.source = source;
        self.read_mode = read_mode;
    }
}
