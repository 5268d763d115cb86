//! Invalidation by tag, dependency, namespace, prefix, pattern, and of everything; versions; eviction.

mod forgetful;

use std::sync::Arc;

use hitbox_backend::operation::{Write, WriteOptions};
use hitbox_backend::store::{DeleteStatus, Raw};
use hitbox_backend::{Backend, CacheBackend, CompositionPolicy, RefillPolicy, Wrap};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Details, ErrorKind, KeyPattern, Scope};

pub(super) use forgetful::invalidate_06_a_layer_that_did_not_record_it_is_named;

use super::support::*;
use crate::{Fault, Faults, Faulty, Operation, Setup, Subject, World};

/// `record:<id>` and so on.
fn record(parts: &[&str]) -> CacheKey {
    let mut key = CacheKey::builder("record");
    for part in parts {
        key = key.part("p", part);
    }
    key.build()
}

fn carrying(id: u64, scopes: &[Scope]) -> CacheValue<Item> {
    let mut details = Details::default();
    details.scopes = scopes.to_vec();
    CacheValue::new(Item::new(id)).with_details(details)
}

/// Stores an item that carries these scopes.
async fn put_carrying(backend: &dyn Backend, key: &CacheKey, id: u64, scopes: &[Scope]) -> Verdict {
    backend.set(key, carrying(id, scopes), &mut CacheContext::new()).await.map(drop).map_err(text)
}

pub(super) async fn invalidate_01_by_every_name(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let (red, blue, menu) = (Scope::tag("red"), Scope::tag("blue"), Scope::dependency("menu"));
    let inside = cache.clone().namespace("tenant");
    let keys = [record(&["1"]), record(&["10"]), record(&["1", "x"]), record(&["ü1"]), key("other")];
    let fill = async || {
        put_carrying(&*cache, &keys[0], 0, std::slice::from_ref(&red)).await?;
        put_carrying(&*cache, &keys[1], 1, &[red.clone(), blue.clone()]).await?;
        put_carrying(&*cache, &keys[2], 2, std::slice::from_ref(&menu)).await?;
        put_forever(&*cache, &keys[3], Item::new(3)).await?;
        put_forever(&*cache, &keys[4], Item::new(4)).await?;
        put_forever(&inside, &keys[0], Item::new(5)).await
    };
    let left = async || {
        let mut left = Vec::new();
        for key in &keys {
            left.extend(id(&*cache, key).await?);
        }
        left.extend(id(&inside, &keys[0]).await?);
        Ok::<_, String>(left)
    };
    fill().await?;
    ensure_eq!(left().await?, [0, 1, 2, 3, 4, 5], "before any invalidation");
    let prefix = cache.invalidate_prefix(&record(&["1"])).await;
    let pattern = cache.invalidate_matching(KeyPattern::glob("record:?1")).await;
    if cache.layout().capabilities().enumerates {
        ensure_eq!(prefix.map_err(text)?, 2, "the keys that begin with record:1");
        ensure_eq!(pattern.map_err(text)?, 1, "the keys that match record:?1");
        ensure_eq!(left().await?, [1, 4, 5], "after prefix and pattern");
    } else {
        let kinds = prefix.err().map(|error| error_kinds(&error));
        ensure_eq!(kinds, Some(vec![ErrorKind::Unsupported]), "a prefix where keys cannot be listed");
    }
    fill().await?;
    cache.invalidate_tags(&["blue", "green"]).await.map_err(text)?;
    ensure_eq!(left().await?, [0, 2, 3, 4, 5], "after one of two tags");
    cache.invalidate_tags(&["red"]).await.map_err(text)?;
    cache.invalidate_dependencies(&["menu"]).await.map_err(text)?;
    ensure_eq!(left().await?, [3, 4, 5], "after tags and a dependency");
    fill().await?;
    cache.flush_namespace("tenant").await.map_err(text)?;
    ensure_eq!(left().await?, [0, 1, 2, 3, 4], "after its namespace");
    fill().await?;
    inside.clear().await.map_err(text)?;
    ensure_eq!(left().await?, [0, 1, 2, 3, 4], "after the namespace has cleared itself");
    fill().await?;
    cache.clear().await.map_err(text)?;
    ensure_eq!(left().await?, [0_u64; 0], "after everything");
    fill().await?;
    ensure_eq!(left().await?, [0, 1, 2, 3, 4, 5], "what was written afterwards");
    Ok(())
}

