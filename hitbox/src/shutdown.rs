//! The clean end of a cache.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use hitbox_backend::internal;
use hitbox_backend::operation::{Maintained, Maintenance};
use hitbox_backend::{Backend, Cacheable};
use hitbox_core::{BackendError, BackendResult};

use crate::cache::Cache;

/// How long layers may take to be closed.
const CLOSING: Duration = Duration::from_secs(2);

/// What a [`shutdown`](Cache::shutdown) has left behind.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Shutdown {
    /// The deadline came before all was finished, or a layer was not closed in time.
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
    /// Waits for loads and background work, offers layers that failed what they have missed, all that at most until the
    /// deadline; then closes the layers, which takes as long as the calls that are under way there, and at most two seconds
    /// more. Says what was left. A folder on disk can be opened again after that. It is closed for other handles too, and
    /// for other caches over it; memory and servers, which have nothing to be freed, go on.
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
        let finishing = async {
            // Those that run within their calls too.
            shared.flights.idle().await;
            shared.streams.idle().await;
            shared.offload.idle().await;
            let finished = shared.backend.maintain(&Maintenance::Finish).await;
            internal::bring_up_to_date(shared.clone(), shared.clock.clone()).await;
            finished.err()
        };
        let (is_late, failed) = match select(pin!(finishing), shared.clock.sleep(deadline)).await {
            Either::Left((failed, _)) => (false, failed),
            Either::Right(_) => (true, None),
        };
        // Whatever is under way still, the layers are closed.
        let (loading, recovering) = (shared.loads_under_way(), shared.dirty_keys());
        let closing = pin!(shared.backend.maintain(&Maintenance::Close));
        let closed: Option<BackendResult<Maintained>> =
            match select(closing, shared.clock.sleep(CLOSING)).await {
                Either::Left((closed, _)) => Some(closed),
                Either::Right(_) => None,
            };
        Shutdown {
            is_cut: is_late || closed.is_none(),
            loading,
            recovering,
            has_unrecorded: shared.backend.layout().has_unrecorded(),
            error: closed.and_then(Result::err).or(failed),
        }
    }
}
