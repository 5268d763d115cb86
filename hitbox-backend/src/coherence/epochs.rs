//! The epochs of a store's scopes: which of its entries have been invalidated.
//!
//! "Everything", namespaces, tags and dependencies are scopes. A scope has an epoch, a unique token; an entry is
//! stored with the epochs that its scopes have in that store, and is valid while they are the same. To invalidate a
//! scope is to give it another epoch, which takes no time, however many entries it has.
//!
//! Epochs of "everything" and of an entry's namespaces are kept in it as one number, its *namespace
//! epoch*; those of tags and dependencies one by one. In a store that ends with the process, this table is the truth. Where entries outlive the
//! process the epochs stand in the store under reserved keys, and this table is a copy of them: of what it does not
//! hold the store is asked, and what the store has lost gets a new epoch, which costs misses and nothing else. If other
//! processes share the store, the copy is believed for a limited time.
//!
//! A write tells when it, or the load that it ends, started ([`StartedAt`]). If one of its scopes was invalidated since,
//! it is not stored.

mod attach;
mod held;
mod known;
mod namespaces;
mod validity;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use hitbox_core::{CacheKey, CacheValue, Epoch, Scope, ScopeKind, Timestamp};

use super::logical_clock::{self, UNDER_WAY};
pub(crate) use super::tokens::{EpochHome, Recorded};
use super::tokens::{Recording, Table, Token, own_scopes, unique};
pub(crate) use attach::Attach;
pub(crate) use held::{Held, HeldPattern};
use known::Known;
use namespaces::Progress;
pub(crate) use validity::Validity;

/// Between two attempts to record what a store did not take.
const RETRY: Duration = Duration::from_millis(200);

/// Who has a store record what it has not is left alone for so long: a call that is held would keep others from it.
const RECORDING: Duration = Duration::from_secs(2);

/// So much longer than entries their scopes' records live: clocks differ.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);

/// The end of an entry, however often it is read.
pub(crate) fn end_of<T>(value: &CacheValue<T>) -> Option<Timestamp> {
    value.lifetime().drop_at()
}

/// The record of "everything", which all entries have, has no end.
pub(crate) fn until_of(scope: &Scope, until: Option<Timestamp>) -> Option<Timestamp> {
    until.filter(|_| scope.kind != ScopeKind::Everything)
}

#[derive(Debug)]
pub(crate) struct Epochs {
    known: Known,
    /// The logical time when it was made.
    began: u64,
    home: EpochHome,
    /// The logical time of the last change.
    latest: AtomicU64,
    /// Epochs that the store has not recorded yet, and patterns.
    unrecorded: AtomicUsize,
    /// Patterns of keys that the store has not removed yet.
    patterns: AtomicUsize,
    /// Monotonic milliseconds before which it is not asked again to record them.
    not_before: AtomicU64,
    /// Until when somebody has it record what it has not, in monotonic milliseconds; 0 if nobody does.
    recorder: AtomicU64,
    /// The latest instant, in milliseconds since the epoch, at which an entry was made that was not over yet.
    ahead: AtomicU64,
    /// A listing that looks for namespaces without entries. One at a time lists.
    listing: tokio::sync::Mutex<Progress>,
    table: RwLock<Table>,
}

