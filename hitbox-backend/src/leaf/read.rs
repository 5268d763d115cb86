//! Reads of a leaf that may have to wait. Epochs without which entries of a shared store cannot be checked come in the
//! same batch as the entries.

use futures_util::future::join;
use hitbox_core::{BackendResult, CacheKey, CacheValue, Scope};

use super::check::{Checked, Parsed};
use super::health::Side;
use super::{Leaf, failure};
use crate::coherence::epochs::Held;
use crate::completion::{Batch, Completion};
use crate::envelope::Raw;
use crate::metrics::Timers;
use crate::operation::{Answer, Answers, ReadOptions, TryRead};
use crate::stats::Event;
use crate::store::Store;

type Stored = BackendResult<Option<CacheValue<Raw>>>;

impl<S: Store> Leaf<S> {
    pub(super) fn read_entries<'a>(
        &'a self,
        keys: &'a [CacheKey],
        options: &'a ReadOptions,
    ) -> Completion<'a, Answers> {
        if options.skip.contains(self.handle.position()) {
            return Completion::Done(keys.iter().map(|_| Ok(None)).collect());
        }
        if self.handle.capabilities().answers_at_once {
            return Completion::Done(keys.iter().map(|key| self.answer_now(key, options)).collect());
        }
        match keys {
            [key] => Completion::later(async move { Batch::one(self.read_one(key, options).await) }),
            keys => Completion::later(self.read_several(keys, options)),
        }
    }

    /// The answer of a store that never waits.
    fn answer_now(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        if let Err(error) = self.handle.check_key(key) {
            return Err(self.handle.failed(Event::ReadError, error));
        }
        match self.read_now(key, options) {
            TryRead::Hit(found) => Ok(Some(found)),
            TryRead::Miss | TryRead::WouldWait(_) => Ok(None),
        }
    }

    /// Whether this key is answered for without the store.
    fn answers_without_store(&self, key: &CacheKey, options: &ReadOptions) -> Option<Answer> {
        if let Err(error) = self.handle.check_key(key) {
            return Some(Err(self.handle.failed(Event::ReadError, error)));
        }
        if self.handle.coherence().is_dirty(key) {
            self.handle.miss(Event::Dirty, options);
            return Some(Ok(None));
        }
        None
    }

    async fn read_one(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        if let Some(answer) = self.answers_without_store(key, options) {
            return answer;
        }
        let handle = &self.handle;
        let held = self.epochs().held_against(key);
        let started = Timers::start(handle.clock());
        let missing = self.missing_epochs(key);
        let stored = if handle.coherence().epochs.has_unrecorded() {
            // Rare, and not to be a part of every read's future. What fails has been told of. The read does not wait
            // longer for that.
            let read = async { Box::pin(self.read_with_epochs(key, missing)).await };
            Box::pin(join(read, self.record_missing())).await.0
        } else if missing.is_empty() {
            self.store.read(key).await
        } else {
            Box::pin(self.read_with_epochs(key, missing)).await
        };
        handle.timers().read.stop(handle.clock(), started);
        if stored.is_ok() {
            handle.answered(Side::Reads);
        }
        let value = match self.parsed(key, stored).await {
            Ok(value) => value,
            Err(error) => return Err(handle.failed(Event::ReadError, error)),
        };
        if let Some(value) = &value
            && self.needs_epochs(key, value)
            && let Err(error) = Box::pin(self.fetch_epochs(std::iter::once((key, value)))).await
        {
            return Err(handle.failed(Event::ReadError, error));
        }
        self.answer(key, value, options, held)
    }

    /// An entry, and in the same batch the epochs without which it cannot be checked.
    async fn read_with_epochs(&self, key: &CacheKey, missing: Vec<Scope>) -> Stored {
        let sequence = self.handle.coherence().epochs.read_sequence();
        let mut keys = super::epoch_io::keys_of(&missing);
        keys.push(key.clone());
        let mut answers = self.store.read_batch(&keys).await;
        let stored = answers.pop().unwrap_or(Ok(None));
        self.merge_epochs(sequence, missing, answers)?;
        stored
    }

    /// What a store answered, as an entry. What is damaged is removed.
    async fn parsed(&self, key: &CacheKey, stored: Stored) -> Stored {
        let Some(stored) = stored? else { return Ok(None) };
        if self.is_live {
            return Ok(Some(stored));
        }
        let damaged = match self.handle.parse(key, stored.clone()) {
            Parsed::Value(value) => return Ok(Some(value)),
            Parsed::Nothing { damaged } => damaged,
        };
        if damaged {
            self.handle.count(Event::Damaged, 1);
            tracing::warn!(backend = %self.handle.path(), %key, "a stored record is damaged");
            if let Err(error) = Box::pin(self.store.discard(key, &stored)).await {
                tracing::debug!(backend = %self.handle.path(), %error, "a damaged record could not be removed");
            }
        }
        Ok(None)
    }

    fn answer(
        &self,
        key: &CacheKey,
        value: Option<CacheValue<Raw>>,
        options: &ReadOptions,
        held: Held,
    ) -> Answer {
        let Some(value) = value else {
            self.handle.count_read(Event::Miss, options);
            return Ok(None);
        };
        self.handle.count_bytes_read(&value, options);
        if self.handle.coherence().ignores(&value) {
            self.handle.miss(Event::Dirty, options);
            return Ok(None);
        }
        match self.handle.check(key, &value, options, self.epochs().is_plain(), held) {
            Checked::Usable(freshness) => Ok(Some(self.handle.found(value, freshness))),
            Checked::Unusable => Ok(None),
            // The store has been asked: epochs that are not known by now are lost.
            Checked::NeedEpochs => {
                self.handle.miss(Event::Invalidated, options);
                Ok(None)
            }
        }
    }

    async fn read_several(&self, keys: &[CacheKey], options: &ReadOptions) -> Answers {
        let mut answers: Vec<Option<Answer>> =
            keys.iter().map(|key| self.answers_without_store(key, options)).collect();
        let asked: Vec<usize> = (0..keys.len()).filter(|index| answers[*index].is_none()).collect();
        if !asked.is_empty() {
            let batch: Vec<CacheKey> = asked.iter().map(|index| keys[*index].clone()).collect();
            let held: Vec<Held> = batch.iter().map(|key| self.epochs().held_against(key)).collect();
            let found = match self.read_batch(&batch).await {
                Ok(found) => found.into(),
                Err(error) => failure::each(&error, batch.len()),
            };
            for (((index, key), held), found) in asked.into_iter().zip(&batch).zip(held).zip(found) {
                answers[index] = Some(match found {
                    Ok(value) => self.answer(key, value, options, held),
                    Err(error) => Err(self.handle.failed(Event::ReadError, error)),
                });
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Ok(None))).collect()
    }

    /// Entries, and all epochs that are needed to check them.
    async fn read_batch(&self, batch: &[CacheKey]) -> BackendResult<Vec<Stored>> {
        let handle = &self.handle;
        let mut missing: Vec<Scope> = Vec::new();
        for scope in batch.iter().flat_map(|key| self.missing_epochs(key)) {
            if !missing.contains(&scope) {
                missing.push(scope);
            }
        }
        let sequence = handle.coherence().epochs.read_sequence();
        let together = [batch, &super::epoch_io::keys_of(&missing)].concat();
        let started = Timers::start(handle.clock());
        let mut stored = if handle.coherence().epochs.has_unrecorded() {
            Box::pin(join(self.store.read_batch(&together), self.record_missing())).await.0
        } else {
            self.store.read_batch(&together).await
        };
        handle.timers().read.stop(handle.clock(), started);
        if stored.iter().any(Result::is_ok) {
            handle.answered(Side::Reads);
        }
        let epochs = stored.split_off(batch.len().min(stored.len()));
        self.merge_epochs(sequence, missing, epochs)?;
        let mut found = Vec::with_capacity(batch.len());
        for (key, stored) in batch.iter().zip(stored) {
            found.push(self.parsed(key, stored).await);
        }
        let entries =
            batch.iter().zip(&found).filter_map(|(key, found)| Some((key, found.as_ref().ok()?.as_ref()?)));
        self.fetch_epochs(entries).await?;
        Ok(found)
    }
}
