//! Several keys at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use hitbox_backend::{
    Backend, Cacheable, DeleteStatus, ReadOptions, Receipt, RemoveItem, WriteItem, claim, mutation,
};
use hitbox_core::{BackendResult, CacheKey, CacheValue};

use crate::cache::Cache;
use crate::error::{BoxError, LoadError, LoadErrorKind, SharedError};
use crate::events::count;
use crate::flight::{Ended, Landing, Role, Waiting};
use crate::key::ToKey;
use crate::load::{Delivered, End, LoaderFn, Plan};
use crate::loaded::Loaded;
use crate::remarks::Remarks;
use crate::settings::Life;
use crate::shared::{Copy, Shared};

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
        let found = self.shared.look_many(&keys).await;
        let value = |copy: Option<Copy<V>>| copy.and_then(|copy| copy.entry.into_data());
        found.into_iter().map(|found| found.map(value)).collect()
    }

    /// The values under some keys; those that no layer has are loaded by one call of the loader, which is given their
    /// keys. Keys that are being loaded already are waited for, not loaded again. A key that the loader leaves out is
    /// absent, and missing in the result.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), hitbox::LoadError> {
    /// # use std::collections::HashMap;
    /// # let users: hitbox::Cache<String> = hitbox::Cache::null();
    /// # async fn load_users(ids: Vec<u64>) -> Result<HashMap<u64, String>, std::io::Error> {
    /// #     Ok(ids.into_iter().map(|id| (id, format!("user {id}"))).collect())
    /// # }
    /// let found = users.get_or_load_many([1, 2, 3], load_users).await?;
    /// assert_eq!(found[&2], "user 2");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The first error of any load that it waited for; what others brought is stored nevertheless.
    ///
    /// # Cancellation
    /// The batch that was begun goes on.
    pub async fn get_or_load_many<K, L, F, M, E>(
        &self,
        keys: impl IntoIterator<Item = K>,
        loader: L,
    ) -> Result<HashMap<K, V>, LoadError>
    where
        K: ToKey + Eq + Hash + Clone + 'static,
        L: FnOnce(Vec<K>) -> F + Send + 'static,
        F: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, V)>,
        E: Into<BoxError>,
    {
        let mut wanted: HashMap<CacheKey, K> = HashMap::new();
        for key in keys {
            wanted.insert(self.key(&key).into_owned(), key);
        }
        let asked: Vec<CacheKey> = wanted.keys().cloned().collect();
        let landings: Vec<u64> = asked.iter().map(|key| self.shared.flights.landings(key)).collect();
        let found = self.shared.look_many(&asked).await;
        let mut values = HashMap::with_capacity(wanted.len());
        let mut waiting: Vec<(K, Waiting<End<V>>, bool)> = Vec::new();
        let mut led: Vec<(K, Landing<End<V>>)> = Vec::new();
        for ((key, landings), found) in asked.iter().zip(landings).zip(found) {
            let Some(wanted) = wanted.remove(key) else { continue };
            match found {
                Ok(copy) => {
                    if let Some(value) = copy.and_then(|copy| copy.entry.into_data()) {
                        values.insert(wanted, value);
                        continue;
                    }
                }
                Err(error) => {
                    count(&self.shared.events.counts.read_errors);
                    self.shared.events.layer_failed(key, &error);
                }
            }
            let moment = self.shared.moment(key);
            match self.shared.flights.join(key, moment, || claim(&*self.shared.backend, key)) {
                Role::Follows(flight) => {
                    count(&self.shared.events.counts.coalesced);
                    waiting.push((wanted, flight, false));
                }
                Role::Leads(landing, flight) => {
                    // A load may have been stored since the batch was read.
                    if self.shared.flights.landings(key) != landings
                        && let Ok(Some(value)) = self.get(key).await
                    {
                        landing.land(Ok(Delivered::of(&CacheValue::new(Some(value.clone())))));
                        values.insert(wanted, value);
                        continue;
                    }
                    led.push((wanted.clone(), landing));
                    waiting.push((wanted, flight, true));
                }
            }
        }
        if !led.is_empty() {
            self.load_together(led, loader).await;
        }
        for (key, flight, leads) in waiting {
            match flight.ended().await {
                Ended::Landed(Ok(Delivered { value: Some(value), .. })) => {
                    values.insert(key, value);
                }
                Ended::Landed(Ok(Delivered { value: None, .. })) => {}
                Ended::Landed(Err(error)) => {
                    if leads && let Some(panic) = flight.flight.take_panic() {
                        std::panic::resume_unwind(panic);
                    }
                    return Err(error);
                }
                Ended::Abandoned => return Err(LoadError::new(LoadErrorKind::Cancelled, &self.key(&key))),
            }
        }
        Ok(values)
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
        let now = shared.now();
        let mut writes = Vec::new();
        let mut removes = Vec::new();
        let mut is_write = Vec::new();
        for (key, value) in entries {
            let key = self.key(&key).into_owned();
            shared.throttle.end(&key);
            let lifetime = shared.settings.lifetime(&key, Life::default(), false, now);
            is_write.push(lifetime.is_some());
            match lifetime {
                Some(lifetime) => {
                    let entry = shared.entry(Some(value), lifetime, now, Remarks::default());
                    writes.push(WriteItem::new(key, entry));
                }
                // A value that is over at once replaces what was there with nothing.
                None => removes.push(RemoveItem::new(key)),
            }
        }
        let keys = |write: bool| -> Vec<CacheKey> {
            if write {
                writes.iter().map(|item| item.key.clone()).collect()
            } else {
                removes.iter().map(|item| item.key.clone()).collect()
            }
        };
        let (written_keys, removed_keys) = (keys(true), keys(false));
        let written = shared.backend.write_many(writes).await;
        let removed = shared.backend.remove_many(removes).await;
        let mut written = shared.settle_many(&written_keys, written).into_iter();
        let mut removed = shared.settle_many(&removed_keys, removed).into_iter();
        let next = |write: bool| if write { written.next() } else { removed.next() };
        is_write.into_iter().filter_map(next).collect()
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
        keys.iter().for_each(|key| self.shared.throttle.end(key));
        let items = keys.iter().cloned().map(RemoveItem::new).collect();
        let receipts = self.shared.backend.remove_many(items).await;
        let results = self.shared.settle_many(&keys, receipts).into_iter();
        results.map(|receipt| receipt.map(|receipt| DeleteStatus::of(receipt.removed()))).collect()
    }

    /// One call of a loader for several flights. Each of them then goes the way of a single load, with its part of
    /// what was brought.
    async fn load_together<K, L, F, M, E>(&self, led: Vec<(K, Landing<End<V>>)>, loader: L)
    where
        K: ToKey + Eq + Hash + Clone + 'static,
        L: FnOnce(Vec<K>) -> F + Send + 'static,
        F: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, V)>,
        E: Into<BoxError>,
    {
        let keys: Vec<K> = led.iter().map(|(key, _)| key.clone()).collect();
        let batch = async move {
            let loaded = loader(keys).await.map_err(|error| SharedError(Arc::from(error.into())));
            loaded.map(|values| Arc::new(Mutex::new(values.into_iter().collect::<HashMap<K, V>>())))
        };
        let batch = futures_util::FutureExt::shared(batch);
        for (key, landing) in led {
            let batch = batch.clone();
            let part = key.clone();
            let loader: LoaderFn<'static, V> = Box::new(move |_| {
                Box::pin(async move {
                    match batch.await {
                        Ok(values) => {
                            let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
                            Ok(Loaded::from(values.remove(&part)))
                        }
                        Err(error) => Err(BoxError::from(error)),
                    }
                })
            });
            landing.flight.go_on();
            let key = self.key(&key).into_owned();
            let plan = Plan { remarks: Remarks::NONE, life: Life::default(), ahead: None, is_forced: false };
            if let Some(work) = self.shared.start(landing, &key, crate::load::Loader::Detached(loader), plan)
            {
                work.await;
            }
        }
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// Usable copies, in the order of their keys.
    async fn look_many(self: &Arc<Self>, keys: &[CacheKey]) -> Vec<BackendResult<Option<Copy<V>>>> {
        let options = ReadOptions::NORMAL;
        let mut copies = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(self.backend.read_many(keys, &options).await) {
            copies.push(match answer.map(|found| found.map(|found| self.decode(found))) {
                Ok(None) => Ok(None),
                Ok(Some(Ok(copy))) => {
                    self.touch(key, &copy);
                    Ok(Some(copy))
                }
                Ok(Some(Err(skip))) => self.look(key, ReadOptions { skip, ..ReadOptions::NORMAL }).await,
                Err(error) => Err(error),
            });
        }
        copies
    }

    /// What a batch has come to, per key.
    fn settle_many(
        self: &Arc<Self>,
        keys: &[CacheKey],
        receipts: Vec<Receipt>,
    ) -> Vec<BackendResult<Receipt>> {
        for (key, receipt) in keys.iter().zip(&receipts) {
            if receipt.first_error().is_some() && self.account(key, receipt, &mutation(&*self.backend, key)) {
                self.recover_later(key);
            }
        }
        receipts.into_iter().map(Receipt::into_result).collect()
    }
}
