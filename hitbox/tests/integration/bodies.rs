//! Bodies of a cache: streams and sources of bytes in, streams and sources of bytes out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::io::AsyncReadExt as _;
use futures_util::stream::{self, Stream, TryStreamExt};
use hitbox::{Body, Cache, Compose, OffloadPool, Wrap};
use hitbox_backend::operation::LeafSet;
use hitbox_backend::{Backend, LeafOutcome, ReadOptions};
use hitbox_core::{CacheKey, ErrorKind};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_testkit::{Trouble, Troubled};
use tokio::io::AsyncReadExt as _;

const LEN: usize = 1_000_000;

fn whole() -> Vec<u8> {
    (0..LEN).map(|at| (at * 31 % 251) as u8).collect()
}

/// A source that may fail in the middle.
fn source(fails: bool) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let chunks: Vec<Bytes> = whole().chunks(70_001).map(Bytes::copy_from_slice).collect();
    let last = if fails { Some(Err(io::Error::other("the line broke"))) } else { None };
    stream::iter(chunks.into_iter().map(Ok).take(if fails { 5 } else { usize::MAX }).chain(last))
}

fn memory() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

async fn disk(folder: &tempfile::TempDir) -> DiskBackend {
    DiskBackend::builder(folder.path()).open().await.expect("disk")
}

async fn films_over(backend: Arc<dyn Backend>) -> Cache<()> {
    let films: Cache<()> = Cache::builder(backend).name("films").build().expect("a cache");
    films
}

async fn open(films: &Cache<()>) -> Option<Body> {
    films.open_body("metropolis").await.expect("an answer")
}

/// Over memory, disk, both, and a nest behind wrappers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_stored_from_and_read_as_what_users_have() {
    let folders = [(); 4].map(|()| tempfile::tempdir().expect("a folder"));
    let pool = OffloadPool::new();
    let nest = memory().compose(disk(&folders[2]).await, pool.shared()).namespace("n");
    let backends: Vec<Arc<dyn Backend>> = vec![
        Arc::new(memory()),
        Arc::new(disk(&folders[0]).await),
        Arc::new(memory().compose(disk(&folders[1]).await, pool.shared())),
        Arc::new(nest.deadline(Duration::from_secs(60)).compose(disk(&folders[3]).await, pool.shared())),
    ];
    for backend in backends {
        let films = films_over(backend).await;
        assert!(open(&films).await.is_none());
        let entry = films.entry("metropolis").ttl(Duration::from_secs(100)).tag("silent");
        let sink = entry.metadata("year", b"1927").write_body().await.expect("a sink");
        let receipt = sink.store(source(false)).await.expect("stored");
        assert_eq!(receipt.stored() as usize, films.backend().layout().leaves().len(), "{receipt:?}");

        let body = open(&films).await.expect("the body");
        assert_eq!(body.len(), Some(LEN as u64));
        let year = body.entry().details().and_then(|details| details.metadata.get("year").cloned());
        assert_eq!(year.as_deref(), Some(&b"1927"[..]));
        assert!(body.entry().lifetime().expire().is_some(), "its life");
        let chunks: Vec<Bytes> = body.into_stream().try_collect().await.expect("chunks");
        assert!(chunks.concat() == whole(), "as a stream");
        let mut body = open(&films).await.expect("the body");
        body.seek(100..u64::MAX).expect("a range");
        let mut read = Vec::new();
        body.into_async_read().read_to_end(&mut read).await.expect("read by futures");
        assert!(read == whole()[100..], "read by futures");
        let mut body = open(&films).await.expect("the body");
        body.seek(7..500_000).expect("a range");
        read.clear();
        body.into_tokio_read().read_to_end(&mut read).await.expect("read by tokio");
        assert!(read == whole()[7..500_000], "read by tokio");

        films.invalidate_tags(&["silent"]).await.expect("an invalidation");
        assert!(open(&films).await.is_none(), "it was invalidated");
        let sink = films.write_body("metropolis").await.expect("a sink");
        sink.store_from(&whole()[..10]).await.expect("stored");
        assert_eq!(open(&films).await.expect("the body").len(), Some(10));
        let counted = films.statistics();
        assert_eq!((counted.hits, counted.misses), (4, 2));
    }
}

/// A source that fails, or a writer that is dropped, leaves what was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_is_not_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = OffloadPool::new();
    let films = films_over(Arc::new(memory().compose(disk(&folder).await, pool.shared()))).await;
    films.write_body("metropolis").await.expect("a sink").store_from(&b"first"[..]).await.expect("stored");
    let failed = films.write_body("metropolis").await.expect("a sink").store(source(true)).await;
    let failed = failed.expect_err("its source failed");
    assert_eq!(failed.kind(), ErrorKind::Io);
    assert!(format!("{failed:?}").contains("the line broke"), "{failed:?}");
    let mut dropped = films.write_body("metropolis").await.expect("a sink");
    dropped.chunk(whole()).await.expect("a chunk");
    drop(dropped);
    films.write_body("metropolis").await.expect("a sink").abort().await;
    assert_eq!(open(&films).await.expect("the body").len(), Some(5));
    // One that is over when it is written replaces what was there with nothing.
    let over = films.entry("metropolis").ttl(Duration::ZERO).write_body().await.expect("a sink");
    over.store_from(&b"over"[..]).await.expect("an answer");
    assert!(open(&films).await.is_none());
    // What was written meanwhile wins.
    let mut sink = films.write_body("metropolis").await.expect("a sink");
    sink.chunk(whole()).await.expect("a chunk");
    films.write_body("metropolis").await.expect("a sink").store_from(&b"second"[..]).await.expect("stored");
    let receipt = sink.finish().await.expect("an answer");
    let is_superseded = |outcome: &LeafOutcome| matches!(outcome, LeafOutcome::Superseded);
    assert!(receipt.leaves().iter().all(|line| is_superseded(&line.outcome)), "{receipt:?}");
    assert_eq!(open(&films).await.expect("the body").len(), Some(6));
}

/// A layer that missed a body gets it when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_missed_a_body_is_brought_up_to_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let below = Troubled::new(Arc::new(disk(&folder).await), Trouble::IsAway);
    let pool = OffloadPool::new();
    let films = films_over(Arc::new(memory().compose(below, pool.shared()))).await;
    let sink = films.write_body("metropolis").await.expect("a sink");
    let receipt = sink.store(source(false)).await.expect("stored in memory");
    assert_eq!(receipt.stored(), 1, "{receipt:?}");
    let upper = LeafSet::of(films.backend().layout().leaves()[0].position());
    let (key, options) = (CacheKey::clone(&films.key(&"metropolis")), ReadOptions::default().skipping(upper));
    let is_there = async {
        while films.backend().open_reader(&key, &options).await.expect("an answer").is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_there).await.expect("it is brought up to date");
}
