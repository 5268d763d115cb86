//! Changes of an entry that is there: its metadata, its times. The value stays.

use std::sync::Arc;

use hitbox_core::{CacheKey, CacheValue, ErrorKind, RecordKind};

use super::Leaf;
use super::condition::MAX_CONFLICTS;
use super::prepare::bytes_of;
use super::turn::Turn;
use crate::envelope::Raw;
use crate::operation::{Condition, Renewal, TimeChange, WriteOptions};
use crate::receipt::{LeafOutcome, Receipt};
use crate::stats::Event;
use crate::store::{Peek, Store};

/// Known absence has times too, and is nothing that a caller would find.
fn is_value<T>(entry: &CacheValue<T>) -> bool {
    entry.details().is_none_or(|details| details.kind == RecordKind::Value)
}

impl<S: Store> Leaf<S> {
    /// Other metadata or times for what is stored; nothing where nothing is.
    pub(super) async fn renew(&self, key: &CacheKey, renewal: &Renewal, options: &WriteOptions) -> Receipt {
        let ticket = self.ticket(key, options);
        let work = |turn| self.renew_in_turn(key, renewal, turn);
        self.in_turn(key, &ticket, LeafOutcome::Absent, work)
            .await
            .unwrap_or_else(|error| self.handle.refuse(error))
    }

    async fn renew_in_turn(&self, key: &CacheKey, renewal: &Renewal, _turn: Turn<'_>) -> Receipt {
        if self.handle.coherence().is_dirty(key) {
            return self.handle.line(LeafOutcome::Absent);
        }
        let mut rewritten = self.rewrite_body(key, renewal).await;
        for _ in 1..MAX_CONFLICTS {
            if !rewritten.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict) {
                break;
            }
            // Another process has changed it meanwhile.
            rewritten = self.rewrite_body(key, renewal).await;
        }
        match rewritten {
            Ok(Some(receipt)) => receipt,
            Ok(None) => {
                let change = |stored| Ok(renewal.apply(stored));
                self.rewrite(key, change, renewal.generation, Some(Event::Write)).await
            }
            Err(error) => self.handle.refuse(error),
        }
    }

    /// Other times for what is stored; nothing where nothing is.
    pub(super) async fn change_times(
        &self,
        key: &CacheKey,
        change: &TimeChange,
        options: &WriteOptions,
    ) -> Receipt {
        let ticket = self.ticket(key, options);
        let work = |turn| self.change_times_in_turn(key, change, turn);
        self.in_turn(key, &ticket, LeafOutcome::Absent, work)
            .await
            .unwrap_or_else(|error| self.handle.refuse(error))
    }

    async fn change_times_in_turn(&self, key: &CacheKey, change: &TimeChange, turn: Turn<'_>) -> Receipt {
        let handle = &self.handle;
        if handle.coherence().is_dirty(key) {
            return handle.line(LeafOutcome::Absent);
        }
        let stored = match self.store.change_times(key, change).await {
            Ok(Peek::Entry(stored)) => stored,
            Ok(Peek::Absent) => return handle.line(LeafOutcome::Absent),
            Ok(Peek::Unknown) => return self.rewrite_times(key, change, &turn).await,
            Err(error) => return handle.refuse(error),
        };
        match self.still_counts(key, &stored).await {
            Ok(true) if is_value(&stored) => handle.line(LeafOutcome::Stored),
            Ok(_) => handle.line(LeafOutcome::Absent),
            Err(error) => handle.refuse(error),
        }
    }

    /// For stores that can only replace an entry.
    async fn rewrite_times(&self, key: &CacheKey, change: &TimeChange, turn: &Turn<'_>) -> Receipt {
        let facts = self.store.capabilities();
        if !facts.shared || facts.writes_conditionally {
            return self.rewrite(key, |stored| change.apply(stored), None, None).await;
        }
        // Another process may write between a look and a write: what it has written must not be replaced with what was
        // there before.
        if change.ends_fresh() {
            self.remove_in_turn(key, turn).await
        } else {
            self.handle.line(LeafOutcome::Skipped)
        }
    }

    /// Replaces what is stored, if it is of the generation that is meant, with a form of itself. It is the turn of the caller.
    async fn rewrite(
        &self,
        key: &CacheKey,
        change: impl Fn(CacheValue<Raw>) -> Result<CacheValue<Raw>, CacheValue<Raw>>,
        meant: Option<u64>,
        event: Option<Event>,
    ) -> Receipt {
        let handle = &self.handle;
        if handle.coherence().is_dirty(key) {
            return handle.line(LeafOutcome::Absent);
        }
        let stored = match self.stored_entry(key).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return handle.line(LeafOutcome::Absent),
            Err(error) => return handle.refuse(error),
        };
        if meant.is_some_and(|meant| meant != stored.data().identity()) {
            return handle.line(LeafOutcome::Absent);
        }
        let same = Arc::new(stored.clone());
        let done = if is_value(&stored) { LeafOutcome::Stored } else { LeafOutcome::Absent };
        let Ok(changed) = change(stored) else { return handle.line(done) };
        let value = match self.prepare(key, changed, None) {
            Ok(value) => value,
            Err(error) => return handle.refuse(error),
        };
        let bytes = bytes_of(&value);
        let result = if handle.capabilities().shared && handle.capabilities().writes_conditionally {
            self.store_if(key, value, &Condition::IfSame(same)).await
        } else {
            self.store.write(key, value).await
        };
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotAdmitted) {
            return self.not_admitted();
        }
        // The value is the one that was there. If an earlier write has not reached it, it stays out of date.
        match (result, event) {
            (result, Some(event)) => handle.written(event, bytes, result),
            (Ok(()), None) => handle.line(done),
            (Err(error), None) => handle.refuse(error),
        }
    }
}
