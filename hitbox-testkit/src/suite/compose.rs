//! Reads, writes and deletes of compositions.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join;
use hitbox_backend::{
    Answers, Backend, CacheBackend, Compose, CompositionPolicy, DeleteStatus, Layer, Loser,
    OptimisticParallelWritePolicy, Outcome, Pair, ParallelReadPolicy, RaceReadPolicy, RaceWritePolicy,
    ReadAttempts, ReadPolicy, Receipt, RefillPolicy, Requirement, SequentialReadPolicy,
    SequentialWritePolicy, WriteAttempts, WriteOptions, WritePolicy, Written,
};
use hitbox_core::{CacheContext, CacheStatus, CacheValue, ErrorKind, Lifetime, Offload, ResponseSource};

use super::support::*;
use crate::{Call, Fault, Faults, Faulty, Operation, Recorder, Recording, Setup, Subject, World};

const DOWN: Fault = Fault::Fail(ErrorKind::Connection);

fn setup(policy: CompositionPolicy) -> Setup {
    Setup { policy, ..Setup::default() }
}

pub(super) async fn compose_01_any_two_backends_compose(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    put_forever(&*l1, &key("upper"), Item::new(1)).await?;
    put_forever(&*l2, &key("lower"), Item::new(2)).await?;
    let policy = CompositionPolicy::new().refill(RefillPolicy::Awaited);
    // One bundle for two compositions, one inside the other.
    let inner = subject.compose(l1.clone(), l2.clone(), &world, setup(policy.clone()));
    let top = crate::MemoryBackend::labelled("top", world.shared_clock());
    let nest = top.clone().compose_with(inner, world.pool.shared(), &policy).with_label("nest");
    for (name, expected) in [("upper", 1), ("lower", 2)] {
        ensure_eq!(id(&nest, &key(name)).await?, Some(expected), "{name} through the nest");
        ensure_eq!(
            id(&top, &key(name)).await?,
            Some(expected),
            "{name} in the topmost layer after its refill"
        );
    }
    ensure_eq!(id(&*l1, &key("lower")).await?, Some(2), "the lower value in L1 after its refill");
    put_forever(&nest, &key("all"), Item::new(3)).await?;
    for (layer, name) in [(&l1, "L1"), (&l2, "L2")] {
        ensure_eq!(id(&**layer, &key("all")).await?, Some(3), "what the nest wrote, in {name}");
    }
    Ok(())
}

/// Layers whose calls are recorded and can be made to fail.
struct Rig {
    l1: Arc<dyn Backend>,
    l2: Arc<dyn Backend>,
    calls: Pair<Recording>,
    faults: Pair<Faults>,
}

impl Rig {
    async fn new(subject: &Subject, world: &World) -> Option<Self> {
        let (l1, l2) = subject.make_layers(world).await?;
        Some(Self { l1, l2, calls: Pair::default(), faults: Pair::default() })
    }

    /// The composition of the rigged layers.
    fn compose(&self, subject: &Subject, world: &World, setup: Setup) -> Arc<dyn Backend> {
        let rig = |layer: Layer, inner: &Arc<dyn Backend>| {
            let recorded = Recorder::new(inner.clone(), &self.calls[layer]);
            Faulty::new(recorded, &self.faults[layer], world.shared_clock())
        };
        subject.compose(rig(Layer::L1, &self.l1), rig(Layer::L2, &self.l2), world, setup)
    }

    fn layer(&self, layer: Layer) -> &dyn Backend {
        match layer {
            Layer::L1 => &*self.l1,
            Layer::L2 => &*self.l2,
        }
    }
}

