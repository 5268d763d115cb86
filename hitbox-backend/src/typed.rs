//! The one place where what a read has found becomes a value of the caller's type. A copy that does not is a miss of its
//! leaf, and the others are asked.

use hitbox_core::{
    BackendError, BackendLabel, BackendResult, CacheKey, CacheValue, Freshness, ReadMode, RecordKind,
};

use crate::backend::Backend;
use crate::envelope::{Cacheable, Chunks, Raw};
use crate::layout::Notes;
use crate::operation::{Answer, Found, LeafPosition, LeafSet, ReadOptions, TimeChange, TryRead};
use crate::stats::Event;

/// A usable copy, decoded.
#[derive(Clone, Debug)]
pub struct Decoded<T> {
    /// The entry; without a value it says that the source has none.
    pub entry: CacheValue<Option<T>>,
    /// What it was when it was read.
    pub freshness: Freshness,
    /// The dotted path of the leaf that had it.
    pub label: BackendLabel,
    /// The leaf's position.
    pub leaf: LeafPosition,
    /// Whether an upper layer is being filled from it.
    pub mode: ReadMode,
}

/// A copy that is not what was asked for, and the leaf that has it.
pub(crate) struct Undecodable {
    leaf: LeafPosition,
    freshness: Freshness,
    error: BackendError,
}

impl Undecodable {
    fn of(found: &Found, error: BackendError) -> Self {
        Self { leaf: found.leaf, freshness: found.freshness, error }
    }
}

#[inline(always)]
fn decode<T: Cacheable>(found: Found) -> Result<Decoded<T>, Undecodable> {
    // The usual case first, and without a call: a live value.
    let value = match found.value.data().as_live::<T>() {
        Some(value) => Some(value.clone()),
        None => decode_slowly(&found)?,
    };
    let Found { value: entry, freshness, label, leaf, mode } = found;
    Ok(Decoded { entry: entry.map(|_| value), freshness, label, leaf, mode })
}

/// A value that was read from bytes, or is of another type, or is known to be absent.
#[cold]
#[inline(never)]
fn decode_slowly<T: Cacheable>(found: &Found) -> Result<Option<T>, Undecodable> {
    if found.value.details().is_some_and(|details| details.kind == RecordKind::Absent) {
        return Ok(None);
    }
    found.value.data().decode().map(Some).map_err(|error| Undecodable::of(found, error))
}

#[cold]
#[inline(never)]
pub(crate) fn count<B: Backend + ?Sized>(
    backend: &B,
    undecodable: &Undecodable,
    options: &ReadOptions,
) -> LeafSet {
    let Undecodable { leaf: position, freshness, error } = undecodable;
    if let Some(leaf) = backend.layout().leaf(*position).filter(|_| !options.background) {
        // It was counted as a hit when it was found.
        let handle = leaf.handle();
        handle.take_back(if *freshness == Freshness::Fresh { Event::Hit } else { Event::Stale });
        handle.count(Event::Miss, 1);
        handle.count(Event::Undecodable, 1);
        tracing::debug!(backend = %leaf.path(), %error, "a cached copy could not be decoded");
    }
    LeafSet::of(*position)
}

/// The usual case: a copy in memory that is a live `T`. It is looked at in place, since moving what was found costs more
/// than all else about a hit.
#[inline(always)]
pub fn live_hit<T: Cacheable>(answer: &TryRead) -> Option<(&T, &Found)> {
    let TryRead::Hit(found) = answer else { return None };
    Some((found.value.data().as_live()?, found))
}

/// What is made of an answer that is no [`live_hit`].
///
/// # Errors
/// As [`try_read`].
#[inline(never)]
pub fn settle_try<T: Cacheable, B: Backend + ?Sized>(
    backend: &B,
    answer: TryRead,
    options: &ReadOptions,
) -> Result<Option<Decoded<T>>, LeafSet> {
    match answer {
        TryRead::Hit(found) => decode(found).map(Some).map_err(|wrong| count(backend, &wrong, options)),
        TryRead::Miss => {
            backend.layout().count_unanswered(options);
            Ok(None)
        }
        TryRead::WouldWait(asked) => Err(asked),
    }
}

/// What can be said without waiting.
///
/// # Errors
/// The leaves that need not be asked again, since they have nothing or their copy is no `T`.
#[inline(always)]
pub fn try_read<T: Cacheable, B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    options: &ReadOptions,
) -> Result<Option<Decoded<T>>, LeafSet> {
    settle_try(backend, backend.try_read(key, options), options)
}

