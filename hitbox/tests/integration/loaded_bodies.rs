//! Bodies that are loaded: one read of the source for all, who follow it as it comes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use hitbox::{AnswerKind, Body, Cache, Compose, LoadErrorKind, Loaded, OffloadPool, Wrap};
use hitbox_backend::Backend;
use hitbox_core::{ErrorKind, Freshness};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_testkit::{Trouble, Troubled};
use tokio::sync::mpsc;

pub(crate) const CHUNK: usize = 60_000;

pub(crate) fn memory() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

pub(crate) async fn disk(folder: &tempfile::TempDir) -> DiskBackend {
    DiskBackend::builder(folder.path()).open().await.expect("disk")
}

pub(crate) fn films_over(backend: Arc<dyn Backend>) -> Cache<()> {
    let films: Cache<()> = Cache::builder(backend).name("films").build().expect("a cache");
    films
}

pub(crate) fn chunk(number: usize) -> Bytes {
    Bytes::from((0..CHUNK).map(|at| (number * 7 + at * 31 % 251) as u8).collect::<Vec<u8>>())
}

pub(crate) fn whole(chunks: usize) -> Vec<u8> {
    (0..chunks).flat_map(chunk).collect()
}

/// A source that brings so many chunks.
pub(crate) fn source(chunks: usize) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::iter((0..chunks).map(|number| Ok(chunk(number))))
}

/// A source that a test feeds.
pub(crate) fn fed() -> (mpsc::UnboundedSender<io::Result<Bytes>>, impl Stream<Item = io::Result<Bytes>> + Send)
{
    let (feed, chunks) = mpsc::unbounded_channel();
    (feed, stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) }))
}

pub(crate) async fn read(body: Body) -> Vec<u8> {
    let chunks: Vec<Bytes> = body.into_stream().try_collect().await.expect("all of it");
    chunks.concat()
}

pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn is_stored(films: &Cache<()>) {
    until("it is stored", async || films.open_body("metropolis").await.expect("an answer").is_some()).await;
}

/// Bodies that are being written into a folder.
pub(crate) fn under_way(folder: &tempfile::TempDir) -> usize {
    std::fs::read_dir(folder.path().join("tmp")).expect("a folder").count()
}

/// Memory, disk, both, and a nest behind wrappers.
async fn backends(folders: &[tempfile::TempDir; 4]) -> Vec<Arc<dyn Backend>> {
    let pool = OffloadPool::new();
    let nest = memory().compose(disk(&folders[2]).await, pool.shared()).namespace("n");
    vec![
        Arc::new(memory()),
        Arc::new(disk(&folders[0]).await),
        Arc::new(memory().compose(disk(&folders[1]).await, pool.shared())),
        Arc::new(nest.deadline(Duration::from_secs(60)).compose(disk(&folders[3]).await, pool.shared())),
    ]
}

/// Those who come at different times get all of it, from one read of the source, before it is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_03_all_who_ask_follow_one_load() {
    const CHUNKS: usize = 100;
    let folders = [(); 4].map(|()| tempfile::tempdir().expect("a folder"));
    for backend in backends(&folders).await {
        let films = films_over(backend);
        let (feed, chunks) = fed();
        let leader = films
            .entry("metropolis")
            .metadata("year", b"1927")
            .get_or_load_stream(|| async { Ok::<_, io::Error>(chunks) });
        let leader = leader.await.expect("a body");
        assert_eq!((leader.outcome.kind, leader.value.len()), (AnswerKind::Loaded, None));
        let mut reading = vec![tokio::spawn(read(leader.value))];
        for number in 0..CHUNKS {
            feed.send(Ok(chunk(number))).expect("it is read");
            if number % 12 == 5 {
                let never = || async {
                    Err::<stream::Empty<io::Result<Bytes>>, _>(io::Error::other("a second load"))
                };
                let follower = films.entry("metropolis").get_or_load_stream(never).await.expect("a body");
                assert_eq!(follower.outcome.kind, AnswerKind::Coalesced);
                assert_eq!(follower.metadata().get("year").map(|year| &year[..]), Some(&b"1927"[..]));
                reading.push(tokio::spawn(read(follower.value)));
                reading
                    .push(tokio::spawn(read(films.follow_body("metropolis").expect("it is being loaded"))));
            }
            tokio::task::yield_now().await;
        }
        assert!(films.open_body("metropolis").await.expect("an answer").is_none(), "half of a body is there");
        drop(feed);
        for body in join_all(reading).await {
            assert!(body.expect("a reader") == whole(CHUNKS));
        }
        is_stored(&films).await;
        let never =
            || async { Err::<stream::Empty<io::Result<Bytes>>, _>(io::Error::other("a second load")) };
        let hit = films.entry("metropolis").get_or_load_stream(never).await.expect("a body");
        assert_eq!(hit.outcome.kind, AnswerKind::Hit);
        assert!(read(hit.value).await == whole(CHUNKS));
        assert!(films.follow_body("metropolis").is_none(), "it is stored");
        assert_eq!((films.statistics().loads, films.statistics().coalesced), (1, 8));
    }
}

