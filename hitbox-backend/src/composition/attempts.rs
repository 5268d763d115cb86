//! What a policy may see: how to ask a layer, and what came of it. No keys, codecs, metrics or I/O.

use std::pin::Pin;
use std::task::{Context, Poll};

use hitbox_core::BoxFuture;

use super::Layer;
use crate::completion::Completion;
use crate::operation::{Answer, Answers, Found};
use crate::receipt::Receipt;

/// Reads that can be made of the two layers.
pub trait ReadAttempts: Send + Sync {
    /// Asks a layer. Dropping the future gives the attempt up.
    fn ask(&self, layer: Layer) -> Asked<'_>;

    /// The same, able to outlive the call: for reads that go on in the offload.
    fn detach(&self, layer: Layer) -> BoxFuture<'static, Answer>;
}

/// A layer that has been asked: the future of its answer.
#[derive(Debug)]
pub struct Asked<'a>(Completion<'a, Answers>);

impl<'a> Asked<'a> {
    pub(super) fn new(answers: Completion<'a, Answers>) -> Self {
        Self(answers)
    }
}

impl Future for Asked<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        Pin::new(&mut self.0).poll(cx).map(|answers| answers.into_one().unwrap_or(Ok(None)))
    }
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
pub struct LayerAnswers {
    /// The upper layer's answer.
    pub l1: Option<Answer>,
    /// The lower layer's answer.
    pub l2: Option<Answer>,
}

/// Writes that can be made to the two layers.
pub trait WriteAttempts: Send + Sync {
    /// Writes to a layer. If that needs no waiting it is done when this returns. Dropping what waits gives the attempt
    /// up: what the layer has then is not served.
    fn write(&self, layer: Layer) -> Completion<'_, Receipt>;

    /// The same, able to outlive the call: for writes that go on in the offload. Nothing is written before the future is
    /// polled.
    fn detach(&self, layer: Layer) -> BoxFuture<'static, Receipt>;
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
