//! The table of a store's epochs: a token per scope, and the one number that the epochs of a key's own scopes make.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_core::{CacheKey, Epoch, Scope, ScopeKind, Timestamp};
use twox_hash::XxHash3_64;

use super::epochs::HeldPattern;
use super::logical_clock::{self, StartedAt, UNDER_WAY};
use super::namespaces::Namespaces;

/// Tags and dependencies that a table holds, and namespaces. When there are more it forgets them all.
const MAX_TOKENS: usize = 1 << 18;

/// By how much the clocks of processes that share a store may differ.
const SKEW: Duration = Duration::from_secs(1);

/// What a store has for a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) epoch: Epoch,
    /// When it was given to end an older one; `None` for a first.
    pub(crate) renewed: Option<Timestamp>,
    /// Until when the record lives; `None` for ever.
    pub(crate) until: Option<Timestamp>,
}

/// Where the truth about a store's epochs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochHome {
    /// In this process: the entries end with it.
    Process,
    /// In the store, which this process has for itself.
    Store,
    /// In the store, which other processes share.
    Shared,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// By family.
    pub(super) tokens: [HashMap<Box<str>, Token>; 4],
    /// Those that the store has not recorded, by family and name.
    pub(super) open: BTreeSet<(u8, Box<str>)>,
    /// Patterns of keys that the store did not remove: what was made until then is invalid.
    pub(super) patterns: Vec<HeldPattern>,
    /// Those that entries were stored in.
    pub(super) namespaces: Namespaces,
    /// Of tags and dependencies.
    pub(super) tags: Forgotten,
    /// Of namespaces.
    pub(super) names: Forgotten,
    /// Changes so far.
    pub(super) sequence: u64,
}

/// What stands for scopes of a family that are not in the table: they have never been invalidated, or that was forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forgotten {
    /// Their epoch, where the truth is here.
    pub(super) first: Epoch,
    /// What started before this and carries one is not stored: that it was invalidated may have been forgotten.
    pub(super) minimum: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// `None` if the store has none.
    pub(super) epoch: Option<Epoch>,
    /// The logical time of its last change, as far as is known.
    pub(super) changed: u64,
    /// The logical time since which it is known.
    pub(super) known: u64,
    /// When it was given to end an older one; `None` for a first, which ends nothing.
    pub(super) renewed: Option<Timestamp>,
    /// Until when the store has its record; `None` for ever.
    pub(super) until: Option<Timestamp>,
    /// When the store was asked, on the monotonic clock.
    pub(super) asked: Duration,
    /// The store has to be asked again, whenever that was.
    pub(super) is_doubtful: bool,
    /// Somebody else has given it: the store said so.
    pub(super) is_learned: bool,
    pub(super) recording: Recording,
    /// Its place among the changes of the table: what the store answered to an earlier question is older.
    pub(super) sequence: u64,
}

/// Whether the store has a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recording {
    Done,
    /// It is being given the scope's first, by whoever needs it.
    First,
    /// It has not taken one that ends an older, and is to be asked again.
    Open,
}

impl Token {
    pub(super) const fn first(epoch: Epoch, minimum: u64) -> Self {
        Self { epoch: Some(epoch), changed: minimum, known: 0, ..Self::UNSET }
    }

    pub(super) const UNSET: Self = Self {
        epoch: None,
        changed: 0,
        known: 0,
        renewed: None,
        until: None,
        asked: Duration::ZERO,
        is_doubtful: false,
        is_learned: false,
        recording: Recording::Done,
        sequence: 0,
    };

    /// Whether its scope was invalidated since something started, as far as can be known. What another process has
    /// invalidated is known by the time of that; clocks may differ by [`SKEW`].
    pub(super) fn is_since(&self, started: StartedAt) -> bool {
        let is_before = |renewed| started.at.is_some_and(|at| renewed + SKEW <= at);
        self.changed > started.tick
            || (started.from_read
                && self.known > started.tick
                && self.renewed.is_some_and(|renewed| !is_before(renewed)))
    }
}

/// A token that no other has, here or elsewhere.
pub(super) fn unique() -> Epoch {
    let half = || u128::from(RandomState::new().hash_one(fastrand::u64(..)));
    Epoch(half() << 64 | half() | 1)
}

/// The scopes that an entry has by its key alone, outermost first: "everything" and its namespaces.
pub(super) fn own_scopes(key: &CacheKey) -> impl Iterator<Item = (ScopeKind, &str)> {
    let path = key.namespace();
    let ends = path.match_indices('/').map(|(at, _)| at).chain((!path.is_empty()).then_some(path.len()));
    let namespaces = ends.map(move |end| (ScopeKind::Namespace, &path[..end]));
    std::iter::once((ScopeKind::Everything, "")).chain(namespaces)
}

