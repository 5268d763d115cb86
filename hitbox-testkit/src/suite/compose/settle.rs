//! What writes and deletes leave behind: dirty copies, counts, receipts, losers of races.

use futures_util::future::join;
use hitbox_backend::policy::Loser;
use hitbox_backend::{
    Backend, CacheBackend, CompositionPolicy, DeleteStatus, Layer, LeafOutcome, RaceWritePolicy,
};
use hitbox_core::{CacheContext, ErrorKind};

use super::super::support::*;
use super::{DOWN, Rig, setup, write};
use crate::{Fault, Faults, Faulty, Operation, Setup, Subject, World};

pub(in crate::suite) async fn compose_09_a_failed_layer_is_dirty(subject: &Subject) -> Verdict {
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
            // Reconciled once the layer answers: the outdated copies are gone, new ones are served.
            rig.faults[failing].clear();
            world.advance_millis(10_000);
            for name in ["w", "d"] {
                ensure_eq!(id(&*composed, &key(name)).await?, None, "{name} while it is reconciled");
            }
            world.pool.wait_all().await;
            for name in ["w", "d"] {
                ensure_eq!(
                    id(rig.layer(failing), &key(name)).await?,
                    None,
                    "{name} in {failing:?} reconciled"
                );
            }
            write(&*composed, "w", 3).await.map_err(text)?;
            ensure_eq!(id(&*composed, &key("w")).await?, Some(3), "a write after that");
            ensure_eq!(id(rig.layer(failing), &key("w")).await?, Some(3), "and in {failing:?}");
        }
    }
    Ok(())
}

pub(in crate::suite) async fn compose_10_delete_counts_and_reports(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let composed = rig.compose(subject, &world, Setup::default());
    let delete = async |name: &str| composed.delete(&key(name), &mut CacheContext::new()).await;
    let leaves = composed.layout().leaves().len() as u32;
    put_forever(&*composed, &key("all"), Item::new(1)).await?;
    ensure_eq!(delete("all").await.map_err(text)?, DeleteStatus::Deleted(leaves), "a key in every leaf");
    ensure_eq!(delete("all").await.map_err(text)?, DeleteStatus::Missing, "a key in no leaf");
    put_forever(rig.layer(Layer::L2), &key("lower"), Item::new(1)).await?;
    let lower = rig.l2.layout().leaves().len() as u32;
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

pub(in crate::suite) async fn compose_11_receipt_per_leaf(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some(rig) = Rig::new(subject, &world).await else { return Ok(()) };
    let composed = rig.compose(subject, &world, Setup::default());
    let paths: Vec<_> = composed.layout().paths().collect();
    let receipt = write(&*composed, "k", 1).await.map_err(text)?;
    let labels: Vec<_> = receipt.leaves().iter().map(|line| line.label).collect();
    ensure_eq!(labels, paths, "the lines of a write");
    ensure!(receipt.leaves().iter().all(|l| matches!(l.outcome, LeafOutcome::Stored)), "{receipt:?}");
    for (fault, name) in [
        (DOWN, "unknown"),
        (Fault::Fail(ErrorKind::Overloaded), "failed"),
        (Fault::Fail(ErrorKind::TooLarge), "refused"),
    ] {
        rig.faults.l2.always(Operation::Write, fault);
        let receipt = write(&*composed, name, 1).await.map_err(text)?;
        let lower = &receipt.leaves()[rig.l1.layout().leaves().len()..];
        let right = lower.iter().all(|line| match name {
            "unknown" => matches!(line.outcome, LeafOutcome::Unknown(_)),
            "failed" => matches!(line.outcome, LeafOutcome::Failed(_)),
            _ => matches!(line.outcome, LeafOutcome::Refused(_)),
        });
        ensure!(right && !lower.is_empty(), "{name}: {receipt:?}");
    }
    rig.faults.l2.clear();
    let receipt = remove_raw(&*composed, &key("k")).await;
    ensure_eq!(receipt.leaves().len(), paths.len(), "the lines of a delete");
    ensure!(receipt.leaves().iter().all(|l| matches!(l.outcome, LeafOutcome::Removed)), "{receipt:?}");
    let receipt = remove_raw(&*composed, &key("k")).await;
    ensure!(receipt.leaves().iter().all(|l| matches!(l.outcome, LeafOutcome::Absent)), "{receipt:?}");
    Ok(())
}

pub(in crate::suite) async fn compose_12_late_writes_never_win(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    // L2 takes each write, and acts on the first one late: it is held up below the point where its slot was given, as a
    // slow network does.
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
