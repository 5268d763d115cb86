//! Callers that leave or are not polled, runtimes that go, destructors that use the cache: what is rare must harm nobody
//! else.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::common::{millis, seconds, until};
use hitbox::backend::{Backend, CacheBackend, Compose, OffloadPool, RaceWritePolicy, Wrap};
use hitbox::core::{Clock, ErrorKind, ManualClock};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::quick::QuickBackend;
use hitbox::redis::RedisBackend;
use hitbox::{AnswerKind, Cache, LoadErrorKind, OnStale};
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation, RedisServer};

type Loaded = Result<u64, std::io::Error>;
type Batch = Result<HashMap<u64, u64>, std::io::Error>;

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

fn named(backend: Arc<dyn Backend>) -> Cache<u64> {
    Cache::builder(backend).name("rare").build().expect("a cache")
}

/// A future that is polled so often, as one in a timeout or a `select!` that ends.
async fn polled<T>(mut call: Pin<&mut (impl Future<Output = T> + ?Sized)>, times: usize) -> Option<T> {
    for _ in 0..times {
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            return Some(done);
        }
    }
    None
}

/// Nothing that works takes longer.
async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(seconds(20), call).await.unwrap_or_else(|_| panic!("{what} never ends"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_began_before_a_clear_is_superseded() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    for over in ["memory", "moka", "quick", "disk", "redis", "namespace"] {
        for tagged in [false, true] {
            let clock = ManualClock::new();
            let shared: Arc<dyn Clock> = Arc::new(clock.clone());
            let moka = || MokaBackend::builder().clock(shared.clone()).build().expect("moka");
            let inner: Arc<dyn Backend> = match over {
                "memory" => MemoryBackend::new(shared.clone()).shared(),
                "moka" => moka().shared(),
                "quick" => QuickBackend::builder().clock(shared.clone()).build().expect("quick").shared(),
                "namespace" => moka().namespace("n").shared(),
                "redis" => {
                    let builder = RedisBackend::builder(&server.url()).clock(shared.clone());
                    builder.deadline(seconds(1_000_000)).build().expect("redis").shared()
                }
                _ => {
                    let folder = folder.path().join(tagged.to_string());
                    DiskBackend::builder(folder).clock(shared.clone()).open().await.expect("disk").shared()
                }
            };
            let faults = Faults::default();
            let builder = Cache::<u64>::builder(Faulty::new(inner, &faults, shared.clone())).name("rare");
            let cache = builder.clock(shared).build().expect("a cache");
            faults.always(Operation::Write, Fault::Delay(millis(100)));
            let writing = tokio::spawn({
                let cache = cache.clone();
                async move {
                    let entry = cache.entry(1_u64);
                    let entry = if tagged { entry.tag("t") } else { entry };
                    entry.insert(1).await.expect("a write")
                }
            });
            until("a write", || faults.held_up() > 0).await.expect("it begins");
            cache.clear().await.expect("a clear");
            assert_eq!(cache.get(1_u64).await.expect("a read"), None, "{over}, {tagged}");
            until("it ends", || {
                clock.advance(millis(10));
                writing.is_finished()
            })
            .await
            .expect("a write");
            assert_eq!(writing.await.expect("no panic").stored(), 0, "{over}, {tagged}");
            assert_eq!(cache.get(1_u64).await.expect("a read"), None, "{over}, {tagged}: it began before");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_keys_of_a_batch_undo_nothing_later() {
    for removes in [false, true] {
        let clock = ManualClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let pool = OffloadPool::builder().clock(shared.clone()).build();
        let faults = [Faults::default(), Faults::default()];
        let layer = |index: usize| {
            let memory = MemoryBackend::labelled(["upper", "lower"][index], shared.clone());
            Faulty::new(memory, &faults[index], shared.clone())
        };
        let whole = layer(0).compose(layer(1), pool.shared()).with_write(RaceWritePolicy::default());
        let builder = Cache::<u64>::builder(whole).name("rare").clock(shared.clone());
        let cache = builder.offload(pool.shared()).build().expect("a cache");
        for faults in &faults {
            faults.nth(Operation::Write, 1, Fault::Delay(millis(10)));
            faults.nth(Operation::Write, 2, Fault::Delay(millis(1_000)));
        }
        let batch = tokio::spawn({
            let cache = cache.clone();
            async move { cache.insert_many([(1_u64, 1_u64), (1, 2)]).await.iter().all(Result::is_ok) }
        });
        until("the batch", || faults[0].held_up() > 0).await.expect("it begins");
        let later = tokio::spawn({
            let cache = cache.clone();
            async move {
                if removes {
                    cache.remove(1_u64).await.map(drop)
                } else {
                    cache.insert(1_u64, 3).await.map(drop)
                }
            }
        });
        until("both end", || {
            clock.advance(millis(10));
            batch.is_finished() && later.is_finished()
        })
        .await
        .expect("calls");
        assert!(batch.await.expect("no panic"));
        later.await.expect("no panic").expect("a call");
        until("the rest", || {
            clock.advance(millis(50));
            pool.statistics().depth == 0
        })
        .await
        .expect("background work");
        let left = cache.get(1_u64).await.expect("a read");
        assert_eq!(left, (!removes).then_some(3), "removes: {removes}");
    }
    // In memory, where a crowd makes writers wait for each other.
    let cache = named(moka().shared());
    for round in 0..2_000_u64 {
        let crowd = tokio::spawn({
            let cache = cache.clone();
            async move { cache.insert(round, 100).await.map(drop) }
        });
        let batch = cache.insert_many([(round, 1_u64), (round, 2), (round, 2)]).await;
        assert!(batch.iter().all(Result::is_ok));
        crowd.await.expect("no panic").expect("a write");
        let left = cache.get(round).await.expect("a read").expect("one of them");
        assert_ne!(left, 1, "of equal keys the last one is written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_caller_left_does_not_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let cache: Cache<Vec<u8>> = Cache::builder(disk).name("rare").build().expect("a cache");
    for how in ["prefix", "pattern", "remove", "clear", "tag", "expire"] {
        for round in 0..60_u64 {
            let key = (round, 1_u8);
            if how == "expire" {
                cache.entry(key).ttl(seconds(60)).insert(vec![1]).await.expect("a write");
            }
            let mut left = Box::pin(cache.entry(key).tag("t").ttl(seconds(60)).insert(vec![0; 200_000]));
            drop(polled(left.as_mut(), 2).await);
            drop(left);
            match how {
                "prefix" => drop(cache.invalidate_prefix((round,)).await.expect("a prefix")),
                "pattern" => {
                    cache.invalidate_matching(&format!("{round}:*")).await.expect("a pattern");
                }
                "remove" => drop(cache.remove(key).await.expect("a removal")),
                "clear" => drop(cache.clear().await.expect("a clear")),
                "tag" => drop(cache.invalidate_tags(&["t"]).await.expect("a tag")),
                _ => drop(cache.expire(key).await.expect("an expiry")),
            }
            // A write behind it: what was under way on this key before has ended.
            let seen = cache.entry(key).get().await.expect("a read");
            cache.insert((round, 2_u8), vec![0; 200_000]).await.expect("a write");
            let later = cache.entry(key).get().await.expect("a read");
            for seen in [seen, later] {
                let is_back =
                    if how == "expire" { seen.outcome.kind == AnswerKind::Hit } else { seen.value.is_some() };
                assert!(!is_back, "{how}, round {round}: seen after it had returned");
            }
        }
    }
}

#[test]
fn the_writes_of_a_dead_runtime_keep_no_folder() {
    for threads in [1, 4, 16] {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = |threads| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).max_blocking_threads(threads).enable_all().build().expect("tokio")
        };
        let (living, dying) = (runtime(16), runtime(threads));
        let cache: Cache<Vec<u8>> = living.block_on(async {
            let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
            Cache::builder(disk).build().expect("a cache")
        });
        let begun = Arc::new(AtomicU64::new(0));
        for key in 0..200_u64 {
            let (cache, begun) = (cache.clone(), begun.clone());
            dying.spawn(async move {
                begun.fetch_add(1, Ordering::SeqCst);
                drop(cache.insert(key, vec![1; 100_000]).await);
            });
        }
        while begun.load(Ordering::SeqCst) < 100 {
            std::thread::yield_now();
        }
        dying.shutdown_background();
        living.block_on(async {
            let left = in_time("a shutdown", cache.shutdown(seconds(10))).await;
            assert!(left.error.is_none() && !left.is_cut, "{threads} threads: {left:?}");
            DiskBackend::builder(folder.path()).open().await.expect("the folder is free");
        });
    }
}

#[test]
fn one_thread_for_blocking_work_is_enough_to_close() {
    for round in 0..40_u64 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(3).max_blocking_threads(1).enable_all().build().expect("tokio");
        runtime.block_on(async {
            let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
            let cache: Cache<u64> = Cache::builder(disk).build().expect("a cache");
            let begun = Arc::new(AtomicU64::new(0));
            for task in 0..3_u64 {
                let (cache, begun) = (cache.clone(), begun.clone());
                tokio::spawn(async move {
                    for key in 0..300 {
                        begun.fetch_add(1, Ordering::SeqCst);
                        if cache.insert(task * 1_000 + key, key).await.is_err() {
                            break;
                        }
                    }
                });
            }
            until("writes", || begun.load(Ordering::SeqCst) > round).await.expect("they begin");
            let left = in_time("a shutdown", cache.shutdown(Duration::ZERO)).await;
            assert!(left.error.is_none(), "{left:?}");
            let again = in_time("opening", DiskBackend::builder(folder.path()).open()).await;
            again.expect("the folder is free");
        });
    }
}

#[tokio::test]
async fn after_a_shutdown_every_change_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = async || {
        let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
        Cache::<u64>::builder(disk).name("rare").build().expect("a cache")
    };
    let cache = open().await;
    cache.insert_if_newer(1_u64, 1, 1).await.expect("a write");
    assert!(cache.shutdown(seconds(5)).await.is_clean());
    let closed = |what: &str, error: Option<hitbox::core::BackendError>| {
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Closed), "{what}");
    };
    closed("a version", cache.insert_if_newer(2_u64, 2, 3).await.err());
    closed("expire", cache.expire(1_u64).await.err());
    closed("prefix", cache.invalidate_prefix(1_u64).await.err());
    closed("pattern", cache.invalidate_matching("**").await.err());
    closed("evict", cache.evict(1_u64).await.err());
    closed("insert", cache.insert(1_u64, 2).await.err());
    closed("remove", cache.remove(1_u64).await.err());
    closed("clear", cache.clear().await.err());
    assert_eq!(open().await.get(1_u64).await.expect("a read"), Some(1));
}

