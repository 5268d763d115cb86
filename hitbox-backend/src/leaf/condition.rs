//! Writes that depend on what is stored.

use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Details, ErrorKind, VersionMismatch};

use super::Leaf;
use super::check::Parsed;
use super::turn::Turn;
use crate::envelope::{Chunks, Raw, Unusable};
use crate::operation::{Condition, WriteOptions};
use crate::receipt::{LeafOutcome, Receipt};
use crate::stats::Event;
use crate::store::{Conditional, Peek, Store, StoreCondition, StoreWriter};

/// A stored entry changes so often in between before the write is given up.
pub(super) const MAX_CONFLICTS: usize = 16;

fn mismatch(existing: u64, attempted: u64) -> BackendError {
    BackendError::version_mismatch(VersionMismatch { existing, attempted })
}

pub(super) fn conflict() -> BackendError {
    BackendError::new(ErrorKind::Conflict, "the stored entry is not the one that the write was made for")
}

/// Whether one entry of a key was written after another: by when they were made, and by their versions if both have one.
/// Versions begin anew when a key is removed: a higher one that was made earlier is of before that.
fn is_later<T, U>(one: &CacheValue<T>, other: &CacheValue<U>) -> bool {
    let version = |details: Option<&Details>| details.and_then(|details| details.version);
    match (version(one.details()), version(other.details())) {
        (Some(version), Some(others)) => version > others && one.created() >= other.created(),
        _ => one.created() > other.created(),
    }
}

/// What is to be stored on a condition.
pub(super) enum Candidate<'a> {
    Value(CacheValue<Raw>),
    /// A body that has come, and its entry.
    Body(&'a mut dyn StoreWriter, &'a CacheValue<Raw>),
}

impl Candidate<'_> {
    const fn entry(&self) -> &CacheValue<Raw> {
        match self {
            Self::Value(value) => value,
            Self::Body(_, entry) => entry,
        }
    }

    async fn store_if(
        &mut self,
        store: &impl Store,
        key: &CacheKey,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        match self {
            Self::Value(value) => store.write_if(key, value.clone(), condition).await,
            Self::Body(body, entry) => body.commit_if(entry, condition).await,
        }
    }
}

impl<S: Store> Leaf<S> {
    /// The entry that is stored and still counts. It is the turn of the caller.
    pub(super) async fn stored_entry(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let Some(stored) = self.store.read(key).await? else { return Ok(None) };
        let Parsed::Value(stored) = self.handle.parse(key, stored) else { return Ok(None) };
        Ok(self.still_counts(key, &stored).await?.then_some(stored))
    }

    /// The same to be compared with: without a body that is not read as a whole.
    async fn entry_to_compare(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let Some(stored) = self.store.read(key).await? else { return Ok(None) };
        let stored = if let Some(Err(Unusable::TooLarge)) = stored.data().as_stored() {
            let Peek::Entry(body) = self.store.peek(key).await? else { return Ok(None) };
            body.map(|()| Raw::chunks(Chunks::default(), 0))
        } else {
            let Parsed::Value(stored) = self.handle.parse(key, stored) else { return Ok(None) };
            stored
        };
        Ok(self.still_counts(key, &stored).await?.then_some(stored))
    }

    /// Stores an entry on a condition. It is the turn of the caller.
    pub(super) async fn store_if(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &Condition,
    ) -> BackendResult<()> {
        let facts = self.store.capabilities();
        if facts.writes_conditionally {
            return self.store_if_native(key, Candidate::Value(value), condition).await;
        }
        if facts.shared {
            // Others may write between a look and a write.
            return Err(BackendError::unsupported("a conditional write"));
        }
        self.check_condition(key, condition).await?;
        self.store.write(key, value).await
    }

