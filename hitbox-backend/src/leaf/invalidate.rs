//! Invalidations in a leaf: keys are removed, scopes get new epochs, and for a pattern the keys are listed.

use hitbox_core::{
    BackendError, BackendResult, CacheKey, KeyPattern, Operation, Scope, ScopeKind, Timestamp,
};

use super::Leaf;
use super::check::Parsed;
use super::health::Side;
use super::turn::Turn;
use crate::coherence::epochs::HeldPattern;
use crate::coherence::logical_clock;
use crate::coherence::write_queue::Drain;
use crate::completion::Batch;
use crate::layout::Layout;
use crate::operation::{Invalidation, InvalidationTarget, Removal};
use crate::receipt::{LeafOutcome, Receipt};
use crate::stats::Event;
use crate::store::{Peek, Store};

/// Invalidations that may wait for a store to record them: some tens of megabytes.
const MAX_UNRECORDED: usize = 1 << 18;

/// Keys that are listed at a time where that is I/O.
const PAGE: usize = 1_000;

/// Ends every load and refill that is under way in these leaves, or those of the keys that match, lets none in until the
/// guards are dropped, and waits for the writes that came before.
pub(crate) async fn drain(layout: &Layout, pattern: Option<&KeyPattern>) -> Vec<Drain> {
    let mut drains = Vec::new();
    for leaf in layout.leaves() {
        let pattern = pattern.map(|pattern| leaf.pattern(pattern));
        drains.push(leaf.handle().coherence().queue.drain(pattern).await);
    }
    drains
}

/// An invalidation by pattern under way. If it does not come to its end, what it means is held.
struct Unfinished<'a, S: Store> {
    leaf: &'a Leaf<S>,
    pattern: Option<&'a KeyPattern>,
}

impl<S: Store> Drop for Unfinished<'_, S> {
    fn drop(&mut self) {
        if let Some(pattern) = self.pattern {
            let leaf = self.leaf;
            leaf.epochs().hold(pattern, &**leaf.handle.clock(), leaf.invalidated_until());
        }
    }
}

impl<S: Store> Leaf<S> {
    pub(super) async fn carry_out(&self, invalidation: &Invalidation) -> Receipt {
        match invalidation.target() {
            InvalidationTarget::Keys(keys) => self.invalidate_keys(keys, invalidation).await,
            InvalidationTarget::Scopes(scopes) => self.invalidate_scopes(scopes, invalidation).await,
            InvalidationTarget::Matching(pattern) => {
                let result = self.invalidate_matching(pattern, invalidation).await;
                self.invalidated(result)
            }
        }
    }

    fn invalidated(&self, result: BackendResult<()>) -> Receipt {
        let outcome = match result {
            Ok(()) => {
                self.handle.answered(Side::Changes);
                LeafOutcome::Invalidated
            }
            Err(error) => {
                let error = self.handle.failed(Event::WriteError, error.during(Operation::Invalidate));
                LeafOutcome::of_error(error)
            }
        };
        self.handle.line(outcome)
    }

    async fn invalidate_scopes(&self, scopes: &[Scope], invalidation: &Invalidation) -> Receipt {
        let everything = [Scope::everything()];
        let are_too_many = self.epochs().count_unrecorded() + scopes.len() > MAX_UNRECORDED;
        let scopes = if are_too_many {
            // What the store does not take would pile up. "Everything" says the same, and costs misses.
            tracing::warn!(backend = %self.handle.path(), "too many invalidations wait for the store: all is invalidated");
            &everything
        } else {
            scopes
        };
        let now = self.handle.clock().monotonic();
        let until = self.invalidated_until();
        let renew = |scope: &Scope| Scope { epoch: self.epochs().begin(scope, now, until), ..scope.clone() };
        let renewed: Vec<Scope> = scopes.iter().map(renew).collect();
        if are_too_many {
            self.epochs().forget_unrecorded();
        }
        invalidation.begin(self.handle.coherence(), &renewed);
        self.handle.count(Event::Invalidation, scopes.len() as u64);
        if scopes.iter().any(|scope| scope.kind == ScopeKind::Everything) {
            self.store.abandon();
        }
        let recorded = self.record_renewed(renewed).await;
        self.invalidated(recorded)
    }

