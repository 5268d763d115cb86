//! Feeding a writer: what it has written is let go of, and how fast it takes what comes is judged once it is open.

#![forbid(unsafe_code)]

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt};
use hitbox_backend::doc::Map;
use hitbox_backend::internal::{BodyFeed, PATIENCE, QUEUE};
use hitbox_backend::operation::{BodyWriter, WrittenPart};
use hitbox_backend::store::StoreWriter;
use hitbox_backend::{
    Backend, CacheBackend, Compose, DeleteStatus, IntoBackend, OffloadPool, Raw, Receipt, Store, SystemClock,
};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};
use tokio::sync::oneshot;

/// What a writer has taken.
struct Part;

#[async_trait]
impl WrittenPart for Part {
    fn readable(&self) -> u64 {
        7
    }

    async fn read_at(&self, _: u64, limit: u64) -> BackendResult<Bytes> {
        Ok(Bytes::from(vec![0; limit as usize]))
    }
}

/// Takes so many chunks, and then fails. It hands out what it has written, and says when it is aborted how many others hold that.
struct Writer {
    part: Arc<Part>,
    takes: usize,
    aborted: Option<oneshot::Sender<usize>>,
}

#[async_trait]
impl BodyWriter for Writer {
    async fn chunk(&mut self, _: Bytes) -> BackendResult<()> {
        self.takes = self.takes.checked_sub(1).ok_or_else(|| BackendError::new(ErrorKind::Io, "full"))?;
        Ok(())
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        Some(self.part.clone())
    }

    fn let_go(&mut self) {}

    async fn finish(self: Box<Self>) -> Receipt {
        Receipt::default()
    }

    async fn abort(mut self: Box<Self>) {
        let others = Arc::strong_count(&self.part) - 1;
        self.aborted.take().expect("a test that asks").send(others).expect("the test waits");
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        Receipt::default()
    }
}

fn writer(takes: usize) -> (Box<dyn BodyWriter>, Weak<Part>, oneshot::Receiver<usize>) {
    let (sender, aborted) = oneshot::channel();
    let part = Arc::new(Part);
    let weak = Arc::downgrade(&part);
    (Box::new(Writer { part, takes, aborted: Some(sender) }), weak, aborted)
}

/// Feeds a writer that is open, or opens when it is fed.
fn feed_of(writer: Box<dyn BodyWriter>, opens_later: bool) -> BodyFeed {
    let backend = Map::default().into_backend();
    if opens_later {
        BodyFeed::opening(backend.layout(), Box::pin(async { Ok(writer) }))
    } else {
        BodyFeed::new(backend.layout(), Ok(writer))
    }
}

async fn fed(feed: &mut BodyFeed, limit: usize) {
    poll_fn(|cx| feed.poll_feed(cx, limit)).await;
}

#[tokio::test]
async fn what_a_failed_writer_has_taken_is_held_by_its_readers_alone() {
    for opens_later in [false, true] {
        let (writer, part, _aborted) = writer(1);
        let mut feed = feed_of(writer, opens_later);
        let read = feed.written().expect("it may be read");
        feed.push(Bytes::from_static(b"one"));
        fed(&mut feed, 0).await;
        assert!(feed.has_changed() && feed.error().is_none() && read.readable() == 7 && !read.has_ended());
        feed.push(Bytes::from_static(b"two"));
        fed(&mut feed, 0).await;
        assert!(feed.has_changed() && feed.error().is_some() && feed.written().is_none());
        // Its reader reads on.
        assert!(read.has_ended() && read.read_at(0, 3).await.is_ok());
        assert!(part.upgrade().is_some());
        drop(read);
        assert!(part.upgrade().is_none(), "it is held for nobody");
    }
}

#[tokio::test]
async fn a_writer_that_is_aborted_has_its_part_for_itself() {
    for opens_later in [false, true] {
        let (writer, _part, aborted) = writer(9);
        let mut feed = feed_of(writer, opens_later);
        drop(feed.written());
        feed.push(Bytes::from_static(b"one"));
        fed(&mut feed, 0).await;
        feed.abort(&SystemClock).await;
        assert_eq!(aborted.await, Ok(0));
    }
}

#[tokio::test]
async fn one_that_was_long_in_opening_has_all_its_time_to_take_what_came() {
    let backend = Map::default().into_backend();
    let (writer, _part, _aborted) = writer(99);
    let (open, opened) = oneshot::channel();
    let opening = async move { opened.await.map_err(|_| BackendError::new(ErrorKind::Closed, "gone")) };
    let mut feed = BodyFeed::opening(backend.layout(), Box::pin(opening));
    feed.push(Bytes::from(vec![0; 2 * QUEUE]));
    assert!(feed.is_behind());
    feed.begin_wait();
    assert!(poll_fn(|cx| Poll::Ready(feed.poll_feed(cx, 0))).await.is_pending());
    assert!(feed.keeps_up(PATIENCE * 9 / 10, QUEUE as u64));
    assert!(open.send(writer).is_ok());
    // It is open, and has taken next to nothing.
    assert!(fed(&mut feed, usize::MAX).now_or_never().is_some());
    assert!(feed.keeps_up(PATIENCE / 5, QUEUE as u64));
    feed.begin_wait();
    assert!(feed.keeps_up(PATIENCE / 2, QUEUE as u64));
}

