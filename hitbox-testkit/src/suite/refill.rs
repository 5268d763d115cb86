//! L1 after an L2 hit.

use std::sync::Arc;

use futures_util::future::{join, join_all};
use hitbox_backend::{Backend, CacheBackend, Compose, RefillPolicy, Wrap};
use hitbox_core::{CacheContext, ErrorKind, Lifetime, ReadMode};

use super::support::*;
use crate::{
    Call, Fault, Faults, Faulty, MemoryBackend, Operation, Recorder, Recording, Setup, Subject, World,
};

async fn read_mode(composed: &dyn Backend, name: &str) -> Result<ReadMode, String> {
    let mut context = CacheContext::new();
    composed.get::<Item>(&key(name), &mut context).await.map_err(text)?;
    Ok(context.read_mode())
}

pub(super) async fn refill_01_when_it_happens(subject: &Subject) -> Verdict {
    let policies =
        [RefillPolicy::Never, RefillPolicy::Always, RefillPolicy::Awaited, RefillPolicy::NthHit(2)];
    for policy in policies {
        let world = World::new();
        let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
        put_forever(&*l2, &key("k"), Item::new(1)).await?;
        let composed = subject.compose(l1.clone(), l2.clone(), &world, Setup::refill(policy));
        let first = read_mode(&*composed, "k").await?;
        if policy != RefillPolicy::Awaited {
            world.pool.wait_all().await;
        }
        let now = matches!(policy, RefillPolicy::Always | RefillPolicy::Awaited);
        ensure_eq!(first, if now { ReadMode::Refill } else { ReadMode::Direct }, "the mode under {policy:?}");
        ensure_eq!(id(&*l1, &key("k")).await?, now.then_some(1), "L1 after one hit under {policy:?}");
        if policy == RefillPolicy::NthHit(2) {
            // A write starts the count anew.
            put_forever(&*composed, &key("k"), Item::new(2)).await?;
            l1.delete(&key("k"), &mut CacheContext::new()).await.map_err(text)?;
            for expected in [None, Some(2)] {
                ensure_eq!(id(&*composed, &key("k")).await?, Some(2), "a hit below");
                world.pool.wait_all().await;
                ensure_eq!(id(&*l1, &key("k")).await?, expected, "L1 after another hit");
            }
        }
        if policy == RefillPolicy::Never {
            ensure_eq!(id(&*composed, &key("k")).await?, Some(1), "another hit below");
            world.pool.wait_all().await;
            ensure_eq!(id(&*l1, &key("k")).await?, None, "L1 under {policy:?}");
        }
        if now {
            l2.delete(&key("k"), &mut CacheContext::new()).await.map_err(text)?;
            ensure_eq!(id(&*composed, &key("k")).await?, Some(1), "the refilled copy");
        }
    }
    Ok(())
}

pub(super) async fn refill_02_keeps_the_instants_of_its_source(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let long = lifetime(&world, 100, 200, 300);
    put(&*l2, &key("k"), Item::new(1), long).await?;
    put(&*l2, &key("capped"), Item::new(2), lifetime(&world, 1_000, 2_000, 3_000)).await?;
    put_forever(&*l2, &key("endless"), Item::new(3)).await?;
    world.advance_millis(50);
    let composed = subject.compose(l1.clone(), l2.clone(), &world, Setup::refill(RefillPolicy::Awaited));
    ensure_eq!(id(&*composed, &key("k")).await?, Some(1), "a hit below");
    let copy = entry::<Item>(&*l1, &key("k")).await?.ok_or("L1 was not filled")?;
    ensure_eq!(*copy.lifetime(), long, "the instants of the copy");
    // A cap of L1 counts from the refill and never lengthens.
    let capped = subject.compose(
        l1.clone().ttl_cap(ms(500)),
        l2.clone(),
        &world,
        Setup::refill(RefillPolicy::Awaited),
    );
    let limit = after(&world, 500);
    for (name, stale) in [("capped", Some(limit)), ("endless", None)] {
        ensure!(id(&*capped, &key(name)).await?.is_some(), "{name} is gone");
        let copy = entry::<Item>(&*l1, &key(name)).await?.ok_or("L1 was not filled under a cap")?;
        ensure_eq!(copy.lifetime().expire(), Some(limit), "the end of {name} under a cap");
        ensure_eq!(copy.lifetime().stale(), stale, "the end of fresh of {name} under a cap");
    }
    world.advance_millis(150);
    ensure_eq!(id(&*l1, &key("k")).await?, None, "the copy at the end of its source's life");
    Ok(())
}

