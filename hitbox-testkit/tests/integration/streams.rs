//! Bodies by chunks over every expression.

use std::sync::Arc;

use bytes::Bytes;
use hitbox_backend::operation::WriteOptions;
use hitbox_backend::operation::{BodyReader, BodyWriter, MAX_BUFFERED_BODY};
use hitbox_backend::{Backend, CacheBackend, LeafOutcome, ReadOptions};
use hitbox_core::{CacheKey, CacheValue, Details, ErrorKind, Freshness};
use hitbox_testkit::World;

async fn rest(reader: &mut dyn BodyReader) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(chunk) = reader.chunk().await.expect("a chunk") {
        assert!(!chunk.is_empty(), "an empty chunk");
        body.extend_from_slice(&chunk);
    }
    body
}

async fn open(cache: &dyn Backend, key: &CacheKey) -> Option<Box<dyn BodyReader>> {
    cache.open_reader(key, &ReadOptions::default()).await.expect("a reader")
}

async fn create(cache: &dyn Backend, key: &CacheKey, entry: CacheValue<()>) -> Box<dyn BodyWriter> {
    cache.open_writer(key, entry, WriteOptions::default()).await.expect("a writer")
}

async fn write_and_read(cache: Arc<dyn Backend>) {
    let key = CacheKey::new("body");
    let mut details = Details::default();
    details.metadata.insert("content-type".to_owned(), Bytes::from_static(b"text/plain"));
    let entry = CacheValue::new(()).with_details(details);
    let body: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();

    // Dropped, given up, or not admitted: nothing is left.
    let mut dropped = create(&*cache, &key, entry.clone()).await;
    dropped.chunk(Bytes::from_static(b"lost")).await.expect("a chunk");
    drop(dropped);
    assert!(open(&*cache, &key).await.is_none(), "a writer that was dropped left something");
    let mut aborted = create(&*cache, &key, entry.clone()).await;
    aborted.chunk(Bytes::from_static(b"lost")).await.expect("a chunk");
    aborted.abort().await;
    assert!(open(&*cache, &key).await.is_none(), "a writer that was given up left something");

    let mut writer = create(&*cache, &key, entry.clone()).await;
    for chunk in body.chunks(7_001) {
        writer.chunk(Bytes::copy_from_slice(chunk)).await.expect("a chunk");
    }
    assert!(open(&*cache, &key).await.is_none(), "an unfinished body is visible");
    let receipt = writer.finish().await;
    assert_eq!(receipt.stored() as usize, cache.layout().leaves().len(), "{receipt:?}");

    let mut reader = open(&*cache, &key).await.expect("the body");
    assert_eq!((reader.len(), reader.is_empty()), (Some(300_000), false));
    assert_eq!(reader.freshness(), Freshness::Fresh);
    assert!(cache.layout().paths().any(|path| path == reader.label()), "{} is no leaf of it", reader.label());
    assert_eq!(
        reader.entry().details().map(|details| &details.metadata),
        entry.details().map(|d| &d.metadata)
    );
    assert_eq!(rest(&mut *reader).await, body);
    reader.seek(100..200_000).expect("a range");
    assert_eq!(rest(&mut *reader).await, body[100..200_000]);
    reader.seek(299_999..u64::MAX).expect("the end is clamped");
    assert_eq!(rest(&mut *reader).await, body[299_999..]);
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    for wrong in [300_000..u64::MAX, 200..100] {
        assert_eq!(reader.seek(wrong).expect_err("no range").kind(), ErrorKind::Range);
    }
    let again = open(&*cache, &key).await.expect("the body");
    assert_eq!(again.generation(), reader.generation(), "the same body");

    let empty = create(&*cache, &key, CacheValue::new(())).await;
    assert!(empty.finish().await.is_ok());
    let mut reader = open(&*cache, &key).await.expect("the empty body");
    assert!(reader.is_empty() && rest(&mut *reader).await.is_empty());
    assert_ne!(reader.generation(), again.generation(), "another body");

    // What is not admitted takes away what was there.
    let mut left_out = create(&*cache, &key, CacheValue::new(())).await;
    left_out.chunk(Bytes::from_static(b"no")).await.expect("a chunk");
    let receipt = left_out.leave_out().await;
    let is_left_out = |outcome: &LeafOutcome| matches!(outcome, LeafOutcome::NotAdmitted);
    assert!(receipt.leaves().iter().all(|line| is_left_out(&line.outcome)), "{receipt:?}");
    assert!(open(&*cache, &key).await.is_none(), "what was there is there still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_go_in_and_come_out_by_chunks() {
    for subject in crate::common::subjects() {
        eprintln!("{}", subject.name);
        write_and_read((subject.whole)(World::new()).await).await;
    }
}

#[tokio::test]
async fn a_body_over_the_buffer_is_refused() {
    let cache: Arc<dyn Backend> = Arc::new(crate::common::moka(World::new()).await);
    let mut writer = create(&*cache, &CacheKey::new("body"), CacheValue::new(())).await;
    let chunk = Bytes::from(vec![0; MAX_BUFFERED_BODY as usize / 4]);
    for _ in 0..4 {
        writer.chunk(chunk.clone()).await.expect("it fits");
    }
    let refused = writer.chunk(Bytes::from_static(b"x")).await.expect_err("one more");
    assert_eq!(refused.exceeded(), Some((MAX_BUFFERED_BODY + 1, MAX_BUFFERED_BODY)));
    let receipt = writer.finish().await;
    assert!(matches!(receipt.leaves()[0].outcome, LeafOutcome::Failed(_)), "{receipt:?}");
    assert!(open(&*cache, &CacheKey::new("body")).await.is_none(), "a part of it is stored");
}

/// Memory hands out the chunks that it was given, and puts them together for who wants one value.
#[tokio::test]
async fn memory_shares_the_chunks_of_a_body() {
    let leaf = crate::common::moka(World::new()).await;
    let (cache, key): (Arc<dyn Backend>, _) = (Arc::new(leaf), CacheKey::new("body"));
    let chunks: Vec<Bytes> = (0..10_u8).map(|n| Bytes::from(vec![n; 50_000])).collect();
    let mut writer = create(&*cache, &key, CacheValue::new(())).await;
    for chunk in &chunks {
        writer.chunk(chunk.clone()).await.expect("a chunk");
    }
    assert!(writer.finish().await.is_ok());
    let mut reader = open(&*cache, &key).await.expect("the body");
    for chunk in &chunks {
        let read = reader.chunk().await.expect("a chunk").expect("it goes on");
        assert_eq!((read.as_ptr(), read.len()), (chunk.as_ptr(), chunk.len()), "it is shared");
    }
    assert!(reader.chunk().await.expect("the end").is_none());
    let value = cache.get_one::<Bytes>(&key).await.expect("a read").expect("a value");
    assert!(value.into_data() == chunks.concat());
    let bytes = cache.get_one::<Vec<u8>>(&key).await.expect("a read").expect("a value");
    assert!(bytes.into_data() == chunks.concat());
    // It is no value of another type.
    assert!(cache.get_one::<String>(&key).await.expect("a read").is_none());
}
