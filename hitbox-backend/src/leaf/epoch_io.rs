//! Epochs of a leaf's scopes that are kept in its store: asking for them, giving them, recording them.

use hitbox_core::{
    BackendError, BackendResult, CacheKey, CacheValue, Details, Epoch, ErrorKind, RecordKind, Scope,
};

use super::Leaf;
use super::check::Parsed;
use crate::coherence::epochs::{Attach, EpochHome, Epochs, Validity};
use crate::coherence::logical_clock::StartedAt;
use crate::envelope::Raw;
use crate::stats::Event;
use crate::store::{Conditional, Store, StoreCondition};

/// The key under which a store keeps the epoch of a scope. No user's key equals it.
fn key_of(scope: &Scope) -> CacheKey {
    CacheKey::builder("scope").part("kind", scope.kind as u8).part("name", &scope.name).reserved().build()
}

pub(super) fn keys_of(scopes: &[Scope]) -> Vec<CacheKey> {
    scopes.iter().map(key_of).collect()
}

/// The version of a first epoch, and of one that ends an older: the first never replaces the second.
const FIRST: u64 = 1;
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
    let kept = details.scopes.iter().find(|kept| *kept == scope);
    kept.map(|kept| kept.epoch).filter(|epoch| *epoch != Epoch::NONE)
}

/// First epochs that the store is being given. What it has not got when this is dropped is nobody's epoch.
struct FirstEpochs<'e> {
    epochs: &'e Epochs,
    scopes: Vec<Scope>,
}

impl Drop for FirstEpochs<'_> {
    fn drop(&mut self) {
        self.epochs.discard(&self.scopes);
    }
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
    pub(super) fn needs_epochs(&self, key: &CacheKey, value: &CacheValue<Raw>) -> bool {
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
            let epoch = epoch_in(&scope, stored);
            found.push((scope, epoch));
        }
        self.epochs().merge(sequence, self.handle.clock().monotonic(), &found);
        Ok(())
    }

    async fn ask_for(&self, scopes: Vec<Scope>) -> BackendResult<()> {
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
        if value.is_gone(self.handle.clock().now()) {
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

    /// Counts the namespaces of a key, unless they would be more than the leaf accepts.
    pub(super) fn admit_namespaces(&self, key: &CacheKey) -> BackendResult<()> {
        let limit = self.handle.limits().namespaces;
        self.epochs().admit(key, limit).map_err(|count| BackendError::too_many("namespaces", count, limit))
    }

    /// The entry with the epochs of its scopes; nothing if one of them was invalidated since it started.
    pub(super) async fn attach_epochs(
        &self,
        key: &CacheKey,
        mut value: CacheValue<Raw>,
        started: StartedAt,
    ) -> BackendResult<Option<CacheValue<Raw>>> {
        let epochs = self.epochs();
        if epochs.has_unrecorded() {
            // A store that does not answer this is not asked more.
            match Box::pin(self.record_missing()).await {
                Err(error) if error.kind() == ErrorKind::Timeout => return Err(error),
                _ => {}
            }
        }
        self.admit_namespaces(key)?;
        // Others may make it forget epochs in between; not for ever.
        for _ in 0..8 {
            match epochs.attach(key, value, started) {
                Attach::Attached(value) => return Ok(Some(value)),
                Attach::Superseded => return Ok(None),
                Attach::Missing(open, scopes) => {
                    value = open;
                    self.ask_for(scopes.clone()).await?;
                    self.create_epochs(&scopes).await?;
                }
            }
        }
        Err(BackendError::new(ErrorKind::Overloaded, "the epochs of its scopes change all the time"))
    }

    /// Gives scopes an epoch that have none, in the store too.
    async fn create_epochs(&self, scopes: &[Scope]) -> BackendResult<()> {
        let created = self.epochs().create(self.handle.clock().monotonic(), scopes);
        let first = FirstEpochs { epochs: self.epochs(), scopes: created };
        if !self.store.capabilities().writes_conditionally {
            return self.record(first.scopes.clone(), FIRST).await;
        }
        for scope in &first.scopes {
            let key = key_of(scope);
            let record = self.encoded(record_of(scope, FIRST), None)?;
            let condition = StoreCondition::IfNewer { version: FIRST, ignoring: None };
            match self.store.write_if(&key, record, &condition).await? {
                Conditional::Written => self.epochs().recorded(scope),
                // Somebody else was first: theirs holds.
                Conditional::Conflict(_) => {
                    self.epochs().discard(std::slice::from_ref(scope));
                    self.ask_for(vec![scope.clone()]).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes epochs into the store.
    async fn record(&self, scopes: Vec<Scope>, version: u64) -> BackendResult<()> {
        if scopes.is_empty() {
            return Ok(());
        }
        let mut batch = Vec::with_capacity(scopes.len());
        for scope in &scopes {
            batch.push((key_of(scope), self.encoded(record_of(scope, version), None)?));
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

    /// Writes epochs that end older ones.
    pub(super) async fn record_renewed(&self, scopes: Vec<Scope>) -> BackendResult<()> {
        if self.epochs().is_in_store() { self.record(scopes, RENEWED).await } else { Ok(()) }
    }

    /// Tries again to write what the store has not recorded.
    ///
    /// # Errors
    /// That of the store, which is counted and told of here.
    pub(super) async fn record_missing(&self) -> BackendResult<()> {
        let open = self.epochs().unrecorded();
        if open.is_empty() || !self.epochs().may_retry(self.handle.clock().monotonic()) {
            return Ok(());
        }
        let recorded = self.record(open, RENEWED).await;
        recorded.map_err(|error| {
            let error = self.handle.failed(Event::WriteError, error);
            tracing::debug!(backend = %self.handle.path(), %error, "an invalidation is not recorded yet");
            error
        })
    }
}
