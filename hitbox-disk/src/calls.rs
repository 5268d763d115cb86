//! Calls that block, on tokio's threads for them.

use std::sync::Arc;

use hitbox_backend::core::{BackendError, BackendResult, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::objects::Objects;
use crate::stored::OpenFiles;

/// Calls that wait for a thread, or that the disk keeps waiting, also those whose callers have left. More wait before they
/// begin, with their callers.
const MAX_CALLS: usize = 4_096;
/// Bytes of what such calls write, in units of a kilobyte.
const MAX_WRITTEN: u32 = 64 * 1_024;
/// Bodies that are being written: each has a file open, and up to 256 KiB that are not in it yet.
pub(crate) const MAX_BODIES: usize = 512;

/// Runs what blocks on a thread for that. It runs to its end, even if the future is dropped.
#[expect(clippy::disallowed_methods, reason = "file systems block, and the offload may be full")]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> BackendResult<T> + Send + 'static,
) -> BackendResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(BackendError::new(ErrorKind::Closed, "the thread did not finish").with_source(error))
        }
    }
}

/// Drops what has to remove a file, on a thread that may block if there is a runtime.
#[expect(clippy::disallowed_methods, reason = "file systems block, and a drop cannot wait")]
pub(crate) fn drop_elsewhere(what: impl Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(what))),
        Err(_) => drop(what),
    }
}

/// The objects, for calls of which so many may be under way.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) objects: Arc<Objects>,
    calls: Arc<Semaphore>,
    written: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    pub(crate) open_files: OpenFiles,
}

/// Bytes that are being written, which others have to wait for.
pub(crate) struct Writing(
    #[expect(dead_code, reason = "dropped when they are written")] Option<OwnedSemaphorePermit>,
);

/// A body's part of those that may be written at a time.
pub(crate) struct OpenBody(#[expect(dead_code, reason = "dropped with the body")] OwnedSemaphorePermit);

impl Calls {
    pub(crate) fn new(objects: Objects) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            objects: Arc::new(objects),
            calls: semaphore(MAX_CALLS),
            written: semaphore(MAX_WRITTEN as usize),
            bodies: semaphore(MAX_BODIES),
            open_files: OpenFiles::default(),
        }
    }

    /// Runs `work` on a thread that may block. It goes on if its caller leaves, and has a part of what may be under way
    /// until it ends.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Objects>) -> BackendResult<T> + Send + 'static,
    ) -> BackendResult<T> {
        let (objects, permit) = (self.objects.clone(), permits(&self.calls, 1).await);
        blocking(move || {
            let _permit = permit;
            work(&objects)
        })
        .await
    }

    /// Begins `work` on such a thread, for nobody who waits, unless too much is under way.
    #[expect(clippy::disallowed_methods, reason = "file systems block, and the offload may be full")]
    pub(crate) fn begin(&self, work: impl FnOnce() + Send + 'static) {
        if let Ok(permit) = self.calls.clone().try_acquire_owned() {
            drop(tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work();
            }));
        }
    }

    /// A body more.
    ///
    /// # Errors
    /// [`Overloaded`](ErrorKind::Overloaded) if there are too many. It does not wait: who has one may be waiting for another.
    pub(crate) fn begin_body(&self) -> BackendResult<OpenBody> {
        let message = format!("{MAX_BODIES} bodies are being written");
        let permit = self.bodies.clone().try_acquire_owned();
        permit.map(OpenBody).map_err(|_| BackendError::new(ErrorKind::Overloaded, message))
    }

    /// Waits until so many bytes may be written.
    pub(crate) async fn begin_writing(&self, bytes: usize) -> Writing {
        let units = u32::try_from(bytes / 1_024).unwrap_or(MAX_WRITTEN).clamp(1, MAX_WRITTEN);
        Writing(permits(&self.written, units).await)
    }
}

/// Waits for its turn. The semaphores are never closed.
async fn permits(of: &Arc<Semaphore>, count: u32) -> Option<OwnedSemaphorePermit> {
    of.clone().acquire_many_owned(count).await.ok()
}
