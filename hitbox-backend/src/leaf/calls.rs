//! What every call to a leaf does around the store's own method.

use std::sync::{Arc, LazyLock};

use hitbox_core::{BackendResult, CacheKey, CacheValue, Freshness, RecordKind};

use super::{Leaf, LeafOptions};
use crate::backend::{Backend, WriteOptions};
use crate::coherence::{Coherence, Mutation, Ticket, places};
use crate::envelope::{Encodings, Raw};
use crate::metrics::Timers;
use crate::read::{Answer, Presence, ReadOptions};
use crate::receipt::{Outcome, Receipt};
use crate::stats::Event;

/// The leaf of a backend, or the one that stands for all that bring none.
pub(crate) fn of<B: Backend + ?Sized>(backend: &B) -> &Leaf {
    static ANONYMOUS: LazyLock<Leaf> = LazyLock::new(|| {
        let options = LeafOptions::new("backend");
        Leaf::with(options, "backend".into(), 0, Coherence::of_anonymous(), None)
    });
    backend.leaf().unwrap_or(&ANONYMOUS)
}

pub(super) fn bytes_of(value: &CacheValue<Raw>) -> u64 {
    value.data().as_encoded().map_or(0, |encoded| encoded.bytes.len() as u64)
}

/// Whether this read is answered without the store.
pub(super) fn passes_by(leaf: &Leaf, key: &CacheKey, options: &ReadOptions) -> bool {
    if options.skip.contains(leaf.0.position) {
        return true;
    }
    let hidden = leaf.coherence().is_hidden(key);
    if hidden {
        leaf.count(Event::Hidden, 1);
        leaf.count(Event::Miss, 1);
    }
    hidden
}

pub(crate) async fn read<B: Backend + ?Sized>(backend: &B, key: &CacheKey, options: &ReadOptions) -> Answer {
    of(backend).read_with(key, options, || backend.read(key)).await
}

impl Leaf {
    /// What [`Backend::read_with`] is for a leaf, around the store's own `read`: for leaves that save themselves a
    /// boxed future.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn read_with<F: Future<Output = BackendResult<Option<CacheValue<Raw>>>>>(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
        read: impl FnOnce() -> F,
    ) -> Answer {
        if passes_by(self, key, options) {
            return Ok(None);
        }
        if let Err(error) = self.check_key(key) {
            return Err(self.failed(Event::ReadError, error));
        }
        let started = Timers::start(self.clock());
        let stored = read().await;
        self.0.timers.read.stop(self.clock(), started);
        self.answer(stored, options)
    }
}

/// The mutation that a write is part of, or one of its own.
pub(crate) fn mutation<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    options: &WriteOptions,
) -> Arc<Mutation> {
    options.mutation.clone().unwrap_or_else(|| Mutation::begin(places(backend, key)))
}

pub(crate) async fn write<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    value: CacheValue<Raw>,
    options: &WriteOptions,
) -> Receipt {
    let leaf = of(backend);
    if leaf.is_gone(&value) {
        // A value past its time replaces what was there with nothing.
        return remove(backend, key, options).await;
    }
    let value = match leaf.prepare(backend, key, value, &options.encodings) {
        Ok(value) => value,
        Err(error) => return leaf.refuse(error),
    };
    let mutation = mutation(backend, key, options);
    let _turn = mutation.turn(&leaf.coherence().fence, key.process_hash()).await;
    let bytes = bytes_of(&value);
    let started = Timers::start(leaf.clock());
    let result = backend.write(key, value).await;
    leaf.0.timers.write.stop(leaf.clock(), started);
    leaf.stored(key, &mutation, Event::Write, bytes, result)
}

pub(crate) async fn remove<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    options: &WriteOptions,
) -> Receipt {
    let leaf = of(backend);
    let mutation = mutation(backend, key, options);
    let _turn = mutation.turn(&leaf.coherence().fence, key.process_hash()).await;
    if let Err(error) = leaf.check_key(key) {
        return leaf.removed(key, &mutation, Err(error));
    }
    let started = Timers::start(leaf.clock());
    let result = backend.remove(key).await;
    leaf.0.timers.remove.stop(leaf.clock(), started);
    leaf.removed(key, &mutation, result)
}

pub(crate) async fn install_if<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    value: CacheValue<Raw>,
    ticket: &Ticket,
) -> Receipt {
    let leaf = of(backend);
    let fence = &leaf.coherence().fence;
    let skipped = || Receipt::of(leaf.path(), Outcome::Skipped);
    let Some(generation) = ticket.generation(fence, key.process_hash()) else { return skipped() };
    if leaf.is_gone(&value) {
        return skipped();
    }
    let value = match leaf.prepare(backend, key, value, &Encodings::default()) {
        Ok(value) => value,
        Err(error) => return leaf.refuse(error),
    };
    let bytes = bytes_of(&value);
    let Some(place) = fence.enter_refill(key.process_hash(), generation) else {
        leaf.count(Event::RefillSuperseded, 1);
        return skipped();
    };
    let result = backend.write(key, value).await;
    leaf.stored(key, &place, Event::Refill, bytes, result)
}

pub(crate) async fn contains<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> BackendResult<Presence> {
    let leaf = of(backend);
    if leaf.coherence().is_hidden(key) {
        return Ok(Presence::Absent);
    }
    let stored = backend.read(key).await.map_err(|error| error.at(leaf.path()))?;
    let Some(value) = stored else { return Ok(Presence::Absent) };
    let now = leaf.clock().now();
    let readable = value.lifetime().freshness(now) <= Freshness::Stale && !value.is_gone(now);
    let details = value.details();
    if !readable || details.is_some_and(|d| d.kind != RecordKind::Value) {
        return Ok(Presence::Absent);
    }
    // Whether its scopes are current is known to those who have the view.
    let scoped = details.is_some_and(|d| !d.scopes.is_empty());
    Ok(if scoped { Presence::Maybe } else { Presence::Present })
}

pub(crate) async fn clear<B: Backend + ?Sized>(backend: &B) -> BackendResult<()> {
    let leaf = of(backend);
    let coherence = leaf.coherence();
    let closed = coherence.fence.close().await;
    let clearing = coherence.shadow.begin_clear();
    let result = backend.clear().await.map_err(|error| leaf.failed(Event::RemoveError, error));
    if result.is_ok() {
        coherence.shadow.cleared(clearing, |key, number| closed.is_before(key.process_hash(), number));
    }
    result
}
