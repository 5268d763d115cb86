//! The first epochs of scopes, which go into the store with the first entry that carries them.

use futures_util::future::join_all;
use hitbox_core::{BackendResult, CacheKey, CacheValue, Scope, Timestamp};

use super::Leaf;
use super::epoch_io::{FIRST, kept_for, key_of, record_of, recorded_in};
use super::prepare::bytes_of;
use crate::coherence::epochs::{Attach, Epochs, Recorded, end_of, until_of};
use crate::coherence::logical_clock::StartedAt;
use crate::envelope::Raw;
use crate::metrics::Timers;
use crate::store::{Conditional, Store, StoreCondition};

/// An entry of fewer bytes may be sent twice rather than that the store is asked for its epochs before.
const SENT_AGAIN: u64 = 64 * 1_024;

/// First epochs that a store is being given that this process has for itself. What it has not got when this is dropped is
/// nobody's epoch.
struct FirstEpochs<'e> {
    epochs: &'e Epochs,
    scopes: Vec<Scope>,
}

impl Drop for FirstEpochs<'_> {
    fn drop(&mut self) {
        self.epochs.discard(&self.scopes);
    }
}

/// What has become of an entry whose epochs were not all known.
pub(super) enum AttachedOrStored {
    /// It has them, or nothing is to be stored: one of its scopes was invalidated since it started.
    Attached(Option<CacheValue<Raw>>),
    Stored,
}

impl<S: Store> Leaf<S> {
    /// The entry with the epochs of its scopes, for which the store may have to be asked; or it is stored together with first
    /// ones, if it may replace whatever there is.
    pub(super) async fn attach_or_store(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        started: StartedAt,
        is_plain: bool,
    ) -> BackendResult<AttachedOrStored> {
        if is_plain && let Some((attached, first)) = self.attach_first_epochs(key, &value, started) {
            let _noted = self.handle.coherence().note(key);
            let timer = Timers::start(self.handle.clock());
            let holds = self.store_with_first_epochs(key, attached, first).await;
            self.handle.timers().write.stop(self.handle.clock(), timer);
            if holds? {
                return Ok(AttachedOrStored::Stored);
            }
        }
        match self.attach_known_epochs(key, value, started) {
            Ok(attached) => Ok(AttachedOrStored::Attached(attached)),
            Err(value) => self.attach_asking(key, value, started).await.map(AttachedOrStored::Attached),
        }
    }

    /// The entry with first epochs for those of its scopes that have none as far as is known, and these: the store gets both in
    /// one call. Nothing if it has to be asked first.
    fn attach_first_epochs(
        &self,
        key: &CacheKey,
        value: &CacheValue<Raw>,
        started: StartedAt,
    ) -> Option<(CacheValue<Raw>, Vec<Scope>)> {
        let epochs = self.epochs();
        // If others have given epochs, the entry is sent again.
        if !self.store.capabilities().writes_conditionally
            || bytes_of(value) >= SENT_AGAIN
            || epochs.has_unrecorded()
            || self.admit_namespaces(key, value).is_err()
        {
            return None;
        }
        let Attach::Missing(value, unknown) = epochs.attach(key, value.clone(), started) else { return None };
        let is_first = |due: &Scope| unknown.contains(due);
        if !self.due(key, &value).iter().all(is_first) {
            return None;
        }
        let first = Epochs::first_of(unknown);
        match epochs.attach_with(key, value, started, &first) {
            Attach::Attached(value) if epochs.ending_before(key, &value).is_empty() => Some((value, first)),
            _ => None,
        }
    }

    /// Stores an entry, and before it the first epochs that it carries. Says whether they hold: if others have given epochs to
    /// these scopes, the entry is nobody's.
    async fn store_with_first_epochs(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        first: Vec<Scope>,
    ) -> BackendResult<bool> {
        let (epochs, clock) = (self.epochs(), self.handle.clock());
        let kept = kept_for(end_of(&value), clock.now());
        let mut records = Vec::with_capacity(first.len());
        for scope in &first {
            let record = record_of(scope, FIRST, until_of(scope, kept));
            records.push((key_of(scope), self.encoded(record, None)?));
        }
        let sequence = epochs.read_sequence();
        let came = self.store.write_after(records, FIRST, key, value).await?;
        Ok(self.merge_first(sequence, first, kept, came))
    }