/// Whoever follows a body that fails is told, and nothing is left of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_03_a_body_that_fails_never_ends_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = OffloadPool::new();
    let films = films_over(Arc::new(memory().compose(disk(&folder).await, pool.shared())));
    let (feed, chunks) = fed();
    let leader = films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(chunks) });
    let leader = leader.await.expect("a body");
    let follower = films.follow_body("metropolis").expect("it is being loaded");
    (0..5).for_each(|number| feed.send(Ok(chunk(number))).expect("it is read"));
    feed.send(Err(io::Error::other("the line broke"))).expect("it is read");
    for body in [leader, follower] {
        let read: Result<Vec<Bytes>, _> = body.into_stream().try_collect().await;
        let error = read.expect_err("the source failed");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(format!("{error:?}").contains("the line broke"), "{error:?}");
    }
    until("it is given up", async || under_way(&folder) == 0).await;
    assert!(films.open_body("metropolis").await.expect("an answer").is_none());
    // So does a body whose sink is dropped, and one whose source panics.
    let mut sink = films.write_body("metropolis").await.expect("a sink");
    sink.chunk(chunk(0)).await.expect("a chunk");
    let (mut own, mut other) = (sink.follow(), films.follow_body("metropolis").expect("it is being written"));
    assert!(own.chunk().await.expect("a chunk").is_some() && other.chunk().await.expect("a chunk").is_some());
    drop(sink);
    for body in [&mut own, &mut other] {
        assert_eq!(body.chunk().await.expect_err("it was given up").kind(), ErrorKind::Closed);
    }
    let panics = source(3).chain(stream::once(async { panic!("the projector burns") }));
    let body = films
        .get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(panics) })
        .await
        .expect("a body");
    let read: Result<Vec<Bytes>, _> = body.into_stream().try_collect().await;
    assert!(format!("{:?}", read.expect_err("it panicked")).contains("the projector burns"));
    assert_eq!(films.statistics().load_panics, 1);
    // The next load is none of theirs.
    let body = films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(source(3)) }).await;
    assert!(read_of(body).await == whole(3));
    is_stored(&films).await;
}

pub(crate) async fn read_of(body: Result<Body, hitbox::LoadError>) -> Vec<u8> {
    read(body.expect("a body")).await
}

/// Two writers of one key: each is followed for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_04_who_follows_a_writer_gets_its_bytes() {
    let folders = [(); 4].map(|()| tempfile::tempdir().expect("a folder"));
    for backend in backends(&folders).await {
        let films = films_over(backend);
        let mut sinks = [
            films.write_body("metropolis").await.expect("a sink"),
            films.write_body("metropolis").await.expect("a sink"),
        ];
        let readers = [sinks[0].follow(), sinks[1].follow()];
        assert_ne!(readers[0].generation(), readers[1].generation());
        let latest = films.follow_body("metropolis").expect("they are being written");
        assert_eq!(latest.generation(), readers[1].generation());
        for number in 0..50 {
            for (which, sink) in sinks.iter_mut().enumerate() {
                sink.chunk(chunk(number + 1_000 * which)).await.expect("a chunk");
            }
        }
        let [first, second] = sinks;
        second.finish().await.expect("stored");
        assert!(
            films.follow_body("metropolis").is_none(),
            "what began before a write is followed by nobody new"
        );
        first.finish().await.expect("superseded");
        let [first, second] = readers.map(read);
        let of = |which: usize| (0..50).flat_map(|number| chunk(number + 1_000 * which)).collect::<Vec<u8>>();
        assert!(first.await == of(0) && second.await == of(1) && read(latest).await == of(1));
        let stored = films.open_body("metropolis").await.expect("an answer").expect("the body");
        assert!(read(stored).await == of(1));
    }
}

