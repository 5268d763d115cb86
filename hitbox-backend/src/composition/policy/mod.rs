//! Orders of asking and writing. A policy sees attempts and an offload; how answers are joined, counted
//! and refilled is not its business. Policies can be written outside this crate.

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

    /// The order in which a batch goes to the layers, one native call each.
    fn batch_order(&self) -> BatchOrder {
        BatchOrder::Together
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

/// How a batch goes to the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchOrder {
    /// To both at once.
    Together,
    /// To this layer, and what succeeded there to the other.
    First(Layer),
}