/// Asks until there is a copy that is a `T`, or no other copy.
///
/// # Errors
/// If every layer failed, or a required one did and no other had the value.
pub async fn read<T: Cacheable, B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    options: ReadOptions,
) -> BackendResult<Option<Decoded<T>>> {
    read_by(backend, key, options, decode).await
}

pub(crate) async fn read_by<D, B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    mut options: ReadOptions,
    decode: impl Fn(Found) -> Result<D, Undecodable>,
) -> BackendResult<Option<D>> {
    loop {
        let answer = backend.read(std::slice::from_ref(key), &options).await.into_one();
        let Some(found) = answer.unwrap_or(Ok(None))? else { break };
        let unusable = match decode(found) {
            Ok(value) => return Ok(Some(value)),
            Err(wrong) => count(backend, &wrong, &options),
        };
        if options.skip.covers(unusable) {
            // A backend that answers with a leaf that was to be skipped would do so for ever.
            break;
        }
        options.skip = options.skip.union(unusable);
    }
    backend.layout().count_unanswered(&options);
    Ok(None)
}

/// The chunks of a body with all that was found, for readers of bodies.
pub(crate) fn body(found: Found) -> Result<(Found, Chunks), Undecodable> {
    if let Some(chunks) = found.value.data().as_chunks() {
        let chunks = chunks.clone();
        return Ok((found, chunks));
    }
    match found.value.data().decode::<bytes::Bytes>() {
        Ok(body) => Ok((found, body.into())),
        Err(error) => Err(Undecodable::of(&found, error)),
    }
}

/// Copies for some keys, in their order. What needs no waiting is answered one by one; the rest is one batch for all keys
/// of which the same leaves have answered already.
pub async fn read_many<T: Cacheable, B: Backend + ?Sized>(
    backend: &B,
    keys: &[CacheKey],
    options: &ReadOptions,
) -> Vec<BackendResult<Option<Decoded<T>>>> {
    let mut copies = Vec::with_capacity(keys.len());
    let mut open = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        copies.push(Ok(None));
        match try_read(backend, key, options) {
            Ok(copy) => copies[index] = Ok(copy),
            Err(asked) => open.push((index, asked)),
        }
    }
    for (index, copy) in read_batch(backend, keys, open, options).await {
        copies[index] = copy;
    }
    copies
}

/// Copies for those keys that have to be waited for, each with the leaves that need not be asked again: one batch for all
/// keys for which these are the same.
pub(crate) async fn read_batch<T: Cacheable, B: Backend + ?Sized>(
    backend: &B,
    keys: &[CacheKey],
    mut open: Vec<(usize, LeafSet)>,
    options: &ReadOptions,
) -> Vec<(usize, BackendResult<Option<Decoded<T>>>)> {
    let mut copies = Vec::with_capacity(open.len());
    while let Some((_, asked)) = open.first().copied() {
        let (together, rest) = open.into_iter().partition(|(_, others)| *others == asked);
        open = rest;
        let together: Vec<(usize, LeafSet)> = together;
        let options = options.clone().skipping(options.skip.union(asked));
        let batch: Vec<CacheKey> = together.iter().map(|(index, _)| keys[*index].clone()).collect();
        let answers = backend.read(&batch, &options).await;
        for ((index, _), answer) in together.into_iter().zip(answers) {
            copies.push((index, settle(backend, &keys[index], &options, answer).await));
        }
    }
    copies
}

async fn settle<T: Cacheable, B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    options: &ReadOptions,
    answer: Answer,
) -> BackendResult<Option<Decoded<T>>> {
    let Some(found) = answer? else {
        backend.layout().count_unanswered(options);
        return Ok(None);
    };
    match decode(found) {
        Ok(copy) => Ok(Some(copy)),
        Err(wrong) => {
            let skip = options.skip.union(count(backend, &wrong, options));
            read(backend, key, options.clone().skipping(skip)).await
        }
    }
}

impl<T> Decoded<T> {
    /// The entry with its value, if it has one.
    #[inline]
    pub fn into_entry(self) -> Option<CacheValue<T>> {
        self.entry.try_map(|value| value.ok_or(())).ok()
    }
}

/// Notes a read of an entry with an idle time in all layers, in place. That is no new state: what a layer misses of it is
/// no error of the read, and does not make its copy outdated. What is handed back are layers that have to be waited for.
pub fn note_read<B: Backend + ?Sized>(backend: &B, key: &CacheKey, change: TimeChange) -> Option<Notes> {
    backend.layout().note_read(key, change)
}

/// A live value on its way into layers.
pub(crate) fn envelope<T: Cacheable>(value: CacheValue<T>) -> CacheValue<Raw> {
    value.map(Raw::live)
}
