//! A filter in front of a slow layer: it knows which keys the layer cannot have.

use std::sync::Arc;

use async_trait::async_trait;
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};

use crate::backend::{Adoption, Backend, Sweep, adopt};
use crate::capability::Capabilities;
use crate::coherence::filter::Filter;
use crate::envelope::Raw;
use crate::leaf::Leaf;
use crate::read::{Answer, Peek, Presence, ReadOptions, TryRead};
use crate::receipt::DeleteStatus;
use crate::stats::Event;
use crate::stream::BodyReader;

/// Keys that are listed at a time while the filter is filled.
const PAGE: usize = 10_000;

/// A leaf that is not asked for keys that it cannot have. There are no false negatives: every write of the store is
/// noted, through whichever handle it comes.
///
/// The filter is a Bloom filter (Bloom 1970) of ten bits for each expected key and seven hash functions, so that some
/// 0.8 % of the keys that are not there pass it while there are no more than expected. Deleted and evicted keys stay
/// in it until [`rebuild`](Self::rebuild); [`sweep`](Backend::sweep) does that when it holds twice the expected keys.
pub struct NegativeFilter {
    inner: Arc<dyn Backend>,
    filter: Arc<Filter>,
}

impl NegativeFilter {
    /// A filter for about `expected` keys, filled from the keys that the store has.
    ///
    /// # Errors
    /// [`Configuration`](ErrorKind::Configuration) for what is not one leaf, or is shared with other processes, whose
    /// writes are not seen here; [`Unsupported`](ErrorKind::Unsupported) for leaves that cannot list their keys.
    pub async fn new(inner: impl Backend, expected: u64) -> BackendResult<Self> {
        let inner: Arc<dyn Backend> = Arc::new(inner);
        let wrong = |message: &str| Err(BackendError::new(ErrorKind::Configuration, message));
        let leaves = inner.leaves();
        let [leaf] = &leaves[..] else { return wrong("a negative filter belongs in front of one leaf") };
        if inner.capabilities().shared {
            return wrong("a negative filter does not see what other processes write to a shared layer");
        }
        if leaf.is_anonymous() {
            return wrong("a negative filter does not see all writes of a backend without a leaf of its own");
        }
        if !inner.capabilities().enumerates {
            return Err(BackendError::unsupported("listing keys").at(leaf.path()));
        }
        let filter = leaf.coherence().filter(expected);
        let this = Self { inner, filter };
        this.rebuild().await?;
        Ok(this)
    }

    /// Bytes that the filter takes.
    pub fn memory_bytes(&self) -> u64 {
        self.filter.memory_bytes()
    }

    /// Fills the filter anew from the keys that the store has, so that those that are gone leave it. Until it is done
    /// the older one is used.
    ///
    /// # Errors
    /// Those of listing; the older filter stays.
    ///
    /// # Cancellation
    /// The older filter stays.
    pub async fn rebuild(&self) -> BackendResult<()> {
        let rebuild = self.filter.rebuild();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = self.inner.enumerate(from, PAGE).await?;
            cursor = page.next;
            // As the leaf knows them.
            page.keys.iter().for_each(|key| self.at_leaf(key, |key| rebuild.add(key)));
        }
        rebuild.finish();
        Ok(())
    }

    fn at_leaf(&self, key: &CacheKey, mut visit: impl FnMut(&CacheKey)) {
        self.inner.visit_leaves(key, &mut |_: &Leaf, key| visit(key));
    }

    /// Whether the leaf cannot have the key.
    fn excludes(&self, key: &CacheKey) -> bool {
        let mut may_have = false;
        self.inner.visit_leaves(key, &mut |leaf, key| {
            may_have = self.filter.may_have(key);
            if !may_have {
                leaf.count(Event::Filtered, 1);
                leaf.count(Event::Miss, 1);
            }
        });
        !may_have
    }

    /// The store was asked and had nothing.
    fn in_vain(&self, key: &CacheKey, options: &ReadOptions) {
        self.inner.visit_leaves(key, &mut |leaf, _| {
            if !options.skip.contains(leaf.position()) {
                leaf.count(Event::FalsePositive, 1);
            }
        });
    }
}

#[async_trait]
impl Backend for NegativeFilter {
    crate::forward!(self => self.inner; writes);

    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        if self.excludes(key) { Ok(None) } else { self.inner.read(key).await }
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.at_leaf(key, |key| self.filter.add(key));
        self.inner.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.inner.remove(key).await
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.inner.peek(key).await
    }

    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<crate::backend::Page> {
        self.inner.enumerate(cursor, limit).await
    }

    async fn entry_count(&self) -> BackendResult<u64> {
        self.inner.entry_count().await
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        if self.excludes(key) { TryRead::Miss } else { self.inner.try_read(key, options) }
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        if self.excludes(key) {
            return Ok(None);
        }
        let answer = self.inner.read_with(key, options).await;
        if matches!(answer, Ok(None)) {
            self.in_vain(key, options);
        }
        answer
    }

    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        let passing: Vec<bool> = keys.iter().map(|key| !self.excludes(key)).collect();
        let asked: Vec<CacheKey> =
            keys.iter().zip(&passing).filter(|(_, passes)| **passes).map(|(key, _)| key.clone()).collect();
        let mut answers = self.inner.read_many(&asked, options).await.into_iter();
        let answer = |passes: &bool| if *passes { answers.next() } else { None };
        passing.iter().map(answer).map(|answer| answer.unwrap_or(Ok(None))).collect()
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        let mut may_have = false;
        self.at_leaf(key, |key| may_have = self.filter.may_have(key));
        if may_have { self.inner.contains(key).await } else { Ok(Presence::Absent) }
    }

    async fn open_reader(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn BodyReader>>> {
        self.inner.open_reader(key, options).await
    }

    /// Rebuilds the filter too, if it holds too many keys that may be gone.
    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let sweep = self.inner.sweep(limit).await?;
        if self.filter.is_overfull() {
            self.rebuild().await?;
        }
        Ok(sweep)
    }

    crate::forward!(self => self.inner; maintenance);

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { inner: adopt(&self.inner, adoption), filter: self.filter.clone() }))
    }
}