pub(super) async fn compose_02_sequential_read(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let composed = rig.compose(subject, &world, setup(CompositionPolicy::new().read(SequentialReadPolicy)));
    put_forever(rig.layer(Layer::L1), &key("both"), Item::new(1)).await?;
    put_forever(rig.layer(Layer::L2), &key("both"), Item::new(2)).await?;
    put_forever(rig.layer(Layer::L2), &key("lower"), Item::new(3)).await?;
    ensure_eq!(id(&*composed, &key("both")).await?, Some(1), "a value in both");
    ensure_eq!(rig.calls.l2.take(), vec![], "calls of L2 after a hit in L1");
    rig.calls.l1.take();
    ensure_eq!(id(&*composed, &key("lower")).await?, Some(3), "a value in L2");
    ensure_eq!(rig.calls.l1.take(), vec![Call::Read(key("lower"))], "calls of L1");
    ensure_eq!(rig.calls.l2.take(), vec![Call::Read(key("lower"))], "calls of L2");
    ensure_eq!(id(&*composed, &key("none")).await?, None, "a value in neither");
    rig.faults.l1.always(Operation::Read, DOWN);
    ensure_eq!(id(&*composed, &key("both")).await?, Some(2), "L2's value while L1 is down");
    Ok(())
}

pub(super) async fn compose_03_race_read(subject: &Subject) -> Verdict {
    for loser in [Loser::Finish, Loser::Drop] {
        let world = World::new();
        let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
        let policy = CompositionPolicy::new().read(RaceReadPolicy { loser });
        let composed = rig.compose(subject, &world, setup(policy));
        for layer in Layer::BOTH {
            put_forever(rig.layer(layer), &key("both"), Item::new(layer as u64)).await?;
        }
        put_forever(rig.layer(Layer::L2), &key("lower"), Item::new(3)).await?;
        put_forever(rig.layer(Layer::L1), &key("upper"), Item::new(4)).await?;
        ensure_eq!(id(&*composed, &key("lower")).await?, Some(3), "after a first miss of L1");
        // The slower layer loses, whichever it is.
        for slow in Layer::BOTH {
            rig.faults[slow].always(Operation::Read, Fault::Delay(ms(1_000)));
            let winner = slow.other() as u64;
            ensure_eq!(id(&*composed, &key("both")).await?, Some(winner), "with {slow:?} slow");
            background_ends(&world, &[&rig.faults.l1, &rig.faults.l2]).await;
            rig.faults[slow].clear();
        }
        // A first miss or error waits for the other.
        let read_slowly = async |slow: Layer, name: &str| {
            rig.faults[slow].always(Operation::Read, Fault::Delay(ms(1_000)));
            let read = async { id(&*composed, &key(name)).await };
            let (read, advanced) = join(read, advance_when_held_up(&world, &rig.faults[slow], 2_000)).await;
            rig.faults[slow].clear();
            advanced?;
            read
        };
        ensure_eq!(read_slowly(Layer::L1, "upper").await?, Some(4), "a first miss of L2");
        ensure_eq!(read_slowly(Layer::L2, "lower").await?, Some(3), "a first miss of L1 over a slow L2");
        rig.faults.l2.always(Operation::Read, DOWN);
        ensure_eq!(read_slowly(Layer::L1, "upper").await?, Some(4), "a first error of L2");
    }
    // An L1 that answers without waiting wins before anything is started.
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    if rig.l1.capabilities().answers_at_once {
        let policy = CompositionPolicy::new().read(RaceReadPolicy::default());
        let composed = rig.compose(subject, &world, setup(policy));
        put_forever(rig.layer(Layer::L1), &key("upper"), Item::new(4)).await?;
        ensure_eq!(id(&*composed, &key("upper")).await?, Some(4), "a hit in memory");
        ensure_eq!(rig.calls.l2.take(), vec![], "calls of L2 after a hit in memory");
    }
    Ok(())
}

