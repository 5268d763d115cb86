//! What can be asked about entries and layers: presence, statistics, counts; and what entries may carry.

use std::collections::BTreeMap;

use bytes::Bytes;
use hitbox_backend::operation::Presence;
use hitbox_backend::{Backend, CacheBackend, CompositionPolicy, ParallelReadPolicy};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Details, ErrorKind, RecordKind, Scope};

use super::support::*;
use crate::{Setup, Subject, World};

pub(super) async fn value_12_what_is_too_large_is_refused(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let one = key("one");
    put_forever(&*cache, &one, Item::new(1)).await?;
    let with = |change: &dyn Fn(&mut Details)| {
        let mut details = Details::default();
        change(&mut details);
        CacheValue::new(Item::new(2)).with_details(details)
    };
    let pairs = |count: usize, len: usize| -> BTreeMap<String, Bytes> {
        (0..count).map(|n| (n.to_string(), "x".repeat(len).into())).collect()
    };
    let too_large = [
        ("pairs of metadata", with(&|details| details.metadata = pairs(257, 1)), 257, 256),
        (
            "tags",
            with(&|details| details.scopes = (0..300).map(|n| Scope::tag(n.to_string())).collect()),
            300,
            256,
        ),
        ("metadata in bytes", with(&|details| details.metadata = pairs(2, 40_000)), 80_026, 65_536),
    ];
    for (what, value, size, limit) in too_large {
        let result = cache.set(&one, value, &mut CacheContext::new()).await;
        let Err(error) = result else { return Err(format!("too many {what} were stored")) };
        ensure_eq!(error_kinds(&error), vec![ErrorKind::TooLarge], "too many {what}");
        ensure_eq!(exceeded(&error), Some((size, limit)), "the numbers that the error names for {what}");
        ensure_eq!(id(&*cache, &one).await?, Some(1), "the value before too many {what}");
    }
    let long = CacheKey::builder("k").part("p", "x".repeat(70_000)).build();
    let result = cache.set(&long, CacheValue::new(Item::new(2)), &mut CacheContext::new()).await;
    let Err(error) = result else { return Err("a key of 70,000 bytes was taken".to_owned()) };
    ensure_eq!(exceeded(&error).map(|(_, limit)| limit), Some(66_560), "the limit of keys");
    // What is allowed comes back from every layer.
    let kept = with(&|details| {
        details.metadata = pairs(256, 8);
        details.metadata.insert("0".to_owned(), Bytes::from_static(b"\xff\0\""));
    });
    cache.set(&one, kept.clone(), &mut CacheContext::new()).await.map_err(text)?;
    let metadata =
        |entry: Option<CacheValue<Item>>| entry.and_then(|e| e.details().map(|d| d.metadata.clone()));
    let expected = kept.details().map(|details| details.metadata.clone());
    ensure_eq!(metadata(entry(&*cache, &one).await?), expected, "metadata");
    if subject.layers.is_some() {
        cache.evict(&one).await.map_err(text)?;
        ensure_eq!(metadata(entry(&*cache, &one).await?), expected, "metadata from the lower layer");
    }
    Ok(())
}

fn exceeded(error: &hitbox_core::BackendError) -> Option<(u64, u64)> {
    error.exceeded().or_else(|| error.causes().iter().find_map(exceeded))
}

