//! Code of others, whose panics harm nobody but the value or the call that they are about.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use futures_util::FutureExt;
use hitbox_core::{BackendError, BackendResult, ErrorKind};

/// What `work` comes to. A panic of it is an error of this kind, which says of what it is a panic.
pub(crate) fn unpanicked<R>(
    kind: ErrorKind,
    what: &str,
    work: impl FnOnce() -> BackendResult<R>,
) -> BackendResult<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(BackendError::new(kind, format!("{what} panicked: {}", panic_message(&*panic))))
    })
}

/// The same for work that waits.
pub(crate) async fn unpanicked_later<R>(
    kind: ErrorKind,
    what: &str,
    work: impl Future<Output = BackendResult<R>>,
) -> BackendResult<R> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => unpanicked(kind, what, || resume_unwind(panic)),
    }
}

/// What a panic says, if that is a text.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}