pub(super) async fn compose_04_parallel_read(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let policy = CompositionPolicy::new().read(ParallelReadPolicy);
    let composed = subject.compose(l1.clone(), l2.clone(), &world, setup(policy));
    let until = |millis| Lifetime::FOREVER.with_expire(after(&world, millis));
    let cases = [
        ("longer above", until(2_000), until(1_000), 1),
        ("longer below", until(1_000), until(2_000), 2),
        ("forever above", Lifetime::FOREVER, until(1_000), 1),
        ("forever below", until(1_000), Lifetime::FOREVER, 2),
        ("equal", until(1_000), until(1_000), 1),
        ("both forever", Lifetime::FOREVER, Lifetime::FOREVER, 1),
    ];
    for (name, upper, lower, winner) in cases {
        put(&*l1, &key(name), Item::new(1), upper).await?;
        put(&*l2, &key(name), Item::new(2), lower).await?;
        ensure_eq!(id(&*composed, &key(name)).await?, Some(winner), "{name}");
    }
    put_forever(&*l2, &key("below only"), Item::new(9)).await?;
    ensure_eq!(id(&*composed, &key("below only")).await?, Some(9), "a value in L2 only");
    ensure_eq!(id(&*composed, &key("nowhere")).await?, None, "a value in neither");
    Ok(())
}

pub(super) async fn compose_05_one_table_for_all_policies(subject: &Subject) -> Verdict {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum State {
        Hit,
        Miss,
        Error,
    }
    use State::{Error, Hit, Miss};
    let read_policies = [
        CompositionPolicy::new(),
        CompositionPolicy::new().read(RaceReadPolicy::default()),
        CompositionPolicy::new().read(ParallelReadPolicy),
    ];
    for policy in read_policies {
        for required in [None, Some(Layer::L1), Some(Layer::L2)] {
            let world = World::new();
            let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
            let mut setup = setup(policy.clone());
            if let Some(layer) = required {
                setup.required[layer] = Requirement::Required;
            }
            let composed = rig.compose(subject, &world, setup);
            let states = [Hit, Miss, Error];
            for (upper, lower) in states.into_iter().flat_map(|u| states.map(|l| (u, l))) {
                let case = format!("{upper:?}/{lower:?} with {required:?} required under {policy:?}");
                let key = key(&case);
                for (layer, state) in [(Layer::L1, upper), (Layer::L2, lower)] {
                    rig.faults[layer].clear();
                    if state == Hit {
                        put_forever(rig.layer(layer), &key, Item::new(layer as u64)).await?;
                    }
                    if state == Error {
                        rig.faults[layer].always(Operation::Read, DOWN);
                    }
                }
                let read = composed.get::<Item>(&key, &mut CacheContext::new()).await;
                let failed = [(Layer::L1, upper), (Layer::L2, lower)];
                let required_failed = failed.iter().any(|(layer, s)| *s == Error && required == Some(*layer));
                match (upper, lower) {
                    (Hit, _) | (_, Hit) => {
                        ensure!(matches!(read, Ok(Some(_))), "{case}: {read:?}, not a hit")
                    }
                    (Error, Error) => match read {
                        Err(error) => {
                            ensure_eq!(error.kind(), ErrorKind::AllLayers, "{case}: the kind");
                            ensure_eq!(error.causes().len(), 2, "{case}: the causes");
                        }
                        Ok(_) => return Err(format!("{case}: no error")),
                    },
                    _ if required_failed => match read {
                        Err(error) => ensure_eq!(error.kind(), ErrorKind::RequiredLayer, "{case}: the kind"),
                        Ok(_) => return Err(format!("{case}: no error")),
                    },
                    _ => ensure!(matches!(read, Ok(None)), "{case}: {read:?}, not a miss"),
                }
            }
        }
    }
    Ok(())
}

async fn write(composed: &dyn Backend, name: &str, id: u64) -> hitbox_core::BackendResult<Receipt> {
    composed.set(&key(name), CacheValue::new(Item::new(id)), &mut CacheContext::new()).await
}

