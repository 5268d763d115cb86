//! Policies with a mistake.

use async_trait::async_trait;
use futures_util::future::{Either, join, select};
use hitbox_backend::Layer;
use hitbox_backend::operation::Completion;
use hitbox_backend::policy::{
    LayerAnswers, Needs, ReadAttempts, ReadPolicy, TryAnswer, TryAttempts, WriteAttempts, WritePolicy,
    Written,
};
use hitbox_core::Offload;

/// Asks L2 although L1 has the value.
#[derive(Debug)]
pub struct AsksBoth;

#[async_trait]
impl ReadPolicy for AsksBoth {
    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> LayerAnswers {
        let (l1, l2) = join(layers.ask(Layer::L1), layers.ask(Layer::L2)).await;
        LayerAnswers { l1: Some(l1), l2: Some(l2) }
    }
}

/// Takes the first answer, even if it is a miss.
#[derive(Debug)]
pub struct FirstAnswer;

#[async_trait]
impl ReadPolicy for FirstAnswer {
    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> LayerAnswers {
        match select(layers.ask(Layer::L1), layers.ask(Layer::L2)).await {
            Either::Left((l1, _)) => LayerAnswers { l1: Some(l1), l2: None },
            Either::Right((l2, _)) => LayerAnswers { l1: None, l2: Some(l2) },
        }
    }
}

/// Prefers L1's copy to one that lives longer.
#[derive(Debug)]
pub struct PrefersL1;

#[async_trait]
impl ReadPolicy for PrefersL1 {
    fn try_read(&self, layers: &dyn TryAttempts) -> TryAnswer {
        layers.try_ask(Layer::L1)
    }

    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> LayerAnswers {
        let l1 = layers.ask(Layer::L1).await;
        let l2 = if matches!(l1, Ok(Some(_))) { None } else { Some(layers.ask(Layer::L2).await) };
        LayerAnswers { l1: Some(l1), l2 }
    }
}

/// Calls a failure a miss.
#[derive(Debug)]
pub struct SwallowsErrors;

#[async_trait]
impl ReadPolicy for SwallowsErrors {
    async fn read(&self, layers: &dyn ReadAttempts, _: &dyn Offload) -> LayerAnswers {
        let l1 = layers.ask(Layer::L1).await.unwrap_or(None);
        let l2 = layers.ask(Layer::L2).await.unwrap_or(None);
        LayerAnswers { l1: Some(Ok(l1)), l2: Some(Ok(l2)) }
    }
}

/// Finds nothing.
#[derive(Debug)]
pub struct NeverAsks;

#[async_trait]
impl ReadPolicy for NeverAsks {
    async fn read(&self, _: &dyn ReadAttempts, _: &dyn Offload) -> LayerAnswers {
        LayerAnswers::default()
    }
}

/// Writes L2 although L1 failed.
#[derive(Debug)]
pub struct GoesOn;

impl WritePolicy for GoesOn {
    fn write<'a>(&'a self, layers: &'a dyn WriteAttempts, _: &'a dyn Offload) -> Completion<'a, Written> {
        Completion::later(async move {
            let l1 = layers.write(Layer::L1).await;
            Written { l1: Some(l1), l2: Some(layers.write(Layer::L2).await) }
        })
    }

    fn needs(&self) -> Needs {
        Needs::Every
    }
}

/// Writes L1 first where L2 was asked for.
#[derive(Debug)]
pub struct L1First;

impl WritePolicy for L1First {
    fn write<'a>(&'a self, layers: &'a dyn WriteAttempts, _: &'a dyn Offload) -> Completion<'a, Written> {
        Completion::later(async move {
            let l1 = layers.write(Layer::L1).await;
            let l2 = if l1.is_ok() { Some(layers.write(Layer::L2).await) } else { None };
            Written { l1: Some(l1), l2 }
        })
    }
}
