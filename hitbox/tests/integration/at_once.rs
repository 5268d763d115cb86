//! Loads that do not have to wait, and those that look so and do.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use hitbox::{Cache, LoadErrorKind};
use hitbox_backend::OffloadPool;
use hitbox_moka::MokaBackend;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

fn cache(pool: &OffloadPool) -> Cache<u64> {
    let memory = MokaBackend::builder().max_entries(100_000).build().expect("a backend");
    Cache::builder(memory).name("numbers").offload(pool.shared()).build().expect("a cache")
}

#[tokio::test]
async fn a_load_that_does_not_wait_needs_no_task() {
    let pool = OffloadPool::new();
    let cache = cache(&pool);
    let one = cache.get_or_load("one", || async { Ok::<_, Infallible>(1) }).await;
    assert_eq!(one.expect("a value"), 1);
    assert_eq!(pool.statistics().registered, 0);
    assert_eq!(cache.get("one").await.expect("a read"), Some(1));
}

#[tokio::test]
async fn a_load_that_waits_goes_on_in_a_task() {
    let pool = OffloadPool::new();
    let cache = cache(&pool);
    let (answer, answered) = oneshot::channel();
    let mut call = Box::pin(cache.get_or_load("one", || answered));
    let polled = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
    assert_eq!(pool.statistics().registered, 1);
    answer.send(1).expect("the loader waits for it");
    pool.wait_all().await;
    assert_eq!(cache.get("one").await.expect("a read"), Some(1));
    assert_eq!(call.await.expect("a value"), 1);
}

#[tokio::test]
#[should_panic(expected = "no such thing")]
async fn a_loader_that_panics_at_once_panics_in_its_call() {
    let cache = cache(&OffloadPool::new());
    let _ = cache.get_or_load("one", || async { panic!("no such thing") as Result<u64, Infallible> }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_holds_for_a_loader_that_blocks_its_thread() {
    let cache = cache(&OffloadPool::new());
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let block = move || async move {
        // Until the test has had its answer.
        let _ = released.lock().map(|released| released.recv());
        Ok::<_, Infallible>(1)
    };
    let late = cache.entry("one").hard_timeout(Duration::from_millis(20)).get_or_load(block).await;
    assert_eq!(late.expect_err("it blocks").kind(), LoadErrorKind::TimedOut);
    drop(release);
}

/// The value of a number is that of the number below, plus one.
fn load(cache: Cache<u64>, number: u64) -> futures_util::future::BoxFuture<'static, u64> {
    Box::pin(async move {
        let below = cache.clone();
        let loader = move || async move {
            Ok::<_, Infallible>(if number == 0 { 0 } else { load(below, number - 1).await + 1 })
        };
        cache.get_or_load(&number, loader).await.expect("a value")
    })
}

#[tokio::test]
async fn loads_that_call_for_loads_do_not_use_up_the_stack() {
    let pool = OffloadPool::builder().interactive(10_000).build();
    assert_eq!(load(cache(&pool), 3_000).await, 3_000);
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the future comes to on this thread, where there is no runtime.
fn without_runtime<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

/// Timers and sockets belong to the runtime on which a loader is polled first.
#[test]
fn a_loader_never_leaves_the_runtime_of_its_pool() {
    let pools = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let timer = || async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, Infallible>(1)
    };
    // A pool that was built on a runtime, for a caller that has none.
    let elsewhere = cache(&pools.block_on(async { OffloadPool::new() }));
    assert_eq!(without_runtime(elsewhere.get_or_load("one", timer)).expect("a value"), 1);
    // A pool with a runtime of its own, for a caller on one without timers.
    let chosen = cache(&OffloadPool::builder().runtime(pools.handle().clone()).build());
    let bare = Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(bare.block_on(chosen.get_or_load("one", timer)).expect("a value"), 1);
}
