//! Policies written outside the crate.

use async_trait::async_trait;
use hitbox_backend::operation::Completion;
use hitbox_backend::policy::{LayerAnswers, ReadAttempts, ReadPolicy, WriteAttempts, WritePolicy, Written};
use hitbox_backend::{CompositionPolicy, Layer};
use hitbox_core::Offload;

use super::super::support::*;
use super::{Rig, setup, write};
use crate::{Subject, World};

/// L2, then L1: what no policy of the framework does.
#[derive(Debug)]
struct Upwards;

#[async_trait]
impl ReadPolicy for Upwards {
    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> LayerAnswers {
        let l2 = layers.ask(Layer::L2).await;
        let l1 = if matches!(l2, Ok(Some(_))) { None } else { Some(layers.ask(Layer::L1).await) };
        LayerAnswers { l1, l2: Some(l2) }
    }
}

/// Writes L2 only.
#[derive(Debug)]
struct Around;

impl WritePolicy for Around {
    fn write<'a>(&'a self, layers: &'a dyn WriteAttempts, _: &'a dyn Offload) -> Completion<'a, Written> {
        layers.write(Layer::L2).map(|l2| Written { l1: None, l2: Some(l2) })
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
    put_forever(rig.layer(Layer::L2), &key("lower"), Item::new(3)).await?;
    ensure_eq!(id(&*composed, &key("lower")).await?, Some(3), "a value in L2 only");
    let read = rig.calls.l1.take().iter().filter(|call| call.is_read_of(&key("lower"))).count();
    ensure_eq!(read, 0, "reads of L1 by a read upwards");
    put_forever(rig.layer(Layer::L1), &key("upper"), Item::new(2)).await?;
    ensure_eq!(id(&*composed, &key("upper")).await?, Some(2), "a value in L1 only");
    Ok(())
}
