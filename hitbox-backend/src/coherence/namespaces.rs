//! The namespaces that entries of a store are in, as far as this process has written them: a store tells a limited number
//! of them apart. One is given back when its entries are over by their times, or have been invalidated, or when a listing
//! of the store does not find any. What is counted wrong is no error of entries: it costs or gives room.

use std::collections::BTreeMap;

use hitbox_core::{CacheKey, Scope, ScopeKind, Timestamp};

use super::tokens::own_scopes;

#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// In their order, so that those within another stand together.
    names: BTreeMap<Box<str>, Known>,
    /// None is over before this.
    next_end: Option<Timestamp>,
    /// The store is being listed, and has reported some of what is there.
    is_listed: bool,
}

#[derive(Debug)]
struct Known {
    /// Until when an entry may be there; `None` is for ever.
    until: Option<Timestamp>,
    /// The listing has found an entry, or one has been written since it began.
    is_found: bool,
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
        let is_noted = |known: &Known| covers(known.until, end) && (known.is_found || !self.is_listed);
        names(key).all(|name| self.names.get(name).is_some_and(is_noted))
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
        let mut new = self.new_names(key);
        if new > 0 && (self.names.len() + new) as u64 > limit {
            self.drop_what_is_over(now);
            new = self.new_names(key);
            let count = (self.names.len() + new) as u64;
            // Those that are there already count as admitted, whatever the limit is.
            if new > 0 && count > limit {
                return Err(count);
            }
        }
        // For some time ahead, so that not every write has to be noted.
        let until = end.map(|end| end + end.since(now));
        if let Some(until) = until {
            self.next_end = Some(self.next_end.map_or(until, |next| next.min(until)));
        }
        for name in names(key) {
            match self.names.get_mut(name) {
                Some(known) => {
                    known.is_found = true;
                    if !covers(known.until, end) {
                        known.until = until;
                    }
                }
                None => drop(self.names.insert(name.into(), Known { until, is_found: true })),
            }
        }
        Ok(())
    }

    fn new_names(&self, key: &CacheKey) -> usize {
        names(key).filter(|name| !self.names.contains_key(*name)).count()
    }

    fn drop_what_is_over(&mut self, now: Timestamp) {
        if self.next_end.is_none_or(|next| next > now) {
            return;
        }
        self.names.retain(|_, known| known.until.is_none_or(|until| until > now));
        self.next_end = self.names.values().filter_map(|known| known.until).min();
    }

    /// All entries of a scope have been invalidated.
    pub(super) fn end(&mut self, scope: &Scope) {
        match scope.kind {
            ScopeKind::Everything => self.names.clear(),
            ScopeKind::Namespace => {
                self.names.remove(&scope.name);
                let within: Box<str> = format!("{}/", scope.name).into();
                let all = self.names.range(within.clone()..).map(|(name, _)| name);
                let all: Vec<Box<str>> = all.take_while(|name| name.starts_with(&*within)).cloned().collect();
                for name in all {
                    self.names.remove(&name);
                }
            }
            _ => {}
        }
    }

    /// The store is being listed.
    pub(super) fn begin_listing(&mut self) {
        self.is_listed = true;
        self.names.values_mut().for_each(|known| known.is_found = false);
    }

    /// A part of the store has these keys.
    pub(super) fn list(&mut self, keys: &[CacheKey]) {
        for name in keys.iter().flat_map(names) {
            if let Some(known) = self.names.get_mut(name) {
                known.is_found = true;
            }
        }
    }

    /// The store has been listed: what was not found is not there.
    pub(super) fn end_listing(&mut self) {
        self.is_listed = false;
        self.names.retain(|_, known| known.is_found);
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
        assert!(!namespaces.knows(&key("c"), None), "it may not be there any more");
        namespaces.list(&[key("b"), CacheKey::new("no namespace")]);
        // Written while it goes on, behind the place where it is.
        namespaces.admit(&key("c"), None, at(0), 4).expect("a known one");
        namespaces.admit(&key("d"), None, at(0), 4).expect("room");
        namespaces.end_listing();
        assert!(["b", "c", "d"].iter().all(|name| namespaces.knows(&key(name), None)));
        assert!(!namespaces.knows(&key("a"), None));
    }
}