/// A range of a body that is being written waits for its bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_05_a_range_of_what_is_being_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let films = films_over(Arc::new(disk(&folder).await));
    let mut sink = films.write_body("metropolis").await.expect("a sink");
    let (mut range, mut rest, mut beyond, mut empty) =
        (sink.follow(), sink.follow(), sink.follow(), sink.follow());
    range.seek(CHUNK as u64 + 5..3 * CHUNK as u64).expect("a range");
    rest.seek(10..20).expect("a range");
    rest.seek(90 * CHUNK as u64..u64::MAX).expect("to the end");
    beyond.seek(100 * CHUNK as u64..u64::MAX).expect("it is not known yet");
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    let reversed = empty.seek(20..10);
    assert_eq!(reversed.expect_err("no range").kind(), ErrorKind::Range);
    empty.seek(10..10).expect("a range");
    assert!(empty.chunk().await.expect("the end").is_none());
    let reading = [tokio::spawn(read(range)), tokio::spawn(read(rest))];
    for number in 0..100 {
        sink.chunk(chunk(number)).await.expect("a chunk");
    }
    let beyond = tokio::spawn(async move { beyond.chunk().await });
    sink.finish().await.expect("stored");
    assert_eq!(beyond.await.expect("a reader").expect_err("no range").kind(), ErrorKind::Range);
    let [range, rest] = reading;
    let whole = whole(100);
    assert!(range.await.expect("a reader") == whole[CHUNK + 5..3 * CHUNK]);
    assert!(rest.await.expect("a reader") == whole[90 * CHUNK..]);
}

/// What is invalidated while it is being loaded is not stored, and nobody new follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_07_an_invalidation_in_the_middle() {
    let folders = [(); 4].map(|()| tempfile::tempdir().expect("a folder"));
    for backend in backends(&folders).await {
        let films = films_over(backend);
        for by_tag in [true, false] {
            let (feed, chunks) = fed();
            let leader = films.entry("metropolis").tag("silent");
            let leader =
                leader.get_or_load_stream(|| async { Ok::<_, io::Error>(chunks) }).await.expect("a body");
            feed.send(Ok(chunk(0))).expect("it is read");
            if by_tag {
                films.invalidate_tags(&["silent"]).await.expect("an invalidation");
            } else {
                films.remove("metropolis").await.expect("a removal");
            }
            assert!(films.follow_body("metropolis").is_none(), "by tag: {by_tag}");
            feed.send(Ok(chunk(1))).expect("it is read");
            drop(feed);
            assert!(read(leader.value).await == whole(2), "whoever reads it goes on");
            until("it has ended", async || films.statistics().loading == 0).await;
            assert!(films.open_body("metropolis").await.expect("an answer").is_none(), "by tag: {by_tag}");
        }
    }
}

/// Whoever leaves takes nothing from others; when all have left, the source is not read on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_goes_on_while_somebody_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let films = films_over(Arc::new(disk(&folder).await));
    let (feed, chunks) = fed();
    let leader = films
        .get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(chunks) })
        .await
        .expect("a body");
    let never = || async { Err::<stream::Empty<io::Result<Bytes>>, _>(io::Error::other("a second load")) };
    let follower = films.get_or_load_stream("metropolis", never).await.expect("a body");
    feed.send(Ok(chunk(0))).expect("it is read");
    drop(leader);
    (1..100).for_each(|number| feed.send(Ok(chunk(number))).expect("it is read"));
    drop(feed);
    assert!(read(follower).await == whole(100));
    is_stored(&films).await;
    films.remove("metropolis").await.expect("a removal");

    let (feed, chunks) = fed();
    let leader = films
        .get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(chunks) })
        .await
        .expect("a body");
    feed.send(Ok(chunk(0))).expect("it is read");
    drop(leader);
    until("the source is dropped", async || feed.is_closed()).await;
    until("nothing is left", async || under_way(&folder) == 0 && films.statistics().loading == 0).await;
    assert!(films.open_body("metropolis").await.expect("an answer").is_none());
}

/// The source is read no faster than the leader reads, who is not waited for when it takes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stalls_holds_up_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let films = films_over(Arc::new(disk(&folder).await));
    let read_so_far = Arc::new(AtomicUsize::new(0));
    let counted = read_so_far.clone();
    let source = source(200).inspect(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let mut leader = films
        .get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(source) })
        .await
        .expect("a body");
    assert!(leader.chunk().await.expect("a chunk").is_some());
    let follower = tokio::spawn(read(films.follow_body("metropolis").expect("it is being loaded")));
    until("it has begun", async || read_so_far.load(Ordering::Relaxed) > 10).await;
    let began = Instant::now();
    assert!(follower.await.expect("a follower") == whole(200));
    assert!(began.elapsed() > Duration::from_millis(900), "the leader is waited for a second");
    let mut rest = chunk(0).to_vec();
    rest.extend(read(leader).await);
    assert!(rest == whole(200), "it has read on from the disk");
}

