//! Bodies: written by chunks, followed while they are written, read by ranges.

use bytes::Bytes;
use hitbox_backend::operation::BodyReader;
use hitbox_backend::{Backend, Body, CacheBackend, LeafOutcome};
use hitbox_core::{BackendResult, CacheKey, CacheValue, Details, ErrorKind, Scope};

use super::support::*;
use crate::{Setup, Subject, World};

/// More than what is held for those who follow a body.
const CHUNKS: usize = 90;
const CHUNK: usize = 30_000;

/// A chunk of one of several bodies.
fn chunk(body: usize, number: usize) -> Bytes {
    Bytes::from((0..CHUNK).map(|at| (body * 91 + number * 7 + at % 251) as u8).collect::<Vec<u8>>())
}

fn whole(body: usize, chunks: usize) -> Vec<u8> {
    (0..chunks).flat_map(|number| chunk(body, number)).collect()
}

async fn read(body: &mut dyn BodyReader) -> BackendResult<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn open(cache: &dyn Backend, key: &CacheKey) -> Result<Option<Body>, String> {
    cache.open_body(key).await.map_err(text)
}

/// The stored body.
async fn stored(cache: &dyn Backend, key: &CacheKey) -> Result<Option<Vec<u8>>, String> {
    match open(cache, key).await? {
        Some(mut body) => read(&mut *body).await.map(Some).map_err(text),
        None => Ok(None),
    }
}

/// Stores so many chunks of a body.
async fn put_body(cache: &dyn Backend, key: &CacheKey, entry: CacheValue<()>, chunks: usize) -> Verdict {
    let mut sink = cache.write_body(key, entry).await.map_err(text)?;
    for number in 0..chunks {
        sink.chunk(chunk(0, number)).await.map_err(text)?;
    }
    let receipt = sink.finish().await.map_err(text)?;
    let is_stored = |outcome: &LeafOutcome| matches!(outcome, LeafOutcome::Stored);
    ensure!(
        receipt.leaves().iter().all(|line| is_stored(&line.outcome)),
        "not stored everywhere: {receipt:?}"
    );
    ensure_eq!(receipt.leaves().len(), cache.layout().leaves().len(), "lines of the receipt");
    Ok(())
}

pub(super) async fn stream_01_chunks_become_one_body(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let one = key("one");
    for ends in ["dropped", "given up"] {
        let mut sink = cache.write_body(&one, CacheValue::new(())).await.map_err(text)?;
        for number in 0..CHUNKS {
            sink.chunk(chunk(0, number)).await.map_err(text)?;
            ensure!(number % 40 != 0 || open(&*cache, &one).await?.is_none(), "half of a body is there");
        }
        if ends == "dropped" {
            drop(sink)
        } else {
            sink.abort().await
        }
        ensure!(open(&*cache, &one).await?.is_none(), "a body that was {ends} is there");
        ensure!(cache.follow_body(&one).is_none(), "a body that was {ends} is still being written");
    }
    put_body(&*cache, &one, CacheValue::new(()), CHUNKS).await?;
    ensure!(stored(&*cache, &one).await? == Some(whole(0, CHUNKS)), "the body is not what was written");
    put_body(&*cache, &one, CacheValue::new(()), 0).await?;
    ensure_eq!(stored(&*cache, &one).await?, Some(Vec::new()), "a body without bytes");
    if let Some((l1, l2)) = subject.make_layers(&world).await {
        let both = subject.compose(l1.clone(), l2.clone(), &world, Setup::default());
        put_body(&*both, &one, CacheValue::new(()), CHUNKS).await?;
        for (layer, name) in [(&l1, "the upper layer"), (&l2, "the lower layer")] {
            ensure!(stored(&**layer, &one).await? == Some(whole(0, CHUNKS)), "the body in {name}");
        }
    }
    Ok(())
}

pub(super) async fn stream_03_writers_are_followed(subject: &Subject) -> Verdict {
    let cache = (subject.whole)(World::new()).await;
    let one = key("one");
    for is_finished in [true, false] {
        let mut sink = cache.write_body(&one, CacheValue::new(())).await.map_err(text)?;
        let mut followers = vec![sink.follow()];
        for number in 0..CHUNKS {
            sink.chunk(chunk(0, number)).await.map_err(text)?;
            if number % 30 == 10 {
                followers.push(sink.follow());
                followers.push(cache.follow_body(&one).ok_or("nothing is being written")?);
            }
        }
        // One of them has kept up.
        let first = followers[0].chunk().await.map_err(text)?;
        ensure!(first.is_some_and(|first| first.starts_with(&chunk(0, 0)[..100])), "the first bytes");
        if is_finished {
            sink.finish().await.map_err(text)?;
        } else {
            drop(sink);
        }
        for (index, mut follower) in followers.into_iter().enumerate() {
            match (read(&mut *follower).await, is_finished) {
                (Ok(bytes), true) => {
                    ensure!(whole(0, CHUNKS).ends_with(&bytes), "follower {index} has other bytes");
                    ensure!(index == 0 || bytes.len() == CHUNKS * CHUNK, "follower {index} has a part");
                }
                (Err(error), false) => ensure_eq!(error.kind(), ErrorKind::Closed, "follower {index}"),
                (end, _) => return Err(format!("follower {index} ended so: {:?}", end.map(|all| all.len()))),
            }
        }
        remove_raw(&*cache, &one).await.into_result().map_err(text)?;
    }
    Ok(())
}

