//! Bodies: written by chunks, followed while they are written, read by ranges.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::future::join;
use hitbox_backend::operation::{Batch, BodyReader, ReadOptions, Removal, Target};
use hitbox_backend::{
    Backend, Body, CacheBackend, DeleteStatus, Layer, LeafOutcome, RefillPolicy, Requirement,
};
use hitbox_core::{BackendLabel, BackendResult, CacheKey, CacheValue, Details, ErrorKind, Scope};
use tokio::sync::Semaphore;

use super::support::*;
use crate::{Setup, Subject, Trouble, Troubled, World};

/// More than what is held for those who follow a body.
const CHUNKS: usize = 90;
const CHUNK: usize = 30_000;

/// A chunk of one of several bodies.
fn chunk(body: usize, number: usize) -> Bytes {
    static PATTERN: LazyLock<Bytes> = LazyLock::new(|| (0..CHUNK + 251).map(|at| (at % 251) as u8).collect());
    let from = (body * 91 + number * 7) % 251;
    PATTERN.slice(from..from + CHUNK)
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

/// Opens a body as those do who stand above.
async fn open(cache: &dyn Backend, key: &CacheKey) -> Result<Option<Body>, String> {
    let opened = cache.open_reader(key, &ReadOptions::NORMAL).await;
    opened.map(|reader| reader.map(Body::from)).map_err(text)
}

/// The stored body, as users read it.
async fn stored(cache: &dyn Backend, key: &CacheKey) -> Result<Option<Vec<u8>>, String> {
    match cache.open_body(key).await.map_err(text)? {
        Some(mut body) => read(&mut *body).await.map(Some).map_err(text),
        None => Ok(None),
    }
}

fn metadata(text: &str) -> BTreeMap<String, Bytes> {
    [("type".to_owned(), Bytes::copy_from_slice(text.as_bytes()))].into()
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

/// Writes ten chunks; says whether that went well.
async fn write_ten(cache: &dyn Backend, key: &CacheKey) -> BackendResult<()> {
    let mut sink = cache.write_body(key, CacheValue::new(())).await?;
    for number in 0..10 {
        sink.chunk(chunk(0, number)).await?;
    }
    sink.finish().await.map(drop)
}

pub(super) async fn stream_02_layers_fail_by_themselves(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let one = key("one");
    for failing in Layer::BOTH {
        let trouble = |layer, inner: &Arc<dyn Backend>| match layer == failing {
            true => Arc::new(Troubled::new(inner.clone(), Trouble::FailsAfter(3))) as Arc<dyn Backend>,
            false => inner.clone(),
        };
        let compose =
            |setup| subject.compose(trouble(Layer::L1, &l1), trouble(Layer::L2, &l2), &world, setup);
        let both = compose(Setup::default());
        write_ten(&*both, &one).await.map_err(text)?;
        for (layer, of) in [(Layer::L1, &l1), (Layer::L2, &l2)] {
            match stored(&**of, &one).await? {
                Some(body) => {
                    ensure!(body == whole(0, 10), "another body in {layer:?}, where {failing:?} fails")
                }
                // It may have been brought up to date since.
                None => ensure!(layer == failing, "nothing in {layer:?}, where {failing:?} fails"),
            }
        }
        ensure!(stored(&*both, &one).await? == Some(whole(0, 10)), "both, where {failing:?} fails");
        remove_raw(&*both, &one).await.into_result().map_err(text)?;
        let mut setup = Setup::default();
        setup.required[failing] = Requirement::Required;
        let both = compose(setup);
        ensure!(write_ten(&*both, &one).await.is_err(), "a required {failing:?} may fail");
        for layer in [&both, &l1, &l2] {
            ensure!(
                open(&**layer, &one).await?.is_none(),
                "something is left where a required {failing:?} failed"
            );
        }
    }
    let commits = Arc::new(Semaphore::new(0));
    let slow = Troubled::new(l2.clone(), Trouble::Commits(commits.clone()));
    let both = subject.compose(l1, Arc::new(slow), &world, Setup::default());
    let upper_is_first = async {
        while stored(&*both, &one).await? != Some(whole(0, 10)) {
            tokio::task::yield_now().await;
        }
        let lower = open(&*l2, &one).await?.is_some();
        commits.add_permits(1);
        ensure!(!lower, "the lower layer has it before it has committed");
        Ok(())
    };
    let (written, is_first) = join(pin!(write_ten(&*both, &one)), pin!(upper_is_first)).await;
    written.map_err(text)?;
    is_first?;
    ensure!(stored(&*l2, &one).await? == Some(whole(0, 10)), "the lower layer in the end");
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
    let generations: Vec<u64> = followers.iter().map(|follower| follower.generation()).collect();
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
    let stored = open(&*cache, &one).await?.ok_or("the body is gone")?;
    ensure_eq!(stored.generation(), generations[1], "the generation of what is stored");
    let world = World::new();
    if let Some((l1, l2)) = subject.make_layers(&world).await {
        let both = subject.compose(l1.clone(), l2.clone(), &world, Setup::refill(RefillPolicy::Awaited));
        put_body(&*both, &one, CacheValue::new(()), CHUNKS).await?;
        let generation = open(&*both, &one).await?.ok_or("no body")?.generation();
        for layer in [&l1, &l2] {
            let of_layer = open(&**layer, &one).await?.ok_or("no body in a layer")?.generation();
            ensure_eq!(of_layer, generation, "the generation in a layer");
        }
        both.evict(&one).await.map_err(text)?;
        ensure!(open(&*both, &one).await?.is_some(), "the body is gone");
        let refilled = open(&*l1, &one).await?.ok_or("no body where it was refilled")?.generation();
        ensure_eq!(refilled, generation, "the generation of a refill");
    }
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
        ensure_eq!(refused, Some(ErrorKind::Range), "the range {start}..{end}");
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
    exact_generations(&*cache, &one).await
}

/// A purge of one generation leaves others alone, stored or being written.
async fn exact_generations(cache: &dyn Backend, one: &CacheKey) -> Verdict {
    put_body(cache, one, CacheValue::new(()), 2).await?;
    let first = open(cache, one).await?.ok_or("no body")?.generation();
    match cache.delete_generation(one, first ^ 1).await {
        Ok(status) => ensure_eq!(status, DeleteStatus::Missing, "a generation that there is not"),
        // A store that others share, and that cannot compare.
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(text(error)),
    }
    ensure!(open(cache, one).await?.is_some(), "the purge of another generation took it away");
    let mut sink = cache.write_body(one, CacheValue::new(())).await.map_err(text)?;
    let second = sink.follow().generation();
    sink.chunk(chunk(1, 0)).await.map_err(text)?;
    let removed = cache.delete_generation(one, first).await.map_err(text)?;
    ensure!(removed != DeleteStatus::Missing, "the generation that there is was not found");
    ensure!(open(cache, one).await?.is_none(), "the generation is still there");
    sink.finish().await.map_err(text)?;
    ensure!(stored(cache, one).await? == Some(whole(1, 1)), "the purge ended another that was being written");
    let mut sink = cache.write_body(one, CacheValue::new(())).await.map_err(text)?;
    let third = sink.follow().generation();
    sink.chunk(chunk(2, 0)).await.map_err(text)?;
    let removed = cache.delete_generation(one, third).await.map_err(text)?;
    ensure_eq!(removed, DeleteStatus::Missing, "one that was being written");
    ensure!(cache.follow_body(one).is_none(), "somebody new follows what was purged");
    sink.finish().await.map_err(text)?;
    ensure!(stored(cache, one).await? == Some(whole(1, 1)), "what was purged in the middle is there");
    let removed = cache.delete_generation(one, second).await.map_err(text)?;
    ensure!(removed != DeleteStatus::Missing, "the second generation was not found");
    Ok(())
}

pub(super) async fn stream_08_evictions_and_purges(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let both = subject.compose(l1.clone(), l2.clone(), &world, Setup::default());
    let all: Vec<BackendLabel> = both.layout().paths().collect();
    let (upper, lower) = all.split_at(l1.layout().leaves().len());
    let one = key("one");
    put_body(&*both, &one, CacheValue::new(()), CHUNKS).await?;
    let generation = open(&*both, &one).await?.ok_or("no body")?.generation();
    for removal in [Removal::evict(one.clone()), Removal::evict(one.clone()).of_generation(generation)] {
        put_body(&*both, &one, CacheValue::new(()), CHUNKS).await?;
        let is_exact = removal.target != Target::Any;
        let now = open(&*both, &one).await?.ok_or("no body")?.generation();
        if is_exact {
            ensure_eq!(
                held(&*both, removal.clone()).await?,
                Some(Vec::new()),
                "leaves with another generation"
            );
        }
        let removal = if is_exact { removal.of_generation(now) } else { removal };
        let Some(held_by) = held(&*both, removal.clone()).await? else { return Ok(()) };
        ensure_eq!(held_by, upper, "leaves that an eviction took it out of");
        ensure!(open(&*l1, &one).await?.is_none(), "the upper layer after an eviction");
        ensure!(stored(&*l2, &one).await? == Some(whole(0, CHUNKS)), "the lower layer after an eviction");
        ensure_eq!(held(&*both, removal).await?, Some(Vec::new()), "leaves, the second time");
    }
    ensure_eq!(
        held(&*both, Removal::new(one.clone())).await?,
        Some(lower.to_vec()),
        "leaves that had it below"
    );
    put_body(&*both, &one, CacheValue::new(()), CHUNKS).await?;
    ensure_eq!(held(&*both, Removal::new(one.clone())).await?, Some(all), "leaves that had it");
    for layer in [&both, &l1, &l2] {
        ensure!(open(&**layer, &one).await?.is_none(), "something is left by a purge");
    }
    Ok(())
}

pub(super) async fn stream_09_sizes_agree(subject: &Subject) -> Verdict {
    let cache = (subject.whole)(World::new()).await;
    let one = key("one");
    for chunks in [0, 1, CHUNKS] {
        let mut details = Details::default();
        details.metadata = metadata("text");
        let size = chunks * CHUNK + details.metadata.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        let entry = CacheValue::new(()).with_details(details);
        let mut sink = cache.write_body(&one, entry).await.map_err(text)?;
        ensure_eq!(sink.follow().size(), None, "the size of what is still arriving");
        for number in 0..chunks {
            sink.chunk(chunk(0, number)).await.map_err(text)?;
        }
        let written = sink.finish().await.map_err(text)?;
        ensure_eq!(written.size(), Some(size as u64), "the size when it was written");
        let hit = open(&*cache, &one).await?.ok_or("no body")?;
        ensure_eq!(hit.size(), Some(size as u64), "the size when it was found");
        let evicted =
            cache.remove(Batch::one(Removal::evict(one.clone()))).await.into_one().unwrap_or_default();
        ensure_eq!(evicted.size(), Some(size as u64), "the size when it was evicted");
        let again =
            cache.remove(Batch::one(Removal::evict(one.clone()))).await.into_one().unwrap_or_default();
        ensure_eq!(again.size(), None, "the size of what was not there");
    }
    Ok(())
}

/// The leaves that held what was removed; nothing if that cannot be done.
async fn held(cache: &dyn Backend, removal: Removal) -> Result<Option<Vec<BackendLabel>>, String> {
    let receipt = cache.remove(Batch::one(removal)).await.into_one().unwrap_or_default();
    if receipt.error().is_some_and(|error| error.kind() == ErrorKind::Unsupported) {
        return Ok(None);
    }
    let receipt = receipt.into_result().map_err(text)?;
    let held = receipt.leaves().iter().filter(|leaf| matches!(leaf.outcome, LeafOutcome::Removed));
    Ok(Some(held.map(|leaf| leaf.label).collect()))
}
