//! The attempts of one call, as policies see them.

use std::cell::Cell;
use std::sync::Arc;

use hitbox_core::{BoxFuture, CacheKey, CacheValue};

use super::Layer;
use super::attempts::{ReadAttempts, TryAnswer, TryAttempts, WriteAttempts};
use super::parts::Composition;
use super::repair::Progress;
use crate::backend::{Backend, WriteOptions};
use crate::envelope::Raw;
use crate::read::{Answer, LeafSet, ReadOptions, TryRead};
use crate::receipt::Receipt;

struct TryRun<'a> {
    composition: &'a Composition,
    key: &'a CacheKey,
    options: &'a ReadOptions,
    /// What L1 has answered already.
    l1: Cell<Option<TryRead>>,
    missed: Cell<LeafSet>,
}

impl Composition {
    /// What the policy makes of the layers without waiting; `l1` has answered if that is given.
    pub(super) fn try_by_policy(
        &self,
        key: &CacheKey,
        options: &ReadOptions,
        l1: Option<TryRead>,
    ) -> TryRead {
        if self.has_hidden(key) {
            return TryRead::WouldWait(LeafSet::EMPTY);
        }
        let missed = Cell::new(LeafSet::EMPTY);
        let run = TryRun { composition: self, key, options, l1: Cell::new(l1), missed };
        match self.policy.read.try_read(&run) {
            TryAnswer::Hit(found) => TryRead::Hit(found),
            TryAnswer::Miss => TryRead::Miss,
            TryAnswer::WouldWait => TryRead::WouldWait(run.missed.get()),
        }
    }
}

impl TryAttempts for TryRun<'_> {
    fn try_ask(&self, layer: Layer) -> TryAnswer {
        // A hit in L2 that fills L1 is for the asynchronous entry.
        if layer == Layer::L2 && self.composition.refill.is_on() {
            return TryAnswer::WouldWait;
        }
        let known = if layer == Layer::L1 { self.l1.take() } else { None };
        let ask = || self.composition.layers[layer].try_read(self.key, self.options);
        let missed = match known.unwrap_or_else(ask) {
            TryRead::Hit(found) => return TryAnswer::Hit(found),
            TryRead::Miss => self.composition.sets[layer],
            TryRead::WouldWait(missed) => {
                self.missed.set(self.missed.get().union(missed));
                return TryAnswer::WouldWait;
            }
        };
        self.missed.set(self.missed.get().union(missed));
        TryAnswer::Miss
    }

    fn answers_at_once(&self, layer: Layer) -> bool {
        self.composition.answers_at_once[layer] && !self.composition.refill.is_on()
    }
}

pub(super) struct ReadRun<'a> {
    pub(super) composition: &'a Arc<Composition>,
    pub(super) key: &'a CacheKey,
    pub(super) options: &'a ReadOptions,
}

impl ReadAttempts for ReadRun<'_> {
    fn ask(&self, layer: Layer) -> BoxFuture<'_, Answer> {
        self.composition.layers[layer].read_with(self.key, self.options)
    }

    fn detach(&self, layer: Layer) -> BoxFuture<'static, Answer> {
        let (composition, key, options) = (self.composition.clone(), self.key.clone(), self.options.clone());
        Box::pin(async move { composition.layers[layer].read_with(&key, &options).await })
    }
}

pub(super) struct WriteRun<'a> {
    pub(super) composition: &'a Arc<Composition>,
    pub(super) key: CacheKey,
    pub(super) value: CacheValue<Raw>,
    pub(super) options: WriteOptions,
    pub(super) progress: Arc<Progress>,
}

impl WriteAttempts for WriteRun<'_> {
    fn write(&self, layer: Layer) -> BoxFuture<'static, Receipt> {
        let (composition, key, value) = (self.composition.clone(), self.key.clone(), self.value.clone());
        let (options, progress) = (self.options.clone(), self.progress.clone());
        progress.begin(layer);
        Box::pin(async move {
            let unfinished = Unfinished { composition: &composition, key: &key, layer, options: &options };
            let receipt = composition.layers[layer].write_with(&key, value, &options).await;
            std::mem::forget(unfinished);
            composition.settle(&progress, layer, &key, &options, &receipt);
            receipt
        })
    }
}

/// A write that was begun and given up: nobody knows whether its layer has it.
struct Unfinished<'a> {
    composition: &'a Composition,
    key: &'a CacheKey,
    layer: Layer,
    options: &'a WriteOptions,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.composition.hide_layer(self.layer, self.key, self.options);
    }
}
