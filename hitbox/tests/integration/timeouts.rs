//! Layers that do not answer: what they are asked delays neither a timeout nor a loader.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Knobs, Topology, World, cache, millis, seconds};
use hitbox::backend::OffloadPool;
use hitbox::core::{Clock, ManualClock, Task, TaskKind};
use hitbox::{AnswerKind, Cache, LoadError, LoadErrorKind, Loaded, OnStale, Response};
use hitbox_testkit::{Fault, Operation};
use tokio::task::JoinHandle;

const STEP: Duration = Duration::from_millis(10);
/// What a layer takes that hangs.
const HANG: Duration = Duration::from_secs(3);
const OVER: [Topology; 2] = [Topology::Memory, Topology::TwoLayers];

/// Soft timeout 50 ms, hard timeout 100 ms.
fn timeouts() -> Knobs {
    Knobs {
        ttl: Some(seconds(60)),
        fail_safe: seconds(3_600),
        soft: Some(millis(50)),
        hard: Some(millis(100)),
        ..Knobs::default()
    }
}

/// Lets all tasks get as far as they can without the clock.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Moves the clock until a call has ended: says when that was, and how.
async fn ended<T>(world: &World, call: JoinHandle<T>) -> (Duration, T) {
    let start = world.clock.monotonic();
    for _ in 0..1_000 {
        settle().await;
        if call.is_finished() {
            return (world.clock.monotonic() - start, call.await.expect("no panic"));
        }
        world.clock.advance(STEP);
    }
    panic!("a call does not end");
}

/// A loader that takes its time, and is polled in every step of the clock.
#[derive(Clone)]
struct Slow {
    clock: ManualClock,
    takes: Duration,
    /// Steps in which it was polled, and when it began.
    polls: Arc<AtomicU64>,
    began: Arc<AtomicU64>,
}

impl Slow {
    fn new(world: &World, takes: Duration) -> Self {
        let began = Arc::new(AtomicU64::new(u64::MAX));
        Self { clock: world.clock.clone(), takes, polls: Arc::default(), began }
    }

    async fn load(&self, value: u64) -> Result<u64, std::io::Error> {
        self.began.store(self.clock.monotonic().as_millis() as u64, Ordering::SeqCst);
        for _ in 0..self.takes.as_millis() / STEP.as_millis() {
            self.polls.fetch_add(1, Ordering::SeqCst);
            self.clock.sleep(STEP).await;
        }
        Ok(value)
    }

    fn polls(&self) -> u64 {
        self.polls.load(Ordering::SeqCst)
    }

    /// Milliseconds of the clock.
    fn began(&self) -> u64 {
        self.began.load(Ordering::SeqCst)
    }
}

type Answer = Result<Response<u64>, LoadError>;

fn detached(cache: &Cache<u64>, slow: &Slow) -> JoinHandle<Answer> {
    let (cache, slow) = (cache.clone(), slow.clone());
    tokio::spawn(
        async move { cache.entry(1_u64).get_or_load(move || async move { slow.load(7).await }).await },
    )
}

fn scoped(cache: &Cache<u64>, slow: &Slow) -> JoinHandle<Answer> {
    let (cache, slow) = (cache.clone(), slow.clone());
    // The loader borrows.
    tokio::spawn(async move { cache.entry(1_u64).get_or_load_scoped(|| slow.load(7)).await })
}

type Begin = fn(&Cache<u64>, &Slow) -> JoinHandle<Answer>;

const BEGIN: [(&str, Begin); 2] = [("detached", detached), ("scoped", scoped)];

/// When a call takes an older value instead: its load goes on without it, or ends with it.
fn gives_up(way: &str) -> Duration {
    millis(if way.starts_with("scoped") { 100 } else { 50 })
}

fn now(world: &World) -> u64 {
    world.clock.monotonic().as_millis() as u64
}

fn kind(answer: &Answer) -> Result<(u64, AnswerKind), LoadErrorKind> {
    answer.as_ref().map(|response| (response.value, response.outcome.kind)).map_err(LoadError::kind)
}

/// In every topology and way, over a layer that hangs in these calls.
async fn everywhere(
    knobs: Knobs,
    hangs: &[Operation],
    check: impl AsyncFn(&World, &Cache<u64>, Begin, &str),
) {
    for topology in OVER {
        for (way, begin) in BEGIN {
            let world = World::new();
            let cache = cache(&world, topology, &knobs);
            for operation in hangs {
                world.faults.always(*operation, Fault::Delay(HANG));
            }
            check(&world, &cache, begin, &format!("{way} over {topology:?}")).await;
        }
    }
}

