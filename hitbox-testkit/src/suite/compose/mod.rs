//! Reads, writes and deletes of compositions.

mod custom;
mod read;
mod settle;
mod write;

use std::sync::Arc;

use hitbox_backend::policy::Pair;
use hitbox_backend::{
    Backend, CacheBackend, Compose, CompositionPolicy, DeleteStatus, Layer, LeafStatistics, Receipt,
    RefillPolicy,
};
use hitbox_core::{CacheContext, CacheKey, CacheStatus, CacheValue, ErrorKind, ResponseSource};

use super::support::*;
use crate::{Call, Fault, Faults, Faulty, Recorder, Recording, Setup, Subject, World};

pub(super) use custom::*;
pub(super) use read::*;
pub(super) use settle::*;
pub(super) use write::*;

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

async fn write(composed: &dyn Backend, name: &str, id: u64) -> hitbox_core::BackendResult<Receipt> {
    composed.set(&key(name), CacheValue::new(Item::new(id)), &mut CacheContext::new()).await
}

pub(super) async fn compose_13_provenance(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let composed = subject.compose(l1.clone(), l2.clone(), &world, Setup::default());
    let paths: Vec<String> = composed.layout().paths().map(|path| path.to_string()).collect();
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
    let uppers = l1.layout().leaves().len();
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
    let nested: Vec<String> = nest.layout().paths().skip(1).map(|path| path.to_string()).collect();
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

/// A layer was asked for each of these keys once: for those that it can answer for without waiting one by one, for the
/// rest by one batch.
fn asked_once(calls: &[Call], keys: &[CacheKey], layer: &str) -> Verdict {
    let mut asked: Vec<&CacheKey> = Vec::new();
    let mut batches = 0;
    for call in calls {
        match call {
            Call::TryRead(key) => asked.push(key),
            Call::ReadMany(keys) => {
                asked.extend(keys);
                batches += 1;
            }
            other => return Err(format!("{other:?} of {layer} in a batch read")),
        }
    }
    ensure!(batches <= 1, "{batches} batches of {layer} for one");
    let mut wanted: Vec<&CacheKey> = keys.iter().collect();
    asked.sort_by_key(|key| key.as_encoded());
    wanted.sort_by_key(|key| key.as_encoded());
    ensure_eq!(asked, wanted, "the keys that {layer} was asked for");
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
    let missing: Vec<_> =
        keys.iter().enumerate().filter(|(i, _)| i % 3 > 0).map(|(_, k)| k.clone()).collect();
    asked_once(&rig.calls.l1.take(), &keys, "L1")?;
    asked_once(&rig.calls.l2.take(), &missing, "L2")?;
    let misses = |leaves: &[LeafStatistics]| leaves.iter().map(|leaf| leaf.misses).max();
    let statistics = composed.layout().statistics();
    let (upper, lower) = statistics.split_at(rig.l1.layout().leaves().len());
    ensure_eq!(
        (misses(upper), misses(lower)),
        (Some(20), Some(10)),
        "the most misses of a leaf of each layer"
    );
    let entries =
        keys.iter().enumerate().map(|(i, k)| (k.clone(), CacheValue::new(Item::new(100 + i as u64))));
    let receipts = composed.set_many(entries.collect()).await;
    ensure!(receipts.len() == 30 && receipts.iter().all(Result::is_ok), "a batch write");
    // What needs no waiting is written one by one, the rest by one batch.
    let at_once = composed.layout().capabilities().answers_at_once;
    let one_by_one = || keys.iter().cloned().map(Call::Write).collect();
    let writes = if at_once { one_by_one() } else { vec![Call::WriteMany(keys.clone())] };
    for layer in Layer::BOTH {
        ensure_eq!(rig.calls[layer].take(), writes, "calls of {layer:?}");
        let written: Vec<_> = (100..130).map(Some).collect();
        ensure_eq!(ids(rig.layer(layer)).await?, written, "what {layer:?} holds");
    }
    let some: Vec<_> = vec![keys[3].clone(), key("absent"), keys[1].clone(), keys[3].clone()];
    let removed = composed.delete_many(&some).await;
    let removed: Vec<_> = removed.into_iter().collect::<Result<_, _>>().map_err(text)?;
    let all = DeleteStatus::Deleted(composed.layout().leaves().len() as u32);
    ensure_eq!(removed, vec![all, DeleteStatus::Missing, all, DeleteStatus::Missing], "a batch delete");
    ensure_eq!(id(&*composed, &keys[3]).await?, None, "a deleted key");
    let twice =
        vec![(key("twice"), CacheValue::new(Item::new(1))), (key("twice"), CacheValue::new(Item::new(2)))];
    ensure!(composed.set_many(twice).await.iter().all(Result::is_ok), "one key twice in a batch");
    ensure_eq!(id(&*composed, &key("twice")).await?, Some(2), "the later of two");
    ensure!(composed.get_many::<Item>(&[]).await.is_empty(), "an empty batch");
    Ok(())
}
