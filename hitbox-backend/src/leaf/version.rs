//! Writes that depend on the stored version.

use std::sync::Arc;

use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind, VersionMismatch};

use super::calls::{bytes_of, mutation, of, remove_in_turn};
use super::{Leaf, scoped};
use crate::backend::{Backend, WriteOptions};
use crate::coherence::epochs::Verdict;
use crate::envelope::Raw;
use crate::metrics::Timers;
use crate::receipt::Receipt;
use crate::stats::Event;

impl Leaf {
    /// Whether a stored entry still counts: its time is not over, and nothing that it carries has been invalidated.
    /// For leaves that write conditionally.
    ///
    /// # Errors
    /// If the store has to be asked and does not answer.
    pub async fn counts<B: Backend + ?Sized, T: Send + Sync>(
        &self,
        backend: &B,
        key: &CacheKey,
        value: &CacheValue<T>,
    ) -> BackendResult<bool> {
        if value.is_gone(self.clock().now()) {
            return Ok(false);
        }
        scoped::make_all_known(backend, self, key, value).await?;
        Ok(self.epochs().verdict(key, value) == Verdict::Current)
    }
}

/// What [`Backend::write_if_newer_with`] is for a leaf.
pub(crate) async fn write_if_newer<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    value: CacheValue<Raw>,
    options: &WriteOptions,
) -> Receipt {
    let leaf = of(backend);
    let Some(attempted) = value.details().and_then(|details| details.version) else {
        return leaf
            .refuse(BackendError::new(ErrorKind::Configuration, "a conditional write without a version"));
    };
    let value = match leaf.prepare(backend, key, value, &options.encodings) {
        Ok(value) => value,
        Err(error) => return leaf.refuse(error),
    };
    let mutation: Arc<_> = mutation(backend, key, options);
    let _turn = mutation.turn(&leaf.coherence().fence, key.process_hash()).await;
    let value = match scoped::stamped(backend, leaf, key, value, mutation.began()).await {
        Ok(Some(value)) => value,
        Ok(None) => return remove_in_turn(backend, key, &mutation).await,
        Err(error) => return leaf.refuse(error),
    };
    let bytes = bytes_of(&value);
    let _noted = leaf.coherence().note(key);
    let started = Timers::start(leaf.clock());
    let facts = backend.capabilities();
    let result = if facts.writes_conditionally {
        backend.write_if_newer(key, value).await
    } else if facts.shared {
        // Others may write between a look and a write.
        Err(BackendError::unsupported("a conditional write"))
    } else {
        write_after_look(backend, leaf, key, value, attempted).await
    };
    leaf.0.timers.write.stop(leaf.clock(), started);
    if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::VersionMismatch) {
        leaf.count(Event::VersionMismatch, 1);
    }
    leaf.stored(key, &mutation, Event::Write, bytes, result)
}

/// Nobody else writes this key of this store: it is this mutation's turn.
async fn write_after_look<B: Backend + ?Sized>(
    backend: &B,
    leaf: &Leaf,
    key: &CacheKey,
    value: CacheValue<Raw>,
    attempted: u64,
) -> BackendResult<()> {
    // What is hidden is older than what has been written elsewhere: its version is not known to be the last.
    if leaf.coherence().is_hidden(key) {
        return Err(BackendError::new(
            ErrorKind::Io,
            "the stored version is not known: the last write failed here",
        ));
    }
    if let Some(stored) = backend.read(key).await?
        && let Some(existing) = stored.details().and_then(|details| details.version)
        && existing >= attempted
        && leaf.counts(backend, key, &stored).await?
    {
        return Err(BackendError::version_mismatch(VersionMismatch { existing, attempted }));
    }
    backend.write(key, value).await
}