pub(super) async fn presence_01_is_three_valued_and_agrees_with_get(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let tagged = |scope| {
        let mut details = Details::default();
        details.scopes = vec![scope];
        details
    };
    put(&*cache, &key("mortal"), Item::new(1), lifetime(&world, 500, 1_000, 10_000)).await?;
    put_forever(&*cache, &key("forever"), Item::new(2)).await?;
    let value = CacheValue::new(Item::new(3)).with_details(tagged(Scope::tag("red")));
    cache.set(&key("tagged"), value, &mut CacheContext::new()).await.map_err(text)?;
    let mut absent = Details::default();
    absent.kind = RecordKind::Absent;
    let value = CacheValue::new(Item::new(4)).with_details(absent);
    cache.set(&key("known absent"), value, &mut CacheContext::new()).await.map_err(text)?;
    let names = ["mortal", "forever", "tagged", "known absent", "unknown"];
    // A store that cannot look without reading says maybe, and so does what it is a layer of.
    let mut is_unsure = false;
    for name in ["forever", "unknown"] {
        is_unsure |= cache.contains(&key(name)).await.map_err(text)? == Presence::Maybe;
    }
    let agree = async |moment: &str| {
        for name in names {
            let before = (
                total(&*cache, |l| l.hits + l.stale_hits + l.misses),
                total(&*cache, |l| l.bytes_read),
                total(&*cache, |l| l.present + l.absent + l.maybe),
            );
            let presence = cache.contains(&key(name)).await.map_err(text)?;
            let after = (
                total(&*cache, |l| l.hits + l.stale_hits + l.misses),
                total(&*cache, |l| l.bytes_read),
                total(&*cache, |l| l.present + l.absent + l.maybe),
            );
            ensure_eq!((after.0, after.1), (before.0, before.1), "reads counted by a look at {name}");
            ensure!(after.2 > before.2, "a look at {name} is not counted");
            let found = id(&*cache, &key(name)).await?.is_some();
            let expected = if found { Presence::Present } else { Presence::Absent };
            if !(is_unsure && presence == Presence::Maybe) {
                ensure_eq!(presence, expected, "{name} {moment}");
            }
        }
        Ok::<_, String>(())
    };
    agree("at first").await?;
    cache.invalidate_tags(&["red"]).await.map_err(text)?;
    world.advance_millis(700);
    agree("when stale").await?;
    world.advance_millis(700);
    agree("when expired").await?;
    cache.delete(&key("forever"), &mut CacheContext::new()).await.map_err(text)?;
    agree("when deleted").await?;
    cache.clear().await.map_err(text)?;
    agree("when cleared").await?;
    // A backend that cannot look without reading says so.
    let plain = super::super::broken::PlainMap::leaf(world.shared_clock());
    put_forever(&plain, &key("one"), Item::new(1)).await?;
    ensure_eq!(plain.contains(&key("one")).await.map_err(text)?, Presence::Maybe, "a leaf of three methods");
    Ok(())
}

pub(super) async fn stats_01_a_snapshot_counts_every_leaf(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    let leaves = cache.layout().leaves().len() as u64;
    let mut context = CacheContext::new();
    put_forever(&*cache, &key("one"), Item::new(1)).await?;
    put(&*cache, &key("two"), Item::new(2), lifetime(&world, 500, 10_000, 10_000)).await?;
    ensure_eq!(id(&*cache, &key("one")).await?, Some(1), "one");
    world.advance_millis(700);
    ensure_eq!(id(&*cache, &key("two")).await?, Some(2), "two");
    ensure_eq!(id(&*cache, &key("none")).await?, None, "none");
    cache.delete(&key("one"), &mut context).await.map_err(text)?;
    cache.invalidate_tags(&["a", "b"]).await.map_err(text)?;
    drop(cache.set_if_newer(&key("three"), CacheValue::new(Item::new(3)), 2).await);
    drop(cache.set_if_newer(&key("three"), CacheValue::new(Item::new(3)), 1).await);
    let too_large = CacheKey::builder("k").part("p", "x".repeat(70_000)).build();
    drop(cache.set(&too_large, CacheValue::new(Item::new(1)), &mut context).await);
    let snapshot = cache.snapshot();
    let total = &snapshot.total;
    ensure_eq!(snapshot.leaves.len() as u64, leaves, "leaves of the snapshot");
    ensure_eq!((total.hits, total.stale_hits), (1, 1), "hits and stale hits");
    ensure_eq!(total.misses, 1, "misses of the call");
    let missed: u64 = snapshot.leaves.iter().map(|leaf| leaf.misses).sum();
    ensure_eq!(missed, leaves, "misses of the leaves");
    ensure_eq!((total.writes, total.removes), (3 * leaves, leaves), "writes and deletes");
    ensure_eq!(total.invalidations, 2 * leaves, "invalidations");
    ensure_eq!(total.version_mismatches, 1, "version mismatches");
    ensure_eq!(total.errors, leaves + 1, "errors");
    // As a table, and for programs.
    let table = snapshot.to_string();
    let lines: Vec<&str> = table.lines().collect();
    ensure_eq!(lines.len() as u64, leaves + 2, "lines of the table");
    for (leaf, line) in snapshot.leaves.iter().zip(&lines[1..]) {
        ensure!(line.trim_start().starts_with(leaf.label.as_str()), "no line for {} in\n{table}", leaf.label);
    }
    let json = serde_json::to_value(&snapshot).map_err(text)?;
    ensure_eq!(json["total"]["hits"], 1, "hits in JSON");
    ensure_eq!(json["leaves"][0]["label"], snapshot.leaves[0].label.as_str(), "a label in JSON");
    Ok(())
}

