//! A thousand tasks ask for one cold key at the same time, and the first of them goes away. Runs without any server.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "an example")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hitbox::{AnswerKind, Cache, stacks};

/// A source that takes 50 ms and counts its calls.
async fn source(calls: Arc<AtomicU64>) -> Result<u64, std::io::Error> {
    calls.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(42)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache: Cache<u64> = Cache::builder(stacks::memory(1_000)?).name("answers").build()?;
    let calls = Arc::new(AtomicU64::new(0));
    let ask = || {
        let (cache, calls) = (cache.clone(), calls.clone());
        tokio::spawn(async move { cache.entry("answer").get_or_load(move || source(calls)).await })
    };
    let started = Instant::now();
    let first = ask();
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let rest: Vec<_> = (0..999).map(|_| ask()).collect();
    first.abort();
    let mut coalesced = 0;
    for task in rest {
        let response = task.await??;
        assert_eq!(*response, 42);
        coalesced += u64::from(response.outcome.kind == AnswerKind::Coalesced);
    }
    let calls = calls.load(Ordering::SeqCst);
    println!("999 answers in {:?}: {calls} call of the source, {coalesced} waited for it", started.elapsed());
    assert_eq!(calls, 1);
    Ok(())
}
