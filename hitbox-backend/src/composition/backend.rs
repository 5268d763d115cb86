//! The composition as a backend: short bodies over policies, attempts and the join table.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::future::join;
use hitbox_core::{
    Accept, BackendError, BackendLabel, BackendResult, CacheKey, CacheValue, ErrorKind, KeyPattern, Scope,
};

use super::attempts::Answers;
use super::builder::Plan;
use super::outcome;
use super::parts::Composition;
use super::refill::Refill;
use super::repair::Repairs;
use super::runs::ReadRun;
use super::{Layer, Pair};
use crate::backend::{Adoption, Backend, Page, RemoveItem, Sweep, WriteItem, WriteOptions, adopt};
use crate::capability::Capabilities;
use crate::coherence::{self, Ticket};
use crate::envelope::Raw;
use crate::leaf::{self, Invalidation, Leaf, Matched, begin_batch, close};
use crate::metrics::register_source;
use crate::read::{Answer, LeafPosition, LeafSet, Presence, ReadOptions, TryRead};
use crate::receipt::{DeleteStatus, Receipt};
use crate::stats::{LeafLen, LeafStatistics};

/// L1 over L2. Cloning shares everything.
#[derive(Clone)]
pub struct CompositionBackend(Arc<Composition>);

impl Debug for CompositionBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<BackendLabel> = self.0.leaves.iter().map(Leaf::path).collect();
        f.debug_struct("CompositionBackend").field("leaves", &paths).field("policy", &self.0.policy).finish()
    }
}

impl CompositionBackend {
    pub(super) fn of_plan(plan: Plan) -> Self {
        let path = plan.label;
        Self::placed(plan, path, 0)
    }