pub(super) async fn stream_04_followers_have_one_writer(subject: &Subject) -> Verdict {
    let cache = (subject.whole)(World::new()).await;
    let one = key("one");
    let mut sinks = vec![
        cache.write_body(&one, CacheValue::new(())).await.map_err(text)?,
        cache.write_body(&one, CacheValue::new(())).await.map_err(text)?,
    ];
    let mut followers: Vec<Body> = sinks.iter().map(|sink| sink.follow()).collect();
    ensure!(followers[0].generation() != followers[1].generation(), "two writers have one generation");
    for number in 0..CHUNKS {
        for (body, sink) in sinks.iter_mut().enumerate() {
            sink.chunk(chunk(body, number)).await.map_err(text)?;
        }
    }
    // The second wins, and takes nothing from those who follow the first.
    while let Some(sink) = sinks.pop() {
        sink.finish().await.map_err(text)?;
    }
    for (body, follower) in followers.iter_mut().enumerate() {
        let bytes = read(&mut **follower).await.map_err(text)?;
        ensure!(bytes == whole(body, CHUNKS), "who follows writer {body} has other bytes");
    }
    ensure!(
        stored(&*cache, &one).await? == Some(whole(1, CHUNKS)),
        "the body that was finished first is not there"
    );
    Ok(())
}

pub(super) async fn stream_05_ranges(subject: &Subject) -> Verdict {
    let cache = (subject.whole)(World::new()).await;
    let one = key("one");
    put_body(&*cache, &one, CacheValue::new(()), 10).await?;
    let (all, len) = (whole(0, 10), 10 * CHUNK as u64);
    let mut body = open(&*cache, &one).await?.ok_or("no body")?;
    ensure_eq!(body.len(), Some(len), "its length");
    for (start, end) in [(5, 70_000), (len - 1, len + 1), (100_000, u64::MAX), (7, 7), (0, len)] {
        body.seek(start..end).map_err(text)?;
        let expected = &all[start as usize..end.min(len) as usize];
        ensure!(read(&mut *body).await.map_err(text)? == expected, "the range {start}..{end}");
    }
    for (start, end) in [(len, u64::MAX), (200, 100)] {
        let refused = body.seek(start..end).err().map(|error| error.kind());
        ensure_eq!(refused, Some(ErrorKind::Unsupported), "the range {start}..{end}");
    }
    put_body(&*cache, &one, CacheValue::new(()), 0).await?;
    let mut empty = open(&*cache, &one).await?.ok_or("no body")?;
    empty.seek(0..u64::MAX).map_err(text)?;
    ensure!(read(&mut *empty).await.map_err(text)?.is_empty(), "a body without bytes");
    Ok(())
}

pub(super) async fn stream_06_metadata_apart_from_the_body(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let (one, absent) = (key("one"), key("absent"));
    let metadata = |text: &str| [("type".to_owned(), Bytes::copy_from_slice(text.as_bytes()))].into();
    cache.set_metadata(&absent, metadata("b")).await.map_err(text)?;
    ensure!(open(&*cache, &absent).await?.is_none(), "metadata of nothing made an entry");
    let mut details = Details::default();
    details.metadata = metadata("a");
    put_body(&*cache, &one, CacheValue::new(()).with_details(details), CHUNKS).await?;
    cache.set_metadata(&one, metadata("other metadata")).await.map_err(text)?;
    let mut body = open(&*cache, &one).await?.ok_or("the body is gone")?;
    let found = body.entry().details().map(|details| details.metadata.clone());
    ensure_eq!(found, Some(metadata("other metadata")), "its metadata");
    ensure!(read(&mut *body).await.map_err(text)? == whole(0, CHUNKS), "the body has changed");
    Ok(())
}

pub(super) async fn stream_07_what_comes_in_between_wins(subject: &Subject) -> Verdict {
    let cache = (subject.whole)(World::new()).await;
    let one = key("one");
    for what in ["its tag is invalidated", "it is removed", "all are cleared", "it is overwritten"] {
        let mut details = Details::default();
        details.scopes = vec![Scope::tag("tag")];
        let entry = CacheValue::new(()).with_details(details);
        let mut sink = cache.write_body(&one, entry).await.map_err(text)?;
        sink.chunk(chunk(0, 0)).await.map_err(text)?;
        match what {
            "its tag is invalidated" => cache.invalidate_tags(&["tag"]).await.map(drop),
            "it is removed" => cache.delete_one(&one).await.map(drop),
            "all are cleared" => cache.clear().await.map(drop),
            _ => cache.set_one(&one, CacheValue::new(Item::new(5))).await.map(drop),
        }
        .map_err(text)?;
        ensure!(cache.follow_body(&one).is_none(), "somebody new follows it, though {what}");
        sink.chunk(chunk(0, 1)).await.map_err(text)?;
        sink.finish().await.map_err(text)?;
        let expected = (what == "it is overwritten").then_some(5);
        ensure_eq!(id(&*cache, &one).await?, expected, "a value, where {what}");
        let found = stored(&*cache, &one).await?;
        ensure!(found != Some(whole(0, 2)), "the body is there, though {what}");
        remove_raw(&*cache, &one).await.into_result().map_err(text)?;
    }
    Ok(())
}