pub(super) async fn compose_06_write_policies(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let compose = |policy: CompositionPolicy| rig.compose(subject, &world, setup(policy));
    let calls = || (rig.calls.l1.take().len(), rig.calls.l2.take().len());

    let sequential = compose(CompositionPolicy::new().write(SequentialWritePolicy::new()));
    ensure!(write(&*sequential, "s", 1).await.is_ok(), "a sequential write failed");
    ensure_eq!(calls(), (1, 1), "writes of a sequential write");
    rig.faults.l1.always(Operation::Write, DOWN);
    ensure!(write(&*sequential, "s", 2).await.is_err(), "a sequential write succeeded without L1");
    ensure_eq!(calls(), (0, 0), "writes that reached a layer after L1 had failed");
    rig.faults.l1.clear();

    let optimistic = compose(CompositionPolicy::new().write(OptimisticParallelWritePolicy));
    for down in Layer::BOTH {
        rig.faults[down].always(Operation::Write, DOWN);
        ensure!(write(&*optimistic, "o", 3).await.is_ok(), "an optimistic write failed without {down:?}");
        ensure_eq!(id(rig.layer(down.other()), &key("o")).await?, Some(3), "what {down:?}'s other holds");
        rig.faults[down].clear();
    }
    for down in Layer::BOTH {
        rig.faults[down].always(Operation::Write, DOWN);
    }
    let failed = write(&*optimistic, "o", 4).await;
    ensure!(failed.is_err_and(|e| e.causes().len() == 2), "a write that failed everywhere");
    for layer in Layer::BOTH {
        rig.faults[layer].clear();
    }
    calls();

    let race = compose(CompositionPolicy::new().write(RaceWritePolicy { loser: Loser::Finish }));
    for slow in Layer::BOTH {
        rig.faults[slow].always(Operation::Write, Fault::Delay(ms(500)));
        let name = format!("r {slow:?}");
        let receipt = write(&*race, &name, 5).await.map_err(text)?;
        ensure!(receipt.stored() >= 1, "a race was not won");
        background_ends(&world, &[&rig.faults.l1, &rig.faults.l2]).await;
        ensure_eq!(id(rig.layer(slow), &key(&name)).await?, Some(5), "what the loser {slow:?} holds later");
        rig.faults[slow].clear();
    }
    rig.faults.l1.always(Operation::Write, DOWN);
    ensure!(write(&*race, "r", 6).await.is_ok(), "a race with a first failure");
    Ok(())
}

pub(super) async fn compose_07_durable_first(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let policy = CompositionPolicy::new().write(SequentialWritePolicy::durable_first());
    let composed = rig.compose(subject, &world, setup(policy));
    ensure!(write(&*composed, "d", 1).await.is_ok(), "a durable-first write failed");
    for layer in Layer::BOTH {
        ensure_eq!(id(rig.layer(layer), &key("d")).await?, Some(1), "what {layer:?} holds");
    }
    rig.calls.l1.take();
    rig.faults.l2.always(Operation::Write, DOWN);
    ensure!(write(&*composed, "d", 2).await.is_err(), "it succeeded without the durable layer");
    ensure_eq!(rig.calls.l1.take(), vec![], "writes of L1 after L2 had failed");
    ensure_eq!(id(rig.layer(Layer::L1), &key("d")).await?, Some(1), "what L1 holds after the failure");
    // A required layer's failure fails the write under any policy.
    let mut required = setup(CompositionPolicy::new().write(OptimisticParallelWritePolicy));
    required.required.l2 = Requirement::Required;
    let composed = rig.compose(subject, &world, required);
    let failed = write(&*composed, "d", 3).await;
    ensure!(failed.is_err_and(|e| e.kind() == ErrorKind::RequiredLayer), "a required layer failed in vain");
    Ok(())
}

