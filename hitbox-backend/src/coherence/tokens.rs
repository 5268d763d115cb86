//! The table of a store's epochs: a token per scope, and the era that "everything" and namespaces make of a key.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_core::{CacheKey, Epoch, Scope, ScopeKind};
use twox_hash::XxHash3_64;

use super::moment::{self, Began, UNDER_WAY};

/// Tags and dependencies that a table holds. When there are more it forgets them all.
const MAX_TOKENS: usize = 1 << 18;

/// Where the epochs of a store are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Keeping {
    /// Nobody has asked yet.
    Unknown,
    /// Nowhere: a backend without identity, of which nobody knows what else shares it.
    Nowhere,
    /// Here: the entries end with the process.
    Here,
    /// In the store, which this process has for itself.
    Own,
    /// In the store, which others share.
    Shared,
}

impl Keeping {
    pub(super) const fn of(number: u8) -> Self {
        match number {
            1 => Self::Nowhere,
            2 => Self::Here,
            3 => Self::Own,
            4 => Self::Shared,
            _ => Self::Unknown,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// By family.
    pub(super) tokens: [HashMap<Box<str>, Token>; 4],
    /// Those that entries were stored in.
    pub(super) namespaces: HashSet<Box<str>>,
    /// The epoch of tags and dependencies that were never invalidated, where the truth is here.
    pub(super) first: Epoch,
    /// What began earlier and carries a tag is not stored: it may have been forgotten that it was invalidated.
    pub(super) floor: u64,
    /// Changes so far.
    pub(super) sequence: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// `None` if the store has none.
    pub(super) epoch: Option<Epoch>,
    /// The moment of its last change, as far as is known.
    pub(super) changed: u64,
    /// The moment since which it is known.
    pub(super) known: u64,
    /// When the store was asked, on the monotonic clock.
    pub(super) asked: Duration,
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
    pub(super) const fn first(epoch: Epoch, floor: u64) -> Self {
        Self { epoch: Some(epoch), changed: floor, known: 0, ..Self::UNSET }
    }

    pub(super) const UNSET: Self = Self {
        epoch: None,
        changed: 0,
        known: 0,
        asked: Duration::ZERO,
        recording: Recording::Done,
        sequence: 0,
    };

    pub(super) fn is_since(&self, began: Began) -> bool {
        self.changed > began.moment || (began.brings_older && self.known > began.moment)
    }
}

/// A token that no other has, here or elsewhere.
pub(super) fn unique() -> Epoch {
    let half = || u128::from(RandomState::new().hash_one(fastrand::u64(..)));
    Epoch(half() << 64 | half() | 1)
}

/// The scopes that an entry has by its key, outermost first: "everything" and its namespaces.
pub(super) fn implied(key: &CacheKey) -> impl Iterator<Item = (ScopeKind, &str)> {
    let path = key.namespace();
    let ends = path.match_indices('/').map(|(at, _)| at).chain((!path.is_empty()).then_some(path.len()));
    let namespaces = ends.map(move |end| (ScopeKind::Namespace, &path[..end]));
    std::iter::once((ScopeKind::Everything, "")).chain(namespaces)
}

const KINDS: [ScopeKind; 4] =
    [ScopeKind::Everything, ScopeKind::Namespace, ScopeKind::Tag, ScopeKind::Dependency];

const fn is_implied(kind: ScopeKind) -> bool {
    matches!(kind, ScopeKind::Everything | ScopeKind::Namespace)
}

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

    /// What the store is to be asked again to record.
    pub(super) fn open(&self) -> Vec<Scope> {
        let all =
            KINDS.iter().flat_map(|kind| self.tokens[*kind as usize].iter().map(move |item| (*kind, item)));
        let open =
            all.filter(|(_, (_, token))| token.recording == Recording::Open && token.changed != UNDER_WAY);
        open.filter_map(|(kind, (name, token))| Some(Scope { kind, name: name.clone(), epoch: token.epoch? }))
            .collect()
    }

    /// What is known of a scope; where the truth is here, that is everything.
    pub(super) fn token(&self, kind: ScopeKind, name: &str, keeping: Keeping) -> Option<Token> {
        let known = self.tokens[kind as usize].get(name).copied();
        if keeping != Keeping::Here {
            return known;
        }
        let first = if is_implied(kind) { Epoch::NONE } else { self.first };
        Some(known.unwrap_or(Token::first(first, self.floor_of(kind))))
    }

    /// The era of a key; `None` if the store has to be asked. No entry has an era of 0 where epochs are in the store.
    pub(super) fn era(&self, key: &CacheKey, keeping: Keeping) -> Option<u64> {
        let mut era = 0;
        for (kind, name) in implied(key) {
            let epoch = self.token(kind, name, keeping)?.epoch.unwrap_or(Epoch::NONE);
            if kind == ScopeKind::Everything {
                era = epoch.0 as u64;
            } else if epoch != Epoch::NONE {
                era = XxHash3_64::oneshot_with_seed(era, &epoch.0.to_le_bytes());
            }
        }
        Some(era)
    }

    pub(super) fn floor_of(&self, kind: ScopeKind) -> u64 {
        if is_implied(kind) { 0 } else { self.floor }
    }

    /// Forgets tags and dependencies if there are too many: their entries become misses.
    pub(super) fn make_room(&mut self, latest: &AtomicU64, more: usize) {
        let (tags, others) = (ScopeKind::Tag as usize, ScopeKind::Dependency as usize);
        if self.tokens[tags].len() + self.tokens[others].len() + more <= MAX_TOKENS {
            return;
        }
        for family in [tags, others] {
            self.tokens[family]
                .retain(|_, token| token.recording != Recording::Done || token.changed == UNDER_WAY);
        }
        self.first = unique();
        self.floor = moment::next();
        latest.store(self.floor, Ordering::Release);
    }
}