pub(super) async fn stats_03_hits_of_layers_add_up(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let policies = [
        CompositionPolicy::new(),
        CompositionPolicy::new().read(ParallelReadPolicy),
        CompositionPolicy::new().read(hitbox_backend::RaceReadPolicy::default()),
    ];
    for policy in policies {
        let name = format!("{policy:?}");
        let whole = subject.compose(l1.clone(), l2.clone(), &world, Setup { policy, ..Setup::default() });
        put_forever(&*whole, &key("both"), Item::new(1)).await?;
        put_forever(&*l2, &key("below"), Item::new(2)).await?;
        for _ in 0..10 {
            ensure_eq!(id(&*whole, &key("both")).await?, Some(1), "what both layers have");
            ensure_eq!(id(&*whole, &key("below")).await?, Some(2), "what the lower layer has");
        }
        world.pool.wait_all().await;
        let snapshot = whole.snapshot();
        ensure_eq!(snapshot.total.hits, 20, "the hits of all leaves for 20 hits under {name}");
        let sum: u64 = snapshot.leaves.iter().map(|leaf| leaf.hits).sum();
        ensure_eq!(sum, snapshot.total.hits, "the sum of the leaves' hits");
    }
    Ok(())
}

pub(super) async fn stats_05_lengths_name_their_leaf(subject: &Subject) -> Verdict {
    let world = World::new();
    let cache = (subject.whole)(world.clone()).await;
    if !cache.layout().capabilities().counts {
        // Who cannot count says so, for the whole or in its line.
        let failed = match cache.entry_counts().await {
            Ok(counts) => counts.into_iter().find_map(|count| count.entries.err()),
            Err(error) => Some(error),
        };
        ensure_eq!(
            failed.map(|error| error.kind()),
            Some(ErrorKind::Unsupported),
            "counts where there are none"
        );
        return Ok(());
    }
    let empty = cache.entry_counts().await.map_err(text)?;
    ensure_eq!(empty.len(), cache.layout().leaves().len(), "counts, one per leaf");
    ensure!(
        empty.iter().all(|leaf| matches!(leaf.is_empty(), Ok(true))),
        "a new leaf is not empty: {empty:?}"
    );
    for number in 0..10 {
        put(
            &*cache,
            &key(&format!("mortal {number}")),
            Item::new(number),
            lifetime(&world, 500, 1_000, 60_000),
        )
        .await?;
        put_forever(&*cache, &key(&format!("forever {number}")), Item::new(number)).await?;
    }
    let count = async |expected: u64, when: &str| {
        let counts = cache.entry_counts().await.map_err(text)?;
        for (path, count) in cache.layout().paths().zip(counts) {
            ensure_eq!(count.label, path, "the leaf that is counted");
            ensure_eq!(count.entries.map_err(text)?, expected, "entries of {path} {when}");
        }
        Ok::<_, String>(())
    };
    count(20, "at first").await?;
    world.advance_millis(2_000);
    count(10, "when half of them have expired").await?;
    Ok(())
}
