//! Epochs of a leaf's scopes that are kept in its store: asking for them, giving them, recording them.

use std::time::Duration;

use bytes::Bytes;
use hitbox_core::{
    BackendError, BackendResult, CacheKey, CacheValue, Details, Epoch, ErrorKind, Lifetime, RecordKind,
    Scope, Timestamp,
};

use super::Leaf;
use super::check::Parsed;
use super::health::Side;
use crate::codec::Format;
use crate::coherence::epochs::{Attach, EpochHome, Epochs, MARGIN, Recorded, Validity, end_of};
use crate::coherence::logical_clock::StartedAt;
use crate::envelope::{Encoded, Raw};
use crate::stats::Event;
use crate::store::{Peek, Store, TimeChange};

/// The key under which a store keeps the epoch of a scope. No user's key equals it.
pub(super) fn key_of(scope: &Scope) -> CacheKey {
    CacheKey::builder("scope").part("kind", scope.kind as u8).part("name", &scope.name).reserved().build()
}

pub(super) fn keys_of(scopes: &[Scope]) -> Vec<CacheKey> {
    scopes.iter().map(key_of).collect()
}

/// The version of a first epoch, and of one that ends an older: the first never replaces the second.
pub(super) const FIRST: u64 = 1;
const RENEWED: u64 = u64::MAX;

/// So many invalidations are recorded beside a read or write of another entry.
const BESIDE_A_CALL: usize = 64;

/// So many keys are looked at beside a write that would be refused.
const LISTED_BESIDE_A_WRITE: usize = 1_024;

/// How long the record of an invalidated scope lives by itself: as long as a load may take that began before. Entries that
/// are written with its epoch prolong it.
const INVALIDATED: Duration = Duration::from_secs(300);

pub(super) fn record_of(scope: &Scope, version: u64, until: Option<Timestamp>) -> CacheValue<Raw> {
    let mut details = Details::default();
    details.kind = RecordKind::Tombstone;
    details.version = Some(version);
    details.scopes = vec![scope.clone()];
    let lifetime = Lifetime::new(None, until, None);
    // Encoded here: neither the format nor the schema of the leaf is its.
    let nothing = Raw::encoded(Encoded::new(Format::default(), Bytes::new()), None);
    CacheValue::new(nothing).with_lifetime(lifetime).with_details(details)
}

/// What a record says of its scope, if its time is not over.
pub(super) fn recorded_in<T>(scope: &Scope, record: &CacheValue<T>, now: Timestamp) -> Option<Recorded> {
    let details = record.details().filter(|details| details.kind == RecordKind::Tombstone)?;
    let kept = details.scopes.iter().find(|kept| *kept == scope).filter(|kept| kept.epoch != Epoch::NONE)?;
    let renewed = record.created().filter(|_| details.version != Some(FIRST));
    let recorded = Recorded { epoch: kept.epoch, renewed, until: record.drop_at() };
    (!record.is_gone(now)).then_some(recorded)
}

/// Until when a record is kept for an entry that ends then: longer, so that not every entry prolongs it.
pub(super) fn kept_for(end: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    end.map(|end| end + end.since(now) + MARGIN)
}

impl<S: Store> Leaf<S> {
    pub(super) fn epochs(&self) -> &Epochs {
        &self.handle.coherence().epochs
    }

    /// Scopes that have to be asked for together with an entry of a shared store, so that both come in one answer.
    pub(super) fn missing_epochs(&self, key: &CacheKey) -> Vec<Scope> {
        if self.epochs().home() != EpochHome::Shared {
            return Vec::new();
        }
        let handle = &self.handle;
        self.epochs().missing(Some(key), &[], handle.clock().monotonic(), handle.staleness_bound())
    }