pub(super) async fn compose_08_required_and_optional(subject: &Subject) -> Verdict {
    for layer in Layer::BOTH {
        let world = World::new();
        let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
        let compose = |requirement, policy| {
            let mut setup = setup(policy);
            setup.required[layer] = requirement;
            rig.compose(subject, &world, setup)
        };
        rig.faults[layer].always(Operation::Write, DOWN);
        let optimistic = || CompositionPolicy::new().write(OptimisticParallelWritePolicy);
        let required = write(&*compose(Requirement::Required, optimistic()), "k", 1).await;
        ensure!(required.is_err_and(|e| e.kind() == ErrorKind::RequiredLayer), "{layer:?} was required");
        let receipt = write(&*compose(Requirement::Optional, optimistic()), "k", 2).await.map_err(text)?;
        ensure!(receipt.first_error().is_some(), "the failure of an optional layer is not in the receipt");
        let parallel = CompositionPolicy::new().write(SequentialWritePolicy::durable_first());
        if layer == Layer::L1 {
            let written = write(&*compose(Requirement::Optional, parallel), "k", 3).await;
            ensure!(written.is_ok(), "an optional layer failed a sequential write");
        }
        rig.faults[layer.other()].always(Operation::Write, DOWN);
        let none = write(&*compose(Requirement::Optional, optimistic()), "k", 4).await;
        ensure!(none.is_err(), "no layer succeeded and none is to blame");
    }
    Ok(())
}

pub(super) async fn compose_09_a_failed_layer_is_shadowed(subject: &Subject) -> Verdict {
    for failing in Layer::BOTH {
        for fault in [DOWN, Fault::Fail(ErrorKind::TooLarge), Fault::Fail(ErrorKind::Timeout)] {
            let world = World::new();
            let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
            let composed = rig.compose(subject, &world, Setup::default());
            write(&*composed, "w", 1).await.map_err(text)?;
            write(&*composed, "d", 1).await.map_err(text)?;
            for operation in [Operation::Write, Operation::Remove] {
                rig.faults[failing].always(operation, fault);
            }
            write(&*composed, "w", 2).await.map_err(text)?;
            let deleted = composed.delete(&key("d"), &mut CacheContext::new()).await;
            ensure!(deleted.is_err(), "a delete hid that {failing:?} failed");
            let other = failing.other();
            // The healthy layer loses its copy: only the outdated one is left.
            let healthy = rig.layer(other);
            healthy.delete(&key("w"), &mut CacheContext::new()).await.map_err(text)?;
            for name in ["w", "d"] {
                ensure_eq!(id(&*composed, &key(name)).await?, None, "{name} after {fault:?} in {failing:?}");
            }
            // Repaired once the layer answers: the outdated copies are gone, new ones are served.
            rig.faults[failing].clear();
            world.advance_millis(10_000);
            for name in ["w", "d"] {
                ensure_eq!(id(&*composed, &key(name)).await?, None, "{name} while it is repaired");
            }
            world.pool.wait_all().await;
            for name in ["w", "d"] {
                ensure_eq!(id(rig.layer(failing), &key(name)).await?, None, "{name} in {failing:?} repaired");
            }
            write(&*composed, "w", 3).await.map_err(text)?;
            ensure_eq!(id(&*composed, &key("w")).await?, Some(3), "a write after the repair");
            ensure_eq!(id(rig.layer(failing), &key("w")).await?, Some(3), "and in {failing:?}");
        }
    }
    Ok(())
}

pub(super) async fn compose_10_delete_counts_and_reports(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let composed = rig.compose(subject, &world, Setup::default());
    let delete = async |name: &str| composed.delete(&key(name), &mut CacheContext::new()).await;
    let leaves = composed.leaves().len() as u32;
    put_forever(&*composed, &key("all"), Item::new(1)).await?;
    ensure_eq!(delete("all").await.map_err(text)?, DeleteStatus::Deleted(leaves), "a key in every leaf");
    ensure_eq!(delete("all").await.map_err(text)?, DeleteStatus::Missing, "a key in no leaf");
    put_forever(rig.layer(Layer::L2), &key("lower"), Item::new(1)).await?;
    let lower = rig.l2.leaves().len() as u32;
    ensure_eq!(delete("lower").await.map_err(text)?, DeleteStatus::Deleted(lower), "a key in L2 only");
    for down in Layer::BOTH {
        put_forever(&*composed, &key("half"), Item::new(1)).await?;
        rig.faults[down].always(Operation::Remove, DOWN);
        ensure!(delete("half").await.is_err(), "the failure of {down:?} was swallowed");
        ensure_eq!(id(rig.layer(down.other()), &key("half")).await?, None, "{down:?}'s other still has it");
        rig.faults[down].clear();
    }
    Ok(())
}

