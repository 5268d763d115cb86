//! One layer after the other.

use async_trait::async_trait;
use hitbox_core::Offload;

use super::{BatchOrder, Needs, ReadPolicy, WritePolicy};
use crate::composition::{Answers, Layer, ReadAttempts, TryAnswer, TryAttempts, WriteAttempts, Written};

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

    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> Answers {
        let l1 = layers.ask(Layer::L1).await;
        if matches!(l1, Ok(Some(_))) {
            return Answers { l1: Some(l1), l2: None };
        }
        Answers { l1: Some(l1), l2: Some(layers.ask(Layer::L2).await) }
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

#[async_trait]
impl WritePolicy for SequentialWritePolicy {
    async fn write(&self, layers: &dyn WriteAttempts, _: &dyn Offload) -> Written {
        let first = layers.write(self.first).await;
        let second = if first.is_ok() { Some(layers.write(self.first.other()).await) } else { None };
        match self.first {
            Layer::L1 => Written { l1: Some(first), l2: second },
            Layer::L2 => Written { l1: second, l2: Some(first) },
        }
    }

    fn needs(&self) -> Needs {
        Needs::Every
    }

    fn batch_order(&self) -> BatchOrder {
        BatchOrder::First(self.first)
    }
}
