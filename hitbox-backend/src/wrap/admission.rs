//! Which entries a layer takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_core::{BackendResult, CacheKey, CacheValue, Priority};

use super::{Offer, Wrapper, forward};
use crate::backend::Backend;
use crate::completion::{Batch, Completion};
use crate::into::IntoBackend;
use crate::key_frequency::KeyFrequency;
use crate::operation::{Removal, WriteOptions};
use crate::receipt::{Receipt, Receipts};
use crate::store::WrittenPart;
use crate::stream::BodyWriter;

/// Which entries a layer takes, by writes and refills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdmissionRule {
    /// All.
    #[default]
    Always,
    /// None: what is written goes to the other layer only.
    Never,
    /// Those of at most so many bytes, estimated for values that are not encoded.
    UpTo(u64),
    /// A key's n-th that is offered since it was last deleted, and those after it; 2 keeps keys out that are asked for
    /// once. The counts of some 65,000 keys are kept.
    NthRequest(u32),
    /// Those of this priority and of higher ones.
    From(Priority),
}

/// A backend that takes only some entries. What it does not take still ends what it has under that key: an older copy
/// is removed.
pub struct Admission {
    inner: Arc<dyn Backend>,
    rule: AdmissionRule,
    offers: Arc<KeyFrequency>,
}

impl Admission {
    /// Lets into `inner` what the rule says.
    pub fn new<Kind>(inner: impl IntoBackend<Kind>, rule: AdmissionRule) -> Self {
        Self { inner: inner.into_shared(), rule, offers: Arc::default() }
    }
}

impl Wrapper for Admission {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, rule: self.rule, offers: self.offers.clone() })
    }

    fn admits(&self, key: &CacheKey, offer: &Offer<'_>) -> bool {
        match self.rule {
            AdmissionRule::Always => true,
            AdmissionRule::Never => false,
            AdmissionRule::UpTo(limit) => offer.size().is_none_or(|size| size <= limit),
            AdmissionRule::NthRequest(n) => self.offers.count(key) >= n,
            AdmissionRule::From(lowest) => {
                offer.entry().details().map_or(Priority::Normal, |details| details.priority) >= lowest
            }
        }
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        if matches!(self.rule, AdmissionRule::NthRequest(_)) {
            removals.iter().for_each(|removal| self.offers.forget(&removal.key));
        }
        forward::remove(self, removals)
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        let opened = forward::open_writer(self, key, entry, options);
        let AdmissionRule::UpTo(limit) = self.rule else { return opened };
        opened.map(move |writer| {
            let (writer, is_over) = (writer?, Arc::default());
            Ok(Box::new(UpTo { writer, size: 0, limit, is_over }) as Box<dyn BodyWriter>)
        })
    }
}

/// Takes a body up to a size; when it turns out larger it is not admitted.
struct UpTo {
    writer: Box<dyn BodyWriter>,
    size: u64,
    limit: u64,
    is_over: Arc<AtomicBool>,
}

/// What has been written of it, as long as it is not larger.
struct WrittenUpTo {
    part: Arc<dyn WrittenPart>,
    is_over: Arc<AtomicBool>,
}

#[async_trait]
impl WrittenPart for WrittenUpTo {
    fn readable(&self) -> u64 {
        self.part.readable()
    }

    fn has_ended(&self) -> bool {
        self.is_over.load(Ordering::Acquire) || self.part.has_ended()
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        self.part.read_at(at, limit).await
    }
}

#[async_trait]
impl BodyWriter for UpTo {
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()> {
        self.size += chunk.len() as u64;
        if self.size > self.limit {
            if !self.is_over.swap(true, Ordering::AcqRel) {
                self.writer.let_go();
            }
            return Ok(());
        }
        self.writer.chunk(chunk).await
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        let (part, is_over) = (self.writer.written()?, self.is_over.clone());
        Some(Arc::new(WrittenUpTo { part, is_over }))
    }

    fn let_go(&mut self) {
        self.writer.let_go();
    }

    async fn finish(self: Box<Self>) -> Receipt {
        if self.size > self.limit { self.writer.leave_out().await } else { self.writer.finish().await }
    }

    async fn abort(self: Box<Self>) {
        self.writer.abort().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        self.writer.leave_out().await
    }
}
