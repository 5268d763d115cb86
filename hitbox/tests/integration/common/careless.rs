//! Caches with one mistake each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hitbox::backend::{Backend, CacheBackend};
use hitbox::core::{BackendResult, CacheContext, CacheKey, CacheValue, Lifetime};
use hitbox::{Cache, Load, LoadError, Response, ToKey};
use tokio::sync::Notify;

use super::{Knobs, Loading, TestLoader};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Looks, loads, inserts: no more.
    Naive,
    /// Others wait for the first caller, whatever becomes of it.
    WaitsForLeader,
    /// Remembers failures.
    CachesErrors,
    /// A cache that cannot be read or written fails the call.
    FailsWithTheCache,
}

pub(crate) struct Careless {
    mistake: Mistake,
    backend: Arc<dyn Backend>,
    ttl: Option<Duration>,
    leaders: Mutex<HashMap<u64, Arc<Notify>>>,
    failed: Mutex<HashMap<u64, LoadError>>,
    loading: AtomicU64,
}

impl Careless {
    pub(crate) fn new(mistake: Mistake, backend: Arc<dyn Backend>, knobs: &Knobs) -> Self {
        Self {
            mistake,
            backend,
            ttl: knobs.ttl,
            leaders: Mutex::default(),
            failed: Mutex::default(),
            loading: AtomicU64::new(0),
        }
    }

    fn key(key: u64) -> CacheKey {
        key.to_key("test").into_owned()
    }

    async fn read(&self, key: u64) -> BackendResult<Option<u64>> {
        let found = self.backend.get::<u64>(&Self::key(key), &mut CacheContext::new()).await?;
        Ok(found.map(CacheValue::into_data))
    }

    async fn write(&self, key: u64, value: u64) -> BackendResult<()> {
        let now = self.backend.layout().clock().now();
        let lifetime = self.ttl.map_or(Lifetime::FOREVER, |ttl| Lifetime::ttl(now, ttl));
        let value = CacheValue::new(value).with_lifetime(lifetime);
        self.backend.set(&Self::key(key), value, &mut CacheContext::new()).await.map(drop)
    }

    /// The loader's value through a cache that keeps nothing, which knows how to run one.
    async fn run(&self, key: u64, loader: TestLoader) -> Result<u64, LoadError> {
        self.loading.fetch_add(1, Ordering::SeqCst);
        let run = |load: Load<u64>| loader(load);
        let loaded = Cache::<u64>::null().entry(key).bypass().get_or_load_with(run).await;
        self.loading.fetch_sub(1, Ordering::SeqCst);
        Ok(loaded?.value)
    }
}

/// An answer without any story.
fn served(value: u64, outcome: hitbox::Outcome) -> Response<u64> {
    Response::new(value, outcome)
}

async fn outcome() -> hitbox::Outcome {
    let served = Cache::<u64>::null().entry(0).get().await;
    served.expect("nothing fails").outcome
}

#[async_trait]
impl Loading for Careless {
    async fn load(&self, key: u64, loader: TestLoader) -> Result<Response<u64>, LoadError> {
        if let Some(error) = self.failed.lock().expect("no panic").get(&key) {
            return Err(error.clone());
        }
        loop {
            match self.read(key).await {
                Ok(Some(value)) => return Ok(served(value, outcome().await)),
                Err(error) if self.mistake == Mistake::FailsWithTheCache => {
                    let fail = Cache::<u64>::null();
                    return fail.entry(key).get_or_load(|| async { Err(error) }).await;
                }
                Ok(None) | Err(_) => {}
            }
            if self.mistake != Mistake::WaitsForLeader {
                break;
            }
            let leader = {
                let mut leaders = self.leaders.lock().expect("no panic");
                match leaders.get(&key) {
                    Some(leader) => Some(leader.clone()),
                    None => {
                        leaders.insert(key, Arc::default());
                        None
                    }
                }
            };
            match leader {
                Some(leader) => leader.notified().await,
                None => break,
            }
        }
        let loaded = self.run(key, loader).await;
        if let (Err(error), Mistake::CachesErrors) = (&loaded, self.mistake) {
            self.failed.lock().expect("no panic").insert(key, error.clone());
        }
        let value = loaded?;
        let written = self.write(key, value).await;
        if let (Err(error), Mistake::FailsWithTheCache) = (written, self.mistake) {
            let fail = Cache::<u64>::null();
            return fail.entry(key).get_or_load(|| async { Err(error) }).await;
        }
        if let Some(waiting) = self.leaders.lock().expect("no panic").remove(&key) {
            waiting.notify_waiters();
        }
        Ok(served(value, outcome().await))
    }

    async fn get(&self, key: u64) -> Option<u64> {
        self.read(key).await.ok().flatten()
    }

    async fn insert(&self, key: u64, value: u64) -> BackendResult<()> {
        self.write(key, value).await
    }

    async fn remove(&self, key: u64) -> BackendResult<()> {
        self.backend.delete(&Self::key(key), &mut CacheContext::new()).await.map(drop)
    }

    fn loading(&self) -> u64 {
        self.loading.load(Ordering::SeqCst)
    }
}
