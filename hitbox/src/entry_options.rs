//! What calls and loaders have to say about an entry beside its value and its lifetime.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hitbox_core::{Details, Priority, Scope};

/// What is kept with an entry beside its value and its lifetime.
#[derive(Clone, Debug, Default)]
pub(crate) struct EntryOptions {
    pub(crate) load_time: Option<Duration>,
    pub(crate) version: Option<u64>,
    pub(crate) priority: Option<Priority>,
    pub(crate) metadata: BTreeMap<String, Bytes>,
    pub(crate) scopes: Vec<Scope>,
    /// The end of served is an instant that was named.
    pub(crate) absolute_end: bool,
}

impl EntryOptions {
    pub(crate) const NONE: Self = Self {
        load_time: None,
        version: None,
        priority: None,
        metadata: BTreeMap::new(),
        scopes: Vec::new(),
        absolute_end: false,
    };

    /// The entry carries this scope.
    pub(crate) fn add_scope(&mut self, scope: Scope) {
        if !self.scopes.contains(&scope) {
            self.scopes.push(scope);
        }
    }

    pub(crate) fn add_metadata(&mut self, name: &str, value: &[u8]) {
        self.metadata.insert(name.to_owned(), Bytes::copy_from_slice(value));
    }

    /// The same, with what the others say that these do not.
    pub(crate) fn or(mut self, others: &Self) -> Self {
        self.version = self.version.or(others.version);
        self.priority = self.priority.or(others.priority);
        for (name, value) in &others.metadata {
            self.metadata.entry(name.clone()).or_insert_with(|| value.clone());
        }
        others.scopes.iter().for_each(|scope| self.add_scope(scope.clone()));
        self
    }

    /// What is kept beside the value for those who wait for a load, if there is anything.
    pub(crate) fn details(&self) -> Option<Arc<Details>> {
        let mut details = Details::default();
        details.metadata.clone_from(&self.metadata);
        details.version = self.version;
        details.scopes.clone_from(&self.scopes);
        (details != Details::default()).then(|| Arc::new(details))
    }

    /// What an entry that is stored says of itself.
    pub(crate) fn of(details: &Details) -> Self {
        Self {
            load_time: None,
            version: details.version,
            priority: Some(details.priority),
            metadata: details.metadata.clone(),
            scopes: details.scopes.clone(),
            absolute_end: false,
        }
    }
}
