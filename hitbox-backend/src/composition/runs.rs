//! The attempts of one call, as policies see them.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hitbox_core::{BackendLabel, BoxFuture, CacheKey, CacheValue, Freshness};

use super::attempts::{ReadAttempts, TryAnswer, TryAttempts, WriteAttempts};
use super::parts::Composition;
use super::repair::Progress;
use super::{Layer, Pair};
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
    /// A hit that the policy has been told of.
    hit: Cell<Option<(BackendLabel, Freshness)>>,
    /// A second one.
    other_hit: Cell<Option<(BackendLabel, Freshness)>>,
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
        let (hit, other_hit) = (Cell::new(None), Cell::new(None));
        let run = TryRun { composition: self, key, options, l1: Cell::new(l1), missed, hit, other_hit };
        let answer = self.policy.read.try_read(&run);
        let served = if let TryAnswer::Hit(found) = &answer { Some(found.label) } else { None };
        for (label, freshness) in [run.hit.get(), run.other_hit.get()].into_iter().flatten() {
            if Some(label) != served {
                self.not_served(label, freshness);
            }
        }
        match answer {
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
            TryRead::Hit(found) => {
                self.other_hit.set(self.hit.replace(Some((found.label, found.freshness))));
                return TryAnswer::Hit(found);
            }
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

/// An attempt of a read that may go on when the read has been answered. What it finds then is not served.
#[derive(Debug, Default)]
pub(super) struct Detachment(Mutex<(Option<(BackendLabel, Freshness)>, bool)>);

impl Detachment {
    fn lock(&self) -> MutexGuard<'_, (Option<(BackendLabel, Freshness)>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, composition: &Composition, answer: &Answer) {
        let Ok(Some(found)) = answer else { return };
        let mut state = self.lock();
        state.0 = Some((found.label, found.freshness));
        if state.1 {
            composition.not_served(found.label, found.freshness);
        }
    }

    /// The read was answered without it.
    pub(super) fn left_behind(&self, composition: &Composition) {
        let mut state = self.lock();
        state.1 = true;
        if let Some((label, freshness)) = state.0 {
            composition.not_served(label, freshness);
        }
    }
}

pub(super) struct ReadRun<'a> {
    pub(super) composition: &'a Arc<Composition>,
    pub(super) key: &'a CacheKey,
    pub(super) options: &'a ReadOptions,
    pub(super) detached: Pair<OnceLock<Arc<Detachment>>>,
}

impl ReadAttempts for ReadRun<'_> {
    fn ask(&self, layer: Layer) -> BoxFuture<'_, Answer> {
        self.composition.layers[layer].read_with(self.key, self.options)
    }

    fn detach(&self, layer: Layer) -> BoxFuture<'static, Answer> {
        let (composition, key, options) = (self.composition.clone(), self.key.clone(), self.options.clone());
        let detached = self.detached[layer].get_or_init(Arc::default).clone();
        Box::pin(async move {
            let answer = composition.layers[layer].read_with(&key, &options).await;
            detached.ended(&composition, &answer);
            answer
        })
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
