//! Putting epochs to entries that are about to be stored.

use hitbox_core::{CacheKey, CacheValue, Scope};

use super::super::logical_clock::StartedAt;
use super::super::tokens::{EpochHome, Token, namespace_epoch_of, own_scopes, unique};
use super::Epochs;

/// What a write makes of its entry.
#[derive(Debug)]
pub(crate) enum Attach<T> {
    /// With the epochs of its scopes.
    Attached(CacheValue<T>),
    /// A scope of it has been invalidated since it started.
    Superseded,
    /// The store has to be asked for these, and given those that it does not have.
    Missing(CacheValue<T>, Vec<Scope>),
}

impl Epochs {
    /// Puts the epochs of its scopes to an entry that is about to be stored.
    #[inline]
    pub(crate) fn attach<T>(&self, key: &CacheKey, value: CacheValue<T>, started: StartedAt) -> Attach<T> {
        let home = self.home;
        let scopes = value.details().map_or(&[][..], |details| &details.scopes);
        let epoch = match home {
            _ if !scopes.is_empty() || key.has_namespace() => None,
            // Something new comes after what is under way.
            EpochHome::Process if !started.from_read => Some(self.known.epoch()),
            // What is read in another layer may not have been invalidated there yet.
            EpochHome::Process => self.known.settled_epoch(),
            // It may have been invalidated by others before the epoch was known here.
            _ if started.from_read => None,
            _ => self.known.settled_epoch(),
        };
        // An invalidation raises `latest` before it changes the epoch: if `latest` is old, the epoch is too. What is
        // invalidated from here on has the older epoch, and is not served.
        if let Some(epoch) = epoch
            && self.latest() <= started.tick
        {
            if epoch == 0 && !value.has_details() {
                return Attach::Attached(value);
            }
            return Attach::Attached(value.with_namespace_epoch(epoch));
        }
        self.attach_with(key, value, started, &[])
    }

    /// The same with epochs for those of its scopes that have none here. The store has not got them yet: they are nobody
    /// else's.
    pub(crate) fn attach_with<T>(
        &self,
        key: &CacheKey,
        value: CacheValue<T>,
        started: StartedAt,
        first: &[Scope],
    ) -> Attach<T> {
        let home = self.home;
        let scopes = value.details().map_or(&[][..], |details| &details.scopes);
        let table = self.read();
        let mut missing = Vec::new();
        let mut epochs = Vec::with_capacity(scopes.len() + 1);
        let needed = own_scopes(key).chain(scopes.iter().map(|scope| (scope.kind, &*scope.name)));
        for (kind, name) in needed {
            match table.token(kind, name, home) {
                Some(token) if token.is_since(started) => return Attach::Superseded,
                Some(Token { epoch: Some(epoch), .. }) => epochs.push(epoch),
                _ => match first.iter().find(|first| first.kind == kind && *first.name == *name) {
                    Some(first) => epochs.push(first.epoch),
                    None => missing.push(Scope::new(kind, name)),
                },
            }
        }
        drop(table);
        if !missing.is_empty() {
            return Attach::Missing(value, missing);
        }
        let own = epochs.len() - scopes.len();
        let namespace_epoch = namespace_epoch_of(epochs[..own].iter().copied());
        if scopes.is_empty() {
            return Attach::Attached(value.with_namespace_epoch(namespace_epoch));
        }
        let mut details = value.details().cloned().unwrap_or_default();
        for (scope, epoch) in details.scopes.iter_mut().zip(&epochs[own..]) {
            scope.epoch = *epoch;
        }
        Attach::Attached(value.with_details(details).with_namespace_epoch(namespace_epoch))
    }

    /// Epochs for scopes that have none, as far as is known. They are given if the store records them and has no others.
    pub(crate) fn first_of(scopes: Vec<Scope>) -> Vec<Scope> {
        scopes.into_iter().map(|scope| Scope { epoch: unique(), ..scope }).collect()
    }

    /// Whether one of these scopes has been invalidated since.
    pub(crate) fn is_superseded(&self, key: &CacheKey, scopes: &[Scope], started: StartedAt) -> bool {
        let home = self.home;
        let table = self.read();
        let mut needed = own_scopes(key).chain(scopes.iter().map(|scope| (scope.kind, &*scope.name)));
        needed.any(|(kind, name)| table.token(kind, name, home).is_some_and(|token| token.is_since(started)))
    }
}