pub(super) async fn compose_11_receipt_per_leaf(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let composed = rig.compose(subject, &world, Setup::default());
    let paths: Vec<_> = composed.leaves().iter().map(|leaf| leaf.path()).collect();
    let receipt = write(&*composed, "k", 1).await.map_err(text)?;
    let labels: Vec<_> = receipt.leaves.iter().map(|line| line.label).collect();
    ensure_eq!(labels, paths, "the lines of a write");
    ensure!(receipt.leaves.iter().all(|l| matches!(l.outcome, Outcome::Stored)), "{receipt:?}");
    for (fault, name) in [
        (DOWN, "unknown"),
        (Fault::Fail(ErrorKind::Overloaded), "failed"),
        (Fault::Fail(ErrorKind::TooLarge), "refused"),
    ] {
        rig.faults.l2.always(Operation::Write, fault);
        let receipt = write(&*composed, name, 1).await.map_err(text)?;
        let lower = &receipt.leaves[rig.l1.leaves().len()..];
        let right = lower.iter().all(|line| match name {
            "unknown" => matches!(line.outcome, Outcome::Unknown(_)),
            "failed" => matches!(line.outcome, Outcome::Failed(_)),
            _ => matches!(line.outcome, Outcome::Refused(_)),
        });
        ensure!(right && !lower.is_empty(), "{name}: {receipt:?}");
    }
    rig.faults.l2.clear();
    let receipt = composed.remove_with(&key("k"), &WriteOptions::default()).await;
    ensure_eq!(receipt.leaves.len(), paths.len(), "the lines of a delete");
    ensure!(receipt.leaves.iter().all(|l| matches!(l.outcome, Outcome::Removed)), "{receipt:?}");
    let receipt = composed.remove_with(&key("k"), &WriteOptions::default()).await;
    ensure!(receipt.leaves.iter().all(|l| matches!(l.outcome, Outcome::Absent)), "{receipt:?}");
    Ok(())
}

pub(super) async fn compose_12_late_writes_never_win(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    // L2 takes each write, and acts on the first one late: it is held up below the point where its turn
    // was given, as a slow network does.
    let faults = Faults::default();
    let slow = Faulty::new(l2.clone(), &faults, world.shared_clock());
    let policy = CompositionPolicy::new().write(RaceWritePolicy { loser: Loser::Finish });
    let composed = subject.compose(l1.clone(), slow, &world, setup(policy));
    for (name, last) in [("write", Some(2)), ("delete", None)] {
        faults.nth(Operation::Write, 1, Fault::Delay(ms(1_000)));
        // Returns with L1's success; L2's part goes on behind.
        let first = write(&*composed, name, 1);
        futures_util::pin_mut!(first);
        let first_is_back = ends_at_once(&mut first).await;
        let second = async {
            match last {
                Some(id) => write(&*composed, name, id).await.map(drop),
                None => composed.delete(&key(name), &mut CacheContext::new()).await.map(drop),
            }
        };
        let finish = async {
            held_up(&faults, 1).await?;
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            world.advance_millis(2_000);
            Verdict::Ok(())
        };
        if first_is_back {
            let (second, finished) = join(second, finish).await;
            finished?;
            second.map_err(text)?;
        } else {
            let both = async {
                let first = first.await;
                let second = second.await;
                first.map(drop).and(second)
            };
            let (both, finished) = join(both, finish).await;
            finished?;
            both.map_err(text)?;
        }
        background_ends(&world, &[&faults]).await;
        for (layer, place) in [(&l1, "L1"), (&l2, "L2")] {
            ensure_eq!(id(&**layer, &key(name)).await?, last, "{place} after a late write before a {name}");
        }
    }
    Ok(())
}