#[tokio::test]
async fn case_a08_a_layer_that_hangs_delays_no_timeout_and_no_loader() {
    everywhere(timeouts(), &[Operation::Read], async |world, cache, begin, what| {
        let slow = Slow::new(world, seconds(2));
        let start = now(world);
        let (took, answer) = ended(world, begin(cache, &slow)).await;
        assert_eq!((took, kind(&answer)), (millis(100), Err(LoadErrorKind::TimedOut)), "{what}");
        // The load began beside the look, and was polled all the time.
        assert_eq!(slow.began() - start, 50, "{what}");
        assert!((5..=6).contains(&slow.polls()), "polled {} times, {what}", slow.polls());
    })
    .await;
}

#[tokio::test]
async fn case_a08_the_load_goes_on_and_is_stored() {
    for topology in OVER {
        let world = World::new();
        let cache = cache(&world, topology, &timeouts());
        world.faults.always(Operation::Read, Fault::Delay(HANG));
        let slow = Slow::new(&world, seconds(2));
        let (_, answer) = ended(&world, detached(&cache, &slow)).await;
        answer.expect_err("it takes longer");
        for _ in 0..210 {
            world.clock.advance(STEP);
            settle().await;
        }
        world.faults.clear();
        assert_eq!((slow.polls(), cache.statistics().loading), (200, 0), "over {topology:?}");
        assert_eq!(cache.get(1_u64).await.expect("a read"), Some(7), "over {topology:?}");
    }
}

#[tokio::test]
async fn case_a08_a_fast_source_answers_in_time() {
    everywhere(timeouts(), &[Operation::Read], async |world, cache, begin, what| {
        let (took, answer) = ended(world, begin(cache, &Slow::new(world, millis(20)))).await;
        assert_eq!((took, kind(&answer)), (millis(70), Ok((7, AnswerKind::Loaded))), "{what}");
    })
    .await;
    // A hard timeout alone leaves half of its time to the load.
    let hard = Knobs { soft: None, ..timeouts() };
    everywhere(hard, &[Operation::Read], async |world, cache, begin, what| {
        let (took, answer) = ended(world, begin(cache, &Slow::new(world, millis(20)))).await;
        assert_eq!((took, kind(&answer)), (millis(70), Ok((7, AnswerKind::Loaded))), "{what}");
    })
    .await;
}

#[tokio::test]
async fn case_a08_an_older_copy_above_a_layer_that_hangs_is_served() {
    for (way, begin) in BEGIN {
        let world = World::new();
        let cache = cache(&world, Topology::TwoLayers, &timeouts());
        cache.insert(1_u64, 3).await.expect("a write");
        world.clock.advance(seconds(61));
        world.faults.always(Operation::Read, Fault::Delay(HANG));
        let slow = Slow::new(&world, seconds(2));
        let (took, answer) = ended(&world, begin(&cache, &slow)).await;
        let after = gives_up(way);
        assert_eq!((took, kind(&answer)), (after, Ok((3, AnswerKind::StaleOnTimeout))), "{way}");
    }
}

#[tokio::test]
async fn case_a08_a_stale_copy_is_served_if_it_cannot_be_read_again() {
    let knobs = Knobs { stale: seconds(60), on_stale: OnStale::Reload, ..timeouts() };
    everywhere(knobs, &[], async |world, cache, begin, what| {
        cache.insert(1_u64, 3).await.expect("a write");
        world.clock.advance(seconds(61));
        let slow = Slow::new(world, seconds(2));
        let call = begin(cache, &slow);
        settle().await;
        assert_eq!(slow.polls(), 1, "it has looked and loads, {what}");
        world.faults.always(Operation::Read, Fault::Delay(HANG));
        let (took, answer) = ended(world, call).await;
        let after = gives_up(what);
        assert_eq!((took, kind(&answer)), (after, Ok((3, AnswerKind::StaleOnTimeout))), "{what}");
    })
    .await;
}