    /// Options with a mutation: the caller's, or one that begins here.
    fn begun(&self, key: &CacheKey, options: &WriteOptions) -> WriteOptions {
        let mutation = leaf::mutation(self, key, options);
        self.0.refill.forget(key);
        WriteOptions { mutation: Some(mutation), encodings: options.encodings.clone() }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// The working form of a plan at some place of a nest.
    fn placed(plan: Plan, path: BackendLabel, first: LeafPosition) -> Self {
        let place = |layer: Layer, first, suffix| {
            adopt(&plan.layers[layer], &Adoption { prefix: path, first, suffix })
        };
        let l1 = place(Layer::L1, first, None);
        let l1_leaves = l1.leaves();
        let second = first.saturating_add(l1_leaves.len() as u8);
        let mut l2 = place(Layer::L2, second, None);
        let same = |l2: &Arc<dyn Backend>| {
            l2.leaves().iter().any(|leaf| l1_leaves.iter().any(|other| other.path() == leaf.path()))
        };
        if same(&l2) {
            l2 = place(Layer::L2, second, Some("2".into()));
        }
        let layers = Pair { l1, l2 };
        let leaves_of = Pair::of(|layer| layers[layer].leaves());
        let single = Pair::of(|layer| match &leaves_of[layer][..] {
            [leaf] => Some(leaf.clone()),
            _ => None,
        });
        let sets = Pair {
            l1: LeafSet::range(first, leaves_of.l1.len()),
            l2: LeafSet::range(second, leaves_of.l2.len()),
        };
        let leaves: Vec<Leaf> = [leaves_of.l1, leaves_of.l2].concat();
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let composition = Arc::new(Composition {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            path,
            answers_at_once: Pair::of(|layer| layers[layer].capabilities().answers_at_once),
            layers,
            leaves,
            single,
            sets,
            serves_l1_at_once: plan.policy.read.serves_l1_at_once(),
            policy: plan.policy.clone(),
            required: plan.required,
            offload: plan.offload.clone(),
            refill: Refill::new(plan.policy.refill),
            repairs: Repairs::default(),
            plan,
        });
        let weak: std::sync::Weak<Composition> = Arc::downgrade(&composition);
        register_source(weak);
        Self(composition)
    }
}

#[async_trait]
impl Backend for CompositionBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let options = ReadOptions { accept: Accept::Expired, ..ReadOptions::default() };
        Ok(self.read_with(key, &options).await?.map(|found| found.value))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.write_with(key, value, &WriteOptions::default()).await.into_result().map(|_| ())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let receipt = self.remove_with(key, &WriteOptions::default()).await.into_result()?;
        Ok(DeleteStatus::of(receipt.removed()))
    }

    #[inline]
    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        let composition = &*self.0;
        if !composition.serves_l1_at_once {
            return composition.try_by_policy(key, options, None);
        }
        // What L2 may hide is repaired when it is asked.
        let l1 = composition.layers.l1.try_read(key, options);
        if matches!(l1, TryRead::Hit(_)) { l1 } else { composition.try_by_policy(key, options, Some(l1)) }
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        self.0.repair(key);
        let ticket = self.0.ticket(key);
        let composition = &*self.0;
        let answers = if composition.serves_l1_at_once && options.skip.covers(composition.sets.l1) {
            // L1 has answered that it has nothing: what is left is L2, in whichever order they are asked.
            let l2 = composition.layers.l2.read_with(key, options).await;
            Answers { l1: Some(Ok(None)), l2: Some(l2) }
        } else {
            let run = ReadRun { composition: &self.0, key, options, detached: Pair::default() };
            let answers = composition.policy.read.read(&run, &*composition.offload).await;
            for (answer, detached) in [(&answers.l1, &run.detached.l1), (&answers.l2, &run.detached.l2)] {
                if let (None, Some(detached)) = (answer, detached.get()) {
                    detached.left_behind(composition);
                }
            }
            answers
        };
        self.0.conclude(key, answers, ticket).await
    }

    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        let tickets: Vec<_> = keys.iter().map(|key| self.0.ticket(key)).collect();
        keys.iter().for_each(|key| self.0.repair(key));
        let upper = self.0.layers.l1.read_many(keys, options).await;
        let is_hit = |answer: &Answer| matches!(answer, Ok(Some(_)));
        let rest: Vec<usize> =
            (0..keys.len()).filter(|index| !upper.get(*index).is_some_and(is_hit)).collect();
        let below: Vec<CacheKey> = rest.iter().map(|index| keys[*index].clone()).collect();
        let lower =
            if below.is_empty() { Vec::new() } else { self.0.layers.l2.read_many(&below, options).await };
        let mut lower_of: Vec<Option<Answer>> = keys.iter().map(|_| None).collect();
        for (index, answer) in rest.into_iter().zip(lower) {
            lower_of[index] = Some(answer);
        }
        let mut joined = Vec::with_capacity(keys.len());
        for (((key, ticket), l1), l2) in keys.iter().zip(tickets).zip(upper).zip(lower_of) {
            joined.push(self.0.conclude(key, Answers { l1: Some(l1), l2 }, ticket).await);
        }
        joined
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        let options = self.begun(key, options);
        let work = self.0.clone().write_all(key.clone(), value, options.clone());
        self.0.detach(vec![(key.clone(), options)], work).await
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        let options = self.begun(key, options);
        let work = self.0.clone().remove_all(key.clone(), options.clone());
        self.0.detach(vec![(key.clone(), options)], work).await
    }

    async fn write_many(&self, mut items: Vec<WriteItem>) -> Vec<Receipt> {
        begin_batch(self, items.iter_mut().map(|item| (&item.key, &mut item.options)));
        items.iter().for_each(|item| self.0.refill.forget(&item.key));
        let keys = items.iter().map(|item| (item.key.clone(), item.options.clone())).collect();
        self.0.detach(keys, self.0.clone().write_batch_all(items)).await
    }

    async fn remove_many(&self, mut items: Vec<RemoveItem>) -> Vec<Receipt> {
        begin_batch(self, items.iter_mut().map(|item| (&item.key, &mut item.options)));
        items.iter().for_each(|item| self.0.refill.forget(&item.key));
        let keys = items.iter().map(|item| (item.key.clone(), item.options.clone())).collect();
        self.0.detach(keys, self.0.clone().remove_batch_all(items)).await
    }

    fn visit_leaves(&self, key: &CacheKey, visit: &mut dyn FnMut(&Leaf, &CacheKey)) {
        Layer::BOTH.into_iter().for_each(|layer| self.0.layers[layer].visit_leaves(key, visit));
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        let Pair { l1, l2 } = &self.0.layers;
        let (l1, l2) =
            join(l1.install_if(key, value.clone(), ticket), l2.install_if(key, value, ticket)).await;
        outcome::join_removes(l1, l2)
    }

    async fn write_if_newer_with(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        options: &WriteOptions,
    ) -> Receipt {
        let options = self.begun(key, options);
        let work = self.0.clone().write_newer_all(key.clone(), value, options.clone());
        self.0.detach(vec![(key.clone(), options)], work).await
    }

    async fn evict_with(&self, key: &CacheKey) -> Receipt {
        let l1 = &self.0.layers.l1;
        let mutation = Some(coherence::upkeep(&**l1, key));
        l1.remove_with(key, &WriteOptions { mutation, ..WriteOptions::default() }).await
    }

    async fn lens(&self) -> Vec<LeafLen> {
        let (l1, l2) = join(self.0.layers.l1.lens(), self.0.layers.l2.lens()).await;
        [l1, l2].concat()
    }

    async fn remove_matching(&self, pattern: &KeyPattern, matched: &Matched) -> BackendResult<()> {
        // No leaf is filled from another before all have lost it, whichever composition does it.
        let _closed = close(self).await;
        let Pair { l1, l2 } = &self.0.layers;
        let (upper, lower) =
            join(l1.remove_matching(pattern, matched), l2.remove_matching(pattern, matched)).await;
        upper.and(lower)
    }

    /// The keys of L1, then those of L2.
    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        const LOWER: u64 = 1 << 63;
        let layer = if cursor < LOWER { Layer::L1 } else { Layer::L2 };
        let first = if layer == Layer::L1 { 0 } else { LOWER };
        let mut page = self.0.layers[layer].enumerate(cursor - first, limit).await?;
        page.next = match page.next {
            Some(next) if next < LOWER => Some(next + first),
            Some(_) => return Err(BackendError::new(ErrorKind::Protocol, "a cursor that is too large")),
            None => (layer == Layer::L1).then_some(LOWER),
        };
        Ok(page)
    }

    async fn invalidate(&self, scopes: &[Scope], under: &Arc<Invalidation>) -> Receipt {
        let (composition, scopes, under) = (self.0.clone(), scopes.to_vec(), under.clone());
        let work = async move {
            let Pair { l1, l2 } = &composition.layers;
            let (l1, l2) = join(l1.invalidate(&scopes, &under), l2.invalidate(&scopes, &under)).await;
            outcome::join_removes(l1, l2)
        };
        self.0.detach(Vec::new(), work).await
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        match self.0.layers.l1.contains(key).await {
            Ok(Presence::Present) => Ok(Presence::Present),
            Ok(Presence::Absent) => self.0.layers.l2.contains(key).await,
            upper => match (upper, self.0.layers.l2.contains(key).await) {
                (_, Ok(Presence::Present)) => Ok(Presence::Present),
                (Err(error), Err(_)) => Err(error),
                _ => Ok(Presence::Maybe),
            },
        }
    }

    async fn erase(&self) -> BackendResult<()> {
        self.erase_with().await
    }

    async fn erase_with(&self) -> BackendResult<()> {
        // No leaf is filled from another before all are empty, whichever composition does it.
        let _closed = close(self).await;
        let (upper, lower) = join(self.0.layers.l1.erase_with(), self.0.layers.l2.erase_with()).await;
        upper.and(lower)
    }

    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let upper = self.0.layers.l1.sweep(limit).await?;
        let lower = self.0.layers.l2.sweep(limit).await?;
        Ok(Sweep { dropped: upper.dropped + lower.dropped, cut_short: upper.cut_short || lower.cut_short })
    }

    fn capabilities(&self) -> Capabilities {
        let Pair { l1, l2 } = &self.0.layers;
        let joined = l1.capabilities().join(l2.capabilities());
        let refills = joined.refills && self.0.refill.is_on();
        let authority = self.0.layers[self.0.plan.authority].capabilities();
        Capabilities { writes_conditionally: authority.writes_conditionally, refills, ..joined }
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.0.leaves.clone()
    }

    fn statistics(&self) -> Vec<LeafStatistics> {
        [self.0.layers.l1.statistics(), self.0.layers.l2.statistics()].concat()
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let own = match adoption.suffix {
            Some(suffix) => BackendLabel::new(&format!("{}{suffix}", self.0.plan.label)),
            None => self.0.plan.label,
        };
        let path = adoption.prefix.join(own);
        Some(Arc::new(Self::placed(self.0.plan.clone(), path, adoption.first)))
    }
}
