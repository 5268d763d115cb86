//! Leaves that are wrong about what is known of entries: what they carry, what they are called, how many there are.

use std::sync::Arc;

use async_trait::async_trait;
use hitbox_backend::{
    Adoption, Answer, Backend, Capabilities, DeleteStatus, Event, Invalidation, Leaf, LeafLen, LeafOptions,
    LeafStatistics, Matched, Outcome, Presence, Raw, ReadOptions, Receipt, WriteOptions, forward,
};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Clock, KeyPattern, Limits, Scope};

use crate::MemoryBackend;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lapse {
    /// Invalidations are acknowledged and forgotten.
    IgnoresInvalidation,
    /// Keys are matched as texts, so that `1` means `10` too.
    MatchesText,
    /// Invalidation removes entries one by one.
    RemovesEach,
    /// Writes are stored, whenever they or their loads began.
    StoresLate,
    /// Every key that is looked at is counted as removed.
    CountsAll,
    /// An overwrite keeps the older tags.
    KeepsScopes,
    /// Versions are not compared.
    IgnoresVersions,
    /// A look counts as a read, and finds what is over.
    TellsOfExpired,
    /// Nothing is counted.
    CountsNothing,
    /// Every hit counts twice.
    CountsTwice,
    /// Entries whose time is over are counted as there.
    CountsExpired,
    /// Nothing is too large.
    TakesAnything,
    /// Deletes are acknowledged and forgotten.
    KeepsRemoved,
}

/// A leaf with one lapse.
#[derive(Clone)]
pub struct Lapsed {
    lapse: Lapse,
    store: MemoryBackend,
}

impl Lapsed {
    /// A map with this lapse.
    pub fn new(lapse: Lapse, clock: Arc<dyn Clock>) -> Self {
        let mut options = LeafOptions { clock, ..LeafOptions::new("memory") };
        if lapse == Lapse::TakesAnything {
            options.limits = Limits {
                key_bytes: u64::MAX,
                attributes_bytes: u64::MAX,
                metadata: u64::MAX,
                tags: u64::MAX,
                ..Limits::DEFAULT
            };
        }
        Self { lapse, store: MemoryBackend::with_options(options) }
    }

    fn own(&self) -> &Leaf {
        self.store.leaf().unwrap_or_else(|| unreachable!("a map has a leaf"))
    }

    fn stored(&self) -> Receipt {
        Receipt::of(self.own().path(), Outcome::Stored)
    }

    async fn keys(&self) -> BackendResult<Vec<CacheKey>> {
        Ok(self.store.enumerate(0, usize::MAX).await?.keys)
    }
}

#[async_trait]
impl Backend for Lapsed {
    forward!(self => self.store; store, sweep);

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        let value = match self.lapse {
            Lapse::StoresLate => {
                // With the epochs of the present, under another key, whose turn it is.
                let other = CacheKey::new("other");
                let receipt = self.store.write_with(&other, value, &WriteOptions::default()).await;
                if let Ok(Some(stamped)) = self.store.read(&other).await {
                    return match self.store.write(key, stamped).await {
                        Ok(()) => receipt,
                        Err(error) => Receipt::of(self.own().path(), Outcome::of_error(error)),
                    };
                }
                return receipt;
            }
            Lapse::KeepsScopes => {
                let older = self.store.read(key).await.ok().flatten();
                let mut details = value.details().cloned().unwrap_or_default();
                if let Some(older) = older.as_ref().and_then(|older| older.details()) {
                    details.scopes.extend(older.scopes.clone());
                }
                value.with_details(details)
            }
            _ => value,
        };
        self.store.write_with(key, value, options).await
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        if self.lapse == Lapse::KeepsRemoved {
            return Receipt::of(self.own().path(), Outcome::Removed);
        }
        self.store.remove_with(key, options).await
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        let answer = self.store.read_with(key, options).await;
        if let (Lapse::CountsTwice, Ok(Some(_))) = (self.lapse, &answer) {
            self.own().count(Event::Hit, 1);
        }
        answer
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        if self.lapse != Lapse::TellsOfExpired {
            return self.store.contains(key).await;
        }
        let stored = self.store.read(key).await?;
        self.own().count(Event::Present, 1);
        Ok(if stored.is_some() { Presence::Present } else { Presence::Absent })
    }

    async fn invalidate(&self, scopes: &[Scope], under: &Arc<Invalidation>) -> Receipt {
        match self.lapse {
            Lapse::IgnoresInvalidation => return self.stored(),
            Lapse::RemovesEach => {
                for key in self.keys().await.unwrap_or_default() {
                    drop(self.store.remove_with(&key, &WriteOptions::default()).await);
                }
            }
            _ => {}
        }
        self.store.invalidate(scopes, under).await
    }

    async fn remove_matching(&self, pattern: &KeyPattern, matched: &Matched) -> BackendResult<()> {
        if !matches!(self.lapse, Lapse::MatchesText | Lapse::CountsAll) {
            return self.store.remove_matching(pattern, matched).await;
        }
        for key in self.keys().await? {
            // As if a part went on without end.
            let text = CacheKey::builder(key.prefix()).part("p", "1").build();
            let by_text =
                key.parts().next().is_some_and(|part| part.value.is_some_and(|v| v.starts_with(b"1")));
            let is_meant = pattern.matches(&key) || (pattern.matches(&text) && by_text);
            if self.lapse == Lapse::CountsAll {
                matched.add(key.clone());
            }
            if is_meant {
                matched.add(key.clone());
                self.store.remove_with(&key, &WriteOptions::default()).await.into_result()?;
            }
        }
        Ok(())
    }

    async fn write_if_newer_with(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        options: &WriteOptions,
    ) -> Receipt {
        if self.lapse == Lapse::IgnoresVersions {
            return self.store.write_with(key, value, options).await;
        }
        self.store.write_if_newer_with(key, value, options).await
    }

    async fn lens(&self) -> Vec<LeafLen> {
        if self.lapse != Lapse::CountsExpired {
            return self.store.lens().await;
        }
        vec![LeafLen { label: self.own().path(), len: Ok(self.store.len() as u64) }]
    }

    fn statistics(&self) -> Vec<LeafStatistics> {
        if self.lapse == Lapse::CountsNothing {
            return vec![Leaf::new(LeafOptions::new("memory")).statistics(None)];
        }
        self.store.statistics()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.answers_at_once = false;
        capabilities
    }

    fn leaf(&self) -> Option<&Leaf> {
        self.store.leaf()
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { store: self.store.adopted_store(adoption), ..self.clone() }))
    }
}

/// The three methods that a backend has to have, and no more.
pub struct PlainMap(MemoryBackend);

impl PlainMap {
    /// An empty map.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(MemoryBackend::new(clock))
    }
}

#[async_trait]
impl Backend for PlainMap {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }
}
