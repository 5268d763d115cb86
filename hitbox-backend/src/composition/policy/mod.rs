//! Policies: which layers are read and written, and in what order. A policy sees attempts and an offload; how answers are
//! joined, counted and refilled is not its business. Policies can be written outside this crate.

mod parallel;
mod race;
mod sequential;

use std::fmt::Debug;

use async_trait::async_trait;
use hitbox_core::Offload;

use crate::completion::Completion;

use super::Layer;

pub use super::{Asked, LayerAnswers, Pair, ReadAttempts, TryAnswer, TryAttempts, WriteAttempts, Written};
pub use crate::operation::{Answer, Found};
pub use parallel::{OptimisticParallelWritePolicy, ParallelReadPolicy};
pub use race::{Loser, RaceReadPolicy, RaceWritePolicy};
pub use sequential::{SequentialReadPolicy, SequentialWritePolicy};

/// In which order the layers are read.
#[async_trait]
pub trait ReadPolicy: Debug + Send + Sync + 'static {
    /// Whether a hit of L1 that needs no waiting is always served, without a look at L2. Asked once, when a
    /// composition is built: such hits then do not pass through the policy.
    fn serves_l1_at_once(&self) -> bool {
        false
    }

    /// Answers without waiting, if that is possible. Starts nothing.
    fn try_read(&self, layers: &dyn TryAttempts) -> TryAnswer {
        let _ = layers;
        TryAnswer::WouldWait
    }

    /// Asks the layers.
    async fn read(&self, layers: &dyn ReadAttempts, offload: &dyn Offload) -> LayerAnswers;
}

/// In which order the layers are written.
pub trait WritePolicy: Debug + Send + Sync + 'static {
    /// Writes to the layers. What needs no waiting should be [done](Completion::Done) when this returns; whoever does not
    /// care puts an `async` block into [`Completion::later`].
    fn write<'a>(
        &'a self,
        layers: &'a dyn WriteAttempts,
        offload: &'a dyn Offload,
    ) -> Completion<'a, Written>;

    /// Which layers must succeed for the write to.
    fn needs(&self) -> Needs {
        Needs::Any
    }

    /// The order, if every write goes to both layers and waits for both. Then the composition carries out by itself what
    /// is best done as a whole: a batch, as one native call for each layer, and a write into two layers of memory. Without
    /// one each write of a batch passes through [`write`](Self::write), in parallel.
    fn order(&self) -> Option<WriteOrder> {
        None
    }
}

/// Which layers must succeed for a write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// One is enough.
    Any,
    /// All that are not declared optional.
    Every,
}

/// In which order a write goes to both layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteOrder {
    /// To both in parallel.
    Together,
    /// To this layer, and to the other if that succeeded.
    First(Layer),
}

impl WriteOrder {
    /// The layer that is asked first. Of two in parallel it is the lower one, which is as a rule further away.
    pub(in crate::composition) const fn first(self) -> Layer {
        match self {
            Self::Together => Layer::L2,
            Self::First(layer) => layer,
        }
    }
}
