//! Writes by policy, and what a layer's failure means for them.

use hitbox_backend::policy::Loser;
use hitbox_backend::{
    CompositionPolicy, Layer, OptimisticParallelWritePolicy, RaceWritePolicy, Requirement,
    SequentialWritePolicy,
};
use hitbox_core::ErrorKind;

use super::super::support::*;
use super::{DOWN, Rig, setup, write};
use crate::{Fault, Operation, Subject, World};

pub(in crate::suite) async fn compose_06_write_policies(subject: &Subject) -> Verdict {
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

pub(in crate::suite) async fn compose_07_durable_first(subject: &Subject) -> Verdict {
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

pub(in crate::suite) async fn compose_08_required_and_optional(subject: &Subject) -> Verdict {
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
