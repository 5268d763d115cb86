//! The same for several keys at once: one native call, each key judged, counted and ordered by itself.

use std::collections::HashMap;

use futures_util::future::join_all;
use hitbox_core::{CacheKey, CacheValue, Scope};

use super::calls::{bytes_of, of, passes_by, remove, remove_in_turn};
use super::scoped;
use crate::backend::{Backend, RemoveItem, WriteItem, WriteOptions};
use crate::coherence::{Mutation, places};
use crate::envelope::Raw;
use crate::metrics::Timers;
use crate::read::{Answer, ReadOptions};
use crate::receipt::{Outcome, Receipt};
use crate::stats::Event;

pub(crate) async fn read_many<B: Backend + ?Sized>(
    backend: &B,
    keys: &[CacheKey],
    options: &ReadOptions,
) -> Vec<Answer> {
    let leaf = of(backend);
    let mut answers: Vec<Answer> = keys.iter().map(|_| Ok(None)).collect();
    let mut asked = Vec::with_capacity(keys.len());
    for (index, key) in keys.iter().enumerate() {
        if let Err(error) = leaf.check_key(key) {
            answers[index] = Err(leaf.failed(Event::ReadError, error));
        } else if !passes_by(leaf, key, options) {
            asked.push(index);
        }
    }
    if asked.is_empty() {
        return answers;
    }
    let batch: Vec<CacheKey> = asked.iter().map(|index| keys[*index].clone()).collect();
    if leaf.epochs().has_unrecorded() {
        scoped::settle(backend, leaf).await;
    }
    // Epochs without which entries of a shared store cannot be judged come in the same answer.
    let mut due: Vec<Scope> = Vec::new();
    for scope in batch.iter().flat_map(|key| scoped::due(backend, leaf, key)) {
        if !due.contains(&scope) {
            due.push(scope);
        }
    }
    let asking = leaf.epochs().asking();
    let together = [&batch[..], &scoped::keys_of(&due)].concat();
    let started = Timers::start(leaf.clock());
    let mut stored = backend.read_batch(&together).await;
    leaf.0.timers.read.stop(leaf.clock(), started);
    let epochs = stored.split_off(batch.len().min(stored.len()));
    if let Err(error) = scoped::learned(leaf, asking, due, epochs) {
        let failed = leaf.failed(Event::ReadError, error);
        asked.into_iter().for_each(|index| answers[index] = Err(failed.clone()));
        return answers;
    }
    let found =
        batch.iter().zip(&stored).filter_map(|(key, stored)| Some((key, stored.as_ref().ok()?.as_ref()?)));
    if let Err(error) = scoped::make_known(backend, leaf, found).await {
        let failed = leaf.failed(Event::ReadError, error);
        asked.into_iter().for_each(|index| answers[index] = Err(failed.clone()));
        return answers;
    }
    for (index, stored) in asked.into_iter().zip(stored) {
        answers[index] = leaf.answer(&keys[index], stored, options);
    }
    answers
}

/// Gives every item of a batch a mutation: all that have none begin at once.
pub(crate) fn begin_batch<'a, B: Backend + ?Sized>(
    backend: &B,
    items: impl Iterator<Item = (&'a CacheKey, &'a mut WriteOptions)>,
) {
    let mut beginning: Vec<_> = items.filter(|(_, options)| options.mutation.is_none()).collect();
    let concerned = beginning.iter().map(|(key, _)| (key.process_hash(), places(backend, key)));
    let mutations = Mutation::begin_many(concerned.collect());
    for ((_, options), mutation) in beginning.iter_mut().zip(mutations) {
        options.mutation = Some(mutation);
    }
}

