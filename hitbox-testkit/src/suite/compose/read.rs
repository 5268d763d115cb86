//! Reads by policy, and the table that joins their answers.

use futures_util::future::join;
use hitbox_backend::policy::Loser;
use hitbox_backend::{
    CacheBackend, CompositionPolicy, Layer, ParallelReadPolicy, RaceReadPolicy, Requirement,
    SequentialReadPolicy,
};
use hitbox_core::{CacheContext, ErrorKind, Lifetime};

use super::super::support::*;
use super::{DOWN, Rig, setup};
use crate::{Fault, Operation, Subject, World};

pub(in crate::suite) async fn compose_02_sequential_read(subject: &Subject) -> Verdict {
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
    for layer in Layer::BOTH {
        let calls = rig.calls[layer].take();
        ensure!(
            matches!(&calls[..], [call] if call.is_read_of(&key("lower"))),
            "calls of {layer:?}: {calls:?}"
        );
    }
    ensure_eq!(id(&*composed, &key("none")).await?, None, "a value in neither");
    rig.faults.l1.always(Operation::Read, DOWN);
    ensure_eq!(id(&*composed, &key("both")).await?, Some(2), "L2's value while L1 is down");
    Ok(())
}

pub(in crate::suite) async fn compose_03_race_read(subject: &Subject) -> Verdict {
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
    if rig.l1.layout().capabilities().answers_at_once {
        let policy = CompositionPolicy::new().read(RaceReadPolicy::default());
        let composed = rig.compose(subject, &world, setup(policy));
        put_forever(rig.layer(Layer::L1), &key("upper"), Item::new(4)).await?;
        ensure_eq!(id(&*composed, &key("upper")).await?, Some(4), "a hit in memory");
        ensure_eq!(rig.calls.l2.take(), vec![], "calls of L2 after a hit in memory");
    }
    Ok(())
}

pub(in crate::suite) async fn compose_04_parallel_read(subject: &Subject) -> Verdict {
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

pub(in crate::suite) async fn compose_05_one_table_for_all_policies(subject: &Subject) -> Verdict {
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
