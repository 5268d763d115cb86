//! The namespaces that entries of a store are in, as far as this process has written them: a store tells a limited number
//! of them apart. One is given back when its entries are over by their times, or have been invalidated, or when a listing
//! of the store does not find any. What is counted wrong is no error of entries: it costs or gives room.

use std::collections::{HashMap, HashSet};

use hitbox_core::{CacheKey, Scope, ScopeKind, Timestamp};

use super::tokens::own_scopes;

#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// Until when an entry may be there; `None` is for ever.
    ends: HashMap<Box<str>, Option<Timestamp>>,
    /// While the store is listed: what was found so far, and what has been written meanwhile.
    found: Option<HashSet<Box<str>>>,
}

/// The namespaces of a key, outermost first.
fn names(key: &CacheKey) -> impl Iterator<Item = &str> {
    own_scopes(key).filter(|(kind, _)| *kind == ScopeKind::Namespace).map(|(_, name)| name)
}

/// Whether something lives as long as an entry, or longer.
fn covers(until: Option<Timestamp>, end: Option<Timestamp>) -> bool {
    until.is_none_or(|until| end.is_some_and(|end| end <= until))
}

impl Namespaces {
    /// Whether all is known that an entry with this end says.
    pub(super) fn knows(&self, key: &CacheKey, end: Option<Timestamp>) -> bool {
        let is_found = |name| self.found.as_ref().is_none_or(|found| found.contains(name));
        let is_known = |name| self.ends.get(name).is_some_and(|until| covers(*until, end));
        names(key).all(|name| is_known(name) && is_found(name))
    }

    /// Notes the namespaces of an entry that is about to be stored, unless they would be more than `limit`: then it says
    /// how many.
    pub(super) fn admit(
        &mut self,
        key: &CacheKey,
        end: Option<Timestamp>,
        now: Timestamp,
        limit: u64,
    ) -> Result<(), u64> {
        let count = |ends: &HashMap<Box<str>, Option<Timestamp>>| {
            (ends.len() + names(key).filter(|name| !ends.contains_key(*name)).count()) as u64
        };
        if count(&self.ends) > limit {
            self.ends.retain(|_, until| until.is_none_or(|until| until > now));
        }
        // Those that are there already count as admitted, whatever the limit is.
        let is_new = names(key).any(|name| !self.ends.contains_key(name));
        if is_new && count(&self.ends) > limit {
            return Err(count(&self.ends));
        }
        // For some time ahead, so that not every write has to be noted.
        let until = end.map(|end| end + end.since(now));
        for name in names(key) {
            match self.ends.get_mut(name) {
                Some(known) if covers(*known, end) => {}
                Some(known) => *known = until,
                None => drop(self.ends.insert(name.into(), until)),
            }
            if let Some(found) = &mut self.found {
                found.insert(name.into());
            }
        }
        Ok(())
    }

    /// All entries of a scope have been invalidated.
    pub(super) fn end(&mut self, scope: &Scope) {
        match scope.kind {
            ScopeKind::Everything => self.ends.clear(),
            ScopeKind::Namespace => {
                let is_within = |name: &str| {
                    name.strip_prefix(&*scope.name)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                self.ends.retain(|name, _| !is_within(name));
            }
            _ => {}
        }
    }

    /// The store is being listed.
    pub(super) fn begin_listing(&mut self) {
        self.found = Some(HashSet::new());
    }

    /// A part of the store has these keys.
    pub(super) fn list(&mut self, keys: &[CacheKey]) {
        if let Some(found) = &mut self.found {
            let ours = keys.iter().flat_map(names).filter(|name| self.ends.contains_key(*name));
            for name in ours {
                if !found.contains(name) {
                    found.insert(name.into());
                }
            }
        }
    }

    /// The store has been listed: what was not found is not there.
    pub(super) fn end_listing(&mut self) {
        if let Some(found) = self.found.take() {
            self.ends.retain(|name, _| found.contains(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use hitbox_core::{CacheKey, Scope, Timestamp};

    use super::Namespaces;

    fn key(namespace: &str) -> CacheKey {
        CacheKey::new("key").in_namespace(namespace)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_namespace_is_given_back_when_its_time_is_over() {
        let mut namespaces = Namespaces::default();
        namespaces.admit(&key("a"), Some(at(100)), at(0), 2).expect("the first");
        namespaces.admit(&key("b"), None, at(0), 2).expect("the second");
        assert_eq!(namespaces.admit(&key("c"), None, at(100), 2), Err(3));
        assert!(namespaces.knows(&key("a"), Some(at(150))) && !namespaces.knows(&key("a"), Some(at(201))));
        // A later entry keeps it for longer.
        namespaces.admit(&key("a"), Some(at(300)), at(100), 2).expect("a known one");
        assert_eq!(namespaces.admit(&key("c"), None, at(499), 2), Err(3));
        namespaces.admit(&key("c"), None, at(500), 2).expect("in the place of a");
        assert_eq!(namespaces.admit(&key("a"), Some(at(900)), at(500), 2), Err(3));
    }

    #[test]
    fn nested_ones_count_and_end_with_the_outer_one() {
        let mut namespaces = Namespaces::default();
        let nested = key("b").in_namespace("a");
        assert_eq!(namespaces.admit(&nested, None, at(0), 1), Err(2));
        namespaces.admit(&nested, None, at(0), 2).expect("both");
        namespaces.end(&Scope::namespace("a/c"));
        namespaces.end(&Scope::namespace("a/"));
        assert!(namespaces.knows(&nested, None));
        namespaces.end(&Scope::namespace("a"));
        namespaces.admit(&key("ab"), None, at(0), 1).expect("none is there");
        namespaces.end(&Scope::namespace("a"));
        assert!(namespaces.knows(&key("ab"), None));
        namespaces.end(&Scope::everything());
        assert!(!namespaces.knows(&key("ab"), None));
    }

    #[test]
    fn a_listing_gives_back_what_it_does_not_find() {
        let mut namespaces = Namespaces::default();
        for name in ["a", "b", "c"] {
            namespaces.admit(&key(name), None, at(0), 4).expect("room");
        }
        namespaces.begin_listing();
        namespaces.list(&[key("b"), CacheKey::new("no namespace")]);
        // Written while it goes on, behind the place where it is.
        namespaces.admit(&key("c"), None, at(0), 4).expect("a known one");
        namespaces.admit(&key("d"), None, at(0), 4).expect("room");
        namespaces.end_listing();
        assert!(["b", "c", "d"].iter().all(|name| namespaces.knows(&key(name), None)));
        assert!(!namespaces.knows(&key("a"), None));
    }
}
