//! Reads of a composition: the policy asks the layers, their answers are joined, and L1 is filled from L2.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hitbox_core::{BackendResult, BoxFuture, CacheKey, Refused, Task, TaskKind};

use super::attempts::{Asked, LayerAnswers, ReadAttempts, TryAnswer, TryAttempts};
use super::state::{Composition, Spare};
use super::{CompositionBackend, Layer, Pair, Requirement, winner};
use crate::backend::Backend;
use crate::coherence::RefillPermit;
use crate::operation::{Answer, Answers, Found, LeafSet, Presence, ReadOptions, TryRead};
use crate::reconcile::reconcile_key;

/// After an attempt to bring a key up to date that failed, no other is made for so long.
const PAUSE: Duration = Duration::from_millis(200);

/// What the layers have answered.
struct Concluded {
    found: Option<Found>,
    /// What the reader waits for, if the policy says so.
    refill: Option<BoxFuture<'static, ()>>,
}

impl Concluded {
    async fn after_refill(self) -> Option<Found> {
        if let Some(refill) = self.refill {
            refill.await;
        }
        self.found
    }
}

impl Composition {
    #[inline]
    pub(super) fn read_now(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        if !self.serves_l1_at_once {
            return self.read_by_policy(key, options, None);
        }
        // Dirty copies in L2 are seen to when it is asked.
        let l1 = self.layers.l1.try_read(key, options);
        if matches!(l1, TryRead::Hit(_)) { l1 } else { self.read_by_policy(key, options, Some(l1)) }
    }

    /// What the policy makes of the layers without waiting; `l1` has answered if that is given.
    fn read_by_policy(&self, key: &CacheKey, options: &ReadOptions, l1: Option<TryRead>) -> TryRead {
        if options.reconcile && self.layout.has_dirty() && self.layout.is_dirty(key) {
            return TryRead::WouldWait(LeafSet::EMPTY);
        }
        let missed = Cell::new(LeafSet::EMPTY);
        let (hit, other_hit) = (Cell::new(None), Cell::new(None));
        let attempts = TryRun { composition: self, key, options, l1: Cell::new(l1), missed, hit, other_hit };
        let answer = self.read_policy().try_read(&attempts);
        let served = if let TryAnswer::Hit(found) = &answer { Some(found.label) } else { None };
        for spare in [attempts.hit.get(), attempts.other_hit.get()].into_iter().flatten() {
            if Some(spare.label) != served {
                self.not_served(key, spare, options);
            }
        }
        match answer {
            TryAnswer::Hit(found) => TryRead::Hit(found),
            TryAnswer::Miss => TryRead::Miss,
            TryAnswer::WouldWait => TryRead::WouldWait(attempts.missed.get()),
        }
    }

    /// The layers of a nest leave it to the outermost to bring dirty copies up to date.
    pub(super) fn for_layers(self: &Arc<Self>, key: &CacheKey, options: &ReadOptions) -> ReadOptions {
        if options.reconcile && self.layout.has_dirty() {
            self.reconcile(key);
        }
        options.clone().without_reconcile()
    }

    pub(super) async fn read_one(self: &Arc<Self>, key: &CacheKey, options: &ReadOptions) -> Answer {
        let options = self.for_layers(key, options);
        let permit = self.refill_permit(key);
        let answers = if self.serves_l1_at_once && options.skip.covers(self.sets.l1) {
            // L1 has answered that it has nothing: what is left is L2, in whichever order they are asked.
            let l2 = self.layers.l2.read(std::slice::from_ref(key), &options).await;
            LayerAnswers { l1: Some(Ok(None)), l2: Some(l2.into_one().unwrap_or(Ok(None))) }
        } else {
            // Not a part of the future of a read whose first layer has answered.
            Box::pin(self.ask_by_policy(key, &options)).await
        };
        let concluded = self.conclude(key, &options, answers, permit)?;
        Ok(concluded.after_refill().await)
    }

    async fn ask_by_policy(self: &Arc<Self>, key: &CacheKey, options: &ReadOptions) -> LayerAnswers {
        let attempts = ReadRun { composition: self, key, options, detached: Pair::default() };
        let answers = self.read_policy().read(&attempts, &*self.offload).await;
        for (answer, detached) in [(&answers.l1, &attempts.detached.l1), (&answers.l2, &attempts.detached.l2)]
        {
            if let (None, Some(detached)) = (answer, detached.get()) {
                detached.left_behind(self, key, options);
            }
        }
        answers
    }

    /// Joins the answers and, after a hit in L2, has L1 filled.
    fn conclude(
        self: &Arc<Self>,
        key: &CacheKey,
        options: &ReadOptions,
        answers: LayerAnswers,
        permit: Option<RefillPermit>,
    ) -> BackendResult<Concluded> {
        let l1_is_empty = matches!(answers.l1, Some(Ok(None)));
        let l1_is_open = l1_is_empty || answers.l1.is_none();
        let required = &self.blueprint.required;
        match winner::choose(answers, required, |found| self.not_served(key, self.spare(found), options))? {
            None => Ok(Concluded { found: None, refill: None }),
            Some((layer, mut found)) => {
                let refill = match (layer, l1_is_open, permit) {
                    (Layer::L2, true, Some(permit)) => self.refill(key, &mut found, permit, l1_is_empty),
                    _ => None,
                };
                Ok(Concluded { found: Some(found), refill })
            }
        }
    }