#[tokio::test]
async fn case_a08_a_fallback_that_was_removed_meanwhile_is_not_served() {
    let knobs = Knobs { stale: seconds(60), on_stale: OnStale::Reload, ..timeouts() };
    everywhere(knobs, &[], async |world, cache, begin, what| {
        cache.insert(1_u64, 3).await.expect("a write");
        world.clock.advance(seconds(61));
        let call = begin(cache, &Slow::new(world, seconds(2)));
        settle().await;
        cache.remove(1_u64).await.expect("a delete");
        let (took, answer) = ended(world, call).await;
        assert_eq!((took, kind(&answer)), (millis(100), Err(LoadErrorKind::TimedOut)), "{what}");
    })
    .await;
}

#[tokio::test]
async fn case_a08_a_layer_that_is_late_and_has_it_answers_before_the_source() {
    for (way, begin) in BEGIN {
        let world = World::new();
        let cache = cache(&world, Topology::Memory, &timeouts());
        cache.insert(1_u64, 3).await.expect("a write");
        world.faults.always(Operation::Read, Fault::Delay(millis(70)));
        let slow = Slow::new(&world, seconds(2));
        let (took, answer) = ended(&world, begin(&cache, &slow)).await;
        assert_eq!((took, kind(&answer)), (millis(70), Ok((3, AnswerKind::Hit))), "{way}");
        // Nobody waits for the load any more.
        settle().await;
        assert_eq!(cache.statistics().loading, 0, "{way}");
    }
}

#[tokio::test]
async fn case_a08_a_late_stale_copy_is_served_as_configured() {
    // Whether the load goes on after the answer.
    for (on_stale, begin, expected, reloads) in [
        (OnStale::Serve, detached as Begin, AnswerKind::Stale, false),
        (OnStale::Serve, scoped, AnswerKind::Stale, false),
        (OnStale::ServeAndReload, detached, AnswerKind::Stale, true),
        (OnStale::ServeAndReload, scoped, AnswerKind::StaleOnTimeout, false),
        (OnStale::Reload, detached, AnswerKind::StaleOnTimeout, true),
    ] {
        // Who performs the load by himself waits until the hard timeout.
        let is_patient = expected == AnswerKind::StaleOnTimeout && !reloads;
        let world = World::new();
        let cache = cache(&world, Topology::Memory, &Knobs { stale: seconds(60), on_stale, ..timeouts() });
        cache.insert(1_u64, 3).await.expect("a write");
        world.clock.advance(seconds(61));
        world.faults.always(Operation::Read, Fault::Delay(millis(70)));
        let (took, answer) = ended(&world, begin(&cache, &Slow::new(&world, seconds(2)))).await;
        let after = millis(if is_patient { 100 } else { 70 });
        assert_eq!((took, kind(&answer)), (after, Ok((3, expected))), "{on_stale:?}");
        settle().await;
        let goes_on = u64::from(reloads);
        assert_eq!(cache.statistics().loading, goes_on, "{on_stale:?}");
    }
}

#[tokio::test]
async fn case_a08_a_layer_that_takes_long_to_store_delays_no_answer() {
    everywhere(timeouts(), &[Operation::Write], async |world, cache, begin, what| {
        let (took, answer) = ended(world, begin(cache, &Slow::new(world, millis(20)))).await;
        assert_eq!((took, kind(&answer)), (millis(50), Ok((7, AnswerKind::Loaded))), "{what}");
        // What comes after the soft timeout is not kept back either.
        let slow = Slow::new(world, millis(70));
        let call = tokio::spawn({
            let cache = cache.clone();
            async move { cache.entry(2_u64).get_or_load(move || async move { slow.load(8).await }).await }
        });
        let (took, answer) = ended(world, call).await;
        assert_eq!((took, kind(&answer)), (millis(70), Ok((8, AnswerKind::Loaded))), "{what}");
    })
    .await;
}

#[tokio::test]
async fn case_a08_what_takes_long_to_store_is_stored_in_the_end() {
    for topology in OVER {
        let world = World::new();
        let cache = cache(&world, topology, &timeouts());
        world.faults.always(Operation::Write, Fault::Delay(HANG));
        let (_, answer) = ended(&world, detached(&cache, &Slow::new(&world, millis(20)))).await;
        answer.expect("a value");
        for _ in 0..310 {
            world.clock.advance(STEP);
            settle().await;
        }
        assert_eq!((cache.get(1_u64).await.expect("a read"), cache.statistics().loading), (Some(7), 0));
    }
}