    /// Whether an entry cannot be checked with what is known. Entries of a shared store are not checked with tokens that
    /// were asked for long ago.
    pub(super) fn needs_epochs<T>(&self, key: &CacheKey, value: &CacheValue<T>) -> bool {
        let has_scopes = value.details().is_some_and(|details| !details.scopes.is_empty());
        let epochs = self.epochs();
        (epochs.home() == EpochHome::Shared && has_scopes)
            || epochs.validity(key, value) == Validity::NeedEpochs
    }

    /// Takes note of what the store answered for scopes.
    pub(super) fn merge_epochs(
        &self,
        sequence: u64,
        scopes: Vec<Scope>,
        answers: impl IntoIterator<Item = BackendResult<Option<CacheValue<Raw>>>>,
    ) -> BackendResult<()> {
        let mut found = Vec::with_capacity(scopes.len());
        for (scope, answer) in scopes.into_iter().zip(answers) {
            let stored = answer?.and_then(|stored| match self.handle.parse(&key_of(&scope), stored) {
                Parsed::Value(value) => Some(value),
                Parsed::Nothing { .. } => None,
            });
            let recorded = stored.and_then(|stored| recorded_in(&scope, &stored, self.handle.clock().now()));
            found.push((scope, recorded));
        }
        self.epochs().merge(sequence, self.handle.clock().monotonic(), &found);
        Ok(())
    }

    pub(super) async fn ask_for(&self, scopes: Vec<Scope>) -> BackendResult<()> {
        if scopes.is_empty() {
            return Ok(());
        }
        let sequence = self.epochs().read_sequence();
        let answers = self.store.read_batch(&keys_of(&scopes)).await;
        self.merge_epochs(sequence, scopes, answers)
    }

    /// Asks for the epochs that are needed to check these entries.
    pub(super) async fn fetch_epochs<'e, T: 'e>(
        &self,
        entries: impl Iterator<Item = (&'e CacheKey, &'e CacheValue<T>)>,
    ) -> BackendResult<()> {
        let epochs = self.epochs();
        if !epochs.is_in_store() {
            return Ok(());
        }
        let (now, bound) = (self.handle.clock().monotonic(), self.handle.staleness_bound());
        let mut missing = Vec::new();
        for (key, value) in entries {
            // Those that come with a shared store's entries have been asked for already.
            let key = (epochs.home() == EpochHome::Store).then_some(key);
            let scopes = value.details().map_or(&[][..], |details| &details.scopes);
            for scope in epochs.missing(key, scopes, now, bound) {
                if !missing.contains(&scope) {
                    missing.push(scope);
                }
            }
        }
        self.ask_for(missing).await
    }

    /// Whether a stored entry still counts: its time is not over, and nothing that it carries has been invalidated.
    pub(super) async fn still_counts<T>(&self, key: &CacheKey, value: &CacheValue<T>) -> BackendResult<bool> {
        if value.is_gone(self.handle.clock().now()) || self.handle.coherence().ignores(value) {
            return Ok(false);
        }
        if self.epochs().is_in_store() {
            let scopes = value.details().map_or(&[][..], |details| &details.scopes);
            let (now, bound) = (self.handle.clock().monotonic(), self.handle.staleness_bound());
            let missing = self.epochs().missing(Some(key), scopes, now, bound);
            self.ask_for(missing).await?;
        }
        Ok(self.epochs().validity(key, value) == Validity::Valid)
    }