    /// Asks for the epochs of the scopes of several entries at once, and gives those an epoch that have none.
    pub(super) async fn learn_epochs<'e>(
        &self,
        entries: impl Iterator<Item = (&'e CacheKey, &'e CacheValue<Raw>, StartedAt)>,
    ) -> BackendResult<()> {
        if !self.epochs().is_in_store() {
            return Ok(());
        }
        let (mut unknown, mut due) = (Vec::new(), Vec::new());
        // The record lives as long as the longest of them, for ever if one does.
        let mut end = Some(Timestamp::from_millis(0));
        for (key, value, started) in entries {
            due.extend(self.due(key, value));
            if let Attach::Missing(_, scopes) = self.epochs().attach(key, value.clone(), started) {
                unknown.extend(scopes);
                end = end.zip(end_of(value)).map(|(one, other)| one.max(other));
            }
        }
        if unknown.is_empty() && due.is_empty() {
            return Ok(());
        }
        let key_of = |scope: &Scope| (scope.kind as u8, scope.name.clone());
        due.extend(unknown.iter().cloned());
        for scopes in [&mut due, &mut unknown] {
            scopes.sort_by_key(key_of);
            scopes.dedup();
        }
        self.ask_for(due).await?;
        unknown.retain(|scope| self.epochs().is_unset(scope));
        self.create_epochs(&unknown, end).await
    }

    /// Gives scopes an epoch that have none, in the store too, for an entry that ends then.
    pub(super) async fn create_epochs(&self, scopes: &[Scope], end: Option<Timestamp>) -> BackendResult<()> {
        let (epochs, clock) = (self.epochs(), self.handle.clock());
        let kept = kept_for(end, clock.now());
        if !self.store.capabilities().writes_conditionally {
            let created = epochs.create(clock.monotonic(), scopes, kept);
            let first = FirstEpochs { epochs, scopes: created };
            return self.record(first.scopes.clone(), FIRST).await;
        }
        let first = Epochs::first_of(scopes.to_vec());
        let created = join_all(first.into_iter().map(|scope| self.create_epoch(scope, kept))).await;
        created.into_iter().collect()
    }

    async fn create_epoch(&self, scope: Scope, kept: Option<Timestamp>) -> BackendResult<()> {
        let (epochs, clock) = (self.epochs(), self.handle.clock());
        let key = key_of(&scope);
        let record = self.encoded(record_of(&scope, FIRST, until_of(&scope, kept)), None)?;
        let first = |ignoring| StoreCondition::IfNewer { version: FIRST, ignoring };
        let sequence = epochs.read_sequence();
        let mut written = self.store.write_if(&key, record.clone(), &first(None)).await?;
        if let Conditional::Conflict(Some((stored, identity))) = &written
            && stored.is_gone(clock.now())
        {
            // Servers keep what is over for a while.
            written = self.store.write_if(&key, record, &first(Some(*identity))).await?;
        }
        self.merge_first(sequence, vec![scope], kept, vec![written]);
        Ok(())
    }

    /// Takes note of what came of the records of first epochs. Says whether they hold: if somebody else was first, theirs does.
    fn merge_first(
        &self,
        sequence: u64,
        first: Vec<Scope>,
        kept: Option<Timestamp>,
        came: Vec<Conditional>,
    ) -> bool {
        let clock = self.handle.clock();
        let mut holds = came.len() == first.len();
        let mut found = Vec::with_capacity(first.len());
        for (scope, came) in first.into_iter().zip(came) {
            let recorded = match came {
                Conditional::Written => {
                    Some(Recorded { epoch: scope.epoch, renewed: None, until: until_of(&scope, kept) })
                }
                Conditional::Conflict(stored) => {
                    holds = false;
                    stored.and_then(|(stored, _)| recorded_in(&scope, &stored, clock.now()))
                }
            };
            found.push((scope, recorded));
        }
        self.epochs().merge(sequence, clock.monotonic(), &found);
        holds
    }
}