#[tokio::test]
async fn case_a08_a_load_that_fails_beside_a_layer_that_hangs_ends() {
    let knobs = Knobs { hard: None, ..timeouts() };
    for topology in OVER {
        let world = World::new();
        let cache = cache(&world, topology, &knobs);
        world.faults.always(Operation::Read, Fault::Delay(HANG));
        let call = tokio::spawn({
            let cache = cache.clone();
            async move { cache.entry(1_u64).get_or_load(|| async { Err(std::io::Error::other("down")) }).await }
        });
        let (took, answer) = ended(&world, call).await;
        // 50 ms for the look, 50 ms for the fallback.
        assert_eq!((took, kind(&answer)), (millis(100), Err(LoadErrorKind::Loader)), "over {topology:?}");
    }
}

#[tokio::test]
async fn case_a08_a_throttled_call_does_not_wait_for_a_layer_that_hangs() {
    for (way, begin) in BEGIN {
        let world = World::new();
        let knobs = Knobs { throttle: Some(seconds(1_000)), ..timeouts() };
        let cache = cache(&world, Topology::Memory, &knobs);
        cache.insert(1_u64, 3).await.expect("a write");
        world.clock.advance(seconds(61));
        let failed = cache.entry(1_u64).get_or_load(|| async { Err(std::io::Error::other("down")) }).await;
        assert_eq!(kind(&failed), Ok((3, AnswerKind::StaleOnError)), "{way}");
        world.faults.always(Operation::Read, Fault::Delay(HANG));
        let (took, answer) = ended(&world, begin(&cache, &Slow::new(&world, millis(20)))).await;
        assert_eq!((took, kind(&answer)), (millis(70), Ok((7, AnswerKind::Loaded))), "{way}");
    }
}

#[tokio::test]
async fn case_a08_an_early_reload_does_not_wait_for_the_layer_below() {
    let world = World::new();
    let knobs = Knobs { refresh_after: Some(0.5), ..timeouts() };
    let cache = cache(&world, Topology::TwoLayers, &knobs);
    cache.insert(1_u64, 3).await.expect("a write");
    world.clock.advance(seconds(40));
    world.faults.always(Operation::Read, Fault::Delay(HANG));
    let (slow, start) = (Slow::new(&world, millis(20)), now(&world));
    let (took, answer) = ended(&world, detached(&cache, &slow)).await;
    assert_eq!((took, kind(&answer)), (Duration::ZERO, Ok((3, AnswerKind::Hit))));
    for _ in 0..10 {
        world.clock.advance(STEP);
        settle().await;
    }
    assert_eq!(slow.began() - start, 50, "it looks below for so long");
    assert_eq!((cache.get(1_u64).await.expect("a read"), cache.statistics().refreshed_early), (Some(7), 1));
}

#[tokio::test]
async fn case_a08_a_loader_that_asks_for_the_older_value_goes_on_without_it() {
    for topology in OVER {
        let world = World::new();
        let cache = cache(&world, topology, &Knobs { hard: None, ..timeouts() });
        world.faults.always(Operation::Read, Fault::Delay(HANG));
        let call = tokio::spawn({
            let cache = cache.clone();
            async move {
                let load = |load: hitbox::Load<u64>| async move {
                    Ok::<_, std::io::Error>(Loaded::new(load.previous().await.unwrap_or(7)))
                };
                cache.entry(1_u64).get_or_load_with(load).await
            }
        });
        let (took, answer) = ended(&world, call).await;
        assert_eq!((took, kind(&answer)), (millis(100), Ok((7, AnswerKind::Loaded))), "over {topology:?}");
    }
}

#[tokio::test]
async fn case_a08_not_modified_means_the_value_that_the_loader_was_shown() {
    for topology in OVER {
        let world = World::new();
        let cache = cache(&world, topology, &Knobs { hard: None, ..timeouts() });
        cache.insert(1_u64, 3).await.expect("a write");
        world.clock.advance(seconds(61));
        let faults = world.faults.clone();
        let call = tokio::spawn({
            let cache = cache.clone();
            async move {
                let load = move |load: hitbox::Load<u64>| async move {
                    assert_eq!(load.previous().await, Some(3));
                    // From here on nothing can be read.
                    faults.always(Operation::Read, Fault::Delay(HANG));
                    Ok::<_, std::io::Error>(Loaded::not_modified())
                };
                cache.entry(1_u64).get_or_load_with(load).await
            }
        });
        let (took, answer) = ended(&world, call).await;
        assert_eq!((took, kind(&answer)), (Duration::ZERO, Ok((3, AnswerKind::Loaded))), "over {topology:?}");
        world.faults.clear();
        assert_eq!(cache.get(1_u64).await.expect("a read"), Some(3), "its life starts anew");
    }
}

