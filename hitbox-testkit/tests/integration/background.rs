//! The offload pool: bounds, one task per subject, and nothing lost when tasks end badly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hitbox_backend::OffloadPool;
use hitbox_core::{CacheKey, Clock, Lane, ManualClock, Offload, Refusal, Subject, Task, TaskKind};
use hitbox_testkit::broken::{LeaksSubjects, SpawnsEverything};
use hitbox_testkit::suite::Verdict;
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

const KIND: TaskKind = TaskKind("test");

/// What any offload with room for five tasks has to do.
async fn is_bounded(offload: &dyn Offload) -> Verdict {
    let (gate, ended) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let taken =
        |result: Result<(), hitbox_core::Refused>| result.map_err(|r| format!("refused: {:?}", r.why));
    taken(offload.register(Task::unique(KIND, subject("a"), waiting(&gate, &ended))))?;
    match offload.register(Task::unique(KIND, subject("a"), waiting(&gate, &ended))) {
        Err(refused) if refused.why == Refusal::Duplicate => {}
        other => return Err(format!("a second task of one subject: {other:?}")),
    }
    // Another kind is another subject.
    taken(offload.register(Task::unique(TaskKind("other"), subject("a"), waiting(&gate, &ended))))?;
    for _ in 0..3 {
        taken(offload.register(Task::new(KIND, waiting(&gate, &ended))))?;
    }
    let refused = match offload.register(Task::new(KIND, waiting(&gate, &ended))) {
        Err(refused) if refused.why == Refusal::Full => refused,
        other => return Err(format!("a task over the bound: {other:?}")),
    };
    gate.add_permits(100);
    // The refused task is whole: who registered it can run it.
    refused.task.work.await;
    while ended.load(Ordering::SeqCst) < 6 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test]
async fn background_01_is_bounded_and_hands_back_what_it_refuses() {
    let pool = OffloadPool::builder().workers(2).queue(3).build();
    is_bounded(&pool).await.expect("it is bounded");
    pool.wait_all().await;
    pool.register(Task::unique(KIND, subject("a"), async {})).expect("the subject is free again");
    pool.shutdown().await;
    let late = pool.register(Task::new(KIND, async {})).expect_err("after the shutdown");
    assert_eq!(late.why, Refusal::Closed);
    let statistics = pool.statistics();
    assert_eq!((statistics.registered, statistics.completed, statistics.depth), (6, 6, 0));
    assert_eq!((statistics.refused_full, statistics.refused_duplicate, statistics.refused_closed), (1, 1, 1));
}

#[tokio::test]
async fn background_01_rejects_spawning_everything() {
    is_bounded(&SpawnsEverything).await.expect_err("it takes everything");
}

/// A task that panics frees its subject.
async fn frees_subjects(offload: &dyn Offload) -> Verdict {
    let panics = Task::unique(KIND, subject("a"), async { panic!("a task of this test panics") });
    offload.register(panics).map_err(|refused| format!("{refused:?}"))?;
    let again = tokio::time::timeout(Duration::from_secs(1), async {
        while offload.register(Task::unique(KIND, subject("a"), async {})).is_err() {
            tokio::task::yield_now().await;
        }
    });
    again.await.map_err(|_| "the subject of a task that panicked is never free".to_owned())
}

#[tokio::test]
async fn background_02_rejects_leaking_the_subject_of_a_panic() {
    frees_subjects(&LeaksSubjects::default()).await.expect_err("it leaks");
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
    frees_subjects(&pool).await.expect("a panic frees the subject");
    pool.wait_all().await;
    assert_eq!(pool.statistics().panicked, 1);

    pool.register(Task::unique(KIND, subject("a"), std::future::pending())).expect("the subject is free");
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(1));
    pool.wait_all().await;
    assert_eq!(pool.statistics().timed_out, 1);

    pool.register(Task::unique(KIND, subject("a"), std::future::pending())).expect("the subject is free");
    pool.register(Task::unique(KIND, subject("b"), std::future::pending())).expect("it waits");
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    pool.cancel_all();
    pool.wait_all().await;
    assert_eq!(pool.statistics().cancelled, 2);
    pool.register(Task::unique(KIND, subject("b"), async {})).expect("all is free");
    pool.wait_all().await;
    assert_eq!(pool.statistics().completed, 2);
    assert!(clock.is_real() || pool.statistics().depth == 0);
}

