//! Which entries a layer takes.

use std::sync::Arc;

use async_trait::async_trait;
use hitbox_core::{CacheKey, CacheValue, Priority};

use crate::backend::{Adoption, Backend, RemoveItem, WriteItem, WriteOptions, adopt};
use crate::coherence::Ticket;
use crate::envelope::Raw;
use crate::hits::HitCounts;
use crate::leaf::Leaf;
use crate::receipt::{Outcome, Receipt};
use crate::stats::Event;

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
    offers: Arc<HitCounts>,
}

impl Admission {
    /// Lets into `inner` what the rule says.
    pub fn new(inner: impl Backend, rule: AdmissionRule) -> Self {
        Self { inner: Arc::new(inner), rule, offers: Arc::default() }
    }

    fn admits(&self, key: &CacheKey, value: &CacheValue<Raw>) -> bool {
        let size =
            || value.data().as_encoded().map_or_else(|| value.data().weight(), |e| e.bytes.len() as u64);
        match self.rule {
            AdmissionRule::Always => true,
            AdmissionRule::Never => false,
            AdmissionRule::UpTo(limit) => size() <= limit,
            AdmissionRule::NthRequest(n) => self.offers.hit(key) >= n,
            AdmissionRule::From(lowest) => {
                value.details().map_or(Priority::Normal, |details| details.priority) >= lowest
            }
        }
    }

    /// The receipt of a write that was not admitted, from that of the removal of what was there.
    fn left_out(&self, removed: Receipt) -> Receipt {
        if !removed.is_ok() {
            return removed;
        }
        self.inner.leaves().iter().for_each(|leaf| leaf.count(Event::NotAdmitted, 1));
        let mut receipt = removed;
        for line in &mut receipt.leaves {
            line.outcome = Outcome::NotAdmitted;
        }
        receipt
    }
}

#[async_trait]
impl Backend for Admission {
    crate::forward!(self => self.inner; store, reads, facts, capabilities, names, versions);

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        if self.admits(key, &value) {
            return self.inner.write_with(key, value, options).await;
        }
        self.left_out(self.inner.remove_with(key, options).await)
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        self.offers.forget(key);
        self.inner.remove_with(key, options).await
    }

    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        let admitted: Vec<bool> = items.iter().map(|item| self.admits(&item.key, &item.value)).collect();
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for (item, admitted) in items.into_iter().zip(&admitted) {
            if *admitted {
                taken.push(item);
            } else {
                refused.push(RemoveItem { key: item.key, options: item.options });
            }
        }
        let mut taken = self.inner.write_many(taken).await.into_iter();
        let mut refused =
            self.inner.remove_many(refused).await.into_iter().map(|receipt| self.left_out(receipt));
        let receipt = |admitted: &bool| if *admitted { taken.next() } else { refused.next() };
        admitted.iter().map(receipt).map(Option::unwrap_or_default).collect()
    }

    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        items.iter().for_each(|item| self.offers.forget(&item.key));
        self.inner.remove_many(items).await
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        if self.admits(key, &value) {
            return self.inner.install_if(key, value, ticket).await;
        }
        self.inner.leaves().iter().for_each(|leaf| leaf.count(Event::NotAdmitted, 1));
        let lines =
            self.inner.leaves().into_iter().map(|leaf: Leaf| Receipt::of(leaf.path(), Outcome::NotAdmitted));
        lines.reduce(|all, line| all.join(line, None)).unwrap_or_default()
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let (rule, offers) = (self.rule, self.offers.clone());
        Some(Arc::new(Self { inner: adopt(&self.inner, adoption), rule, offers }))
    }
}