pub(super) async fn invalidate_02_takes_no_time_that_grows(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let inside = cache.clone().namespace("tenant");
    let keys: Vec<CacheKey> = (0..40).map(|n| record(&[&n.to_string()])).collect();
    for (number, key) in (0..).zip(&keys) {
        put_carrying(&*cache, key, number, &[Scope::tag("all")]).await?;
        put_forever(&inside, key, Item::new(number)).await?;
    }
    let calls = |backend: &dyn Backend| (total(backend, |l| l.removes), total(backend, |l| l.writes));
    let before = calls(&*cache);
    cache.invalidate_tags(&["all"]).await.map_err(text)?;
    cache.flush_namespace("tenant").await.map_err(text)?;
    ensure_eq!(calls(&*cache), before, "deletes and writes of entries");
    for key in &keys {
        ensure_eq!(id(&*cache, key).await?, None, "an entry of the tag");
        ensure_eq!(id(&inside, key).await?, None, "an entry of the namespace");
    }
    for key in &keys {
        put_forever(&*cache, key, Item::new(1)).await?;
    }
    let before = calls(&*cache);
    cache.clear().await.map_err(text)?;
    ensure_eq!(calls(&*cache), before, "deletes and writes of entries for everything");
    ensure_eq!(id(&*cache, &keys[0]).await?, None, "an entry after everything");
    Ok(())
}

pub(super) async fn invalidate_03_reaches_what_only_lower_layers_have(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let one = record(&["1"]);
    let tag = [Scope::tag("red")];
    for how in ["tag", "everything"] {
        put_carrying(&*cache, &one, 1, &tag).await?;
        if subject.layers.is_some() {
            cache.evict(&one).await.map_err(text)?;
            ensure_eq!(id(&*cache, &one).await?, Some(1), "what only the lower layer has");
        }
        match how {
            "tag" => cache.invalidate_tags(&["red"]).await.map_err(text)?,
            _ => cache.clear().await.map_err(text)?,
        };
        ensure_eq!(id(&*cache, &one).await?, None, "after {how}");
        put_carrying(&*cache, &one, 2, &tag).await?;
        ensure_eq!(id(&*cache, &one).await?, Some(2), "written after {how}");
        if subject.layers.is_some() {
            cache.evict(&one).await.map_err(text)?;
            ensure_eq!(id(&*cache, &one).await?, Some(2), "written after {how}, in the lower layer");
        }
    }
    Ok(())
}

async fn invalidate_by(cache: &dyn Backend, how: &str) -> Verdict {
    match how {
        "tag" => cache.invalidate_tags(&["red"]).await.map(drop),
        "prefix" => cache.invalidate_prefix(&record(&["1"])).await.map(drop),
        "pattern" => cache.invalidate_matching(KeyPattern::glob("record:**")).await.map(drop),
        _ => cache.clear().await.map(drop),
    }
    .map_err(text)
}