#[tokio::test]
async fn a_call_past_the_cache_has_its_hard_timeout_too() {
    for (way, is_scoped) in [("detached", false), ("scoped", true)] {
        let world = World::new();
        let cache = cache(&world, Topology::Memory, &timeouts());
        let slow = Slow::new(&world, seconds(2));
        let call = tokio::spawn(async move {
            let entry = cache.entry(1_u64).bypass();
            if is_scoped {
                entry.get_or_load_scoped(|| slow.load(7)).await
            } else {
                let slow = slow.clone();
                entry.get_or_load(move || async move { slow.load(7).await }).await
            }
        });
        let (took, answer) = ended(&world, call).await;
        assert_eq!((took, kind(&answer)), (millis(100), Err(LoadErrorKind::TimedOut)), "{way}");
    }
}

type Batch = Result<HashMap<u64, u64>, LoadError>;

fn batch(cache: &Cache<u64>, slow: &Slow) -> JoinHandle<Batch> {
    let (cache, slow) = (cache.clone(), slow.clone());
    tokio::spawn(async move {
        let load = move |keys: Vec<u64>| async move {
            slow.load(0).await.map(|_| keys.into_iter().map(|key| (key, key * 10)).collect::<Vec<_>>())
        };
        cache.get_or_load_many([1_u64, 2, 3], load).await
    })
}

fn found(answer: Batch) -> Result<Vec<(u64, u64)>, LoadErrorKind> {
    let mut values: Vec<(u64, u64)> = answer.map_err(|error| error.kind())?.into_iter().collect();
    values.sort_unstable();
    Ok(values)
}

#[tokio::test]
async fn case_a08_batches_have_the_same_timeouts() {
    for topology in OVER {
        let new = |hangs: Operation| {
            let world = World::new();
            let cache = cache(&world, topology, &timeouts());
            world.faults.always(hangs, Fault::Delay(HANG));
            (world, cache)
        };
        let all = Ok(vec![(1, 10), (2, 20), (3, 30)]);
        // The source takes longer than the call may wait. The load goes on, and is stored.
        let (world, cache) = new(Operation::Read);
        let (slow, start) = (Slow::new(&world, seconds(2)), now(&world));
        let (took, answer) = ended(&world, batch(&cache, &slow)).await;
        assert_eq!((took, found(answer)), (millis(100), Err(LoadErrorKind::TimedOut)), "over {topology:?}");
        assert_eq!(slow.began() - start, 50, "the load begins beside the look, over {topology:?}");
        for _ in 0..210 {
            world.clock.advance(STEP);
            settle().await;
        }
        world.faults.clear();
        let stored: Vec<_> =
            cache.get_many(&[1_u64, 2, 3]).await.into_iter().map(|value| value.ok()).collect();
        assert_eq!(stored, [Some(Some(10)), Some(Some(20)), Some(Some(30))], "over {topology:?}");
        // It is fast enough.
        let (world, cache) = new(Operation::Read);
        let (took, answer) = ended(&world, batch(&cache, &Slow::new(&world, millis(20)))).await;
        assert_eq!((took, found(answer)), (millis(70), all.clone()), "over {topology:?}");
        // A layer takes long to store what it brings.
        let (world, cache) = new(Operation::Write);
        let (took, answer) = ended(&world, batch(&cache, &Slow::new(&world, millis(20)))).await;
        assert_eq!((took, found(answer)), (millis(50), all.clone()), "over {topology:?}");
        // A layer has it and is late.
        let world = World::new();
        let cache = crate::common::cache(&world, Topology::Memory, &timeouts());
        for key in 1..=3_u64 {
            cache.insert(key, key * 10).await.expect("a write");
        }
        world.faults.always(Operation::Read, Fault::Delay(millis(70)));
        let (took, answer) = ended(&world, batch(&cache, &Slow::new(&world, seconds(2)))).await;
        assert_eq!((took, found(answer)), (millis(70), all));
    }
}

#[tokio::test]
async fn case_a08_batches_are_answered_with_older_copies() {
    let world = World::new();
    let cache = cache(&world, Topology::TwoLayers, &timeouts());
    for key in 1..=3_u64 {
        cache.insert(key, key).await.expect("a write");
    }
    world.clock.advance(seconds(61));
    let (took, answer) = ended(&world, batch(&cache, &Slow::new(&world, seconds(2)))).await;
    assert_eq!((took, found(answer)), (millis(50), Ok(vec![(1, 1), (2, 2), (3, 3)])));
    assert_eq!(cache.statistics().stale_served, 3);
}