/// Where no layer takes so much, the one for whom it is loaded gets all of it, and so do those who keep up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_no_layer_takes_is_passed_on() {
    const CHUNKS: usize = 1_200;
    let films = films_over(Arc::new(memory()));
    let load = || films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(source(CHUNKS)) });
    let mut leader = load().await.expect("a body");
    let mut behind = films.follow_body("metropolis").expect("it is being loaded");
    assert!(behind.chunk().await.expect("a chunk").is_some());
    let mut count = 0;
    while let Some(read) = leader.chunk().await.expect("a chunk") {
        assert!(read == chunk(count), "chunk {count}");
        count += 1;
    }
    assert_eq!(count, CHUNKS);
    let lost: Result<Vec<Bytes>, _> = behind.into_stream().try_collect().await;
    assert_eq!(lost.expect_err("no layer has it").kind(), ErrorKind::TooLarge);
    until("it has ended", async || films.statistics().loading == 0).await;
    assert!(films.open_body("metropolis").await.expect("an answer").is_none());
    assert_eq!(films.statistics().write_errors, 1);
    // Nor is one stored that its loader keeps for those who wait.
    let aside = || async { Ok::<_, io::Error>(Loaded::new(source(3)).do_not_store()) };
    let body = films.entry("metropolis").get_or_load_stream_with(aside).await.expect("a body");
    assert!(read(body.value).await == whole(3));
    let bypassing = films.entry("metropolis").bypass();
    let body =
        bypassing.get_or_load_stream(|| async { Ok::<_, io::Error>(source(3)) }).await.expect("a body");
    assert_eq!(body.outcome.kind, AnswerKind::Bypassed);
    assert!(films.follow_body("metropolis").is_none());
    assert!(read(body.value).await == whole(3));
    until("it has ended", async || films.statistics().loading == 0).await;
    assert!(films.open_body("metropolis").await.expect("an answer").is_none());
}

/// Memory that has given a body up has its room back when the one who asked for it is past what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_gave_up_takes_no_room_when_it_has_been_read() {
    let moka = MokaBackend::builder().max_bytes(8 << 20).build().expect("moka");
    let films = films_over(Arc::new(moka.clone()));
    let held = || moka.layout().leaves()[0].statistics().occupancy.expect("memory says what it holds").bytes;
    let load = films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(source(400)) });
    let mut leader = load.await.expect("a body");
    let mut most = 0;
    for count in 0..200 {
        assert!(leader.chunk().await.expect("a chunk").expect("it goes on") == chunk(count), "chunk {count}");
        most = held().max(most);
    }
    assert!(most > 4 << 20, "{most}");
    until("it has its room back", async || held() == 0).await;
    assert_eq!(films.statistics().loading, 1, "the load goes on");
    for count in 200..400 {
        assert!(leader.chunk().await.expect("a chunk").expect("it goes on") == chunk(count), "chunk {count}");
    }
    assert!(leader.chunk().await.expect("the end").is_none());
}

/// A layer in trouble costs those who read nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_in_trouble_delays_no_reader() {
    let slow = Trouble::IsSlow(Duration::from_millis(300));
    let troubles =
        [Trouble::IsAway, Trouble::HangsAtOnce, Trouble::FailsAfter(3), Trouble::HangsAfter(3), slow];
    for trouble in troubles {
        for beside_memory in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            let troubled = Troubled::new(Arc::new(disk(&folder).await), trouble.clone());
            let pool = OffloadPool::new();
            let backend: Arc<dyn Backend> = if beside_memory {
                Arc::new(memory().compose(troubled, pool.shared()))
            } else {
                Arc::new(troubled)
            };
            let films = films_over(backend);
            let load = films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(source(100)) });
            let body = tokio::time::timeout(Duration::from_secs(10), async { read_of(load.await).await });
            assert!(body.await.expect("in time") == whole(100), "{trouble:?} beside memory: {beside_memory}");
            until("it has ended", async || films.statistics().loading == 0).await;
            let is_there = films.open_body("metropolis").await.expect("an answer").is_some();
            assert_eq!(is_there, beside_memory, "{trouble:?}");
        }
    }
}

