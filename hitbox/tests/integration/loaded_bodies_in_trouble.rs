//! Bodies that are loaded while readers stall, layers are slow, or something else comes in between.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use hitbox::{Body, BodySink, Cache, Compose, OffloadPool};
use hitbox_backend::Backend;
use hitbox_core::ErrorKind;
use hitbox_testkit::{Trouble, Troubled};

use crate::loaded_bodies::{CHUNK, chunk, disk, films_over, memory, read, source, under_way, until, whole};

async fn load<S>(films: &Cache<()>, source: S) -> Body
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    films.get_or_load_stream("metropolis", || async { Ok::<_, io::Error>(source) }).await.expect("a body")
}

/// What is left of a body whose first chunk has been read.
async fn rest(body: Body, chunks: usize) -> bool {
    let mut all = chunk(0).to_vec();
    all.extend(read(body).await);
    all == whole(chunks)
}

async fn begun(films: &Cache<()>, chunks: usize) -> Body {
    let mut body = load(films, source(chunks)).await;
    assert!(body.chunk().await.expect("a chunk").expect("a chunk") == chunk(0));
    body
}

/// A source that is always ready lets others have their turn, and ends when nobody reads.
#[tokio::test]
async fn a_source_that_never_waits_is_given_up() {
    for len in [0, CHUNK] {
        let (films, count) = (films_over(Arc::new(memory())), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let endless = stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from(vec![7; len]))
        });
        let body = load(&films, endless).await;
        let follower = films.follow_body("metropolis").expect("it is being loaded");
        until("it is read", async || count.load(Ordering::Relaxed) > 1).await;
        drop(body);
        until("it has ended", async || films.statistics().loading == 0).await;
        drop(follower);
    }
    // Chunks without bytes are nothing that it has brought.
    let films: Cache<()> = Cache::builder(memory())
        .name("films")
        .load_limit(Some(Duration::from_millis(50)))
        .build()
        .expect("a cache");
    let mut body = load(&films, stream::repeat_with(|| Ok(Bytes::new()))).await;
    assert_eq!(body.chunk().await.expect_err("it brings nothing").kind(), ErrorKind::Timeout);
}

/// What wins over a body takes nothing from those who follow it, however far behind they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_of_a_body_that_is_not_stored_get_all_of_it() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let pool = OffloadPool::new();
    let backends: [Arc<dyn Backend>; 4] = [
        Arc::new(memory()),
        Arc::new(disk(&folders[0]).await),
        Arc::new(memory().compose(memory(), pool.shared())),
        Arc::new(memory().compose(disk(&folders[1]).await, pool.shared())),
    ];
    for backend in backends {
        let films = films_over(backend);
        let body = begun(&films, 150).await;
        let behind = films.follow_body("metropolis").expect("it is being loaded");
        films.remove("metropolis").await.expect("a removal");
        assert!(rest(body, 150).await);
        until("it has ended", async || films.statistics().loading == 0).await;
        assert!(read(behind).await == whole(150), "{:?}", films.backend().layout());
        // In chunks that are more than what is held.
        let mut sink = films.write_body("metropolis").await.expect("a sink");
        let behind = sink.follow();
        let long = Bytes::from(whole(80));
        sink.chunk(long.clone()).await.expect("a chunk");
        films.remove("metropolis").await.expect("a removal");
        sink.finish().await.expect("superseded");
        assert!(read(behind).await == long, "{:?}", films.backend().layout());
    }
}

