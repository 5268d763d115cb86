//! A layer that does not record an invalidation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hitbox_backend::store::{
    Capabilities, Conditional, DeleteStatus, LeafOptions, Raw, Store, StoreCondition,
};
use hitbox_backend::{Backend, CacheBackend, Layer, Leaf};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind, Scope};

use super::super::support::*;
use super::{put_carrying, record};
use crate::{Setup, Subject, World};

/// A store that does not take the framework's own records while it is told so.
struct Forgetful {
    entries: Mutex<HashMap<CacheKey, CacheValue<Raw>>>,
    capabilities: Capabilities,
    is_failing: Arc<AtomicBool>,
    /// Records of the framework that it took.
    recorded: Arc<AtomicU64>,
}

impl Forgetful {
    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, CacheValue<Raw>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, key: &CacheKey) -> BackendResult<()> {
        if key.is_reserved() && self.is_failing.load(Ordering::SeqCst) {
            return Err(BackendError::new(ErrorKind::Connection, "an injected fault"));
        }
        self.recorded.fetch_add(u64::from(key.is_reserved()), Ordering::SeqCst);
        Ok(())
    }
}

#[async_trait]
impl Store for Forgetful {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.lock().get(key).cloned())
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.record(key)?;
        self.lock().insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::of(u32::from(self.lock().remove(key).is_some())))
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn write_if(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        let StoreCondition::IfNewer { version, .. } = condition else {
            return Err(BackendError::unsupported("another condition"));
        };
        self.record(key)?;
        let mut entries = self.lock();
        let version_of = |stored: &CacheValue<Raw>| stored.details().and_then(|details| details.version);
        if let Some(stored) = entries.get(key).filter(|stored| version_of(stored) >= Some(*version)) {
            let identity = stored.data().identity();
            return Ok(Conditional::Conflict(Some((stored.clone().map(drop), identity))));
        }
        entries.insert(key.clone(), value);
        Ok(Conditional::Written)
    }
}

pub(in crate::suite) async fn invalidate_06_a_layer_that_did_not_record_it_is_named(
    subject: &Subject,
) -> Verdict {
    // Epochs of the process, of the store, and of a store that others share.
    let mut shared = Capabilities::PLAIN;
    (shared.shared, shared.writes_conditionally) = (true, true);
    let mut live = Capabilities::PLAIN;
    live.keeps_live_values = true;
    for (capabilities, at) in
        [live, Capabilities::PLAIN, shared].into_iter().flat_map(|c| Layer::BOTH.map(|at| (c, at)))
    {
        let world = World::new();
        let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
        let (is_failing, recorded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let store = Forgetful {
            entries: Mutex::default(),
            capabilities,
            is_failing: is_failing.clone(),
            recorded: recorded.clone(),
        };
        let failing = Leaf::new(store, LeafOptions::new("forgetful").with_clock(world.shared_clock()));
        let whole = match at {
            Layer::L1 => subject.compose(failing, l2, &world, Setup::default()),
            Layer::L2 => subject.compose(l1, failing, &world, Setup::default()),
        };
        let path = whole.layout().paths().find(|path| path.as_str().ends_with("forgetful"));
        let keeps_epochs_itself = capabilities.keeps_live_values;
        let one = record(&["1"]);
        put_carrying(&*whole, &one, 1, &[Scope::tag("red")]).await?;
        is_failing.store(true, Ordering::SeqCst);
        let result = whole.invalidate_tags(&["red"]).await;
        if keeps_epochs_itself {
            ensure!(result.is_ok(), "nothing had to be recorded: {result:?}");
        } else {
            let Err(error) = result else {
                return Err("a layer did not record it, and nobody says so".to_owned());
            };
            ensure_eq!(error.label(), path, "the layer that is named");
        }
        ensure_eq!(id(&*whole, &one).await?, None, "the entry of the layer that failed");
        is_failing.store(false, Ordering::SeqCst);
        let before = recorded.load(Ordering::SeqCst);
        world.advance_millis(1_000);
        ensure_eq!(id(&*whole, &one).await?, None, "the entry after the layer has come back");
        // The one who is at it may be the composition, in the background.
        while whole.layout().has_unrecorded() {
            tokio::task::yield_now().await;
        }
        let later = recorded.load(Ordering::SeqCst) - before;
        ensure!(
            keeps_epochs_itself || later == 1,
            "the layer was given the invalidation {later} times afterwards"
        );
        put_carrying(&*whole, &one, 2, &[Scope::tag("red")]).await?;
        ensure_eq!(id(&*whole, &one).await?, Some(2), "what is written afterwards");
    }
    Ok(())
}
