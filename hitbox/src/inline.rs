//! Loads that run within the call that leads them.

use std::pin::Pin;
use std::task::{Context, Poll};

use hitbox_core::{BoxFuture, Offload, Task, TaskKind};

/// A load that is polled by its call.
pub(crate) enum Inline<'l> {
    /// It borrows from the call, and ends with it.
    Borrowing(BoxFuture<'l, ()>),
    /// There was no room for it in the background.
    Owned(BoxFuture<'static, ()>),
}

impl Inline<'_> {
    /// Has the offload go on with a load, before its call is answered. Says whether the call may go: it may not if the load
    /// borrows from it, or there is still no room.
    pub(crate) fn hand_over(inline: &mut Option<Self>, offload: &dyn Offload) -> bool {
        match inline.take() {
            None => true,
            Some(Self::Owned(load)) => match offload.register(Task::new(TaskKind::LOAD, load).begun()) {
                Ok(()) => true,
                Err(refused) => {
                    *inline = Some(Self::Owned(refused.task.work));
                    false
                }
            },
            borrowing => {
                *inline = borrowing;
                false
            }
        }
    }
}

impl Future for Inline<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Self::Borrowing(load) => load.as_mut().poll(cx),
            Self::Owned(load) => load.as_mut().poll(cx),
        }
    }
}

/// How long a call waits for the load that it has begun or joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until its soft timeout.
    Soft,
    /// Until its hard timeout, since it performs the load by itself, which would never be done otherwise.
    Hard,
    /// It takes what it can get.
    Over,
}
