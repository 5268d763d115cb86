//! Settings of the in-memory backend.

use std::fmt;
use std::sync::Arc;

use hitbox_backend::{LeafOptions, Raw, leaf_setters};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};

use crate::MokaBackend;

/// What a bound in bytes counts for an entry.
pub type Weigher = Arc<dyn Fn(&CacheKey, &CacheValue<Raw>) -> u64 + Send + Sync>;

/// How much the cache holds.
#[derive(Clone)]
#[non_exhaustive]
pub enum Bound {
    /// So many entries.
    Entries(u64),
    /// So many bytes, as the weigher counts them.
    Bytes(u64, Weigher),
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(entries) => write!(f, "Entries({entries})"),
            Self::Bytes(bytes, _) => write!(f, "Bytes({bytes})"),
        }
    }
}

/// Builds a [`MokaBackend`]. Without a bound it holds 100,000 entries.
#[derive(Clone, Debug)]
pub struct MokaBuilder {
    pub(crate) bound: Bound,
    pub(crate) options: LeafOptions,
}

/// Bytes that an entry takes beside key, payload and metadata: moka's node and queues, and our table of ends.
const OVERHEAD: u64 = 320;

impl MokaBuilder {
    pub(crate) fn new() -> Self {
        Self { bound: Bound::Entries(100_000), options: LeafOptions::new("moka") }
    }

    /// Holds at most this many entries.
    #[must_use]
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.bound = Bound::Entries(entries);
        self
    }

    /// Holds at most this many bytes: keys, payloads as a counting serializer finds them, metadata, and
    /// 320 bytes per entry.
    #[must_use]
    pub fn max_bytes(self, bytes: u64) -> Self {
        self.max_weight(bytes, Arc::new(weigh))
    }

    /// Holds at most `weight` as `weigher` counts it.
    #[must_use]
    pub fn max_weight(mut self, weight: u64, weigher: Weigher) -> Self {
        self.bound = Bound::Bytes(weight, weigher);
        self
    }

    leaf_setters!("moka");

    /// The backend.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the bound is zero.
    pub fn build(self) -> BackendResult<MokaBackend> {
        let (name, bound) = match &self.bound {
            Bound::Entries(entries) => ("max_entries", *entries),
            Bound::Bytes(bytes, _) => ("max_bytes", *bytes),
        };
        if bound == 0 {
            return Err(BackendError::new(ErrorKind::Configuration, format!("{name} must be at least 1")));
        }
        Ok(MokaBackend::new(self))
    }
}

fn weigh(key: &CacheKey, value: &CacheValue<Raw>) -> u64 {
    let details = value.details().map_or(0, |details| {
        let metadata = details.metadata.iter().map(|(name, value)| name.len() + value.len() + 64);
        let scopes = details.scopes.iter().map(|scope| scope.name.len() + 48);
        metadata.chain(scopes).sum::<usize>() as u64 + 64
    });
    key.as_encoded().len() as u64 + value.data().weight() + details + OVERHEAD
}