    /// Counts the namespaces of an entry, unless they would be more than the leaf accepts.
    pub(super) fn admit_namespaces(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<()> {
        if !key.has_namespace() {
            return Ok(());
        }
        let (limit, now) = (self.handle.limits().namespaces, self.handle.clock().now());
        let admitted = self.epochs().admit(key, end_of(value), now, limit);
        admitted.map_err(|count| BackendError::too_many("namespaces", count, limit))
    }

    /// The same; before an entry is refused, some of the store is listed, since the last entries of others may have been
    /// removed, or put out.
    async fn make_room_for_namespaces(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<()> {
        let refused = match self.admit_namespaces(key, value) {
            Err(refused) if self.handle.capabilities().enumerates => refused,
            admitted => return admitted,
        };
        let (epochs, clock) = (self.epochs(), self.handle.clock());
        let Some(mut listing) = epochs.listing(&**clock) else { return Err(refused) };
        // Pages of memory cost as much as all of it.
        let limit = if epochs.is_in_store() { LISTED_BESIDE_A_WRITE } else { usize::MAX };
        match self.store.keys(listing.cursor(), limit).await {
            Ok(page) if listing.note(&page.keys, page.next, &**clock) => self.admit_namespaces(key, value),
            Ok(_) => Err(refused),
            Err(error) => {
                tracing::debug!(backend = %self.handle.path(), %error, "namespaces are not given back");
                Err(refused)
            }
        }
    }

    /// The entry with the epochs of its scopes; nothing if one of them was invalidated since it started.
    pub(super) async fn attach_epochs(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        started: StartedAt,
    ) -> BackendResult<Option<CacheValue<Raw>>> {
        match self.attach_known_epochs(key, value, started) {
            Ok(attached) => Ok(attached),
            // Rare, and not to be a part of every write's future.
            Err(value) => Box::pin(self.attach_asking(key, value, started)).await,
        }
    }

    /// The same if the store need not be asked.
    ///
    /// # Errors
    /// The entry is handed back if it has to be.
    pub(super) fn attach_known_epochs(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        started: StartedAt,
    ) -> Result<Option<CacheValue<Raw>>, CacheValue<Raw>> {
        let epochs = self.epochs();
        if epochs.has_unrecorded()
            || self.admit_namespaces(key, &value).is_err()
            || !self.due(key, &value).is_empty()
        {
            return Err(value);
        }
        match epochs.attach(key, value, started) {
            Attach::Attached(value) if epochs.ending_before(key, &value).is_empty() => Ok(Some(value)),
            Attach::Attached(value) | Attach::Missing(value, _) => Err(value),
            Attach::Superseded => Ok(None),
        }
    }

    pub(super) async fn attach_asking(
        &self,
        key: &CacheKey,
        mut value: CacheValue<Raw>,
        started: StartedAt,
    ) -> BackendResult<Option<CacheValue<Raw>>> {
        let epochs = self.epochs();
        if epochs.has_unrecorded() {
            // A store that does not answer this is not asked more.
            match self.record_missing().await {
                Err(error) if error.kind() == ErrorKind::Timeout => return Err(error),
                _ => {}
            }
        }
        self.make_room_for_namespaces(key, &value).await?;
        let mut asked = self.due(key, &value);
        self.ask_for(asked.clone()).await?;
        // Others may make it forget epochs in between; not for ever.
        for _ in 0..8 {
            match epochs.attach(key, value, started) {
                Attach::Attached(attached) => {
                    let short = epochs.ending_before(key, &attached);
                    if short.is_empty() || self.prolong_epochs(short, end_of(&attached)).await? {
                        return Ok(Some(attached));
                    }
                    value = attached;
                }
                Attach::Superseded => return Ok(None),
                Attach::Missing(open, scopes) => {
                    value = open;
                    let unknown = scopes.iter().filter(|scope| !asked.contains(scope)).cloned().collect();
                    self.ask_for(unknown).await?;
                    self.create_epochs(&scopes, end_of(&value)).await?;
                }
            }
            asked.clear();
        }
        Err(BackendError::new(ErrorKind::Overloaded, "the epochs of its scopes change all the time"))
    }

    /// Who only writes hears of others' invalidations too: the epochs of a shared store that were asked for too long ago
    /// are asked for again.
    pub(super) fn due(&self, key: &CacheKey, value: &CacheValue<Raw>) -> Vec<Scope> {
        if self.epochs().home() != EpochHome::Shared {
            return Vec::new();
        }
        let handle = &self.handle;
        let scopes = value.details().map_or(&[][..], |details| &details.scopes);
        self.epochs().missing(Some(key), scopes, handle.clock().monotonic(), handle.staleness_bound())
    }

    /// Has the records of these epochs live as long as an entry that carries them. Says whether they are all there still.
    async fn prolong_epochs(&self, scopes: Vec<Scope>, end: Option<Timestamp>) -> BackendResult<bool> {
        let (epochs, now) = (self.epochs(), self.handle.clock().now());
        let until = kept_for(end, now);
        let mut is_all = true;
        for scope in scopes {
            let answer = self.store.change_times(&key_of(&scope), &TimeChange::kept_until(until)).await?;
            let is_there = match answer {
                Peek::Entry(record) => {
                    recorded_in(&scope, &record, now).is_some_and(|recorded| recorded.epoch == scope.epoch)
                }
                // Whoever carries it first is having it recorded, and that for less long.
                Peek::Absent if epochs.is_being_recorded(&scope) => {
                    epochs.prolonged(&scope, until);
                    self.record(vec![scope.clone()], FIRST).await?;
                    true
                }
                Peek::Absent => false,
                // Another process may have renewed it: when its record ends, that costs misses.
                Peek::Unknown if self.handle.capabilities().shared => true,
                Peek::Unknown => {
                    epochs.prolonged(&scope, until);
                    self.record(vec![scope.clone()], FIRST).await?;
                    true
                }
            };
            if is_there {
                epochs.prolonged(&scope, until);
            } else {
                epochs.lose(&scope);
                is_all = false;
            }
        }
        Ok(is_all)
    }

    /// Writes epochs into the store.
    pub(super) async fn record(&self, scopes: Vec<Scope>, version: u64) -> BackendResult<()> {
        if scopes.is_empty() {
            return Ok(());
        }
        let mut batch = Vec::with_capacity(scopes.len());
        for scope in &scopes {
            let record = record_of(scope, version, self.epochs().until(scope));
            batch.push((key_of(scope), self.encoded(record, None)?));
        }
        let mut all = Ok(());
        for (scope, result) in scopes.iter().zip(self.store.write_batch(batch).await) {
            match result {
                Ok(()) => self.epochs().recorded(scope),
                Err(error) => all = all.and(Err(error)),
            }
        }
        all
    }

    /// Until when the record of a scope is kept that is invalidated now, whatever is written with it.
    pub(super) fn invalidated_until(&self) -> Timestamp {
        self.handle.clock().now() + INVALIDATED
    }

    /// Writes epochs that end older ones.
    pub(super) async fn record_renewed(&self, scopes: Vec<Scope>) -> BackendResult<()> {
        if self.epochs().is_in_store() { self.record(scopes, RENEWED).await } else { Ok(()) }
    }

    /// Writes some of what the store has not recorded, now and then: for leaves that nobody maintains. The rest is
    /// [maintenance](crate::operation::Maintenance::Record).
    ///
    /// # Errors
    /// That of the store, which is counted and told of here.
    pub(super) async fn record_missing(&self) -> BackendResult<()> {
        if !self.epochs().has_unrecorded() || !self.epochs().may_retry(self.handle.clock().monotonic()) {
            return Ok(());
        }
        self.record_some(BESIDE_A_CALL).await.map(drop)
    }

    /// Writes at most `limit` of what the store has not recorded. Says how many are left. If others are at it, nothing is left,
    /// and nobody waits for them: a call that is held would keep all.
    pub(super) async fn record_some(&self, limit: usize) -> BackendResult<u64> {
        let Some(_recorder) = self.epochs().recorder(self.handle.clock().monotonic()) else { return Ok(0) };
        let some = self.epochs().unrecorded(limit);
        if some.is_empty() {
            // Whoever invalidates what is left is at it.
            return Ok(0);
        }
        self.record(some, RENEWED).await.map_err(|error| {
            let error = self.handle.failed(Event::WriteError, error);
            tracing::debug!(backend = %self.handle.path(), %error, "an invalidation is not recorded yet");
            error
        })?;
        self.handle.answered(Side::Changes);
        Ok(self.epochs().count_unrecorded() as u64)
    }
}
