//! What every call to a leaf does around the store's own method.

use std::sync::{Arc, LazyLock};

use hitbox_core::{BackendResult, CacheKey, CacheValue, RecordKind, Scope};

use super::{Leaf, LeafOptions, scoped};
use crate::backend::{Backend, WriteOptions};
use crate::coherence::epochs::Verdict;
use crate::coherence::{self, Coherence, Mutation, Ticket, places};
use crate::envelope::{Encodings, Raw};
use crate::metrics::Timers;
use crate::read::{Answer, Peek, Presence, ReadOptions};
use crate::receipt::{Outcome, Receipt};
use crate::stats::Event;

/// The leaf of a backend, or the one that stands for all that bring none.
pub(crate) fn of<B: Backend + ?Sized>(backend: &B) -> &Leaf {
    static ANONYMOUS: LazyLock<Leaf> = LazyLock::new(|| {
        let options = LeafOptions::new("backend");
        Leaf::alone(options, Coherence::of_anonymous())
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
    of(backend).read_with(backend, key, options, || backend.read(key)).await
}

impl Leaf {
    /// What [`Backend::read_with`] is for a leaf, around the store's own `read`: for leaves that save themselves a
    /// boxed future.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn read_with<
        B: Backend + ?Sized,
        F: Future<Output = BackendResult<Option<CacheValue<Raw>>>>,
    >(
        &self,
        backend: &B,
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
        if self.epochs().has_unrecorded() {
            Box::pin(scoped::settle(backend, self)).await;
        }
        let due = scoped::due(backend, self, key);
        let stored = if due.is_empty() {
            read().await
        } else {
            // Rare, and not to be a part of every read's future.
            Box::pin(self.read_with_epochs(backend, key, due)).await
        };
        self.0.timers.read.stop(self.clock(), started);
        if let Ok(Some(value)) = &stored
            && let Verdict::Unknown = self.known_verdict(key, value)
            && let Err(error) =
                Box::pin(scoped::make_known(backend, self, std::iter::once((key, value)))).await
        {
            return Err(self.failed(Event::ReadError, error));
        }
        self.answer(key, stored, options)
    }

    /// An entry, and in the same batch the epochs without which it cannot be judged.
    async fn read_with_epochs<B: Backend + ?Sized>(
        &self,
        backend: &B,
        key: &CacheKey,
        due: Vec<Scope>,
    ) -> BackendResult<Option<CacheValue<Raw>>> {
        let asking = self.epochs().asking();
        let mut keys = scoped::keys_of(&due);
        keys.push(key.clone());
        let mut answers = backend.read_batch(&keys).await;
        let stored = answers.pop().unwrap_or(Ok(None));
        scoped::learned(self, asking, due, answers)?;
        stored
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
    let value = match scoped::stamped(backend, leaf, key, value, mutation.began()).await {
        Ok(Some(value)) => value,
        Ok(None) => return remove_in_turn(backend, key, &mutation).await,
        Err(error) => return leaf.refuse(error),
    };
    let bytes = bytes_of(&value);
    let _noted = leaf.coherence().note(key);
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
    remove_in_turn(backend, key, &mutation).await
}

/// What has been invalidated since it began replaces what was there with nothing, too.
pub(super) async fn remove_in_turn<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    mutation: &Mutation,
) -> Receipt {
    let leaf = of(backend);
    if let Err(error) = leaf.check_key(key) {
        return leaf.removed(key, mutation, Err(error));
    }
    let started = Timers::start(leaf.clock());
    let result = backend.remove(key).await;
    leaf.0.timers.remove.stop(leaf.clock(), started);
    leaf.removed(key, mutation, result)
}

/// An entry is dropped for want of room: that brings no new state.
pub(crate) async fn evict<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> Receipt {
    let mutation = Some(coherence::upkeep(backend, key));
    remove(backend, key, &WriteOptions { mutation, ..WriteOptions::default() }).await
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
    let superseded = || {
        leaf.count(Event::RefillSuperseded, 1);
        skipped()
    };
    let Some(place) = fence.enter_refill(key.process_hash(), generation) else { return superseded() };
    let value = match scoped::stamped(backend, leaf, key, value, ticket.began()).await {
        Ok(Some(value)) => value,
        Ok(None) => return superseded(),
        Err(error) => return leaf.refuse(error),
    };
    let _noted = leaf.coherence().note(key);
    let result = backend.write(key, value).await;
    leaf.stored(key, &place, Event::Refill, bytes, result)
}

pub(crate) async fn contains<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> BackendResult<Presence> {
    let leaf = of(backend);
    let presence =
        presence(backend, leaf, key).await.map_err(|error| leaf.failed(Event::ReadError, error))?;
    leaf.count(
        match presence {
            Presence::Present => Event::Present,
            Presence::Absent => Event::Absent,
            Presence::Maybe => Event::Maybe,
        },
        1,
    );
    Ok(presence)
}

async fn presence<B: Backend + ?Sized>(backend: &B, leaf: &Leaf, key: &CacheKey) -> BackendResult<Presence> {
    leaf.check_key(key)?;
    if leaf.coherence().is_hidden(key) {
        return Ok(Presence::Absent);
    }
    let entry = match backend.peek(key).await? {
        Peek::Entry(entry) => entry,
        Peek::Absent => return Ok(Presence::Absent),
        Peek::Unknown => return Ok(Presence::Maybe),
    };
    let is_value = entry.details().is_none_or(|details| details.kind == RecordKind::Value);
    let is_readable =
        is_value && entry.is_readable(leaf.clock().now()) && leaf.counts(backend, key, &entry).await?;
    Ok(if is_readable { Presence::Present } else { Presence::Absent })
}

pub(crate) async fn erase<B: Backend + ?Sized>(backend: &B) -> BackendResult<()> {
    let leaf = of(backend);
    let coherence = leaf.coherence();
    let closed = coherence.fence.close().await;
    let clearing = coherence.shadow.begin_clear();
    let result = backend.erase().await.map_err(|error| leaf.failed(Event::RemoveError, error));
    if result.is_ok() {
        leaf.epochs().lose_all();
        coherence.shadow.cleared(clearing, |key, number| closed.is_before(key.process_hash(), number));
    }
    result
}