/// What waits on the clock: so that a test of times is not fooled by a clock that nobody looks at.
#[tokio::test]
async fn without_timeouts_a_layer_is_waited_for() {
    let knobs = Knobs { soft: None, hard: None, ..timeouts() };
    everywhere(knobs, &[Operation::Read], async |world, cache, begin, what| {
        let (took, answer) = ended(world, begin(cache, &Slow::new(world, millis(20)))).await;
        assert_eq!((took, kind(&answer)), (HANG + millis(20), Ok((7, AnswerKind::Loaded))), "{what}");
    })
    .await;
}

/// A cache whose only entry is over, and may be served after the soft timeout.
async fn over(world: &World, topology: Topology, hard: Option<Duration>) -> Cache<u64> {
    let cache = cache(world, topology, &Knobs { hard, ..timeouts() });
    cache.insert(1_u64, 3).await.expect("a write");
    world.clock.advance(seconds(61));
    cache
}

/// A load that can only run within its call is waited for: otherwise the key would never have a new value.
#[tokio::test]
async fn case_d13_a_load_that_borrows_outlasts_the_soft_timeout() {
    for topology in OVER {
        let world = World::new();
        let cache = over(&world, topology, None).await;
        let leader = scoped(&cache, &Slow::new(&world, millis(200)));
        settle().await;
        // Who only waits for it is answered.
        let (took, answer) = ended(&world, detached(&cache, &Slow::new(&world, seconds(2)))).await;
        assert_eq!((took, kind(&answer)), (millis(50), Ok((3, AnswerKind::StaleOnTimeout))), "{topology:?}");
        let (took, answer) = ended(&world, leader).await;
        assert_eq!((took, kind(&answer)), (millis(150), Ok((7, AnswerKind::Loaded))), "{topology:?}");
        assert_eq!(cache.get(1_u64).await.expect("a read"), Some(7), "{topology:?}: it was stored");
        // The hard timeout counts all the same, and then the older value helps.
        let world = World::new();
        let cache = over(&world, topology, Some(millis(100))).await;
        let (took, answer) = ended(&world, scoped(&cache, &Slow::new(&world, seconds(2)))).await;
        assert_eq!((took, kind(&answer)), (millis(100), Ok((3, AnswerKind::StaleOnTimeout))), "{topology:?}");
    }
}

/// A load for which there was no room goes on when its call is answered.
#[tokio::test]
async fn case_d13_a_load_without_room_is_stored() {
    for (queue, has_room) in [(10, true), (0, false)] {
        for (many, topology) in [(false, OVER[0]), (false, OVER[1]), (true, OVER[0]), (true, OVER[1])] {
            let mut world = World::new();
            world.pool = OffloadPool::builder().workers(1).queue(queue).interactive(0).build();
            let gate = Arc::new(tokio::sync::Semaphore::new(0));
            let held = gate.clone();
            let busy = Task::new(TaskKind::REFILL, async move { drop(held.acquire().await) });
            world.pool.shared().register(busy).expect("a worker");
            let cache = over(&world, topology, None).await;
            let slow = Slow::new(&world, millis(200));
            let call = if many {
                let cache = cache.clone();
                tokio::spawn(async move {
                    let load = |_: Vec<u64>| async move { slow.load(7).await.map(|value| [(1_u64, value)]) };
                    cache.get_or_load_many([1_u64], load).await.map(|found| found[&1])
                })
            } else {
                let call = detached(&cache, &slow);
                tokio::spawn(async move { call.await.expect("no panic").map(|response| response.value) })
            };
            let (took, answer) = ended(&world, call).await;
            let what = format!("room: {has_room}, many: {many}, {topology:?}");
            match (has_room, many) {
                (true, _) => assert_eq!((took, answer.ok()), (millis(50), Some(3)), "{what}"),
                (false, false) => assert_eq!((took, answer.ok()), (millis(200), Some(7)), "{what}"),
                // What was found at the soft timeout has been taken.
                (false, true) => assert_eq!((took, answer.ok()), (millis(200), Some(3)), "{what}"),
            }
            for _ in 0..20 {
                world.clock.advance(STEP);
                settle().await;
            }
            assert_eq!(cache.get(1_u64).await.expect("a read"), Some(7), "{what}: it was stored");
            gate.add_permits(1);
        }
    }
}
