//! Waiting in code that is not asynchronous.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Waits for a future in a function that is not `async`. What needs no waiting, as a hit in memory, costs no more than the
/// call. Else the calling thread is blocked; other tasks of a runtime with several threads go on meanwhile.
///
/// # Panics
/// Within a task of a runtime with one thread, if there is anything to wait for: nobody would be left to do it. Call it
/// from `spawn_blocking` there.
#[doc(hidden)]
pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return output;
    }
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| handle.block_on(future))
        }
        Ok(handle) => handle.block_on(future),
        Err(_) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime for the calling thread").block_on(future)
        }
    }
}
