//! Scopes around a leaf: its epochs are asked for, put to what is stored, recorded, renewed.

use std::sync::{Arc, Mutex, PoisonError};

use hitbox_core::{
    BackendError, BackendResult, CacheKey, CacheValue, Details, Epoch, ErrorKind, RecordKind, Scope,
};

use super::{Leaf, of};
use crate::backend::Backend;
use crate::coherence::epochs::{Epochs, Keeping, Stamp};
use crate::coherence::moment::{self, Began};
use crate::envelope::{Encodings, Raw};
use crate::receipt::{Outcome, Receipt};
use crate::stats::Event;

/// An invalidation under way, in all leaves that it concerns. While it lasts nothing is stored that carries one of its
/// scopes; when it ends, nothing is that began before.
#[derive(Debug, Default)]
pub struct Invalidation(Mutex<Vec<(Arc<Epochs>, Scope)>>);

impl Drop for Invalidation {
    fn drop(&mut self) {
        let begun = std::mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        let at = moment::next();
        for (epochs, scope) in begun {
            epochs.end(&scope, scope.epoch, at);
        }
    }
}

/// The key under which a store keeps the epoch of a scope. No user's key equals it.
fn key_of(scope: &Scope) -> CacheKey {
    CacheKey::builder("scope").part("kind", scope.kind as u8).part("name", &scope.name).reserved().build()
}

/// An epoch that was given because there was none, and one that ends an older: the first never replaces the second.
const MINTED: u64 = 1;
const RENEWED: u64 = u64::MAX;

fn record_of(scope: &Scope, version: u64) -> CacheValue<Raw> {
    let mut details = Details::default();
    details.kind = RecordKind::Tombstone;
    details.version = Some(version);
    details.scopes = vec![scope.clone()];
    CacheValue::new(Raw::live(())).with_details(details)
}

fn epoch_in(scope: &Scope, stored: Option<CacheValue<Raw>>) -> Option<Epoch> {
    let stored = stored?;
    let details = stored.details().filter(|details| details.kind == RecordKind::Tombstone)?;
    details
        .scopes
        .iter()
        .find(|kept| *kept == scope)
        .map(|kept| kept.epoch)
        .filter(|epoch| *epoch != Epoch::NONE)
}

/// Where the epochs of a backend are; found out once.
fn keeping<B: Backend + ?Sized>(backend: &B, leaf: &Leaf) -> Keeping {
    let epochs = leaf.epochs();
    if epochs.keeping() == Keeping::Unknown {
        let facts = backend.capabilities();
        epochs.keep(match (facts.keeps_live_values, facts.shared) {
            (true, _) => Keeping::Here,
            (false, true) => Keeping::Shared,
            (false, false) => Keeping::Own,
        });
    }
    epochs.keeping()
}

/// Scopes that have to be asked for together with an entry, so that both come in one answer.
pub(super) fn due<B: Backend + ?Sized>(backend: &B, leaf: &Leaf, key: &CacheKey) -> Vec<Scope> {
    match keeping(backend, leaf) {
        Keeping::Shared => {
            leaf.epochs().missing(Some(key), &[], leaf.clock().monotonic(), leaf.suspect_time())
        }
        _ => Vec::new(),
    }
}

pub(super) fn keys_of(scopes: &[Scope]) -> Vec<CacheKey> {
    scopes.iter().map(key_of).collect()
}

/// Takes note of what a store answered for scopes.
pub(super) fn learned(
    leaf: &Leaf,
    asking: u64,
    scopes: Vec<Scope>,
    answers: impl IntoIterator<Item = BackendResult<Option<CacheValue<Raw>>>>,
) -> BackendResult<()> {
    let mut found = Vec::with_capacity(scopes.len());
    for (scope, answer) in scopes.into_iter().zip(answers) {
        let epoch = epoch_in(&scope, answer?);
        found.push((scope, epoch));
    }
    leaf.epochs().learn(asking, leaf.clock().monotonic(), &found);
    Ok(())
}

async fn learn<B: Backend + ?Sized>(backend: &B, leaf: &Leaf, scopes: Vec<Scope>) -> BackendResult<()> {
    if scopes.is_empty() {
        return Ok(());
    }
    let asking = leaf.epochs().asking();
    let answers = backend.read_batch(&keys_of(&scopes)).await;
    learned(leaf, asking, scopes, answers)
}

/// Asks for the epochs that are needed to judge these entries.
pub(super) async fn make_known<'e, B: Backend + ?Sized, T: 'e>(
    backend: &B,
    leaf: &Leaf,
    entries: impl Iterator<Item = (&'e CacheKey, &'e CacheValue<T>)>,
) -> BackendResult<()> {
    let epochs = leaf.epochs();
    let keeping = keeping(backend, leaf);
    if !epochs.is_in_store() {
        return Ok(());
    }
    let (now, trust) = (leaf.clock().monotonic(), leaf.suspect_time());
    let mut missing = Vec::new();
    for (key, value) in entries {
        // Those that come with a shared store's entries have been asked for already.
        let key = (keeping == Keeping::Own).then_some(key);
        let scopes = value.details().map_or(&[][..], |details| &details.scopes);
        for scope in epochs.missing(key, scopes, now, trust) {
            if !missing.contains(&scope) {
                missing.push(scope);
            }
        }
    }
    learn(backend, leaf, missing).await
}

/// The same for one entry with which none have been asked for.
pub(super) async fn make_all_known<B: Backend + ?Sized, T>(
    backend: &B,
    leaf: &Leaf,
    key: &CacheKey,
    value: &CacheValue<T>,
) -> BackendResult<()> {
    keeping(backend, leaf);
    if !leaf.epochs().is_in_store() {
        return Ok(());
    }
    let scopes = value.details().map_or(&[][..], |details| &details.scopes);
    let (now, trust) = (leaf.clock().monotonic(), leaf.suspect_time());
    learn(backend, leaf, leaf.epochs().missing(Some(key), scopes, now, trust)).await
}