pub(crate) async fn write_many<B: Backend + ?Sized>(backend: &B, mut items: Vec<WriteItem>) -> Vec<Receipt> {
    let leaf = of(backend);
    let fence = &leaf.coherence().fence;
    begin_batch(backend, items.iter_mut().map(|item| (&item.key, &mut item.options)));
    let mut receipts: Vec<Option<Receipt>> = items.iter().map(|_| None).collect();
    // The later of two entries with one key stays; both are answered for.
    let mut batch: Vec<(CacheKey, CacheValue<Raw>)> = Vec::with_capacity(items.len());
    let mut places: Vec<Vec<usize>> = Vec::with_capacity(items.len());
    let mut mutations = Vec::with_capacity(items.len());
    let mut known: HashMap<CacheKey, usize> = HashMap::with_capacity(items.len());
    for (index, WriteItem { key, value, options }) in items.into_iter().enumerate() {
        if leaf.is_gone(&value) {
            receipts[index] = Some(remove(backend, &key, &options).await);
            continue;
        }
        match leaf.prepare(backend, &key, value, &options.encodings) {
            Err(error) => receipts[index] = Some(leaf.refuse(error)),
            Ok(value) => match known.get(&key) {
                Some(earlier) => {
                    batch[*earlier].1 = value;
                    places[*earlier].push(index);
                }
                None => {
                    known.insert(key.clone(), batch.len());
                    batch.push((key, value));
                    places.push(vec![index]);
                    mutations.extend(options.mutation);
                }
            },
        }
    }
    if batch.is_empty() {
        return receipts.into_iter().map(Option::unwrap_or_default).collect();
    }
    let turns =
        mutations.iter().zip(&batch).map(|(mutation, (key, _))| mutation.turn(fence, key.process_hash()));
    let _turns = join_all(turns).await;
    let mut stored = Vec::with_capacity(batch.len());
    let mut open = Vec::with_capacity(batch.len());
    for (((key, value), places), mutation) in batch.into_iter().zip(places).zip(&mutations) {
        let receipt = match scoped::stamped(backend, leaf, &key, value, mutation.began()).await {
            Ok(Some(value)) => {
                stored.push((key, value));
                open.push((places, mutation));
                continue;
            }
            Ok(None) => remove_in_turn(backend, &key, mutation).await,
            Err(error) => leaf.refuse(error),
        };
        places.into_iter().for_each(|index| receipts[index] = Some(receipt.clone()));
    }
    let batch = stored;
    if batch.is_empty() {
        return receipts.into_iter().map(Option::unwrap_or_default).collect();
    }
    let facts: Vec<_> = batch.iter().map(|(key, value)| (key.clone(), bytes_of(value))).collect();
    let _noted: Vec<_> = facts.iter().map(|(key, _)| leaf.coherence().note(key)).collect();
    let started = Timers::start(leaf.clock());
    let results = backend.write_batch(batch).await;
    leaf.0.timers.write.stop(leaf.clock(), started);
    for (((key, bytes), (places, mutation)), result) in facts.iter().zip(open).zip(results) {
        let receipt = leaf.stored(key, mutation, Event::Write, *bytes, result);
        places.into_iter().for_each(|index| receipts[index] = Some(receipt.clone()));
    }
    receipts.into_iter().map(Option::unwrap_or_default).collect()
}

pub(crate) async fn remove_many<B: Backend + ?Sized>(
    backend: &B,
    mut items: Vec<RemoveItem>,
) -> Vec<Receipt> {
    let leaf = of(backend);
    let fence = &leaf.coherence().fence;
    begin_batch(backend, items.iter_mut().map(|item| (&item.key, &mut item.options)));
    let mut unique: Vec<CacheKey> = Vec::with_capacity(items.len());
    let mut mutations = Vec::with_capacity(items.len());
    let mut known: HashMap<CacheKey, usize> = HashMap::with_capacity(items.len());
    for RemoveItem { key, options } in &items {
        known.entry(key.clone()).or_insert_with(|| {
            unique.push(key.clone());
            mutations.extend(options.mutation.clone());
            unique.len() - 1
        });
    }
    if unique.is_empty() {
        return Vec::new();
    }
    let turns = mutations.iter().zip(&unique).map(|(mutation, key)| mutation.turn(fence, key.process_hash()));
    let _turns = join_all(turns).await;
    let started = Timers::start(leaf.clock());
    let results = backend.remove_batch(&unique).await;
    leaf.0.timers.remove.stop(leaf.clock(), started);
    let mut receipts: Vec<Receipt> = unique
        .iter()
        .zip(&mutations)
        .zip(results)
        .map(|((key, mutation), result)| leaf.removed(key, mutation, result))
        .collect();
    // The second occurrence of a key finds it gone, as a second delete would.
    let mut receipt_of = |key: &CacheKey| {
        let receipt = known.get(key).and_then(|index| receipts.get_mut(*index))?;
        let again = if receipt.is_ok() { Receipt::of(leaf.path(), Outcome::Absent) } else { receipt.clone() };
        Some(std::mem::replace(receipt, again))
    };
    items.iter().map(|item| receipt_of(&item.key).unwrap_or_default()).collect()
}
