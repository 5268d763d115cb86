//! Policies written outside the crate.

use async_trait::async_trait;
use hitbox_backend::{
    Answers, CompositionPolicy, Layer, ReadAttempts, ReadPolicy, WriteAttempts, WritePolicy, Written,
};
use hitbox_core::Offload;

use super::super::support::*;
use super::{Rig, setup, write};
use crate::{Call, Subject, World};

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

pub(in crate::suite) async fn compose_15_custom_policies(subject: &Subject) -> Verdict {
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