pub(super) async fn compose_13_provenance(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let composed = subject.compose(l1.clone(), l2.clone(), &world, Setup::default());
    let paths: Vec<String> = composed.leaves().iter().map(|leaf| leaf.path().to_string()).collect();
    ensure!(paths.iter().all(|path| path.starts_with("outer.")), "paths {paths:?}");
    let distinct: std::collections::HashSet<_> = paths.iter().collect();
    ensure_eq!(distinct.len(), paths.len(), "distinct paths of {paths:?}");
    put(&*l1, &key("upper"), Item::new(1), lifetime(&world, 10, 1_000, 1_000)).await?;
    put_forever(&*l2, &key("lower"), Item::new(2)).await?;
    let read = async |name: &str| {
        let mut context = CacheContext::new();
        composed.get::<Item>(&key(name), &mut context).await.map_err(text)?;
        Ok::<_, String>((context.status(), *context.source()))
    };
    let uppers = l1.leaves().len();
    let from = |(status, source): (CacheStatus, ResponseSource), range: &[String], expected: CacheStatus| {
        let ResponseSource::Backend(label) = source else {
            return Err("a hit came from upstream".to_owned());
        };
        ensure_eq!(status, expected, "the status");
        ensure!(range.contains(&label.to_string()), "{label} is none of {range:?}");
        Ok(())
    };
    from(read("upper").await?, &paths[..uppers], CacheStatus::Hit)?;
    from(read("lower").await?, &paths[uppers..], CacheStatus::Hit)?;
    world.advance_millis(10);
    from(read("upper").await?, &paths[..uppers], CacheStatus::Stale)?;
    ensure_eq!(read("none").await?, (CacheStatus::Miss, ResponseSource::Upstream), "a miss");
    // Inside another composition each path gets another part, statically and behind `dyn`.
    let top = crate::MemoryBackend::labelled("top", world.shared_clock());
    let nest = top.compose(composed.clone(), world.pool.shared()).with_label("nest").shared();
    let nested: Vec<String> = nest.leaves().iter().skip(1).map(|leaf| leaf.path().to_string()).collect();
    let expected: Vec<String> = paths.iter().map(|path| format!("nest.{path}")).collect();
    ensure_eq!(nested, expected, "the paths in a nest");
    let mut context = CacheContext::new();
    nest.get::<Item>(&key("lower"), &mut context).await.map_err(text)?;
    let ResponseSource::Backend(label) = *context.source() else {
        return Err("no source in the nest".to_owned());
    };
    ensure!(expected[uppers..].contains(&label.to_string()), "{label} is none of {expected:?}");
    // A layer that holds nothing changes nothing.
    let idle = crate::MemoryBackend::labelled("idle", world.shared_clock());
    let over = subject.compose(idle, l2, &world, Setup::default());
    ensure_eq!(id(&*over, &key("lower")).await?, Some(2), "below an empty layer");
    Ok(())
}

