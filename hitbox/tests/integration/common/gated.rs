//! A store whose changes wait until the test lets them pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hitbox::backend::{DeleteStatus, Raw, Store};
use hitbox::core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};
use tokio::sync::Semaphore;

/// What becomes of one write or removal that waits for its gate.
#[derive(Clone)]
pub(crate) struct Gate {
    opens: Arc<Semaphore>,
    fails: bool,
}

impl Gate {
    fn new(fails: bool) -> Self {
        Self { opens: Arc::new(Semaphore::new(0)), fails }
    }

    pub(crate) fn open(&self) {
        self.opens.add_permits(1_000);
    }
}

/// A map whose next changes of some keys wait for gates, in order.
#[derive(Clone, Default)]
pub(crate) struct Gated {
    entries: Arc<Mutex<HashMap<CacheKey, CacheValue<Raw>>>>,
    gates: Arc<Mutex<HashMap<CacheKey, Vec<Gate>>>>,
    waiting: Arc<Mutex<u64>>,
}

impl Gated {
    pub(crate) fn gate(&self, key: &CacheKey, fails: bool) -> Gate {
        let gate = Gate::new(fails);
        self.gates.lock().expect("no panic").entry(key.clone()).or_default().push(gate.clone());
        gate
    }

    pub(crate) fn waiting(&self) -> u64 {
        *self.waiting.lock().expect("no panic")
    }

    pub(crate) fn number(&self, key: &CacheKey) -> Option<u64> {
        let entries = self.entries.lock().expect("no panic");
        entries.get(key).map(|value| value.data().decode().expect("a number"))
    }

    async fn pass(&self, key: &CacheKey) -> BackendResult<()> {
        let gate = {
            let mut gates = self.gates.lock().expect("no panic");
            gates.get_mut(key).filter(|gates| !gates.is_empty()).map(|gates| gates.remove(0))
        };
        let Some(gate) = gate else { return Ok(()) };
        *self.waiting.lock().expect("no panic") += 1;
        gate.opens.acquire().await.expect("it is never closed").forget();
        if gate.fails { Err(BackendError::new(ErrorKind::Connection, "the gate is closed")) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Gated {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.entries.lock().expect("no panic").get(key).cloned())
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.pass(key).await?;
        self.entries.lock().expect("no panic").insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.pass(key).await?;
        let removed = self.entries.lock().expect("no panic").remove(key);
        Ok(DeleteStatus::of(u32::from(removed.is_some())))
    }
}