/// Whoever stalls and comes back gets the rest, also if the layers that it was to be read from have failed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stalls_gets_all_of_it() {
    const CHUNKS: usize = 1_300;
    for trouble in [None, Some(Trouble::FailsAfter(30)), Some(Trouble::HangsAfter(18))] {
        let folder = tempfile::tempdir().expect("a folder");
        let backend: Arc<dyn Backend> = match &trouble {
            // Memory does not take so much.
            None => Arc::new(memory()),
            Some(trouble) => Arc::new(Troubled::new(Arc::new(disk(&folder).await), trouble.clone())),
        };
        let (films, count) = (films_over(backend), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let counting = source(CHUNKS).inspect(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let mut body = load(&films, counting).await;
        assert!(body.chunk().await.expect("a chunk").is_some());
        // More than it would be waited for, until the layer is of no more use.
        let is_given_up = async || films.statistics().write_errors > 0;
        until("the layer is given up, or nothing goes on", is_given_up).await;
        assert!(count.load(Ordering::Relaxed) < CHUNKS, "it is waited for again");
        assert!(rest(body, CHUNKS).await, "{trouble:?}");
    }
}

/// The one for whom a body is loaded may read a part of it, whatever layers take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_what_no_layer_takes() {
    let films = films_over(Arc::new(memory()));
    let mut body = load(&films, source(1_300)).await;
    body.seek(10..u64::MAX).expect("a range");
    assert!(read(body).await == whole(1_300)[10..]);
    until("it has ended", async || films.statistics().loading == 0).await;
    let bypass = films.entry("metropolis").bypass();
    let mut body =
        bypass.get_or_load_stream(|| async { Ok::<_, io::Error>(source(200)) }).await.expect("a body").value;
    body.seek(100 * CHUNK as u64..101 * CHUNK as u64).expect("a range");
    assert!(read(body).await == chunk(100));
    until("it has ended", async || films.statistics().loading == 0).await;
}

/// Where the pool takes nothing, the load goes on within who reads, and is stored before its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_takes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = OffloadPool::new();
    pool.shutdown().await;
    let films: Cache<()> =
        Cache::builder(disk(&folder).await).name("films").offload(pool.shared()).build().expect("a cache");
    for _ in 0..10 {
        let body = load(&films, source(50)).await;
        let follower = tokio::spawn(read(films.follow_body("metropolis").expect("it is being loaded")));
        assert!(read(body).await == whole(50));
        assert!(follower.await.expect("a reader") == whole(50));
        assert!(films.open_body("metropolis").await.expect("an answer").is_some(), "it is stored");
        films.remove("metropolis").await.expect("a removal");
    }
}

/// A sink that has lost a chunk ends for all who follow it with an error, and is not stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_has_lost_a_chunk() {
    let folder = tempfile::tempdir().expect("a folder");
    let hangs = Troubled::new(Arc::new(memory()), Trouble::HangsAfter(1));
    let backends: [Arc<dyn Backend>; 2] = [Arc::new(disk(&folder).await), Arc::new(hangs)];
    for backend in backends {
        let films = films_over(backend);
        let mut sink = films.write_body("metropolis").await.expect("a sink");
        let mut follower = sink.follow();
        sink.chunk(chunk(0)).await.expect("a chunk");
        // Another thread writes it: now and then that is done before this one looks.
        let is_lost = async |sink: &mut BodySink| {
            let mut lost = Box::pin(sink.chunk(Bytes::from(whole(20))));
            futures_util::future::poll_immediate(&mut lost).await.is_none()
        };
        let mut tries = 0;
        while !is_lost(&mut sink).await {
            tries += 1;
            assert!(tries < 100, "every chunk was written at once");
        }
        assert_eq!(sink.chunk(chunk(1)).await.expect_err("it is lost").kind(), ErrorKind::Closed);
        assert_eq!(sink.finish().await.expect_err("it is lost").kind(), ErrorKind::Closed);
        let end = loop {
            match follower.chunk().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert_eq!(end.expect_err("it is lost").kind(), ErrorKind::Closed);
        assert!(films.open_body("metropolis").await.expect("an answer").is_none());
        // Whoever was begun before another that is given up is found again.
        let mut first = films.write_body("metropolis").await.expect("a sink");
        let second = films.write_body("metropolis").await.expect("a sink");
        drop(second);
        first.chunk("one").await.expect("a chunk");
        let mut follower = films.follow_body("metropolis").expect("it is being written");
        assert_eq!(follower.chunk().await.expect("a chunk").as_deref(), Some(&b"one"[..]));
    }
    until("nothing is left", async || under_way(&folder) == 0).await;
}