/// One has a store record what it has not.
pub(crate) struct Recorder<'e> {
    until: u64,
    of: &'e AtomicU64,
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        // Unless it took too long, and another is at it.
        let _ = self.of.compare_exchange(self.until, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

impl Epochs {
    pub(crate) fn new(home: EpochHome) -> Self {
        let began = logical_clock::now();
        Self {
            known: Known::new(home),
            began,
            home,
            latest: AtomicU64::new(began),
            unrecorded: AtomicUsize::new(0),
            patterns: AtomicUsize::new(0),
            not_before: AtomicU64::new(0),
            recorder: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
            listing: tokio::sync::Mutex::default(),
            table: RwLock::default(),
        }
    }

    /// Where the truth is.
    #[inline]
    pub(crate) fn home(&self) -> EpochHome {
        self.home
    }

    /// Whether the store is asked for what is not known here.
    pub(crate) fn is_in_store(&self) -> bool {
        self.home != EpochHome::Process
    }

    /// The logical time of the last invalidation of any of its scopes.
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing that entries have by their keys was ever invalidated here, so that those without details are
    /// current.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.known.is_plain()
    }

    /// Whether entries may be there that were invalidated: since the leaf was made, or, in a store that outlives the process
    /// or is shared, at any time.
    #[inline]
    pub(crate) fn may_have_invalidated(&self) -> bool {
        self.is_in_store() || self.latest() != self.began
    }

    /// What the store has to be asked for before an entry can be checked: what is not known, or was asked for longer
    /// ago than the staleness bound.
    pub(crate) fn missing(
        &self,
        key: Option<&CacheKey>,
        scopes: &[Scope],
        now: Duration,
        staleness_bound: Duration,
    ) -> Vec<Scope> {
        let home = self.home;
        let needs_more = !scopes.is_empty() || key.is_none_or(CacheKey::has_namespace);
        if !needs_more && self.known.is_believed(home, now, staleness_bound) {
            return Vec::new();
        }
        let table = self.read();
        let is_due = |token: &Token| {
            let age = now.saturating_sub(token.asked);
            let is_recorded = token.recording == Recording::Done;
            let is_old = age > staleness_bound || staleness_bound.is_zero() || token.is_doubtful;
            // One that had none may have got its first, with an entry that is about to be looked at.
            let is_unset = token.epoch.is_none();
            home == EpochHome::Shared && is_recorded && (is_old || is_unset)
        };
        let by_key = key.into_iter().flat_map(own_scopes);
        let needed = by_key.chain(scopes.iter().map(|scope| (scope.kind, &*scope.name)));
        let missing =
            needed.filter(|(kind, name)| table.token(*kind, name, home).as_ref().is_none_or(is_due));
        missing.map(|(kind, name)| Scope::new(kind, name)).collect()
    }

    /// A question to the store begins: the number of the last change that it may be older than.
    pub(crate) fn read_sequence(&self) -> u64 {
        self.read().sequence
    }

    /// Takes note of what the store answered to a question that began with this number. `None` stands for no epoch.
    pub(crate) fn merge(&self, read_sequence: u64, now: Duration, found: &[(Scope, Option<Recorded>)]) {
        let is_shared = self.home == EpochHome::Shared;
        let mut table = self.write();
        table.make_room(&self.latest, found.len());
        let mut is_changed = false;
        for (scope, recorded) in found {
            let epoch = recorded.map(|recorded| recorded.epoch);
            let renewed = recorded.and_then(|recorded| recorded.renewed);
            let until = recorded.and_then(|recorded| recorded.until);
            let merged = Token { epoch, renewed, until, asked: now, is_learned: true, ..Token::UNSET };
            let token = match table.known(scope) {
                // What has been changed here is newer than the answer.
                Some(known) if known.recording != Recording::Done => continue,
                // It is the same still. That is no change: answers to questions that began before may be newer.
                Some(known) if known.epoch == epoch => {
                    let asked = known.asked.max(now);
                    if let Some(token) = table.known_mut(scope) {
                        (token.asked, token.until, token.is_doubtful) = (asked, until, false);
                    }
                    continue;
                }
                // What this process has written since is newer than the answer; and who had none yet was asked earlier.
                Some(known) if known.sequence > read_sequence && (!known.is_learned || epoch.is_none()) => {
                    continue;
                }
                // Nobody knows which of two answers is newer: neither is believed, and the store is asked again. That there was
                // none is most likely older; if it is not, the store has lost what it had, which costs misses.
                Some(known)
                    if known.sequence > read_sequence && (known.epoch.is_some() || known.is_doubtful) =>
                {
                    is_changed = true;
                    Token { epoch: None, is_doubtful: true, ..known }
                }
                // Somebody else has given it another. Loads ask when that was; a write of something new comes after it.
                Some(known) => {
                    is_changed = true;
                    Token { changed: known.changed, known: logical_clock::tick(), ..merged }
                }
                None => {
                    let known = if is_shared && epoch.is_some() { logical_clock::tick() } else { 0 };
                    Token { changed: table.minimum_of(scope.kind), known, ..merged }
                }
            };
            table.put(scope, token);
        }
        if is_changed {
            // What was found valid before has to be looked at again.
            self.latest.store(logical_clock::tick(), Ordering::Release);
        }
        self.refresh(&table);
    }

    /// Gives those of these scopes an epoch that have none; says which, for the store to record until then.
    pub(crate) fn create(&self, now: Duration, scopes: &[Scope], until: Option<Timestamp>) -> Vec<Scope> {
        let mut table = self.write();
        let mut created = Vec::new();
        for scope in scopes {
            let known = table.known(scope);
            if known.is_some_and(|token| token.epoch.is_some()) {
                continue;
            }
            let epoch = unique();
            // When it was changed last is not forgotten.
            let unset = Token { changed: table.minimum_of(scope.kind), ..Token::UNSET };
            let Token { changed, known, renewed, .. } = known.unwrap_or(unset);
            let token = Token {
                epoch: Some(epoch),
                changed,
                known,
                renewed,
                until: until_of(scope, until),
                asked: now,
                recording: Recording::First,
                ..Token::UNSET
            };
            table.put(scope, token);
            created.push(Scope { epoch, ..scope.clone() });
        }
        self.refresh(&table);
        created
    }

    /// The store has not taken these first epochs: whoever needs them gives them others.
    pub(crate) fn discard(&self, created: &[Scope]) {
        let mut table = self.write();
        for scope in created {
            if let Some(known) = table.known(scope)
                && known.epoch == Some(scope.epoch)
                && known.recording == Recording::First
            {
                table.put(scope, Token { epoch: None, recording: Recording::Done, ..known });
            }
        }
        self.refresh(&table);
    }

    /// Gives a scope a new epoch. Nothing that carries it is stored before [`Self::end`].
    pub(crate) fn begin(&self, scope: &Scope, now: Duration, until: Timestamp) -> Epoch {
        let epoch = unique();
        let mut table = self.write();
        table.make_room(&self.latest, 1);
        let recording = if self.is_in_store() { Recording::Open } else { Recording::Done };
        if recording == Recording::Open {
            table.open.insert((scope.kind as u8, scope.name.clone()));
            self.count_open(&table);
        }
        let until = until_of(scope, Some(until));
        let token =
            Token { epoch: Some(epoch), changed: UNDER_WAY, until, asked: now, recording, ..Token::UNSET };
        table.put(scope, token);
        table.namespaces.end(scope);
        self.latest.store(logical_clock::tick(), Ordering::Release);
        self.refresh(&table);
        epoch
    }

    /// The invalidation that gave a scope this epoch is over.
    pub(crate) fn end(&self, scope: &Scope, epoch: Epoch, at: u64) {
        let mut table = self.write();
        if let Some(token) = table.known_mut(scope)
            && token.epoch == Some(epoch)
        {
            token.changed = at;
        }
        // Others may have ended since this one took its time.
        self.latest.fetch_max(at, Ordering::AcqRel);
        self.refresh(&table);
    }

    /// The store has recorded this epoch.
    pub(crate) fn recorded(&self, scope: &Scope) {
        let mut table = self.write();
        let Some(known) = table.known(scope).filter(|known| known.epoch == Some(scope.epoch)) else { return };
        // Questions that began before this may be answered with what was there.
        table.put(scope, Token { recording: Recording::Done, ..known });
        if known.recording == Recording::Open {
            table.open.remove(&(scope.kind as u8, scope.name.clone()));
            self.count_open(&table);
        }
        self.refresh(&table);
    }

    /// Those scopes of an entry whose record in the store ends before the entry may, with their epochs.
    pub(crate) fn ending_before<T>(&self, key: &CacheKey, value: &CacheValue<T>) -> Vec<Scope> {
        let scopes = value.details().map_or(&[][..], |details| &details.scopes);
        if !self.is_in_store() || (scopes.is_empty() && !key.has_namespace()) {
            return Vec::new();
        }
        let (home, end) = (self.home, end_of(value));
        let is_short = |until: Timestamp| end.is_none_or(|end| until < end + MARGIN);
        let table = self.read();
        let all = own_scopes(key).chain(scopes.iter().map(|scope| (scope.kind, &*scope.name)));
        let short = all.filter_map(|(kind, name)| {
            let token = table.token(kind, name, home)?;
            is_short(token.until?).then_some(Scope { epoch: token.epoch?, ..Scope::new(kind, name) })
        });
        short.collect()
    }

    /// The store has the record of this epoch until then.
    pub(crate) fn prolonged(&self, scope: &Scope, until: Option<Timestamp>) {
        if let Some(token) = self.write().known_mut(scope)
            && token.epoch == Some(scope.epoch)
        {
            token.until = until;
        }
    }

    /// Whether this epoch is the first of its scope, and the store is being given it.
    pub(crate) fn is_being_recorded(&self, scope: &Scope) -> bool {
        let known = self.read().known(scope);
        known.is_some_and(|token| token.epoch == Some(scope.epoch) && token.recording == Recording::First)
    }

    /// The store does not have this epoch any more. When the scope was changed last is not forgotten.
    pub(crate) fn lose(&self, scope: &Scope) {
        let mut table = self.write();
        if let Some(known) = table.known(scope)
            && known.epoch == Some(scope.epoch)
            && known.recording == Recording::Done
        {
            table.put(scope, Token { epoch: None, is_doubtful: true, ..known });
        }
        self.refresh(&table);
    }

    /// Whether a scope has no epoch, as far as is known.
    pub(crate) fn is_unset(&self, scope: &Scope) -> bool {
        self.read().known(scope).is_none_or(|token| token.epoch.is_none())
    }

    /// Until when the record of a scope has to be there.
    pub(crate) fn until(&self, scope: &Scope) -> Option<Timestamp> {
        self.read().known(scope)?.until
    }

    /// Somebody else has changed these epochs in the store: it is asked again for them.
    pub(crate) fn forget(&self, scopes: &[Scope]) {
        let mut table = self.write();
        for scope in scopes {
            if table.known(scope).is_some_and(|token| token.recording == Recording::Done) {
                table.tokens[scope.kind as usize].remove(&scope.name);
            }
        }
        self.latest.store(logical_clock::tick(), Ordering::Release);
        self.refresh(&table);
    }

    /// Whether the store has something to record still.
    #[inline]
    pub(crate) fn has_unrecorded(&self) -> bool {
        self.unrecorded.load(Ordering::Acquire) != 0
    }

    /// The right to have the store record what it has not, unless somebody else is at it.
    pub(crate) fn recorder(&self, now: Duration) -> Option<Recorder<'_>> {
        let now = now.as_millis() as u64;
        let (known, until) = (self.recorder.load(Ordering::Relaxed), now + RECORDING.as_millis() as u64);
        let is_mine = known <= now
            && self.recorder.compare_exchange(known, until, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        is_mine.then_some(Recorder { until, of: &self.recorder })
    }

    /// How many epochs and patterns the store has to take still.
    pub(crate) fn count_unrecorded(&self) -> usize {
        self.unrecorded.load(Ordering::Acquire)
    }

    /// Some of what the store has to record still.
    pub(crate) fn unrecorded(&self, limit: usize) -> Vec<Scope> {
        if self.has_unrecorded() { self.read().open(limit) } else { Vec::new() }
    }

    /// Forgets what the store has to record still but for "everything", whose invalidation has begun and says as much.
    pub(crate) fn forget_unrecorded(&self) {
        let everything = Scope::everything();
        let mut table = self.write();
        let (kept, forgotten): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut table.open)
            .into_iter()
            .partition(|open| *open == (everything.kind as u8, everything.name.clone()));
        table.open = kept;
        for (kind, name) in forgotten {
            table.tokens[usize::from(kind)].remove(&name);
        }
        table.patterns.clear();
        table.tags.minimum = logical_clock::tick();
        self.latest.store(table.tags.minimum, Ordering::Release);
        self.count_open(&table);
        self.refresh(&table);
    }

    /// Whether the store may be asked again to record what it has not: now and then.
    pub(crate) fn may_retry(&self, now: Duration) -> bool {
        let now = now.as_millis() as u64;
        let not_before = self.not_before.load(Ordering::Relaxed);
        let next = now + RETRY.as_millis() as u64;
        now >= not_before
            && self
                .not_before
                .compare_exchange(not_before, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// The store has been emptied, epochs and all: every one is lost. What has been held since `began` on the logical clock may be about what was
    /// written meanwhile.
    pub(crate) fn lose_all(&self, began: u64) {
        let mut table = self.write();
        table.patterns.retain(|held| held.since > began);
        table.namespaces.end(&Scope::everything());
        if self.is_in_store() {
            table.tokens = Default::default();
            table.open.clear();
        }
        self.count_open(&table);
        table.tags.minimum = logical_clock::tick();
        self.latest.store(table.tags.minimum, Ordering::Release);
        self.refresh(&table);
    }

    fn count_open(&self, table: &Table) {
        self.patterns.store(table.patterns.len(), Ordering::Release);
        self.unrecorded.store(table.open.len() + table.patterns.len(), Ordering::Release);
    }

    fn refresh(&self, table: &Table) {
        self.known.refresh(table, self.home);
    }
}