#[tokio::test]
async fn a_shutdown_waits_for_loads_within_calls() {
    let folder = tempfile::tempdir().expect("a folder");
    for scoped in [false, true] {
        let open = async || {
            let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
            Cache::<u64>::builder(disk).name("rare").build().expect("a cache")
        };
        let cache = open().await;
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let load = tokio::spawn({
            let (cache, gate) = (cache.clone(), gate.clone());
            let key = u64::from(scoped);
            async move {
                let loader = || async move {
                    gate.acquire().await.expect("it is never closed").forget();
                    Loaded::Ok(5)
                };
                if scoped {
                    cache.get_or_load_scoped(key, loader).await
                } else {
                    cache.get_or_load(key, loader).await
                }
            }
        });
        until("a load", || cache.statistics().loading == 1).await.expect("it begins");
        let ending = tokio::spawn({
            let cache = cache.clone();
            async move { cache.shutdown(seconds(20)).await }
        });
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(!ending.is_finished(), "a load is under way");
        gate.add_permits(1);
        let left = in_time("a shutdown", ending).await.expect("no panic");
        assert!(left.is_clean(), "{left:?}");
        assert_eq!(load.await.expect("no panic").expect("a load"), 5);
        assert_eq!(open().await.get(u64::from(scoped)).await.expect("a read"), Some(5), "it was stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_takes_over_from_a_call_that_is_not_polled() {
    let cache = named(moka().shared());
    let mut lying = Box::pin(cache.get_or_load_scoped(2_u64, std::future::pending::<Loaded>));
    assert!(polled(lying.as_mut(), 1).await.is_none());
    let values = in_time(
        "a batch",
        cache.get_or_load_many([2_u64, 3], |keys: Vec<u64>| async move {
            Batch::Ok(keys.into_iter().map(|key| (key, key * 10)).collect())
        }),
    );
    assert_eq!(values.await.expect("values"), HashMap::from([(2, 20), (3, 30)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_fails_no_batch() {
    let cache = named(moka().shared());
    let leader = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_load_scoped(2_u64, std::future::pending::<Loaded>).await }
    });
    until("a load", || cache.statistics().loading == 1).await.expect("it begins");
    let batch = tokio::spawn({
        let cache = cache.clone();
        async move {
            let load = |keys: Vec<u64>| async move {
                Batch::Ok(keys.into_iter().map(|key| (key, key * 10)).collect())
            };
            cache.get_or_load_many([2_u64, 3], load).await
        }
    });
    until("it waits", || cache.statistics().coalesced == 1).await.expect("a follower");
    leader.abort();
    let values = in_time("a batch", batch).await.expect("no panic").expect("values");
    assert_eq!(values, HashMap::from([(2, 20), (3, 30)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_goes_on_without_its_caller_however_large() {
    for keys in [100_u64, 1_025, 5_000] {
        let cache = named(moka().shared());
        let (asked, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
        let batch = tokio::spawn({
            let (cache, asked, gate) = (cache.clone(), asked.clone(), gate.clone());
            async move {
                let load = move |keys: Vec<u64>| async move {
                    asked.fetch_add(keys.len() as u64, Ordering::SeqCst);
                    gate.acquire().await.expect("it is never closed").forget();
                    Batch::Ok(keys.into_iter().map(|key| (key, key)).collect())
                };
                cache.get_or_load_many(0..keys, load).await
            }
        });
        until("a load", || asked.load(Ordering::SeqCst) == keys).await.expect("it begins");
        batch.abort();
        drop(batch.await);
        gate.add_permits(1);
        until("its end", || cache.statistics().loading == 0).await.expect("it goes on");
        let found = cache.get_many(&(0..keys).collect::<Vec<u64>>()).await;
        let stored = found.iter().filter(|found| matches!(found, Ok(Some(_)))).count();
        assert_eq!(stored as u64, keys);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_take_over_from_a_batch_that_is_not_polled() {
    // No room in the background: the batch runs within its call.
    let pool = OffloadPool::builder().interactive(0).build();
    let builder = Cache::<u64>::builder(moka()).name("rare").offload(pool.shared());
    let cache = builder.build().expect("a cache");
    let mut lying = Box::pin(cache.get_or_load_many(0..50_u64, |_| std::future::pending::<Batch>()));
    assert!(polled(lying.as_mut(), 1).await.is_none());
    let calls: Vec<_> = (0..50_u64)
        .map(|key| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get_or_load(key, move || async move { Loaded::Ok(key) }).await })
        })
        .collect();
    for (key, call) in (0..50).zip(calls) {
        assert_eq!(in_time("a call", call).await.expect("no panic").expect("a value"), key);
    }
}

#[tokio::test]
async fn a_late_stale_copy_serves_a_batch_as_a_single_call() {
    for on_stale in [OnStale::Reload, OnStale::Serve] {
        for many in [false, true] {
            let clock = ManualClock::new();
            let shared: Arc<dyn Clock> = Arc::new(clock.clone());
            let faults = Faults::default();
            let slow = Faulty::new(MemoryBackend::new(shared.clone()), &faults, shared.clone());
            let builder = Cache::<u64>::builder(slow).name("rare").clock(shared.clone());
            let builder = builder.ttl(seconds(1)).stale(seconds(100)).on_stale(on_stale);
            let cache = builder.hard_timeout(millis(400)).build().expect("a cache");
            cache.insert(1_u64, 10).await.expect("a write");
            clock.advance(seconds(2));
            faults.always(Operation::Read, Fault::Delay(millis(300)));
            let loading = clock.clone();
            let call = tokio::spawn({
                let cache = cache.clone();
                async move {
                    let sleep = async move { loading.sleep(millis(600)).await };
                    if many {
                        let load = |_: Vec<u64>| async move {
                            sleep.await;
                            Batch::Ok(HashMap::from([(1, 11)]))
                        };
                        cache.get_or_load_many([1_u64], load).await.map(|values| values[&1])
                    } else {
                        let load = || async move {
                            sleep.await;
                            Loaded::Ok(11)
                        };
                        cache.get_or_load(1_u64, load).await
                    }
                }
            });
            until("an answer", || {
                clock.advance(millis(5));
                call.is_finished()
            })
            .await
            .expect("it comes");
            let answer = call.await.expect("no panic").map_err(|error| error.kind());
            let expected = if on_stale == OnStale::Serve { Ok(10) } else { Err(LoadErrorKind::TimedOut) };
            assert_eq!(answer, expected, "{on_stale:?}, many: {many}");
        }
    }
}

#[tokio::test]
async fn a_batch_refreshes_ahead_of_need() {
    let clock = ManualClock::new();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let pool = OffloadPool::builder().clock(shared.clone()).build();
    let builder = Cache::<u64>::builder(MemoryBackend::new(shared.clone())).name("rare").clock(shared);
    let builder = builder.ttl(seconds(10)).refresh_after(0.5).offload(pool.shared());
    let cache = builder.build().expect("a cache");
    for key in 0..3_u64 {
        cache.insert(key, 1).await.expect("a write");
    }
    clock.advance(seconds(9));
    let asked = Arc::new(AtomicU64::new(0));
    for _ in 0..2 {
        let asked = asked.clone();
        let load = move |keys: Vec<u64>| async move {
            asked.fetch_add(keys.len() as u64, Ordering::SeqCst);
            Batch::Ok(keys.into_iter().map(|key| (key, 2)).collect())
        };
        let values = cache.get_or_load_many(0..3_u64, load).await.expect("values");
        assert_eq!(values.len(), 3);
        pool.wait_all().await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3, "each key once");
    assert_eq!(cache.statistics().refreshed_early, 3);
    assert_eq!(cache.get(0_u64).await.expect("a read"), Some(2));
}

/// Uses the cache when it is dropped, or panics.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Meddler {
    number: u64,
    #[serde(skip)]
    _guard: Option<Arc<Guard>>,
}

struct Guard {
    cache: Arc<OnceLock<Cache<Meddler>>>,
    number: u64,
    what: usize,
    dropped: Arc<AtomicU64>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
        let Some(cache) = self.cache.get() else { return };
        let near = self.number.saturating_sub(3);
        let call = async {
            match self.what {
                0 => drop(cache.get(near).await),
                1 => drop(cache.remove(near).await),
                2 => drop(cache.insert(self.number + 1_000_000, Meddler { number: 0, _guard: None }).await),
                3 => drop(cache.contains(near).await),
                4 => drop(cache.statistics()),
                5 => drop(cache.invalidate_prefix(near).await),
                _ => panic!("in a destructor"),
            }
        };
        // Memory answers at once.
        futures_util::FutureExt::now_or_never(call);
    }
}

#[test]
fn case_d17_a_destructor_may_use_the_cache() {
    for quick in [false, true] {
        for what in 0..7 {
            let (done, ended) = std::sync::mpsc::channel();
            let run = move || {
                // Its histograms tidy up what moka has put out, in the middle of a call.
                crate::common::export();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("tokio").block_on(async {
                    let backend: Arc<dyn Backend> = if quick {
                        QuickBackend::builder().max_entries(200).build().expect("quick").shared()
                    } else {
                        MokaBackend::builder().max_entries(200).build().expect("moka").shared()
                    };
                    let slot = Arc::new(OnceLock::new());
                    let builder = Cache::<Meddler>::builder(backend).name("d17").idle(seconds(1_000));
                    let cache = builder.build().expect("a cache");
                    drop(slot.set(cache.clone()));
                    let dropped = Arc::new(AtomicU64::new(0));
                    let value = |number: u64| {
                        let (cache, dropped) = (slot.clone(), dropped.clone());
                        Meddler { number, _guard: Some(Arc::new(Guard { cache, number, what, dropped })) }
                    };
                    for number in 0..20_000_u64 {
                        cache.insert(number, value(number)).await.expect("a write");
                        // Overwritten, removed and read too.
                        if number.is_multiple_of(3) {
                            cache.insert(number, value(number)).await.expect("a write");
                        }
                        if number.is_multiple_of(7) {
                            cache.remove(number).await.expect("a removal");
                        }
                        drop(cache.get(number).await.expect("a read"));
                    }
                    cache.backend().sweep(usize::MAX).await.expect("a sweep");
                    let count = dropped.load(Ordering::SeqCst);
                    assert!(count > 15_000, "quick: {quick}, {what}: only {count} were dropped");
                    let again = Meddler { number: 1, _guard: None };
                    cache.insert(1, again).await.expect("it works");
                    cache.get(1).await.expect("a read");
                });
                done.send(()).unwrap_or_default();
            };
            let thread = std::thread::spawn(run);
            let answer = ended.recv_timeout(seconds(60));
            assert!(answer.is_ok() || thread.is_finished(), "quick: {quick}, {what}: it hangs");
            thread.join().unwrap_or_else(|_| panic!("quick: {quick}, {what}: it failed"));
        }
    }
}

/// Stores a successor when it is dropped, as long as some are left.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Chain {
    #[serde(skip)]
    _link: Option<Arc<Link>>,
}

struct Link {
    cache: Arc<OnceLock<Cache<Chain>>>,
    left: Arc<AtomicU64>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(cache) = self.cache.get() else { return };
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let Ok(number) = taken else { return };
        let link = Some(Arc::new(Self { cache: self.cache.clone(), left: self.left.clone() }));
        // It puts out the one before, whose destructor is the next.
        let insert = async { cache.insert(number % 2, Chain { _link: link }).await };
        drop(futures_util::FutureExt::now_or_never(insert));
    }
}

#[test]
fn case_d17_destructors_that_have_others_run_need_no_stack() {
    let backends: [Arc<dyn Backend>; 2] = [
        MokaBackend::builder().build().expect("moka").shared(),
        QuickBackend::builder().build().expect("quick").shared(),
    ];
    for backend in backends {
        let cache = Cache::<Chain>::builder(backend).name("chain").build().expect("a cache");
        let (slot, left) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
        drop(slot.set(cache.clone()));
        let chain = || Chain { _link: Some(Arc::new(Link { cache: slot.clone(), left: left.clone() })) };
        let insert = |number: u64| {
            let written = futures_util::FutureExt::now_or_never(cache.insert(number, chain()));
            written.expect("memory answers at once").expect("a write");
        };
        (0..2).for_each(insert);
        left.store(100_000, Ordering::SeqCst);
        // Each puts out another. Some wait until moka tidies up, and go on then.
        for _ in 0..10_000 {
            insert(0);
        }
        assert_eq!(left.load(Ordering::SeqCst), 0, "{}", cache.name());
    }
}

#[tokio::test]
async fn the_dead_make_room_before_the_living() {
    // Sizes, how many of the dead, and of the living, which have room once the dead are gone.
    for (size, dead, living) in [(2_000, 28, 20), (200, 150, 40), (100, 180, 60)] {
        let bound = 128 << 10;
        let backends: Vec<(&str, Arc<dyn Backend>)> = vec![
            ("moka", MokaBackend::builder().max_bytes(bound).build().expect("moka").shared()),
            (
                "priorities",
                MokaBackend::builder().max_bytes(bound).priorities().build().expect("moka").shared(),
            ),
        ];
        for (name, backend) in backends {
            let cache: Cache<Vec<u8>> = Cache::builder(backend).name("dead").build().expect("a cache");
            for key in 0..dead {
                cache.entry(key).ttl(millis(60)).insert(vec![1; size]).await.expect("a write");
            }
            let written = Instant::now();
            until("their end", || written.elapsed() > millis(130)).await.expect("it passes");
            for key in 1_000..1_000 + living {
                cache.entry(key).ttl(seconds(100)).insert(vec![2; size]).await.expect("a write");
            }
            let mut missing = 0;
            for key in 1_000..1_000 + living {
                missing += u64::from(cache.get(key).await.expect("a read").is_none());
            }
            assert_eq!(missing, 0, "{name}: {living} of {size} bytes after {dead} dead");
        }
    }
}
