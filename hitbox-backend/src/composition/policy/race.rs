//! Both layers at once, the first that helps is enough.

use async_trait::async_trait;
use futures_util::future::{Either, select};
use hitbox_core::{BoxFuture, Offload, Task, TaskKind};

use super::{ReadPolicy, WritePolicy};
use crate::completion::Completion;
use crate::composition::{Layer, LayerAnswers, ReadAttempts, TryAnswer, TryAttempts, WriteAttempts, Written};
use crate::operation::Answer;

/// What becomes of the attempt that lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Loser {
    /// The offload finishes it.
    #[default]
    Finish,
    /// It is given up. A write may then be half done, and its layer's copy is not served until repaired.
    Drop,
}

impl Loser {
    /// A loser that the offload refuses is dropped, which the attempt itself takes account of.
    fn meet<T: Send + 'static>(self, offload: &dyn Offload, kind: TaskKind, rest: BoxFuture<'static, T>) {
        if self == Self::Finish {
            // The rest of a write has the turn of its key, and so has that of a read which fills its upper layer.
            let task = Task::new(kind, async move {
                rest.await;
            })
            .begun();
            if let Err(refused) = offload.register(task) {
                tracing::debug!(why = ?refused.why, "the loser of a race was dropped");
            }
        }
    }
}

/// Both layers are asked; the first hit is served. A first miss or error waits for the other layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct RaceReadPolicy {
    /// What becomes of the attempt that lost.
    pub loser: Loser,
}

#[async_trait]
impl ReadPolicy for RaceReadPolicy {
    fn serves_l1_at_once(&self) -> bool {
        true
    }

    fn try_read(&self, layers: &dyn TryAttempts) -> TryAnswer {
        match layers.try_ask(Layer::L1) {
            TryAnswer::Miss => layers.try_ask(Layer::L2),
            TryAnswer::WouldWait => match layers.try_ask(Layer::L2) {
                TryAnswer::Hit(found) => TryAnswer::Hit(found),
                _ => TryAnswer::WouldWait,
            },
            hit => hit,
        }
    }

    async fn read(&self, layers: &dyn ReadAttempts, offload: &dyn Offload) -> LayerAnswers {
        let is_hit = |answer: &Answer| matches!(answer, Ok(Some(_)));
        // L1 is polled first, and L2 not at all if L1 answers at once.
        match select(layers.detach(Layer::L1), layers.detach(Layer::L2)).await {
            Either::Left((l1, rest)) if is_hit(&l1) => {
                self.loser.meet(offload, TaskKind::READ, rest);
                LayerAnswers { l1: Some(l1), l2: None }
            }
            Either::Right((l2, rest)) if is_hit(&l2) => {
                self.loser.meet(offload, TaskKind::READ, rest);
                LayerAnswers { l1: None, l2: Some(l2) }
            }
            Either::Left((l1, rest)) => LayerAnswers { l1: Some(l1), l2: Some(rest.await) },
            Either::Right((l2, rest)) => LayerAnswers { l1: Some(rest.await), l2: Some(l2) },
        }
    }
}

/// Both layers are written; the first success is enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct RaceWritePolicy {
    /// What becomes of the attempt that lost.
    pub loser: Loser,
}

impl WritePolicy for RaceWritePolicy {
    fn write<'a>(
        &'a self,
        layers: &'a dyn WriteAttempts,
        offload: &'a dyn Offload,
    ) -> Completion<'a, Written> {
        Completion::later(async move {
            match select(layers.detach(Layer::L1), layers.detach(Layer::L2)).await {
                Either::Left((l1, rest)) if l1.is_ok() => {
                    self.loser.meet(offload, TaskKind::WRITE, rest);
                    Written { l1: Some(l1), l2: None }
                }
                Either::Right((l2, rest)) if l2.is_ok() => {
                    self.loser.meet(offload, TaskKind::WRITE, rest);
                    Written { l1: None, l2: Some(l2) }
                }
                Either::Left((l1, rest)) => Written { l1: Some(l1), l2: Some(rest.await) },
                Either::Right((l2, rest)) => Written { l1: Some(rest.await), l2: Some(l2) },
            }
        })
    }
}
