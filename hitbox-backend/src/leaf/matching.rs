//! Invalidation by what keys look like: the leaf lists its keys, and those that match are removed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use hitbox_core::{BackendError, BackendResult, CacheKey, KeyPattern};

use super::{of, remove_many};
use crate::backend::{Backend, RemoveItem};
use crate::coherence::fence::Closed;
use crate::receipt::Outcome;

/// Keys that are listed at a time where that is I/O.
const PAGE: usize = 1_000;

/// The distinct keys that a call has removed from any leaf.
#[derive(Debug, Default)]
pub struct Matched(Mutex<HashSet<CacheKey>>);

impl Matched {
    /// How many.
    pub fn len(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A leaf held this key.
    pub fn add(&self, key: CacheKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }
}

/// Ends every load and refill that is under way in these leaves, lets none in until the guards are dropped, and waits
/// for the writes that came before.
pub(crate) async fn close<B: Backend + ?Sized>(backend: &B) -> Vec<Closed> {
    let mut closed = Vec::new();
    for leaf in backend.leaves() {
        closed.push(leaf.coherence().fence.close().await);
    }
    closed
}

/// What [`Backend::remove_matching`] is for a leaf.
pub(crate) async fn remove_matching<B: Backend + ?Sized>(
    backend: &B,
    pattern: &KeyPattern,
    matched: &Matched,
) -> BackendResult<()> {
    let leaf = of(backend);
    let at = |error: BackendError| error.at(leaf.path());
    let facts = backend.capabilities();
    if !facts.enumerates {
        return Err(at(BackendError::unsupported("listing keys")));
    }
    let _closed = close(backend).await;
    // A list in memory costs nothing but its keys.
    let limit = if facts.answers_at_once { usize::MAX } else { PAGE };
    let mut all = Ok(());
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        let page = backend.enumerate(from, limit).await.map_err(at)?;
        cursor = page.next;
        let keys: Vec<CacheKey> = page.keys.into_iter().filter(|key| pattern.matches(key)).collect();
        for batch in keys.chunks(PAGE) {
            let items = batch.iter().cloned().map(RemoveItem::new).collect();
            for (key, receipt) in batch.iter().zip(remove_many(backend, items).await) {
                if receipt.leaves.iter().any(|line| matches!(line.outcome, Outcome::Removed)) {
                    matched.add(key.clone());
                }
                all = all.and(receipt.into_result().map(drop));
            }
        }
    }
    all
}
