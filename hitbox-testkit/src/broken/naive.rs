//! The composition that one writes first: L1, else L2, and then what was found is written to L1.
//!
//! Its mistakes: errors of a layer or of the refill reach the caller; the refill is waited for, goes on top of what was
//! written meanwhile, starts a new life, and fills only the layer next to it; failed layers keep their older copy; a
//! delete stops at the first failure, and there is no taking out of the upper layer alone; an invalidation reaches the
//! upper layer only.

use std::sync::Arc;

use hitbox_backend::operation::{
    Answer, Answers, Content, Invalidation, LeafPosition, LeafSet, Removal, TryRead, Write,
};
use hitbox_backend::operation::{Batch, Completion, Receipts};
use hitbox_backend::wrap::Placement;
use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{Backend, CompositionBackend, ReadOptions, Receipt};
use hitbox_core::{BackendLabel, CacheKey, Lifetime, Offload};

/// L1 over L2, wrongly. What it does not do by itself is done by a right composition of the same layers.
pub struct Naive {
    l1: Arc<dyn Backend>,
    l2: Arc<dyn Backend>,
    label: BackendLabel,
    rest: Arc<dyn Backend>,
}

impl Naive {
    /// Composes two layers.
    pub fn new(l1: Arc<dyn Backend>, l2: Arc<dyn Backend>, label: &str, offload: Arc<dyn Offload>) -> Self {
        let rest = CompositionBackend::new(l1.clone(), l2.clone(), offload).with_label(label);
        Self::placed(l1, l2, label.into(), Arc::new(rest), 0)
    }

    fn placed(
        l1: Arc<dyn Backend>,
        l2: Arc<dyn Backend>,
        label: BackendLabel,
        rest: Arc<dyn Backend>,
        first: LeafPosition,
    ) -> Self {
        let l1 = l1.adopt(&Placement::new(label, first));
        let second = first.saturating_add(l1.layout().leaves().len() as LeafPosition);
        let l2 = l2.adopt(&Placement::new(label, second));
        Self { l1, l2, label, rest }
    }

    async fn read_one(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        let ask = async |layer: &Arc<dyn Backend>| {
            layer.read(std::slice::from_ref(key), options).await.into_one().unwrap_or(Ok(None))
        };
        if let Some(found) = ask(&self.l1).await? {
            return Ok(Some(found));
        }
        let Some(found) = ask(&self.l2).await? else { return Ok(None) };
        let refilled = found.value.clone().with_lifetime(Lifetime::FOREVER);
        write_one(&*self.l1, Write::new(key.clone(), refilled)).await.into_result()?;
        Ok(Some(found))
    }

    async fn write_to_both(&self, write: Write) -> Receipt {
        let Content::Entry(value) = write.content else { return Receipt::default() };
        let l1 = write_one(&*self.l1, Write::new(write.key.clone(), value.clone())).await;
        if write.condition.is_refill() {
            return l1;
        }
        let l2 = write_one(&*self.l2, Write::new(write.key, value)).await;
        let error = l1.error().filter(|_| !l2.is_ok()).cloned();
        l1.join(l2, error)
    }

    async fn remove_from_both(&self, key: &CacheKey) -> Receipt {
        let l1 = remove_one(&*self.l1, key).await;
        if !l1.is_ok() {
            return l1.with_error(None);
        }
        let l2 = remove_one(&*self.l2, key).await;
        l1.join(l2, None)
    }
}

async fn write_one(layer: &dyn Backend, write: Write) -> Receipt {
    layer.write(Batch::one(write)).await.into_one().unwrap_or_default()
}

async fn remove_one(layer: &dyn Backend, key: &CacheKey) -> Receipt {
    layer.remove(Batch::one(Removal::new(key.clone()))).await.into_one().unwrap_or_default()
}

impl Wrapper for Naive {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.rest
    }

    fn around(&self, rest: Arc<dyn Backend>) -> Arc<dyn Backend> {
        let first = rest.layout().leaves().first().map_or(0, |leaf| leaf.position());
        Arc::new(Self::placed(self.l1.clone(), self.l2.clone(), self.label, rest, first))
    }

    fn try_read(&self, _: &CacheKey, _: &ReadOptions) -> TryRead {
        TryRead::WouldWait(LeafSet::EMPTY)
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        Completion::later(async move {
            let mut answers = Answers::with_capacity(keys.len());
            for key in keys {
                answers.push(self.read_one(key, options).await);
            }
            answers
        })
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        Completion::later(async move {
            let mut receipts = Receipts::with_capacity(writes.len());
            for write in writes {
                receipts.push(self.write_to_both(write).await);
            }
            receipts
        })
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        Completion::later(async move {
            let mut receipts = Receipts::with_capacity(removals.len());
            for removal in removals {
                receipts.push(self.remove_from_both(&removal.key).await);
            }
            receipts
        })
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        self.l1.invalidate(invalidation)
    }
}