#[tokio::test]
async fn interactive_tasks_neither_queue_nor_stand_behind_others() {
    let pool = OffloadPool::builder().workers(1).queue(0).interactive(2).build();
    let (gate, ended) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let task = || Task::new(KIND, waiting(&gate, &ended));
    pool.register(task()).expect("the only worker");
    pool.register(task()).expect_err("no room");
    pool.register(task().interactive()).expect("beside the workers");
    pool.register(task().interactive()).expect("beside the workers");
    let refused = pool.register(task().interactive()).expect_err("no more of them");
    assert_eq!(refused.why, Refusal::Full);
    gate.add_permits(10);
    pool.wait_all().await;
    assert_eq!(ended.load(Ordering::SeqCst), 3);
    pool.register(task().interactive()).expect("there is room again");
    pool.wait_all().await;
    let statistics = pool.statistics();
    assert_eq!((statistics.registered, statistics.completed, statistics.refused_full), (4, 4, 2));
}

/// On a runtime of one thread, nothing of a task has run before its owner waits for something.
#[tokio::test]
async fn tasks_are_cancelled_before_they_have_begun_to_run() {
    let pool = OffloadPool::builder().workers(2).queue(2).build();
    let (gate, ended) = (Arc::new(Semaphore::new(9)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..4 {
        pool.register(Task::new(KIND, waiting(&gate, &ended))).expect("room");
    }
    pool.cancel_all();
    pool.register(Task::new(KIND, waiting(&gate, &ended))).expect("tasks are taken again");
    pool.wait_all().await;
    let statistics = pool.statistics();
    assert_eq!((statistics.cancelled, statistics.completed), (4, 1), "{statistics:?}");
    assert_eq!(ended.load(Ordering::SeqCst), 1, "what was cancelled has run");
}

#[tokio::test]
async fn begun_tasks_never_wait_for_a_worker() {
    let clock = ManualClock::new();
    let builder = OffloadPool::builder().workers(1).queue(2).interactive(0).clock(Arc::new(clock.clone()));
    let pool = builder.timeout(Some(Duration::from_secs(5))).build();
    let (gate, ended) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = || Task::new(KIND, waiting(&gate, &ended)).begun();
    pool.register(begun()).expect("beside the worker");
    pool.register(begun()).expect("beside the worker");
    pool.register(begun()).expect("a worker is free");
    let refused = pool.register(begun()).expect_err("it would wait");
    assert_eq!((refused.why, refused.task.lane), (Refusal::Full, Lane::Begun));
    pool.register(Task::new(KIND, waiting(&gate, &ended))).expect("the queue");
    // The limit of background work is theirs too.
    while clock.sleepers() < 3 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(5));
    while pool.statistics().timed_out < 3 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    pool.wait_all().await;
    assert_eq!(ended.load(Ordering::SeqCst), 1, "what waited has run");
    pool.register(begun()).expect("there is room again");
    gate.add_permits(1);
    pool.wait_all().await;
    let statistics = pool.statistics();
    assert_eq!((statistics.registered, statistics.completed, statistics.depth), (5, 2, 0));
}

#[tokio::test]
async fn daemons_are_not_waited_for_and_end_with_the_pool() {
    let pool = OffloadPool::builder().workers(1).queue(0).build();
    let (gate, ended) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    pool.register(Task::new(KIND, waiting(&gate, &ended)).daemon()).expect("beside the workers");
    pool.wait_all().await;
    assert_eq!((pool.statistics().daemons, ended.load(Ordering::SeqCst)), (1, 0));
    pool.shutdown().await;
    while pool.statistics().daemons > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ended.load(Ordering::SeqCst), 0, "it was cancelled");
    assert_eq!(Arc::strong_count(&ended), 1, "nothing of it is left");
}

#[tokio::test]
async fn kinds_have_time_limits_of_their_own() {
    let clock = ManualClock::new();
    let pool = OffloadPool::builder()
        .clock(Arc::new(clock.clone()))
        .timeout(Some(Duration::from_secs(100)))
        .timeout_of(KIND, Some(Duration::from_secs(5)))
        .build();
    let (gate, ended) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    pool.register(Task::new(KIND, waiting(&gate, &ended))).expect("room");
    pool.register(Task::new(TaskKind("other"), waiting(&gate, &ended))).expect("room");
    pool.register(Task::new(TaskKind("interactive"), waiting(&gate, &ended)).interactive()).expect("room");
    while clock.sleepers() < 2 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(5));
    while pool.statistics().timed_out < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.statistics().depth, 2);
    clock.advance(Duration::from_secs(95));
    while pool.statistics().timed_out < 2 {
        tokio::task::yield_now().await;
    }
    // Who waits for an interactive task limits it.
    assert_eq!(pool.statistics().depth, 1);
    gate.add_permits(1);
    pool.wait_all().await;
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}