pub(super) async fn compose_14_batches_keep_order(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let composed = rig.compose(subject, &world, Setup::default());
    let keys: Vec<_> = (0..30).map(|i| key(&format!("batch {i}"))).collect();
    let ids = async |backend: &dyn Backend| -> Result<Vec<Option<u64>>, String> {
        let read = backend.get_many::<Item>(&keys).await;
        read.into_iter().map(|r| r.map(|v| v.map(|v| v.into_data().id)).map_err(text)).collect()
    };
    // Every third in L1, every third in L2, every third nowhere.
    for (i, key) in keys.iter().enumerate().filter(|(i, _)| i % 3 < 2) {
        let layer = if i % 3 == 0 { Layer::L1 } else { Layer::L2 };
        put_forever(rig.layer(layer), key, Item::new(i as u64)).await?;
    }
    let expected: Vec<_> = (0..30_u64).map(|i| (i % 3 < 2).then_some(i)).collect();
    ensure_eq!(ids(&*composed).await?, expected, "a batch read");
    ensure_eq!(rig.calls.l1.take(), vec![Call::ReadMany(keys.clone())], "calls of L1");
    let missing: Vec<_> =
        keys.iter().enumerate().filter(|(i, _)| i % 3 > 0).map(|(_, k)| k.clone()).collect();
    ensure_eq!(rig.calls.l2.take(), vec![Call::ReadMany(missing)], "calls of L2");
    let entries =
        keys.iter().enumerate().map(|(i, k)| (k.clone(), CacheValue::new(Item::new(100 + i as u64))));
    let receipts = composed.set_many(entries.collect()).await;
    ensure!(receipts.len() == 30 && receipts.iter().all(Result::is_ok), "a batch write");
    for layer in Layer::BOTH {
        ensure_eq!(rig.calls[layer].take(), vec![Call::WriteMany(keys.clone())], "calls of {layer:?}");
        let written: Vec<_> = (100..130).map(Some).collect();
        ensure_eq!(ids(rig.layer(layer)).await?, written, "what {layer:?} holds");
    }
    let some: Vec<_> = vec![keys[3].clone(), key("absent"), keys[1].clone(), keys[3].clone()];
    let removed = composed.delete_many(&some).await;
    let removed: Vec<_> = removed.into_iter().collect::<Result<_, _>>().map_err(text)?;
    let all = DeleteStatus::Deleted(composed.leaves().len() as u32);
    ensure_eq!(removed, vec![all, DeleteStatus::Missing, all, DeleteStatus::Missing], "a batch delete");
    ensure_eq!(id(&*composed, &keys[3]).await?, None, "a deleted key");
    let twice =
        vec![(key("twice"), CacheValue::new(Item::new(1))), (key("twice"), CacheValue::new(Item::new(2)))];
    ensure!(composed.set_many(twice).await.iter().all(Result::is_ok), "one key twice in a batch");
    ensure_eq!(id(&*composed, &key("twice")).await?, Some(2), "the later of two");
    ensure!(composed.get_many::<Item>(&[]).await.is_empty(), "an empty batch");
    Ok(())
}

/// L2, then L1: what no policy of the framework does.
#[derive(Debug)]
struct Upwards;

#[async_trait]
impl ReadPolicy for Upwards {
    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> Answers {
        let l2 = layers.ask(Layer::L2).await;
        let l1 = if matches!(l2, Ok(Some(_))) { None } else { Some(layers.ask(Layer::L1).await) };
        Answers { l1, l2: Some(l2) }
    }
}

/// Writes L2 only.
#[derive(Debug)]
struct Around;

#[async_trait]
impl WritePolicy for Around {
    async fn write(&self, layers: &dyn WriteAttempts, _: &dyn Offload) -> Written {
        Written { l1: None, l2: Some(layers.write(Layer::L2).await) }
    }
}

pub(super) async fn compose_15_custom_policies(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let policy = CompositionPolicy::new().read(Upwards).write(Around);
    let composed = rig.compose(subject, &world, setup(policy));
    write(&*composed, "k", 1).await.map_err(text)?;
    ensure_eq!(rig.calls.l1.take(), vec![], "calls of L1 by a write around it");
    ensure_eq!(id(&*composed, &key("k")).await?, Some(1), "what was written around L1");
    // What L1 held before is repaired; it is not read.
    let read = rig.calls.l1.take().into_iter().filter(|call| matches!(call, Call::Read(_))).count();
    ensure_eq!(read, 0, "reads of L1 by a read upwards");
    put_forever(rig.layer(Layer::L1), &key("upper"), Item::new(2)).await?;
    ensure_eq!(id(&*composed, &key("upper")).await?, Some(2), "a value in L1 only");
    Ok(())
}