pub(super) async fn invalidate_04_what_began_before_is_not_installed(subject: &Subject) -> Verdict {
    let one = record(&["1"]);
    let tag = [Scope::tag("red")];
    for how in ["tag", "prefix", "pattern", "everything"] {
        let world = World::new();
        let cache = (subject.whole)(world.clone()).await;
        if matches!(how, "prefix" | "pattern") && !cache.layout().capabilities().enumerates {
            continue;
        }
        // A load that has a permit, and stores what it brings.
        put_carrying(&*cache, &one, 1, &tag).await?;
        let load = cache.layout().load_permit(&one);
        invalidate_by(&*cache, how).await?;
        if let Some(ticket) = load.begin() {
            let write = Write::new(one.clone(), carrying(1, &tag).map(Raw::live));
            drop(write_raw(&*cache, write.with_options(WriteOptions::of(&ticket))).await);
        }
        ensure_eq!(id(&*cache, &one).await?, None, "what a load brings that began before the {how}");
        // A write that began before, and ends after.
        if !matches!(how, "prefix" | "pattern") {
            let ticket = cache.layout().begin_write(&one);
            invalidate_by(&*cache, how).await?;
            let write = Write::new(one.clone(), carrying(2, &tag).map(Raw::live));
            drop(write_raw(&*cache, write.with_options(WriteOptions::of(&ticket))).await);
            drop(ticket);
            ensure_eq!(id(&*cache, &one).await?, None, "a write that began before the {how}");
        }
        // A refill that has read its source.
        let Some((l1, l2)) = subject.make_layers(&world).await else { continue };
        put_carrying(&*l2, &one, 3, &tag).await?;
        let faults = Faults::default();
        let slow = Faulty::new(l1.clone(), &faults, world.shared_clock());
        let policy = CompositionPolicy::new().refill(RefillPolicy::Always);
        let whole = subject.compose(slow, l2.clone(), &world, Setup { policy, ..Setup::default() });
        faults.always(Operation::Install, Fault::Delay(ms(1_000)));
        ensure_eq!(id(&*whole, &one).await?, Some(3), "the lower copy");
        held_up(&faults, 1).await?;
        invalidate_by(&*whole, how).await?;
        background_ends(&world, &[&faults]).await;
        ensure_eq!(id(&*l1, &one).await?, None, "what a refill brings that began before the {how}");
        ensure_eq!(id(&*whole, &one).await?, None, "the whole after the {how}");
    }
    Ok(())
}

pub(super) async fn invalidate_05_counts_are_distinct_keys(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    for number in 0..5 {
        put_forever(&*cache, &record(&[&number.to_string()]), Item::new(number)).await?;
    }
    cache.invalidate_tags(&["unknown"]).await.map_err(text)?;
    cache.invalidate_dependencies(&["unknown"]).await.map_err(text)?;
    cache.flush_namespace("unknown").await.map_err(text)?;
    for number in 0..5 {
        ensure_eq!(
            id(&*cache, &record(&[&number.to_string()])).await?,
            Some(number),
            "an entry after unknown names"
        );
    }
    if cache.layout().capabilities().enumerates {
        let unknown = cache.invalidate_matching(KeyPattern::glob("unknown:**")).await.map_err(text)?;
        ensure_eq!(unknown, 0, "keys of an unknown prefix");
        cache.evict(&record(&["0"])).await.map_err(text)?;
        let left = if subject.layers.is_some() { 5 } else { 4 };
        let all = cache.invalidate_matching(KeyPattern::glob("record:*")).await.map_err(text)?;
        ensure_eq!(all, left, "distinct keys, each in several layers");
        let again = cache.invalidate_matching(KeyPattern::glob("record:*")).await.map_err(text)?;
        ensure_eq!(again, 0, "keys that are gone already");
    }
    Ok(())
}

pub(super) async fn invalidate_07_an_overwrite_takes_tags_away(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let one = record(&["1"]);
    put_carrying(&*cache, &one, 1, &[Scope::tag("red")]).await?;
    put_carrying(&*cache, &one, 2, &[Scope::tag("blue")]).await?;
    cache.invalidate_tags(&["red"]).await.map_err(text)?;
    ensure_eq!(id(&*cache, &one).await?, Some(2), "an entry that has lost the tag");
    put_forever(&*cache, &one, Item::new(3)).await?;
    cache.invalidate_tags(&["blue"]).await.map_err(text)?;
    ensure_eq!(id(&*cache, &one).await?, Some(3), "an entry without tags");
    Ok(())
}

