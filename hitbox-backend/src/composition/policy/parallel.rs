//! Both layers at once, both waited for.

use async_trait::async_trait;
use futures_util::future::join;
use hitbox_core::Offload;

use super::{ReadPolicy, WriteOrder, WritePolicy};
use crate::completion::Completion;
use crate::composition::{Layer, LayerAnswers, ReadAttempts, TryAnswer, TryAttempts, WriteAttempts, Written};

/// Both layers are asked; the usable copy with the longest remaining life is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParallelReadPolicy;

#[async_trait]
impl ReadPolicy for ParallelReadPolicy {
    fn try_read(&self, layers: &dyn TryAttempts) -> TryAnswer {
        if !Layer::BOTH.into_iter().all(|layer| layers.answers_at_once(layer)) {
            return TryAnswer::WouldWait;
        }
        match (layers.try_ask(Layer::L1), layers.try_ask(Layer::L2)) {
            (TryAnswer::Hit(l1), TryAnswer::Hit(l2)) => {
                let l2_is_longer = l2.value.lifetime().outlives(l1.value.lifetime());
                TryAnswer::Hit(if l2_is_longer { l2 } else { l1 })
            }
            (TryAnswer::Hit(found), TryAnswer::Miss) | (TryAnswer::Miss, TryAnswer::Hit(found)) => {
                TryAnswer::Hit(found)
            }
            (TryAnswer::Miss, TryAnswer::Miss) => TryAnswer::Miss,
            _ => TryAnswer::WouldWait,
        }
    }

    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> LayerAnswers {
        let (l1, l2) = join(layers.ask(Layer::L1), layers.ask(Layer::L2)).await;
        LayerAnswers { l1: Some(l1), l2: Some(l2) }
    }
}

/// Both layers are written; one success is enough. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct OptimisticParallelWritePolicy;

impl WritePolicy for OptimisticParallelWritePolicy {
    fn write<'a>(&'a self, layers: &'a dyn WriteAttempts, _: &'a dyn Offload) -> Completion<'a, Written> {
        let written = |l1, l2| Written { l1: Some(l1), l2: Some(l2) };
        match layers.write(Layer::L2) {
            Completion::Done(l2) => layers.write(Layer::L1).map(move |l1| written(l1, l2)),
            // L1 is written while L2, which is as a rule further away, has its request already.
            l2 => Completion::later(async move {
                let (l2, l1) = join(l2, async { layers.write(Layer::L1).await }).await;
                written(l1, l2)
            }),
        }
    }

    fn order(&self) -> Option<WriteOrder> {
        Some(WriteOrder::Together)
    }
}
