//! Leaves that are wrong about what is known of entries: what they carry, what they are called, how many there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::internal::Event;
use hitbox_backend::operation::{
    Answers, Condition, Content, Invalidation, InvalidationTarget, Maintained, Maintenance, Removal, Write,
};
use hitbox_backend::operation::{Batch, Completion, Presence, Receipts};
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::{DeleteStatus, Raw, Store};
use hitbox_backend::wrap::{Layout, LeafInfo, Wrapper, forward};
use hitbox_backend::{Backend, EntryCount, Leaf, LeafOutcome, ReadOptions, Receipt};
use hitbox_core::{BackendLabel, BackendResult, CacheKey, CacheValue, Clock, KeyPattern, Limits};

use super::leaf::SpoiltStore;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lapse {
    /// Invalidations are acknowledged and forgotten.
    IgnoresInvalidation,
    /// Keys are matched as texts, so that `1` means `10` too.
    MatchesText,
    /// Invalidation removes entries one by one.
    RemovesEach,
    /// Writes are stored, whenever they or their loads started.
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
}

/// A leaf with one lapse.
#[derive(Clone)]
pub struct Lapsed {
    lapse: Lapse,
    store: Arc<SpoiltStore>,
    inner: Arc<dyn Backend>,
    /// A layout of its own, of a leaf that nobody uses.
    other: Option<Layout>,
}

impl Lapsed {
    /// A map with this lapse.
    pub fn new(lapse: Lapse, clock: Arc<dyn Clock>) -> Self {
        let mut options = LeafOptions::new("memory").with_clock(clock.clone());
        if lapse == Lapse::TakesAnything {
            options.limits = Limits {
                key_bytes: u64::MAX,
                attributes_bytes: u64::MAX,
                metadata: u64::MAX,
                tags: u64::MAX,
                ..Limits::DEFAULT
            };
        }
        let store = Arc::new(SpoiltStore::new(None, clock.clone()));
        let other = (lapse == Lapse::CountsNothing).then(|| {
            let idle = Leaf::new(SpoiltStore::new(None, clock), options.clone());
            idle.layout().clone()
        });
        let inner = Arc::new(Leaf::of(store.clone(), options));
        Self { lapse, store, inner, other }
    }

    fn leaf(&self) -> Option<&LeafInfo> {
        self.inner.layout().leaves().first()
    }

    fn label(&self) -> BackendLabel {
        self.leaf().map_or("memory".into(), LeafInfo::path)
    }

    fn count(&self, event: Event) {
        if let Some(leaf) = self.leaf() {
            leaf.handle().count(event, 1);
        }
    }

    fn stored(&self) -> Receipt {
        Receipt::of(self.label(), LeafOutcome::Stored)
    }

    async fn keys(&self) -> Vec<CacheKey> {
        self.store.keys(0, usize::MAX).await.map(|page| page.keys).unwrap_or_default()
    }

    async fn remove_key(&self, key: CacheKey) -> Receipt {
        self.inner.remove(Batch::one(Removal::new(key))).await.into_one().unwrap_or_default()
    }

    /// With the epochs of the present, as another key has them.
    async fn store_late(&self, key: CacheKey, value: CacheValue<Raw>) -> Receipt {
        let other = CacheKey::new("other");
        let receipt = self.inner.write(Batch::one(Write::new(other.clone(), value))).await;
        if let Ok(Some(attached)) = self.store.read(&other).await
            && let Err(error) = self.store.write(&key, attached).await
        {
            return Receipt::of(self.label(), LeafOutcome::of_error(error));
        }
        receipt.into_one().unwrap_or_default()
    }