/// A composition has time to give a layer up before it is given up itself, however slow its other layer is to begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_hangs_costs_no_other_its_body() {
    let slow = || Troubled::new(Arc::new(memory()), Trouble::IsSlow(Duration::from_millis(300)));
    let hangs = |trouble| Troubled::new(Arc::new(memory()), trouble);
    let pool = OffloadPool::new();
    for trouble in [Trouble::HangsAtOnce, Trouble::HangsAfter(1)] {
        let pair = slow().compose(hangs(trouble.clone()), pool.shared());
        let nest = slow().compose(hangs(trouble.clone()), pool.shared());
        let nest = memory().compose(nest.compose(hangs(trouble.clone()), pool.shared()), pool.shared());
        for backend in [Arc::new(pair) as Arc<dyn Backend>, Arc::new(nest)] {
            let films = films_over(backend.clone());
            let load = films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(source(3)) });
            assert!(read_of(load.await).await == whole(3), "{trouble:?}");
            until("it has ended", async || films.statistics().loading == 0).await;
            let stored = backend.layout().statistics();
            let hanging = stored.iter().filter(|leaf| leaf.writes == 0).count();
            assert_eq!(hanging, stored.len() / 2, "{trouble:?}: {stored:?}");
        }
    }
}

/// What loads of values do, loads of bodies do: older ones are served where the settings say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_bodies_are_served() {
    let failing = || async { Err::<stream::Empty<io::Result<Bytes>>, _>(io::Error::other("it is down")) };
    let films: Cache<()> = Cache::builder(memory())
        .name("films")
        .ttl(Duration::from_millis(1))
        .fail_safe(Duration::from_secs(600))
        .build()
        .expect("a cache");
    let error = films.get_or_load_stream("metropolis", failing).await.expect_err("there is none");
    assert_eq!(error.kind(), LoadErrorKind::Loader);
    assert!(
        read_of(films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(source(2)) }).await)
            .await
            == whole(2)
    );
    until("it is over", async || films.open_body("metropolis").await.expect("an answer").is_none()).await;
    until("it is stored", async || films.statistics().loading == 0).await;
    let older = films.entry("metropolis").get_or_load_stream(failing).await.expect("an older one");
    assert_eq!(older.outcome.kind, AnswerKind::StaleOnError);
    assert!(read(older.value).await == whole(2));
    let absent = || async { Ok::<_, io::Error>(Loaded::<stream::Empty<io::Result<Bytes>>>::absent()) };
    let absent = films.entry("nosferatu").get_or_load_stream_with(absent).await.expect_err("there is none");
    assert_eq!(absent.kind(), LoadErrorKind::Absent);

    let films: Cache<()> = Cache::builder(memory())
        .name("films")
        .ttl(Duration::from_millis(1))
        .stale(Duration::from_secs(600))
        .on_stale(hitbox::OnStale::ServeAndReload)
        .build()
        .expect("a cache");
    let load = |chunks| {
        films
            .entry("metropolis")
            .get_or_load_stream(move || async move { Ok::<_, io::Error>(source(chunks)) })
    };
    assert!(read(load(2).await.expect("a body").value).await == whole(2));
    until("it is stored", async || films.statistics().loading == 0).await;
    until("it is stale", async || {
        let body = films.open_body("metropolis").await.expect("an answer").expect("a body");
        body.freshness() == Freshness::Stale
    })
    .await;
    let stale = load(3).await.expect("a body");
    assert_eq!(stale.outcome.kind, AnswerKind::Stale);
    assert!(read(stale.value).await == whole(2));
    until("it is reloaded", async || {
        let body = films.open_body("metropolis").await.expect("an answer").expect("a body");
        body.len() == Some(3 * CHUNK as u64)
    })
    .await;
}

/// A source that brings nothing is given up, and a call that waits for a loader waits as long as it would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_and_loaders_have_time_limits() {
    let films: Cache<()> = Cache::builder(memory())
        .name("films")
        .load_limit(Some(Duration::from_millis(50)))
        .build()
        .expect("a cache");
    let hangs = source(2).chain(stream::pending());
    let mut body =
        films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(hangs) }).await.expect("a body");
    assert!(body.chunk().await.expect("a chunk").is_some() && body.chunk().await.expect("a chunk").is_some());
    assert_eq!(body.chunk().await.expect_err("it hangs").kind(), ErrorKind::Timeout);
    let films: Cache<()> = Cache::builder(memory())
        .name("films")
        .hard_timeout(Duration::from_millis(50))
        .build()
        .expect("a cache");
    let never = || std::future::pending::<io::Result<stream::Empty<io::Result<Bytes>>>>();
    let late = films.get_or_load_stream("metropolis", never).await.expect_err("it hangs");
    assert_eq!(late.kind(), LoadErrorKind::TimedOut);
}