pub(super) async fn refill_03_every_level_is_filled(subject: &Subject) -> Verdict {
    // The subject's composition in the middle, as the upper or the lower part of a nest.
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let always = || Setup::refill(RefillPolicy::Always);
    let reads = Recording::default();

    let bottom = MemoryBackend::labelled("bottom", world.shared_clock());
    put_forever(&bottom, &key("left"), Item::new(1)).await?;
    let inner = subject.compose(l1.clone(), l2.clone(), &world, always());
    let left =
        inner.compose(Recorder::new(bottom, &reads), world.pool.shared()).with_refill(RefillPolicy::Always);
    ensure_eq!(id(&left, &key("left")).await?, Some(1), "a hit at the bottom of a left nest");
    world.pool.wait_all().await;
    for (layer, name) in [(&l1, "L1"), (&l2, "L2")] {
        ensure_eq!(id(&**layer, &key("left")).await?, Some(1), "{name} of a left nest after the refill");
    }
    let writes = |calls: Vec<Call>| calls.iter().filter(|call| !call.is_read()).count();
    ensure_eq!(writes(reads.take()), 0, "writes to the source");

    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    put_forever(&*l2, &key("right"), Item::new(2)).await?;
    let top = MemoryBackend::labelled("top", world.shared_clock());
    let inner = subject.compose(l1.clone(), Recorder::new(l2, &reads), &world, always());
    let right = top.clone().compose(inner, world.pool.shared()).with_refill(RefillPolicy::Always);
    ensure_eq!(id(&right, &key("right")).await?, Some(2), "a hit at the bottom of a right nest");
    world.pool.wait_all().await;
    ensure_eq!(id(&top, &key("right")).await?, Some(2), "the top of a right nest after the refill");
    ensure_eq!(id(&*l1, &key("right")).await?, Some(2), "the middle of a right nest after the refill");
    ensure_eq!(writes(reads.take()), 0, "writes to the source of a right nest");
    Ok(())
}

pub(super) async fn refill_04_the_reader_never_waits(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    put_forever(&*l2, &key("k"), Item::new(1)).await?;
    let faults = Faults::default();
    for operation in [Operation::Install, Operation::Write] {
        faults.always(operation, Fault::Delay(ms(500)));
    }
    let slow = Faulty::new(l1.clone(), &faults, world.shared_clock());
    let composed = subject.compose(slow, l2, &world, Setup::refill(RefillPolicy::Always));
    // The clock stands still: a reader that waits for the write waits for ever.
    ensure_eq!(id(&*composed, &key("k")).await?, Some(1), "a hit below a slow L1");
    ensure_eq!(id(&*l1, &key("k")).await?, None, "L1 before its write has ended");
    held_up(&faults, 1).await?;
    world.advance_millis(500);
    world.pool.wait_all().await;
    ensure_eq!(id(&*l1, &key("k")).await?, Some(1), "L1 afterwards");
    Ok(())
}

pub(super) async fn refill_05_a_failed_refill_changes_nothing(subject: &Subject) -> Verdict {
    for policy in [RefillPolicy::Always, RefillPolicy::Awaited] {
        let world = World::new();
        let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
        put_forever(&*l2, &key("k"), Item::new(1)).await?;
        let faults = Faults::default();
        for operation in [Operation::Install, Operation::Write] {
            faults.always(operation, Fault::Fail(ErrorKind::Connection));
        }
        let broken = Faulty::new(l1, &faults, world.shared_clock());
        let composed = subject.compose(broken, l2, &world, Setup::refill(policy));
        for _ in 0..3 {
            ensure_eq!(id(&*composed, &key("k")).await?, Some(1), "a hit whose refill fails");
            world.pool.wait_all().await;
        }
    }
    Ok(())
}