/// Panics when it is given a chunk: at once, or when it has had it for a while.
struct Panics {
    later: bool,
}

#[async_trait]
impl BodyWriter for Panics {
    async fn chunk(&mut self, _: Bytes) -> BackendResult<()> {
        if self.later {
            tokio::task::yield_now().await;
        }
        panic!("it does not like this");
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        None
    }

    fn let_go(&mut self) {}

    async fn finish(self: Box<Self>) -> Receipt {
        Receipt::default()
    }

    async fn abort(self: Box<Self>) {}

    async fn leave_out(self: Box<Self>) -> Receipt {
        Receipt::default()
    }
}

#[tokio::test]
async fn one_that_panics_has_failed_and_is_not_asked_again() {
    let backend = Map::default().into_backend();
    let opens_with_a_panic = Box::pin(async { panic!("it does not open") });
    let feeds = [
        BodyFeed::opening(backend.layout(), opens_with_a_panic),
        BodyFeed::new(backend.layout(), Ok(Box::new(Panics { later: false }))),
    ];
    for mut feed in feeds {
        feed.push(Bytes::from_static(b"one"));
        fed(&mut feed, 0).await;
        let error = feed.error().expect("it has failed").to_string();
        assert!(error.contains("panicked: it does not"), "{error}");
        fed(&mut feed, 0).await;
        feed.abort(&SystemClock).await;
    }
}

#[tokio::test]
async fn giving_up_one_that_panics_meanwhile_harms_nobody() {
    let backend = Map::default().into_backend();
    // It has been fed, and panics while it is given up: in its opening, and in its chunk.
    let opens_with_a_panic = Box::pin(async {
        tokio::task::yield_now().await;
        panic!("it does not open")
    });
    let mut opening = BodyFeed::opening(backend.layout(), opens_with_a_panic);
    let mut busy = BodyFeed::new(backend.layout(), Ok(Box::new(Panics { later: true })));
    for feed in [&mut opening, &mut busy] {
        feed.push(Bytes::from_static(b"one"));
        assert!(poll_fn(|cx| Poll::Ready(feed.poll_feed(cx, 0))).await.is_pending());
    }
    opening.abort(&SystemClock).await;
    busy.abort(&SystemClock).await;
}

/// A store that panics when it is to take a body: when that begins, or when it ends.
#[derive(Default)]
struct TakesNoBody {
    entries: Map,
    panics_at_the_end: bool,
}

#[async_trait]
impl Store for TakesNoBody {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.entries.read(key).await
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        panic!("it takes no entry")
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.entries.remove(key).await
    }

    async fn begin_body(
        &self,
        _: &CacheKey,
        _: &CacheValue<Raw>,
    ) -> BackendResult<Option<Box<dyn StoreWriter>>> {
        assert!(self.panics_at_the_end, "it begins no body");
        Ok(None)
    }
}

#[tokio::test]
async fn a_layer_that_panics_costs_the_other_nothing() {
    let pool = OffloadPool::new();
    for panics_at_the_end in [false, true] {
        let takes_none = || TakesNoBody { entries: Map::default(), panics_at_the_end };
        let backends = [
            Map::default().compose(takes_none(), pool.shared()),
            takes_none().compose(Map::default(), pool.shared()),
        ];
        for backend in backends {
            let key = CacheKey::new("k");
            let mut sink = backend.write_body(&key, CacheValue::new(())).await.expect("one layer takes it");
            sink.chunk(Bytes::from_static(b"two reels")).await.expect("a chunk");
            assert_eq!(sink.finish().await.expect("it is stored").stored(), 1);
            let body = backend.open_body(&key).await.expect("a read").expect("it is stored");
            let all: Vec<Bytes> = body.into_stream().try_collect().await.expect("all of it");
            assert_eq!(all.concat(), b"two reels");
        }
    }
}

#[tokio::test]
async fn one_that_does_not_open_is_given_up() {
    let backend = Map::default().into_backend();
    let mut feed = BodyFeed::opening(backend.layout(), Box::pin(std::future::pending()));
    let read = feed.written().expect("it may be read");
    feed.push(Bytes::from_static(b"one"));
    assert!(fed(&mut feed, 0).now_or_never().is_none());
    assert!(fed(&mut feed, QUEUE).now_or_never().is_some(), "nobody waits for so little");
    feed.begin_wait();
    assert!(!read.has_ended());
    assert!(!feed.keeps_up(PATIENCE, 1));
    feed.give_up();
    assert!(read.has_ended() && fed(&mut feed, 0).now_or_never().is_some());
    assert_eq!(feed.into_end().err().map(|error| error.kind()), Some(ErrorKind::Timeout));
}
