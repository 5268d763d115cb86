//! Work that completes when it is dropped: the offload goes on with it if its caller goes away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hitbox_core::{BoxFuture, CacheKey, Task, TaskKind};

use super::state::Composition;
use crate::completion::Batch;
use crate::operation::WriteOptions;

/// Polls like the work itself. Dropped half-way, it hands the rest to the offload. If that refuses, the rest is dropped
/// and the copies of its keys are dirty everywhere.
pub(super) struct CompletesWhenDropped<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    started: bool,
    composition: Arc<Composition>,
    keys: Batch<(CacheKey, WriteOptions)>,
}

// The work is boxed, and the rest is never pinned.
impl<T: Send + 'static> Unpin for CompletesWhenDropped<T> {}

impl<T: Send + 'static> CompletesWhenDropped<T> {
    pub(super) fn new(
        composition: &Arc<Composition>,
        keys: Batch<(CacheKey, WriteOptions)>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        Self { work: Some(Box::pin(work)), started: false, composition: composition.clone(), keys }
    }

    /// The same for work of which a part has been done already.
    pub(super) fn after_start(self) -> Self {
        let mut this = self;
        this.started = true;
        this
    }
}

impl<T: Send + 'static> Future for CompletesWhenDropped<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.started = true;
        let Some(work) = &mut self.work else { return Poll::Pending };
        let result = work.as_mut().poll(cx);
        if result.is_ready() {
            self.work = None;
        }
        result
    }
}

impl<T: Send + 'static> Drop for CompletesWhenDropped<T> {
    fn drop(&mut self) {
        // What was never polled has done nothing.
        let Some(work) = self.work.take().filter(|_| self.started && !std::thread::panicking()) else {
            return;
        };
        let task = Task::new(TaskKind::WRITE, async move {
            work.await;
        })
        .begun();
        if let Err(refused) = self.composition.offload.register(task) {
            tracing::debug!(why = ?refused.why, "a write whose caller left could not be finished");
            for (key, options) in &self.keys {
                self.composition.mark_all_dirty(key, options);
            }
        }
    }
}