    async fn write_one(&self, mut write: Write) -> Receipt {
        match (self.lapse, write.content) {
            (Lapse::StoresLate, Content::Entry(value)) if !write.condition.is_refill() => {
                return self.store_late(write.key, value).await;
            }
            (Lapse::KeepsScopes, Content::Entry(value)) => {
                let older = self.store.read(&write.key).await.ok().flatten();
                let mut details = value.details().cloned().unwrap_or_default();
                if let Some(older) = older.as_ref().and_then(|older| older.details()) {
                    details.scopes.extend(older.scopes.clone());
                }
                write.content = Content::Entry(value.with_details(details));
            }
            (_, content) => write.content = content,
        }
        if self.lapse == Lapse::IgnoresVersions && matches!(write.condition, Condition::IfNewer(_)) {
            write.condition = Condition::Always;
        }
        self.inner.write(Batch::one(write)).await.into_one().unwrap_or_default()
    }

    async fn invalidate_matching(&self, pattern: &KeyPattern, invalidation: &Invalidation) -> Receipt {
        for key in self.keys().await {
            // As if a part went on without end.
            let text = CacheKey::builder(key.prefix()).part("p", "1").build();
            let by_text =
                key.parts().next().is_some_and(|part| part.value.is_some_and(|v| v.starts_with(b"1")));
            let is_meant = pattern.matches(&key) || (pattern.matches(&text) && by_text);
            if is_meant || self.lapse == Lapse::CountsAll {
                invalidation.count_removed(key.clone());
            }
            if is_meant {
                drop(self.remove_key(key).await);
            }
        }
        self.stored()
    }
}

impl Wrapper for Lapsed {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, ..self.clone() })
    }

    fn layout(&self) -> &Layout {
        self.other.as_ref().unwrap_or_else(|| self.inner.layout())
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        let answers = forward::read(self, keys, options);
        if self.lapse != Lapse::CountsTwice {
            return answers;
        }
        answers.map(|answers| {
            let hits = answers.iter().filter(|answer| matches!(answer, Ok(Some(_)))).count();
            (0..hits).for_each(|_| self.count(Event::Hit));
            answers
        })
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        if self.lapse != Lapse::TellsOfExpired {
            return forward::contains(self, key);
        }
        Completion::later(async move {
            let stored = self.store.read(key).await?;
            self.count(Event::Present);
            Ok(if stored.is_some() { Presence::Present } else { Presence::Absent })
        })
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        if !matches!(self.lapse, Lapse::StoresLate | Lapse::KeepsScopes | Lapse::IgnoresVersions) {
            return forward::write(self, writes);
        }
        Completion::later(async move {
            let mut receipts = Receipts::with_capacity(writes.len());
            for write in writes {
                receipts.push(self.write_one(write).await);
            }
            receipts
        })
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        match (self.lapse, invalidation.target()) {
            (Lapse::MatchesText | Lapse::CountsAll, InvalidationTarget::Matching(pattern)) => {
                Completion::later(self.invalidate_matching(pattern, invalidation))
            }
            (Lapse::IgnoresInvalidation, InvalidationTarget::Scopes(_)) => Completion::Done(self.stored()),
            (Lapse::RemovesEach, InvalidationTarget::Scopes(_)) => Completion::later(async move {
                for key in self.keys().await {
                    drop(self.remove_key(key).await);
                }
                forward::invalidate(self, invalidation).await
            }),
            _ => forward::invalidate(self, invalidation),
        }
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        if (self.lapse, work) == (Lapse::CountsExpired, &Maintenance::Count) {
            let count = EntryCount::new(self.label(), Ok(self.store.len() as u64));
            return Completion::Done(Ok(Maintained::Counted(vec![count])));
        }
        forward::maintain(self, work)
    }
}

/// The three methods that a store has to have, and no more: records in a map.
#[derive(Debug, Default)]
pub struct PlainMap(Mutex<HashMap<CacheKey, Bytes>>);

impl PlainMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// The leaf of an empty map, labelled `plain`, on this clock.
    pub fn leaf(clock: Arc<dyn Clock>) -> Leaf<Self> {
        Leaf::new(Self::new(), LeafOptions::new("plain").with_clock(clock))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for PlainMap {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.lock().get(key).cloned().map(Raw::record))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let record = Raw::to_record(key, &value)?;
        self.lock().insert(key.clone(), record.into());
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::of(u32::from(self.lock().remove(key).is_some())))
    }
}