/// The combined epoch of "everything" and of namespaces, outermost first.
pub(super) fn namespace_epoch_of(mut own: impl Iterator<Item = Epoch>) -> u64 {
    let everything = own.next().unwrap_or(Epoch::NONE);
    own.filter(|epoch| *epoch != Epoch::NONE).fold(everything.0 as u64, |combined, epoch| {
        XxHash3_64::oneshot_with_seed(combined, &epoch.0.to_le_bytes())
    })
}

const KINDS: [ScopeKind; 4] =
    [ScopeKind::Everything, ScopeKind::Namespace, ScopeKind::Tag, ScopeKind::Dependency];

impl Table {
    pub(super) fn known(&self, scope: &Scope) -> Option<Token> {
        self.tokens[scope.kind as usize].get(&scope.name).copied()
    }

    pub(super) fn known_mut(&mut self, scope: &Scope) -> Option<&mut Token> {
        self.tokens[scope.kind as usize].get_mut(&scope.name)
    }

    pub(super) fn put(&mut self, scope: &Scope, token: Token) {
        self.sequence += 1;
        let token = Token { sequence: self.sequence, ..token };
        self.tokens[scope.kind as usize].insert(scope.name.clone(), token);
    }

    /// Some of what the store is to be asked again to record.
    pub(super) fn open(&self, limit: usize) -> Vec<Scope> {
        let all = self.open.iter().filter_map(|(kind, name)| {
            let token = self.tokens[usize::from(*kind)].get(name)?;
            let kind = KINDS.into_iter().find(|known| *known as u8 == *kind)?;
            let scope = Scope { kind, name: name.clone(), epoch: token.epoch? };
            (token.changed != UNDER_WAY).then_some(scope)
        });
        all.take(limit).collect()
    }

    /// What is known of a scope; where the truth is here, that is everything.
    pub(super) fn token(&self, kind: ScopeKind, name: &str, home: EpochHome) -> Option<Token> {
        let known = self.tokens[kind as usize].get(name).copied();
        if home != EpochHome::Process {
            return known;
        }
        let Forgotten { first, minimum } = self.forgotten(kind);
        Some(known.unwrap_or(Token::first(first, minimum)))
    }

    fn forgotten(&self, kind: ScopeKind) -> Forgotten {
        match kind {
            ScopeKind::Everything => Forgotten::default(),
            ScopeKind::Namespace => self.names,
            _ => self.tags,
        }
    }

    /// The combined epoch of a key's own scopes; `None` if the store has to be asked. Where epochs are in the store it is
    /// never 0.
    pub(super) fn namespace_epoch(&self, key: &CacheKey, home: EpochHome) -> Option<u64> {
        let mut is_known = true;
        let epochs = own_scopes(key).map_while(|(kind, name)| {
            let token = self.token(kind, name, home);
            is_known = token.is_some();
            Some(token?.epoch.unwrap_or(Epoch::NONE))
        });
        let namespace_epoch = namespace_epoch_of(epochs);
        is_known.then_some(namespace_epoch)
    }

    pub(super) fn minimum_of(&self, kind: ScopeKind) -> u64 {
        self.forgotten(kind).minimum
    }

    /// Forgets tags and dependencies if there are too many, and namespaces: their entries become misses, or the store is
    /// asked for their epochs again.
    pub(super) fn make_room(&mut self, latest: &AtomicU64, more: usize) {
        let has_room = |tokens: &[HashMap<Box<str>, Token>; 4], families: &[ScopeKind]| {
            let count: usize = families.iter().map(|kind| tokens[*kind as usize].len()).sum();
            count + more <= MAX_TOKENS
        };
        for families in [&[ScopeKind::Tag, ScopeKind::Dependency][..], &[ScopeKind::Namespace]] {
            if has_room(&self.tokens, families) {
                continue;
            }
            for kind in families {
                self.tokens[*kind as usize]
                    .retain(|_, token| token.recording != Recording::Done || token.changed == UNDER_WAY);
            }
            let forgotten = Forgotten { first: unique(), minimum: logical_clock::tick() };
            latest.store(forgotten.minimum, Ordering::Release);
            match families {
                [ScopeKind::Namespace] => self.names = forgotten,
                _ => self.tags = forgotten,
            }
        }
    }
}
