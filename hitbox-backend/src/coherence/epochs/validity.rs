//! Whether an entry is still valid: nothing that it carries (tags, dependencies, its namespace, "everything") has been
//! invalidated since it was written.

use hitbox_core::{CacheKey, CacheValue};

use super::super::tokens::EpochHome;
use super::Epochs;

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Valid,
    Invalid,
    /// The store has to be asked for an epoch.
    NeedEpochs,
}

impl Epochs {
    /// Whether an entry of this store has been invalidated. Where the epochs are believed for a limited time that must
    /// have been seen to before.
    pub(crate) fn validity<T>(&self, key: &CacheKey, value: &CacheValue<T>) -> Validity {
        if self.held_against(key).means(value) {
            return Validity::Invalid;
        }
        let home = self.home;
        let scopes = value.details().map_or(&[][..], |details| &details.scopes);
        if scopes.is_empty() && value.namespace_epoch() == self.known.epoch() && !key.has_namespace() {
            let is_known = home == EpochHome::Process || value.namespace_epoch() != 0;
            if is_known {
                return Validity::Valid;
            }
        }
        let latest = self.latest();
        // What was found current after the last change is so still.
        if value.details().is_some_and(|details| details.last_valid.get() == latest) {
            return Validity::Valid;
        }
        let table = self.read();
        match table.namespace_epoch(key, home) {
            None => return Validity::NeedEpochs,
            Some(namespace_epoch) if namespace_epoch != value.namespace_epoch() => return Validity::Invalid,
            Some(_) => {}
        }
        let Some(details) = value.details() else { return Validity::Valid };
        let mut validity = Validity::Valid;
        for scope in scopes {
            match table.token(scope.kind, &scope.name, home) {
                None => validity = Validity::NeedEpochs,
                Some(token) if token.epoch != Some(scope.epoch) => return Validity::Invalid,
                Some(_) => {}
            }
        }
        if validity == Validity::Valid {
            details.last_valid.set(latest);
        }
        validity
    }
}
