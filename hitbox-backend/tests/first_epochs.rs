//! The first epoch of a scope, while the store is slow to take its record.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use hitbox_backend::operation::TimeChange;
use hitbox_backend::store::{Capabilities, DeleteStatus, Peek, Raw, Store};
use hitbox_backend::{CacheBackend, IntoBackend, SystemClock};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Clock, Details, Lifetime, Scope};
use tokio::sync::Semaphore;

/// A store whose entries survive the process. It takes records of epochs when it is let.
#[derive(Clone)]
struct Slow {
    entries: Arc<Mutex<HashMap<CacheKey, CacheValue<Raw>>>>,
    gate: Arc<Semaphore>,
}

impl Slow {
    fn entries<T>(&self, ask: impl FnOnce(&mut HashMap<CacheKey, CacheValue<Raw>>) -> T) -> T {
        ask(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Store for Slow {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.entries(|entries| entries.get(key).cloned()))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        if key.is_reserved() {
            self.gate.acquire().await.expect("it is open").forget();
        }
        self.entries(|entries| entries.insert(key.clone(), value));
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::of(u32::from(self.entries(|entries| entries.remove(key)).is_some())))
    }

    async fn change_times(&self, key: &CacheKey, change: &TimeChange) -> BackendResult<Peek> {
        self.entries(|entries| {
            let Some(entry) = entries.remove(key) else { return Ok(Peek::Absent) };
            let changed = change.apply(entry).unwrap_or_else(|same| same);
            entries.insert(key.clone(), changed.clone());
            Ok(Peek::Entry(changed.map(drop)))
        })
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.durable = true;
        capabilities
    }
}

fn tagged(life: Option<Duration>) -> CacheValue<String> {
    let mut details = Details::default();
    details.scopes = vec![Scope::tag("red")];
    let lifetime = life.map_or(Lifetime::FOREVER, |life| Lifetime::ttl(SystemClock.now(), life));
    CacheValue::new("a value".to_owned()).with_lifetime(lifetime).with_details(details)
}

#[tokio::test]
async fn a_record_that_is_being_written_is_not_one_that_is_lost() {
    let store = Slow { entries: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
    let backend = store.clone().into_backend();
    let (short, long) = (CacheKey::new("short"), CacheKey::new("long"));
    // The first to carry the tag has its epoch recorded for as long as it lives.
    let mut first = Box::pin(backend.set_one(&short, tagged(Some(Duration::from_secs(10)))));
    assert!(first.as_mut().now_or_never().is_none(), "the store does not take the record yet");
    // The second lives longer, and needs the record for longer.
    let mut second = Box::pin(backend.set_one(&long, tagged(None)));
    assert!(second.as_mut().now_or_never().is_none(), "it has the record written, or waits for it");
    store.gate.add_permits(10);
    second.await.expect("a write");
    first.await.expect("a write");
    for key in [&short, &long] {
        let value = backend.get_one::<String>(key).await.expect("a read");
        assert!(value.is_some(), "{key:?} carries the epoch of its tag");
    }
    backend.invalidate_tags(&["red"]).await.expect("an invalidation");
    for key in [&short, &long] {
        assert!(backend.get_one::<String>(key).await.expect("a read").is_none(), "{key:?} is invalid");
    }
}
