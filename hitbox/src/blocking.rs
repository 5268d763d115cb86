//! Waiting in code that is not asynchronous.

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// Runs what functions without a runtime wait for. It is started by the first of them.
static OWN: LazyLock<Runtime> = LazyLock::new(|| {
    let threads = Builder::new_multi_thread().worker_threads(1).thread_name("hitbox").enable_all().build();
    threads.expect("a runtime for functions that are called without one")
});

/// Waits for a future in a function that is not `async`. What needs no waiting, as a hit in memory, costs no more than the
/// call. Else the calling thread is blocked; other tasks of a runtime with several threads go on meanwhile. Where there is no
/// runtime, there is one of these functions' own, with one thread.
///
/// # Panics
/// Within a task of a runtime with one thread, if there is anything to wait for: nobody would be left to do it. Call it
/// from `spawn_blocking` there.
#[doc(hidden)]
pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let current = Handle::try_current();
    {
        // Timers and connections ask for it before there is anything to wait for.
        let _entered = current.is_err().then(|| OWN.enter());
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    match current {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| handle.block_on(future))
        }
        Ok(handle) => handle.block_on(future),
        Err(_) => OWN.block_on(future),
    }
}
