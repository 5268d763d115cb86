//! A filter in front of a slow layer: it knows which keys the layer cannot have.

use std::sync::Arc;

use hitbox_core::{BackendError, BackendResult, CacheKey, ErrorKind};

use super::{Wrapper, forward};
use crate::backend::Backend;
use crate::coherence::filter::Filter;
use crate::completion::Completion;
use crate::into::IntoBackend;
use crate::layout::LeafInfo;
use crate::operation::{Answers, Maintained, Maintenance, Presence, ReadOptions, TryRead};
use crate::stats::Event;

/// Keys that are listed at a time while the filter is filled.
const PAGE: usize = 10_000;

/// A leaf that is not asked for keys that it cannot have. There are no false negatives: every write of the store is
/// noted, through whichever handle it comes.
///
/// The filter is a Bloom filter (Bloom 1970) of ten bits for each expected key and seven hash functions, so that some
/// 0.8 % of the keys that are not there pass it while there are no more than expected. Deleted and evicted keys stay
/// in it until [`rebuild`](Self::rebuild); a sweep does that when it holds twice the expected keys.
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
    pub async fn new<Kind>(inner: impl IntoBackend<Kind>, expected: u64) -> BackendResult<Self> {
        Self::of(inner.into_shared(), expected).await
    }

    pub(super) async fn of(inner: Arc<dyn Backend>, expected: u64) -> BackendResult<Self> {
        let wrong = |message: &str| Err(BackendError::new(ErrorKind::Configuration, message));
        let layout = inner.layout().clone();
        let [leaf] = layout.leaves() else { return wrong("a negative filter belongs in front of one leaf") };
        if layout.capabilities().shared {
            return wrong("a negative filter does not see what other processes write to a shared layer");
        }
        if !layout.capabilities().enumerates {
            return Err(BackendError::unsupported("listing keys").at(leaf.path()));
        }
        let filter = leaf.handle().coherence().filter(expected);
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
            let work = Maintenance::List { cursor: from, limit: PAGE };
            let page = self.inner.maintain(&work).await?.into_listed()?;
            cursor = page.next;
            // As the leaf knows them.
            let leaves = self.inner.layout().leaves();
            page.keys.iter().for_each(|key| leaves.iter().for_each(|leaf| rebuild.add(&leaf.key(key))));
        }
        rebuild.finish();
        Ok(())
    }

    fn leaf(&self) -> Option<&LeafInfo> {
        self.inner.layout().leaves().first()
    }

    fn may_have(&self, key: &CacheKey) -> bool {
        self.leaf().is_none_or(|leaf| self.filter.may_have(&leaf.key(key)))
    }

    /// Whether the leaf cannot have the key, which is counted.
    fn rejects(&self, key: &CacheKey, options: &ReadOptions) -> bool {
        if self.may_have(key) {
            return false;
        }
        if let Some(leaf) = self.leaf().filter(|leaf| !options.skip.contains(leaf.position())) {
            leaf.handle().count_read(Event::Filtered, options);
            leaf.handle().count_read(Event::Miss, options);
        }
        true
    }

    /// The store was asked and had nothing.
    fn count_false_positive(&self, options: &ReadOptions) {
        if let Some(leaf) = self.leaf().filter(|leaf| !options.skip.contains(leaf.position())) {
            leaf.handle().count_read(Event::FalsePositive, options);
        }
    }

    async fn read_passing(&self, keys: &[CacheKey], options: &ReadOptions) -> Answers {
        let passing: Vec<bool> = keys.iter().map(|key| !self.rejects(key, options)).collect();
        let passed = keys.iter().zip(&passing).filter(|(_, passes)| **passes);
        let asked: Vec<CacheKey> = passed.map(|(key, _)| key.clone()).collect();
        let answers =
            if asked.is_empty() { Answers::default() } else { self.inner.read(&asked, options).await };
        let mut answers = answers.into_iter();
        let answer = |passes: bool| {
            let answer = if passes { answers.next().unwrap_or(Ok(None)) } else { return Ok(None) };
            if matches!(answer, Ok(None)) {
                self.count_false_positive(options);
            }
            answer
        };
        passing.into_iter().map(answer).collect()
    }

    /// Rebuilds the filter after a sweep, if it holds too many keys that may be gone.
    async fn sweep(&self, work: &Maintenance) -> BackendResult<Maintained> {
        let swept = self.inner.maintain(work).await?;
        if self.filter.is_overfull() {
            self.rebuild().await?;
        }
        Ok(swept)
    }
}

impl Wrapper for NegativeFilter {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, filter: self.filter.clone() })
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        if self.rejects(key, options) {
            return TryRead::Miss;
        }
        let answer = self.inner.try_read(key, options);
        if matches!(answer, TryRead::Miss) {
            self.count_false_positive(options);
        }
        answer
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        Completion::later(self.read_passing(keys, options))
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        if self.may_have(key) {
            return forward::contains(self, key);
        }
        if let Some(leaf) = self.leaf() {
            leaf.handle().count(Event::Absent, 1);
        }
        Completion::Done(Ok(Presence::Absent))
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        match work {
            Maintenance::Sweep { .. } => Completion::later(self.sweep(work)),
            work => forward::maintain(self, work),
        }
    }
}
