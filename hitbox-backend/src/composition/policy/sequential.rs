//! One layer after the other.

use async_trait::async_trait;
use hitbox_core::Offload;

use super::{Needs, ReadPolicy, WriteOrder, WritePolicy};
use crate::completion::Completion;
use crate::composition::{Layer, LayerAnswers, ReadAttempts, TryAnswer, TryAttempts, WriteAttempts, Written};
use crate::receipt::Receipt;

/// L1, and L2 only if L1 has no usable copy or fails. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequentialReadPolicy;

#[async_trait]
impl ReadPolicy for SequentialReadPolicy {
    fn serves_l1_at_once(&self) -> bool {
        true
    }

    fn try_read(&self, layers: &dyn TryAttempts) -> TryAnswer {
        match layers.try_ask(Layer::L1) {
            TryAnswer::Miss => layers.try_ask(Layer::L2),
            answer => answer,
        }
    }

    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> LayerAnswers {
        let l1 = layers.ask(Layer::L1).await;
        if matches!(l1, Ok(Some(_))) {
            return LayerAnswers { l1: Some(l1), l2: None };
        }
        LayerAnswers { l1: Some(l1), l2: Some(layers.ask(Layer::L2).await) }
    }
}

/// One layer, and the other only if the first succeeded. Fails if one does.
#[derive(Clone, Copy, Debug)]
pub struct SequentialWritePolicy {
    first: Layer,
}

impl Default for SequentialWritePolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl SequentialWritePolicy {
    /// L1, then L2.
    pub const fn new() -> Self {
        Self { first: Layer::L1 }
    }

    /// L2, then L1: what is seen in the upper layer is stored in the lower one.
    pub const fn durable_first() -> Self {
        Self { first: Layer::L2 }
    }
}

impl WritePolicy for SequentialWritePolicy {
    fn write<'a>(&'a self, layers: &'a dyn WriteAttempts, _: &'a dyn Offload) -> Completion<'a, Written> {
        let written = |first: Receipt, second: Option<Receipt>| match self.first {
            Layer::L1 => Written { l1: Some(first), l2: second },
            Layer::L2 => Written { l1: second, l2: Some(first) },
        };
        let first = match layers.write(self.first) {
            Completion::Done(first) => first,
            waiting => {
                return Completion::later(async move {
                    let first = waiting.await;
                    let second =
                        if first.is_ok() { Some(layers.write(self.first.other()).await) } else { None };
                    written(first, second)
                });
            }
        };
        if !first.is_ok() {
            return Completion::Done(written(first, None));
        }
        layers.write(self.first.other()).map(move |second| written(first, Some(second)))
    }

    fn needs(&self) -> Needs {
        Needs::Every
    }

    fn order(&self) -> Option<WriteOrder> {
        Some(WriteOrder::First(self.first))
    }
}