/// The entry with the epochs of its scopes; nothing if one of them was invalidated since it began.
pub(super) async fn stamped<B: Backend + ?Sized>(
    backend: &B,
    leaf: &Leaf,
    key: &CacheKey,
    mut value: CacheValue<Raw>,
    began: Began,
) -> BackendResult<Option<CacheValue<Raw>>> {
    let epochs = leaf.epochs();
    if keeping(backend, leaf) == Keeping::Nowhere && value.details().is_some_and(|d| !d.scopes.is_empty()) {
        return Err(unsupported());
    }
    if epochs.has_unrecorded() {
        Box::pin(settle(backend, leaf)).await;
    }
    let limit = leaf.limits().namespaces;
    epochs.admit(key, limit).map_err(|count| BackendError::too_many("namespaces", count, limit))?;
    // Others may make it forget in between; not for ever.
    for _ in 0..8 {
        match epochs.stamp(key, value, began) {
            Stamp::Stamped(value) => return Ok(Some(value)),
            Stamp::Superseded => return Ok(None),
            Stamp::Missing(open, scopes) => {
                value = open;
                learn(backend, leaf, scopes.clone()).await?;
                mint(backend, leaf, &scopes).await?;
            }
        }
    }
    Err(BackendError::new(ErrorKind::Overloaded, "the epochs of its scopes change all the time"))
}

/// Gives scopes an epoch that have none, in the store too.
async fn mint<B: Backend + ?Sized>(backend: &B, leaf: &Leaf, scopes: &[Scope]) -> BackendResult<()> {
    let minted = leaf.epochs().mint(leaf.clock().monotonic(), scopes);
    // However this ends: what the store has not got is nobody's epoch.
    let unless_recorded = Discard { epochs: leaf.epochs(), minted };
    if !backend.capabilities().writes_conditionally {
        return record(backend, leaf, unless_recorded.minted.clone(), MINTED).await;
    }
    for scope in &unless_recorded.minted {
        let key = key_of(scope);
        let record = leaf.prepare(backend, &key, record_of(scope, MINTED), &Encodings::default())?;
        match backend.write_if_newer(&key, record).await {
            Ok(()) => leaf.epochs().recorded(scope),
            // Somebody else was first: theirs holds.
            Err(error) if error.kind() == ErrorKind::VersionMismatch => {
                leaf.epochs().discard(std::slice::from_ref(scope));
                learn(backend, leaf, vec![scope.clone()]).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// First epochs that the store is being given.
struct Discard<'e> {
    epochs: &'e Epochs,
    minted: Vec<Scope>,
}

impl Drop for Discard<'_> {
    fn drop(&mut self) {
        self.epochs.discard(&self.minted);
    }
}

/// Writes epochs into the store.
async fn record<B: Backend + ?Sized>(
    backend: &B,
    leaf: &Leaf,
    scopes: Vec<Scope>,
    version: u64,
) -> BackendResult<()> {
    if scopes.is_empty() {
        return Ok(());
    }
    let mut batch = Vec::with_capacity(scopes.len());
    for scope in &scopes {
        let key = key_of(scope);
        let record = leaf.prepare(backend, &key, record_of(scope, version), &Encodings::default())?;
        batch.push((key, record));
    }
    let mut all = Ok(());
    for (scope, result) in scopes.iter().zip(backend.write_batch(batch).await) {
        match result {
            Ok(()) => leaf.epochs().recorded(scope),
            Err(error) => all = all.and(Err(error)),
        }
    }
    all
}

/// Tries again to write what the store has not recorded.
pub(super) async fn settle<B: Backend + ?Sized>(backend: &B, leaf: &Leaf) {
    let open = leaf.epochs().unrecorded();
    if open.is_empty() || !leaf.epochs().may_retry(leaf.clock().monotonic()) {
        return;
    }
    if let Err(error) = record(backend, leaf, open, RENEWED).await {
        let error = leaf.failed(Event::WriteError, error);
        tracing::debug!(backend = %leaf.path(), %error, "an invalidation is not recorded yet");
    }
}

fn unsupported() -> BackendError {
    BackendError::unsupported("a scope, without a leaf of its own,")
}

/// What [`Backend::invalidate`] is for a leaf.
pub(crate) async fn invalidate<B: Backend + ?Sized>(
    backend: &B,
    scopes: &[Scope],
    under: &Invalidation,
) -> Receipt {
    let leaf = of(backend);
    if keeping(backend, leaf) == Keeping::Nowhere {
        return leaf.refuse(unsupported());
    }
    let now = leaf.clock().monotonic();
    let renew = |scope: &Scope| Scope { epoch: leaf.epochs().begin(scope, now), ..scope.clone() };
    let renewed: Vec<Scope> = scopes.iter().map(renew).collect();
    let begun = renewed.iter().map(|scope| (leaf.epochs().clone(), scope.clone()));
    under.0.lock().unwrap_or_else(PoisonError::into_inner).extend(begun);
    leaf.count(Event::Invalidation, scopes.len() as u64);
    let recorded =
        if leaf.epochs().is_in_store() { record(backend, leaf, renewed, RENEWED).await } else { Ok(()) };
    let outcome = match recorded {
        Ok(()) => Outcome::Stored,
        Err(error) => Outcome::of_error(leaf.failed(Event::WriteError, error)),
    };
    Receipt::of(leaf.path(), outcome)
}
