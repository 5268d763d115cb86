//! One call for simultaneous reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use hitbox_core::{Accept, BackendResult, BoxFuture, CacheKey, CacheValue, Scope};

use crate::backend::{Adoption, Backend, RemoveItem, WriteItem, WriteOptions, adopt};
use crate::coherence::{Ticket, moment};
use crate::envelope::Raw;
use crate::leaf::Invalidation;
use crate::read::{Answer, LeafSet, Presence, ReadOptions, TryRead};
use crate::receipt::Receipt;
use crate::stream::BodyReader;

type Flight = BoxFuture<'static, Answer>;
type Name = (CacheKey, Accept);

/// Flights under way by what they read, each with its number.
#[derive(Default)]
struct Flights {
    under_way: HashMap<Name, (u64, u64, WeakShared<Flight>)>,
    next: u64,
}

/// A backend in which reads of one key that meet share one call and its answer. Worth its cost in front
/// of a slow layer.
///
/// A read that starts after a write has returned never joins a call that started before the write did.
pub struct Coalesce {
    inner: Arc<dyn Backend>,
    flights: Arc<Mutex<Flights>>,
}

impl Coalesce {
    /// Shares the reads of `inner`.
    pub fn new(inner: impl Backend) -> Self {
        Self { inner: Arc::new(inner), flights: Arc::default() }
    }

    /// The call under way, or a new one. It ends when all its readers are gone.
    fn join(&self, key: &CacheKey, options: &ReadOptions) -> Shared<Flight> {
        let name = (key.clone(), options.accept);
        let mut flights = lock(&self.flights);
        // What a read that began before an invalidation brings is not for one that starts after it.
        let moment = moment::now();
        let under_way = flights.under_way.get(&name).filter(|(_, began, _)| *began == moment);
        if let Some(flight) = under_way.and_then(|(.., flight)| flight.upgrade()) {
            return flight;
        }
        let number = flights.next;
        flights.next += 1;
        let landing = Landing { flights: self.flights.clone(), name: name.clone(), number };
        let (inner, options) = (self.inner.clone(), options.clone());
        let call = async move {
            let answer = inner.read_with(&landing.name.0, &options).await;
            drop(landing);
            answer
        };
        let flight: Shared<Flight> = FutureExt::boxed(call).shared();
        if let Some(weak) = flight.downgrade() {
            flights.under_way.insert(name, (number, moment, weak));
        }
        flight
    }

    /// Reads that start from now on make a call of their own.
    fn part(&self, key: &CacheKey) {
        let mut flights = lock(&self.flights);
        for accept in [Accept::Fresh, Accept::Stale, Accept::Expired] {
            flights.under_way.remove(&(key.clone(), accept));
        }
    }
}

fn lock(flights: &Mutex<Flights>) -> MutexGuard<'_, Flights> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a flight that has landed, or that all its readers have left. A newer one of the same name
/// stays.
struct Landing {
    flights: Arc<Mutex<Flights>>,
    name: Name,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        if flights.under_way.get(&self.name).is_some_and(|(number, ..)| *number == self.number) {
            flights.under_way.remove(&self.name);
        }
    }
}

#[async_trait]
impl Backend for Coalesce {
    crate::forward!(self => self.inner; store, facts, capabilities);

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.inner.try_read(key, options)
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        // Reads that leave leaves out, or look through a view of their own, are theirs alone.
        if options.skip != LeafSet::EMPTY {
            return self.inner.read_with(key, options).await;
        }
        let flight = self.join(key, options);
        flight.await
    }

    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        self.inner.read_many(keys, options).await
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        self.inner.contains(key).await
    }

    async fn open_reader(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn BodyReader>>> {
        self.inner.open_reader(key, options).await
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        let receipt = self.inner.write_with(key, value, options).await;
        self.part(key);
        receipt
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        let receipt = self.inner.remove_with(key, options).await;
        self.part(key);
        receipt
    }

    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        let keys: Vec<CacheKey> = items.iter().map(|item| item.key.clone()).collect();
        let receipts = self.inner.write_many(items).await;
        keys.iter().for_each(|key| self.part(key));
        receipts
    }

    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        let keys: Vec<CacheKey> = items.iter().map(|item| item.key.clone()).collect();
        let receipts = self.inner.remove_many(items).await;
        keys.iter().for_each(|key| self.part(key));
        receipts
    }

    async fn write_if_newer_with(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        options: &WriteOptions,
    ) -> Receipt {
        let receipt = self.inner.write_if_newer_with(key, value, options).await;
        self.part(key);
        receipt
    }

    async fn evict_with(&self, key: &CacheKey) -> Receipt {
        let receipt = self.inner.evict_with(key).await;
        self.part(key);
        receipt
    }

    async fn invalidate(&self, scopes: &[Scope], under: &Arc<Invalidation>) -> Receipt {
        self.inner.invalidate(scopes, under).await
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        let receipt = self.inner.install_if(key, value, ticket).await;
        self.part(key);
        receipt
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { inner: adopt(&self.inner, adoption), flights: Arc::default() }))
    }
}