    /// One batch for L1, and one for what L2 has to be asked for.
    pub(super) async fn read_several(self: &Arc<Self>, keys: &[CacheKey], options: &ReadOptions) -> Answers {
        let permits: Vec<_> = keys.iter().map(|key| self.refill_permit(key)).collect();
        if options.reconcile && self.layout.has_dirty() {
            keys.iter().for_each(|key| self.reconcile(key));
        }
        let layer_options = options.clone().without_reconcile();
        let upper = self.layers.l1.read(keys, &layer_options).await;
        let is_hit = |answer: &Answer| matches!(answer, Ok(Some(_)));
        let rest: Vec<usize> =
            (0..keys.len()).filter(|index| !upper.get(*index).is_some_and(is_hit)).collect();
        let below: Vec<CacheKey> = rest.iter().map(|index| keys[*index].clone()).collect();
        let lower = if below.is_empty() {
            Answers::default()
        } else {
            self.layers.l2.read(&below, &layer_options).await
        };
        let mut lower_of: Vec<Option<Answer>> = keys.iter().map(|_| None).collect();
        for (index, answer) in rest.into_iter().zip(lower) {
            lower_of[index] = Some(answer);
        }
        let mut joined = Answers::with_capacity(keys.len());
        for (((key, permit), l1), l2) in keys.iter().zip(permits).zip(upper).zip(lower_of) {
            let concluded = self.conclude(key, options, LayerAnswers { l1: Some(l1), l2 }, permit);
            joined.push(match concluded {
                Ok(concluded) => Ok(concluded.after_refill().await),
                Err(error) => Err(error),
            });
        }
        joined
    }

    pub(super) async fn look(&self, key: &CacheKey) -> BackendResult<Presence> {
        match self.layers.l1.contains(key).await {
            Ok(Presence::Present) => Ok(Presence::Present),
            Ok(Presence::Absent) => match self.layers.l2.contains(key).await {
                // It is counted by the layer; what an optional one has cannot be known.
                Err(_) if self.blueprint.required[Layer::L2] != Requirement::Required => Ok(Presence::Maybe),
                answer => answer,
            },
            upper => match (upper, self.layers.l2.contains(key).await) {
                (_, Ok(Presence::Present)) => Ok(Presence::Present),
                (Err(error), Err(_)) => Err(error),
                _ => Ok(Presence::Maybe),
            },
        }
    }

    /// Has leaves with a dirty copy of this key brought up to date in the background.
    fn reconcile(self: &Arc<Self>, key: &CacheKey) {
        let now = self.layout.clock().monotonic();
        let is_pausing = (now.as_millis() as u64) < self.reconcile_from.load(Ordering::Relaxed);
        if is_pausing || !self.layout.is_dirty(key) {
            return;
        }
        let (this, dirty) = (self.clone(), key.clone());
        let work = async move {
            let is_done = reconcile_key(&CompositionBackend(this.clone()), &dirty).await;
            if !is_done {
                let next = this.layout.clock().monotonic() + PAUSE;
                this.reconcile_from.store(next.as_millis() as u64, Ordering::Relaxed);
            }
        };
        let task = Task::unique(TaskKind::RECONCILE, self.subject(key), work);
        if let Err(Refused { why, .. }) = self.offload.register(task) {
            tracing::trace!(?why, "a dirty copy was not brought up to date; it stays unserved");
        }
    }
}

/// The attempts of a read that does not wait.
struct TryRun<'a> {
    composition: &'a Composition,
    key: &'a CacheKey,
    options: &'a ReadOptions,
    /// What L1 has answered already.
    l1: Cell<Option<TryRead>>,
    missed: Cell<LeafSet>,
    /// A hit that the policy has been told of.
    hit: Cell<Option<Spare>>,
    /// A second one.
    other_hit: Cell<Option<Spare>>,
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
                self.other_hit.set(self.hit.replace(Some(self.composition.spare(&found))));
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
pub(super) struct Detachment(Mutex<(Option<Spare>, bool)>);

impl Detachment {
    fn lock(&self) -> MutexGuard<'_, (Option<Spare>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ended(
        &self,
        composition: &Composition,
        key: &CacheKey,
        options: &ReadOptions,
        answer: &Answer,
    ) {
        let Ok(Some(found)) = answer else { return };
        let spare = composition.spare(found);
        let is_left = {
            let mut state = self.lock();
            state.0 = Some(spare);
            state.1
        };
        if is_left {
            composition.not_served(key, spare, options);
        }
    }

    /// The read was answered without it.
    pub(super) fn left_behind(&self, composition: &Composition, key: &CacheKey, options: &ReadOptions) {
        let spare = {
            let mut state = self.lock();
            state.1 = true;
            state.0
        };
        if let Some(spare) = spare {
            composition.not_served(key, spare, options);
        }
    }
}

struct ReadRun<'a> {
    composition: &'a Arc<Composition>,
    key: &'a CacheKey,
    options: &'a ReadOptions,
    detached: Pair<OnceLock<Arc<Detachment>>>,
}

impl ReadAttempts for ReadRun<'_> {
    fn ask(&self, layer: Layer) -> Asked<'_> {
        Asked::new(self.composition.layers[layer].read(std::slice::from_ref(self.key), self.options))
    }

    fn detach(&self, layer: Layer) -> BoxFuture<'static, Answer> {
        let (composition, key, options) = (self.composition.clone(), self.key.clone(), self.options.clone());
        let detached = self.detached[layer].get_or_init(Arc::default).clone();
        Box::pin(async move {
            let answers = composition.layers[layer].read(std::slice::from_ref(&key), &options).await;
            let answer = answers.into_one().unwrap_or(Ok(None));
            detached.ended(&composition, &key, &options, &answer);
            answer
        })
    }
}
