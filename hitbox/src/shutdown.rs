//! The clean end of a cache.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use hitbox_backend::operation::Maintenance;
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{BackendError, BackendResult};

use crate::cache::Cache;

/// What a [`shutdown`](Cache::shutdown) has left behind.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Shutdown {
    /// The deadline came before all was finished and closed.
    pub is_cut: bool,
    /// Loads that were still under way.
    pub loading: u64,
    /// Keys whose copy in some layer is out of date: that layer did not take what was written.
    pub recovering: u64,
    /// Some layer has not recorded all invalidations: after a restart it may serve what they named.
    pub has_unrecorded: bool,
    /// Why a layer could not be closed.
    pub error: Option<BackendError>,
}

impl Shutdown {
    /// Whether nothing was left.
    pub fn is_clean(&self) -> bool {
        !self.is_cut
            && self.loading == 0
            && self.recovering == 0
            && !self.has_unrecorded
            && self.error.is_none()
    }
}

impl<V: Cacheable, B: Backend + ?Sized> Cache<V, B> {
    /// Waits for loads and background work, at most until the deadline, and closes the layers: a folder on disk can be
    /// opened again after that. Says what was left. The layers are closed for other handles too, and for other caches over
    /// them; memory goes on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use hitbox::{Cache, stacks};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache: Cache<u32> = Cache::builder(stacks::memory_over_disk(100, folder.path(), 1 << 20).await?).build()?;
    /// cache.insert("moby-dick", 12).await?;
    /// assert!(cache.shutdown(Duration::from_secs(5)).await.is_clean());
    /// let again = stacks::memory_over_disk(100, folder.path(), 1 << 20).await?;
    /// # drop(again);
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancellation
    /// What was closed stays closed; background work goes on.
    pub async fn shutdown(&self, deadline: Duration) -> Shutdown {
        let shared = &self.shared;
        let closing = async {
            shared.offload.idle().await;
            shared.backend.maintain(&Maintenance::Close).await.map(drop)
        };
        let closed: Option<BackendResult<()>> =
            match select(pin!(closing), shared.clock.sleep(deadline)).await {
                Either::Left((closed, _)) => Some(closed),
                Either::Right(_) => None,
            };
        Shutdown {
            is_cut: closed.is_none(),
            loading: shared.flights.len() as u64,
            recovering: shared.dirty_keys(),
            has_unrecorded: shared.backend.layout().has_unrecorded(),
            error: closed.and_then(Result::err),
        }
    }
}