    /// Whether the stored entry allows the write. Nobody else writes this key of this store: it is the caller's turn.
    async fn check_condition(&self, key: &CacheKey, condition: &Condition) -> BackendResult<()> {
        // A dirty copy is older than what was written elsewhere: nobody knows what should be stored here.
        if self.handle.coherence().is_dirty(key) {
            let message = "what is stored is not known: the last write failed here";
            return Err(BackendError::new(ErrorKind::Io, message));
        }
        let stored = self.entry_to_compare(key).await?;
        match (condition, stored) {
            (Condition::IfNewer(attempted), Some(stored)) => {
                match stored.details().and_then(|details| details.version) {
                    Some(existing) if existing >= *attempted => Err(mismatch(existing, *attempted)),
                    _ => Ok(()),
                }
            }
            (Condition::IfAbsent, Some(_)) | (Condition::IfSame(_), None) => Err(conflict()),
            (Condition::IfSame(same), Some(stored)) => {
                let is_same = stored.data().identity() == same.data().identity();
                if is_same { Ok(()) } else { Err(conflict()) }
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn store_if_native(
        &self,
        key: &CacheKey,
        mut candidate: Candidate<'_>,
        condition: &Condition,
    ) -> BackendResult<()> {
        let mut ignoring = None;
        for _ in 0..MAX_CONFLICTS {
            let wanted = match condition {
                Condition::IfNewer(version) | Condition::IfNotOlder(version) => {
                    StoreCondition::IfNewer { version: *version, ignoring }
                }
                Condition::IfSame(same) => StoreCondition::IfSame(same.data().identity()),
                _ => StoreCondition::IfAbsent { ignoring },
            };
            let stored = match candidate.store_if(&*self.store, key, &wanted).await? {
                Conditional::Written => return Ok(()),
                Conditional::Conflict(stored) => stored,
            };
            let Some((stored, identity)) = stored else { return Err(conflict()) };
            if matches!(condition, Condition::IfSame(_)) {
                return Err(conflict());
            }
            let is_in_the_way =
                !matches!(condition, Condition::Repair) || is_later(&stored, candidate.entry());
            if is_in_the_way && self.still_counts(key, &stored).await? {
                match (condition, stored.details().and_then(|details| details.version)) {
                    (Condition::IfNewer(attempted), Some(existing)) => {
                        return Err(mismatch(existing, *attempted));
                    }
                    (Condition::IfNotOlder(version), Some(existing)) if existing == *version => {
                        if identity == candidate.entry().data().identity() {
                            // It is in this store already, which stands in another place of the expression too.
                            return Ok(());
                        }
                    }
                    _ => return Err(conflict()),
                }
            }
            // It does not count: its time is over, it has been invalidated, or the repair brings a later one.
            ignoring = Some(identity);
        }
        Err(BackendError::new(ErrorKind::Overloaded, "the stored entry changes all the time"))
    }

    /// An entry that is not admitted ends what was there, if its condition allows.
    pub(super) async fn leave_out(
        &self,
        key: &CacheKey,
        version: Option<u64>,
        condition: &Condition,
        options: &WriteOptions,
    ) -> Receipt {
        let ticket = self.ticket(key, options);
        let work = |turn| self.leave_out_in_turn(key, version, condition, turn);
        let left_out = self.in_turn(key, &ticket, LeafOutcome::NotAdmitted, work).await;
        left_out.unwrap_or_else(|error| self.handle.refuse(error))
    }

    async fn leave_out_in_turn(
        &self,
        key: &CacheKey,
        version: Option<u64>,
        condition: &Condition,
        turn: Turn<'_>,
    ) -> Receipt {
        let condition = match (condition, version) {
            (Condition::IfNewer(_), Some(version)) => Condition::IfNewer(version),
            (condition, _) => condition.clone(),
        };
        if condition.depends_on_stored()
            && let Err(error) = self.check_condition(key, &condition).await
        {
            if error.kind() == ErrorKind::VersionMismatch {
                self.handle.count(Event::VersionMismatch, 1);
            }
            return self.handle.refuse(error);
        }
        let removed = self.remove_in_turn(key, &turn).await;
        if removed.is_ok() { self.not_admitted() } else { removed }
    }

    pub(super) fn not_admitted(&self) -> Receipt {
        self.handle.count(Event::NotAdmitted, 1);
        self.handle.line(LeafOutcome::NotAdmitted)
    }
}