pub(super) async fn invalidate_08_versions_guard_writes(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let one = record(&["1"]);
    let write = async |backend: &dyn Backend, id: u64, version: u64| {
        backend.set_if_newer(&one, CacheValue::new(Item::new(id)), version).await
    };
    write(&*cache, 1, 5).await.map_err(text)?;
    for attempted in [5, 4, 0] {
        let Err(error) = write(&*cache, 2, attempted).await else {
            return Err(format!("version {attempted} over version 5 was written"));
        };
        ensure_eq!(error.kind(), ErrorKind::VersionMismatch, "version {attempted} over version 5");
        let mismatch = error.mismatch().ok_or("the error names no versions")?;
        ensure_eq!((mismatch.existing, mismatch.attempted), (5, attempted), "the versions of the error");
        ensure_eq!(id(&*cache, &one).await?, Some(1), "the value after a refused write");
    }
    ensure!(total(&*cache, |leaf| leaf.version_mismatches) == 3, "refused writes are not counted");
    write(&*cache, 3, 6).await.map_err(text)?;
    let stored = entry::<Item>(&*cache, &one).await?.ok_or("nothing is there")?;
    ensure_eq!(stored.details().and_then(|d| d.version), Some(6), "the version that comes back");
    // Large versions are told apart too.
    write(&*cache, 4, u64::MAX - 1).await.map_err(text)?;
    ensure!(write(&*cache, 5, u64::MAX - 1).await.is_err(), "the same large version was written");
    write(&*cache, 5, u64::MAX).await.map_err(text)?;
    // No version is unconditional, and leaves none.
    put_forever(&*cache, &one, Item::new(6)).await?;
    write(&*cache, 7, 1).await.map_err(text)?;
    ensure_eq!(id(&*cache, &one).await?, Some(7), "after a write without a version");
    // What has been invalidated has no version.
    cache.clear().await.map_err(text)?;
    write(&*cache, 8, 1).await.map_err(text)?;
    let tagged = carrying(9, &[Scope::tag("red")]);
    cache.set_if_newer(&one, tagged, 9).await.map_err(text)?;
    cache.invalidate_tags(&["red"]).await.map_err(text)?;
    write(&*cache, 10, 1).await.map_err(text)?;
    ensure_eq!(id(&*cache, &one).await?, Some(10), "a version after its tag was invalidated");
    // Of simultaneous writers the highest version stays.
    let writers = (2..30_u64).map(|version| write(&*cache, version, version));
    futures_util::future::join_all(writers).await;
    ensure_eq!(id(&*cache, &one).await?, Some(29), "the value of simultaneous writers");
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let faults = Faults::default();
    // A layer that others share decides before one that they do not see.
    let is_shared = |layer: &Arc<dyn Backend>| layer.layout().capabilities().shared;
    let whole = if is_shared(&l1) && !is_shared(&l2) {
        let above = Faulty::new(l1.clone(), &faults, world.shared_clock());
        subject.compose(above, l2, &world, Setup::default())
    } else {
        let below = Faulty::new(l2, &faults, world.shared_clock());
        subject.compose(l1.clone(), below, &world, Setup::default())
    };
    write(&*whole, 1, 1).await.map_err(text)?;
    let upper = entry::<Item>(&*l1, &one).await?.and_then(|entry| entry.details()?.version);
    ensure_eq!(upper, Some(1), "the version in the upper layer");
    faults.always(Operation::Write, Fault::Fail(ErrorKind::Connection));
    ensure!(write(&*whole, 2, 2).await.is_err(), "the layer that decides was not asked");
    faults.clear();
    ensure_eq!(id(&*whole, &one).await?, Some(1), "the value that nobody has replaced");
    Ok(())
}

pub(super) async fn invalidate_10_eviction_is_demotion(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let whole = subject.compose(l1.clone(), l2.clone(), &world, Setup::default());
    let one = record(&["1"]);
    put_forever(&*whole, &one, Item::new(1)).await?;
    let evicted = whole.evict(&one).await.map_err(text)?;
    ensure!(evicted != DeleteStatus::Missing, "nothing was evicted");
    ensure_eq!(id(&*l1, &one).await?, None, "the upper layer after an eviction");
    ensure_eq!(id(&*l2, &one).await?, Some(1), "the lower layer after an eviction");
    ensure_eq!(whole.evict(&one).await.map_err(text)?, DeleteStatus::Missing, "evicting what is below only");
    ensure_eq!(id(&*whole, &one).await?, Some(1), "the whole after an eviction");
    Ok(())
}
