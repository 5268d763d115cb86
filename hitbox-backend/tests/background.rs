//! The offload pool: bounds, one task per subject, and nothing lost when tasks end badly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hitbox_backend::OffloadPool;
use hitbox_core::{CacheKey, Clock, ManualClock, Offload, Refusal, Subject, Task, TaskKind};
use tokio::sync::Semaphore;

fn subject(name: &str) -> Subject {
    Subject { owner: 1, key: CacheKey::new(name) }
}

/// A task that ends when the gate opens.
fn waiting(gate: &Arc<Semaphore>, ended: &Arc<AtomicUsize>) -> impl Future<Output = ()> + Send + 'static {
    let (gate, ended) = (gate.clone(), ended.clone());
    async move {
        let _permit = gate.acquire().await;
        ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn background_01_is_bounded_and_hands_back_what_it_refuses() {
    let pool = OffloadPool::builder().workers(2).queue(3).build();
    let (gate, ended) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let kind = TaskKind("test");
    pool.register(Task::unique(kind, subject("a"), waiting(&gate, &ended))).expect("the first");
    let twice = pool.register(Task::unique(kind, subject("a"), waiting(&gate, &ended)));
    assert_eq!(twice.expect_err("one per subject").why, Refusal::Duplicate);
    let other = Task::unique(TaskKind("other"), subject("a"), waiting(&gate, &ended));
    pool.register(other).expect("another kind is another subject");
    for _ in 0..3 {
        pool.register(Task::new(kind, waiting(&gate, &ended))).expect("room in the queue");
    }
    let refused = pool.register(Task::new(kind, waiting(&gate, &ended))).expect_err("over the bound");
    assert_eq!(refused.why, Refusal::Full);
    assert_eq!(pool.statistics().depth, 5);
    gate.add_permits(100);
    // The refused task is whole: who registered it can run it.
    refused.task.work.await;
    pool.wait_all().await;
    assert_eq!(ended.load(Ordering::SeqCst), 6);
    pool.register(Task::unique(kind, subject("a"), async {})).expect("the subject is free again");
    pool.shutdown().await;
    let late = pool.register(Task::new(kind, async {})).expect_err("after the shutdown");
    assert_eq!(late.why, Refusal::Closed);
    let statistics = pool.statistics();
    assert_eq!((statistics.registered, statistics.completed, statistics.depth), (6, 6, 0));
    assert_eq!((statistics.refused_full, statistics.refused_duplicate, statistics.refused_closed), (1, 1, 1));
}

#[tokio::test]
async fn background_02_tasks_that_end_badly_free_their_place() {
    let clock = ManualClock::new();
    let pool = OffloadPool::builder()
        .workers(1)
        .queue(10)
        .timeout(Some(Duration::from_secs(1)))
        .clock(Arc::new(clock.clone()))
        .build();
    let kind = TaskKind("test");
    pool.register(Task::unique(kind, subject("a"), async { panic!("a task of this test panics") }))
        .expect("taken");
    pool.wait_all().await;
    assert_eq!(pool.statistics().panicked, 1);

    pool.register(Task::unique(kind, subject("a"), std::future::pending())).expect("the subject is free");
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(1));
    pool.wait_all().await;
    assert_eq!(pool.statistics().timed_out, 1);

    pool.register(Task::unique(kind, subject("a"), std::future::pending())).expect("the subject is free");
    pool.register(Task::unique(kind, subject("b"), std::future::pending())).expect("it waits");
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    pool.cancel_all();
    pool.wait_all().await;
    assert_eq!(pool.statistics().cancelled, 2);
    pool.register(Task::unique(kind, subject("b"), async {})).expect("all is free");
    pool.wait_all().await;
    assert_eq!(pool.statistics().completed, 1);
    assert!(clock.is_real() || pool.statistics().depth == 0);
}
