//! Several keys at once: reads, writes and removals.

use std::sync::Arc;

use hitbox_backend::internal::{self, Decoded, WriteTicket};
use hitbox_backend::operation::Batch;
use hitbox_backend::operation::{ReadOptions, Removal, Write, WriteOptions};
use hitbox_backend::{Backend, Cacheable, DeleteStatus, Receipt};
use hitbox_core::{BackendResult, CacheKey};

use crate::cache::Cache;
use crate::entry_options::EntryOptions;
use crate::key::ToKey;
use crate::settings::LifetimeOverride;
use crate::shared::{READ, Shared};

impl<V: Cacheable, B: Backend + ?Sized> Cache<V, B> {
    /// The values under some keys, in their order, from the layers only: one batch per layer.
    ///
    /// # Errors
    /// Per key, as [`get`](Self::get).
    ///
    /// # Cancellation
    /// Leaves nothing.
    pub async fn get_many<K: ToKey>(&self, keys: &[K]) -> Vec<BackendResult<Option<V>>> {
        let keys: Vec<CacheKey> = keys.iter().map(|key| self.key(key).into_owned()).collect();
        let found = self.shared.read_many(&keys, READ).await;
        let value = |copy: Option<Decoded<V>>| copy.and_then(|copy| copy.entry.into_data());
        found.into_iter().map(|found| found.map(value)).collect()
    }

    /// Stores several values, one batch per layer. Results are in their order.
    ///
    /// # Errors
    /// Per entry, as [`insert`](Self::insert).
    ///
    /// # Cancellation
    /// As [`insert`](Self::insert).
    pub async fn insert_many<K: ToKey>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Vec<BackendResult<Receipt>> {
        let shared = &self.shared;
        let (keys, values): (Vec<CacheKey>, Vec<V>) =
            entries.into_iter().map(|(key, value)| (self.key(&key).into_owned(), value)).unzip();
        let tickets = shared.begin_writes(&keys);
        let now = shared.now();
        let (mut writes, mut removals) = (Batch::default(), Batch::default());
        let mut is_write = Vec::with_capacity(keys.len());
        for ((key, value), ticket) in keys.iter().zip(values).zip(&tickets) {
            let (key, options) = (key.clone(), WriteOptions::of(ticket));
            let lifetime = shared.settings.lifetime(&key, LifetimeOverride::NONE, false, now);
            is_write.push(lifetime.is_some());
            match lifetime {
                Some(lifetime) => {
                    let entry = shared.entry(Some(value), lifetime, now, EntryOptions::NONE);
                    writes.push(Write::new(key, entry).with_options(options));
                }
                // A value that is over at once replaces what was there with nothing.
                None => removals.push(Removal::new(key).with_options(options)),
            }
        }
        let mut written = shared.backend.write(writes).await.into_iter();
        let mut removed = shared.backend.remove(removals).await.into_iter();
        let next = |write: bool| if write { written.next() } else { removed.next() };
        shared.record_all_failures(&keys, is_write.into_iter().filter_map(next), &tickets)
    }

    /// Removes several entries. Results are in their order.
    ///
    /// # Errors
    /// Per key, as [`remove`](Self::remove).
    ///
    /// # Cancellation
    /// As [`insert`](Self::insert).
    pub async fn remove_many<K: ToKey>(&self, keys: &[K]) -> Vec<BackendResult<DeleteStatus>> {
        let keys: Vec<CacheKey> = keys.iter().map(|key| self.key(key).into_owned()).collect();
        let tickets = self.shared.begin_writes(&keys);
        let removal = |(key, ticket): (&CacheKey, &Arc<WriteTicket>)| {
            Removal::new(key.clone()).with_options(WriteOptions::of(ticket))
        };
        let receipts = self.shared.backend.remove(keys.iter().zip(&tickets).map(removal).collect()).await;
        let results = self.shared.record_all_failures(&keys, receipts.into_iter(), &tickets).into_iter();
        results.map(|receipt| receipt.map(|receipt| DeleteStatus::of(receipt.removed()))).collect()
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Usable copies, in the order of their keys.
    pub(crate) async fn read_many(
        self: &Arc<Self>,
        keys: &[CacheKey],
        options: ReadOptions,
    ) -> Vec<BackendResult<Option<Decoded<V>>>> {
        self.reconcile_if_dirty();
        let copies = internal::read_many(&*self.backend, keys, &options).await;
        for (key, copy) in keys.iter().zip(&copies) {
            let Ok(copy) = copy else { continue };
            self.count_look(copy.as_ref().map(|copy| copy.freshness));
            if let Some(copy) = copy {
                self.touch(key, copy);
            }
        }
        copies
    }

    /// Begins the writes of a batch, all at once.
    fn begin_writes(&self, keys: &[CacheKey]) -> Vec<Arc<WriteTicket>> {
        keys.iter().for_each(|key| self.throttle.end(key));
        self.backend.layout().begin_writes(keys.iter())
    }

    /// What the writes of a batch have come to, per key. What failed is known by the ticket that its write carried, so
    /// that a write that began later is not taken for failed.
    fn record_all_failures(
        self: &Arc<Self>,
        keys: &[CacheKey],
        receipts: impl Iterator<Item = Receipt>,
        tickets: &[Arc<WriteTicket>],
    ) -> Vec<BackendResult<Receipt>> {
        let mut results = Vec::with_capacity(keys.len());
        for ((key, receipt), ticket) in keys.iter().zip(receipts).zip(tickets) {
            self.record_failures(key, &receipt, ticket);
            results.push(receipt.into_result());
        }
        results
    }
}