    async fn invalidate_keys(&self, keys: &[CacheKey], invalidation: &Invalidation) -> Receipt {
        let removals: Batch<Removal> = keys.iter().cloned().map(Removal::new).collect();
        let receipts = self.remove_entries(removals).await;
        let mut failed = None;
        for (key, receipt) in keys.iter().zip(receipts) {
            if receipt.removed() > 0 {
                invalidation.count_removed(key.clone());
            }
            failed = failed.or_else(|| receipt.error().cloned());
        }
        let outcome = failed.map_or(LeafOutcome::Removed, LeafOutcome::of_error);
        self.handle.line(outcome)
    }

    /// Lists the keys, and removes those that match. If that fails or is given up, what is left is invalid until the store
    /// has removed it.
    async fn invalidate_matching(
        &self,
        pattern: &KeyPattern,
        invalidation: &Invalidation,
    ) -> BackendResult<()> {
        if !self.handle.capabilities().enumerates {
            return Err(BackendError::unsupported("listing keys"));
        }
        let mut unfinished = Unfinished { leaf: self, pattern: Some(pattern) };
        let began = logical_clock::now();
        self.remove_matching(pattern, invalidation).await?;
        unfinished.pattern = None;
        self.epochs().release(pattern, began);
        Ok(())
    }

    /// Has the store remove what patterns mean that it did not carry out.
    ///
    /// # Errors
    /// That of the store, at the first pattern that it does not carry out.
    pub(super) async fn remove_held(&self) -> BackendResult<()> {
        let held = self.epochs().held();
        if !held.is_empty() {
            // What was being written when they were held is there to be listed then.
            self.handle.coherence().queue.settle().await;
        }
        for HeldPattern { pattern, until, since } in held {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let page = self.store.keys(from, PAGE).await?;
                cursor = page.next;
                for key in page.keys.iter().filter(|key| pattern.matches(key)) {
                    self.remove_made_until(key, until).await?;
                }
            }
            self.epochs().release(&pattern, since);
        }
        Ok(())
    }

    /// Removes the entry of a key, unless it was made later.
    async fn remove_made_until(&self, key: &CacheKey, until: Timestamp) -> BackendResult<()> {
        let ticket = self.layout.begin_maintenance_write(key);
        let work = async |turn: Turn<'_>| {
            let created = match self.store.peek(key).await {
                Ok(Peek::Absent) => return self.handle.line(LeafOutcome::Absent),
                Ok(Peek::Entry(entry)) => entry.created(),
                // It is read as a whole where that cannot be said otherwise.
                Ok(Peek::Unknown) => match self.store.read(key).await {
                    Ok(Some(stored)) => match self.handle.parse(key, stored) {
                        Parsed::Value(value) => value.created(),
                        Parsed::Nothing { .. } => None,
                    },
                    Ok(None) => return self.handle.line(LeafOutcome::Absent),
                    Err(error) => return self.handle.refuse(error),
                },
                Err(error) => return self.handle.refuse(error),
            };
            if created.is_some_and(|created| created > until) {
                return self.handle.line(LeafOutcome::Skipped);
            }
            self.remove_in_turn(key, &turn).await
        };
        let removed = self.in_turn(key, &ticket, LeafOutcome::Absent, work).await?;
        removed.into_result().map(drop)
    }

    async fn remove_matching(&self, pattern: &KeyPattern, invalidation: &Invalidation) -> BackendResult<()> {
        let facts = self.handle.capabilities();
        let _drains = drain(&self.layout, Some(pattern)).await;
        // A list in memory costs nothing but its keys.
        let limit = if facts.answers_at_once { usize::MAX } else { PAGE };
        let mut all = Ok(());
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = self.store.keys(from, limit).await?;
            cursor = page.next;
            let keys: Vec<CacheKey> = page.keys.into_iter().filter(|key| pattern.matches(key)).collect();
            for keys in keys.chunks(PAGE) {
                let removed = self.invalidate_keys(keys, invalidation).await;
                all = all.and(removed.into_result().map(drop));
            }
        }
        all
    }

    /// Another process has made this change. A store that it shares has it already.
    pub(super) async fn take_note_of(&self, change: &Invalidation) -> Receipt {
        if !self.handle.capabilities().shared {
            return self.carry_out(change).await;
        }
        let coherence = self.handle.coherence();
        match change.target() {
            InvalidationTarget::Keys(keys) => {
                keys.iter().for_each(|key| coherence.queue.end_permits(key.process_hash()));
            }
            // Loads that are under way cannot know whether they carry one of them: the clock tells them.
            InvalidationTarget::Scopes(scopes) => self.epochs().forget(scopes),
            InvalidationTarget::Matching(pattern) => drop(drain(&self.layout, Some(pattern)).await),
        }
        self.handle.line(LeafOutcome::Skipped)
    }
}
