//! What a policy may see: how to ask a layer, and what came of it. No keys, codecs, metrics or I/O.

use hitbox_core::BoxFuture;

use super::Layer;
use crate::read::{Answer, Found};
use crate::receipt::Receipt;

/// Reads that can be made of the two layers.
pub trait ReadAttempts: Send + Sync {
    /// Asks a layer. Dropping the future gives the attempt up.
    fn ask(&self, layer: Layer) -> BoxFuture<'_, Answer>;

    /// The same, able to outlive the call: for reads that go on in the offload.
    fn detach(&self, layer: Layer) -> BoxFuture<'static, Answer>;
}

/// Reads that can be made of the two layers without waiting.
pub trait TryAttempts {
    /// Asks a layer.
    fn try_ask(&self, layer: Layer) -> TryAnswer;

    /// Whether a layer never answers "would wait". Ask this first if one answer is of no use without the
    /// other.
    fn answers_at_once(&self, layer: Layer) -> bool;
}

/// What a layer says without waiting.
#[derive(Debug)]
pub enum TryAnswer {
    /// A usable copy.
    Hit(Found),
    /// No usable copy.
    Miss,
    /// It has to be waited for.
    WouldWait,
}

/// What a read policy learned: `None` for a layer whose answer it did not wait for. If both are hits, the
/// copy with the longest remaining life is served, L1's if they are equal.
#[derive(Debug, Default)]
pub struct Answers {
    /// The upper layer's answer.
    pub l1: Option<Answer>,
    /// The lower layer's answer.
    pub l2: Option<Answer>,
}

/// Writes that can be made to the two layers.
pub trait WriteAttempts: Send + Sync {
    /// Writes to a layer. The future may outlive the call; dropping it before it was polled means that
    /// the layer is not written.
    fn write(&self, layer: Layer) -> BoxFuture<'static, Receipt>;
}

/// What a write policy learned: `None` for a layer that was not written, or whose receipt it did not wait
/// for.
#[derive(Debug, Default)]
pub struct Written {
    /// The upper layer's receipt.
    pub l1: Option<Receipt>,
    /// The lower layer's receipt.
    pub l2: Option<Receipt>,
}