pub(super) async fn refill_06_never_resurrects(subject: &Subject) -> Verdict {
    for (name, replaced) in [("delete", None), ("overwrite", Some(2))] {
        let world = World::new();
        let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
        put_forever(&*l2, &key("k"), Item::new(1)).await?;
        // The refill has its value and is held up; meanwhile the key is changed.
        let faults = Faults::default();
        for operation in [Operation::Install, Operation::Write] {
            faults.nth(operation, 1, Fault::Delay(ms(500)));
        }
        let slow = Faulty::new(l1.clone(), &faults, world.shared_clock());
        let composed = subject.compose(slow, l2.clone(), &world, Setup::refill(RefillPolicy::Always));
        // The change comes through another composition over the same layers.
        let other = subject.compose(l1.clone(), l2.clone(), &world, Setup::default());
        let background = tokio::spawn({
            let composed = composed.clone();
            async move { id(&*composed, &key("k")).await }
        });
        held_up(&faults, 1).await?;
        match replaced {
            None => {
                other.delete(&key("k"), &mut CacheContext::new()).await.map_err(text)?;
            }
            Some(id) => put_forever(&*other, &key("k"), Item::new(id)).await?,
        }
        faults.clear();
        world.advance_millis(1_000);
        background.await.map_err(text)??;
        world.pool.wait_all().await;
        for (backend, place) in [(&composed, "the composition"), (&other, "the other"), (&l1, "L1")] {
            ensure_eq!(id(&**backend, &key("k")).await?, replaced, "{place} after a {name} during a refill");
        }
    }
    // The upper leaf's copy ends while a read is between the layers.
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    put_forever(&*l2, &key("k"), Item::new(1)).await?;
    let faults = Faults::default();
    faults.nth(Operation::Read, 1, Fault::Delay(ms(500)));
    let gate = Faulty::new(l2.clone(), &faults, world.shared_clock());
    let composed = subject.compose(l1.clone(), gate, &world, Setup::refill(RefillPolicy::Awaited));
    let reader = tokio::spawn({
        let composed = composed.clone();
        async move { id(&*composed, &key("k")).await }
    });
    held_up(&faults, 1).await?;
    put_forever(&*composed, &key("k"), Item::new(2)).await?;
    l1.delete(&key("k"), &mut CacheContext::new()).await.map_err(text)?;
    put(&*l1, &key("k"), Item::new(3), Lifetime::FOREVER).await?;
    world.advance_millis(500);
    reader.await.map_err(text)??;
    world.pool.wait_all().await;
    ensure_eq!(id(&*l1, &key("k")).await?, Some(3), "what was written last");
    Ok(())
}

pub(super) async fn refill_07_simultaneous_hits_fill_once(subject: &Subject) -> Verdict {
    for policy in [RefillPolicy::Always, RefillPolicy::Awaited] {
        let world = World::new();
        let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
        put_forever(&*l2, &key("k"), Item::new(1)).await?;
        let (below, gate) = (Recording::default(), Faults::default());
        let lower = Recorder::new(l2.clone(), &below).coalesced();
        gate.always(Operation::Read, Fault::Delay(ms(10)));
        let lower = Faulty::new(lower, &gate, world.shared_clock());
        let composed = subject.compose(l1.clone(), lower, &world, Setup::refill(policy));
        let readers: Vec<_> = (0..50)
            .map(|_| {
                let composed = composed.clone();
                tokio::spawn(async move { id(&*composed, &key("k")).await })
            })
            .collect();
        held_up(&gate, 50).await?;
        world.advance_millis(10);
        for reader in readers {
            ensure_eq!(reader.await.map_err(text)??, Some(1), "one of the simultaneous hits");
        }
        world.pool.wait_all().await;
        let filled = l1_fills(&composed, &l1);
        ensure_eq!(filled, 1, "refills of each leaf of L1");
        ensure!(below.take().len() <= 50, "more reads of L2 than readers");
    }
    // With coalescing, reads that meet are one: the second finds the first under way.
    let world = World::new();
    let Some((_, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    put_forever(&*l2, &key("k"), Item::new(1)).await?;
    let (below, gate) = (Recording::default(), Faults::default());
    gate.always(Operation::Read, Fault::Delay(ms(10)));
    let slow = Recorder::new(Faulty::new(l2, &gate, world.shared_clock()), &below);
    let coalesced: Arc<dyn Backend> = Arc::new(slow.coalesced());
    // One task polls them all before any can be answered.
    let name = key("k");
    let readers = join_all((0..50).map(|_| id(&*coalesced, &name)));
    let (read, advanced) = join(readers, advance_when_held_up(&world, &gate, 10)).await;
    advanced?;
    for read in read {
        ensure_eq!(read?, Some(1), "one of the coalesced hits");
    }
    ensure_eq!(below.take().len(), 1, "reads of L2 behind coalescing");
    Ok(())
}

/// The most refills that any leaf of L1 took, as the composition's view of it counts.
fn l1_fills(composed: &Arc<dyn Backend>, l1: &Arc<dyn Backend>) -> u64 {
    let upper = l1.layout().leaves().len();
    composed.layout().statistics().iter().take(upper).map(|leaf| leaf.refills).max().unwrap_or(0)
}
