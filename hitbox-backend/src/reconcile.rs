//! Brings leaves up to date that failed while others succeeded. Their copies of some keys are dirty: each is written anew
//! with what the other leaves have, or removed where they have nothing.
//!
//! The work list is the tables of dirty keys themselves. So the last state wins by itself, and nothing that was written
//! meanwhile is overwritten: the write takes its slot among the writes of its key before it looks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use hitbox_core::{
    Accept, BackendResult, BoxFuture, CacheKey, CacheValue, Clock, ErrorKind, Offload, Refused, Task,
    TaskKind,
};

use crate::backend::Backend;
use crate::completion::Batch;
use crate::envelope::Raw;
use crate::layout::{Layout, LeafInfo};
use crate::operation::{
    Condition, LeafPosition, LeafSet, Maintained, Maintenance, ReadOptions, Removal, Write, WriteOptions,
};
use crate::receipt::{LeafOutcome, Receipt};

/// The pause after an attempt that failed, at first.
pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Pauses double up to here.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Dirty keys of a leaf that are brought up to date at a time.
const AT_ONCE: usize = 16;

/// The copy that lives longest in any leaf, which is what the others were made of: an upper one may have been capped.
///
/// # Errors
/// If no layer answers.
async fn longest_copy<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    absent: bool,
) -> BackendResult<Option<CacheValue<Raw>>> {
    let mut longest: Option<CacheValue<Raw>> = None;
    let mut options = ReadOptions::NORMAL
        .accepting(Accept::Expired)
        .with_absent(absent)
        .without_reconcile()
        .in_background();
    loop {
        let answer = backend.read(std::slice::from_ref(key), &options).await.into_one();
        let Some(found) = answer.unwrap_or(Ok(None))? else { return Ok(longest) };
        let leaf = LeafSet::of(found.leaf);
        if options.skip.covers(leaf) {
            return Ok(longest);
        }
        options.skip = options.skip.union(leaf);
        if longest.as_ref().is_none_or(|known| found.value.lifetime().outlives(known.lifetime())) {
            longest = Some(found.value);
        }
    }
}

fn dirty_leaves(layout: &Layout, key: &CacheKey) -> LeafSet {
    let dirty = layout.leaves().iter().filter(|leaf| leaf.is_dirty(key));
    dirty.map(|leaf| LeafSet::of(leaf.position())).fold(LeafSet::EMPTY, LeafSet::union)
}

fn all_but(layout: &Layout, set: LeafSet) -> LeafSet {
    let others = layout.leaves().iter().map(LeafInfo::position).filter(|position| !set.contains(*position));
    others.map(LeafSet::of).fold(LeafSet::EMPTY, LeafSet::union)
}

/// The leaves with such a line in a receipt.
fn leaves_with(layout: &Layout, receipt: &Receipt, is_meant: impl Fn(&LeafOutcome) -> bool) -> LeafSet {
    let is_named = |leaf: &&LeafInfo| {
        receipt.leaves().iter().any(|line| line.label == leaf.path() && is_meant(&line.outcome))
    };
    let named = layout.leaves().iter().filter(is_named);
    named.map(|leaf| LeafSet::of(leaf.position())).fold(LeafSet::EMPTY, LeafSet::union)
}

/// Gives every dirty leaf the present state of a key; whether no leaf is dirty any more.
pub(crate) async fn reconcile_key<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> bool {
    let layout = backend.layout();
    let ticket = layout.begin_maintenance_write(key);
    // From here on nobody else writes it.
    ticket.first().await;
    let dirty = dirty_leaves(layout, key);
    if dirty.is_empty() {
        return true;
    }
    // Other leaves may be about to lose what this one would be given.
    if ticket.meets_drain() {
        return false;
    }
    let Ok(found) = longest_copy(backend, key, true).await else { return false };
    let mut open = LeafSet::EMPTY;
    if let Some(entry) = found {
        let options = WriteOptions::of(&ticket).skipping(all_but(layout, dirty));
        let write = Write::new(key.clone(), entry).with_condition(Condition::Repair).with_options(options);
        let receipt = backend.write(Batch::one(write)).await.into_one().unwrap_or_default();
        let superseded = leaves_with(layout, &receipt, |outcome| matches!(outcome, LeafOutcome::Superseded));
        if !superseded.is_empty() {
            // Another process has written since: what this one has is older.
            let options = WriteOptions::of(&ticket).skipping(dirty);
            drop(backend.remove(Batch::one(Removal::new(key.clone()).with_options(options))).await);
            let leaves = layout.leaves().iter().filter(|leaf| superseded.contains(leaf.position()));
            leaves.for_each(|leaf| leaf.mark_clean(key, &ticket));
        }
        // Another process may have written what would be removed there.
        let is_open =
            |outcome: &LeafOutcome| matches!(outcome, LeafOutcome::Failed(_) | LeafOutcome::Unknown(_));
        let shared = layout.leaves().iter().filter(|leaf| leaf.capabilities().shared);
        let shared = shared.map(|leaf| LeafSet::of(leaf.position())).fold(LeafSet::EMPTY, LeafSet::union);
        open = leaves_with(layout, &receipt, is_open).intersection(shared);
    }
    // What cannot be written there, or is nowhere else, is removed.
    let dirty = dirty_leaves(layout, key);
    if !open.covers(dirty) {
        let options = WriteOptions::of(&ticket).skipping(all_but(layout, dirty).union(open));
        let removal = Removal::new(key.clone()).of_outdated().with_options(options);
        drop(backend.remove(Batch::one(removal)).await);
    }
    dirty_leaves(layout, key).is_empty()
}

/// Has one leaf start anew that missed too much: nobody knows which of its copies are outdated. One that cannot be erased,
/// or is only a part of a store, keeps what it has, and what is older than this is ignored.
async fn start_anew<B: Backend + ?Sized>(backend: &B, leaf: &LeafInfo) -> bool {
    let skip = all_but(backend.layout(), LeafSet::of(leaf.position()));
    match backend.maintain(&Maintenance::Erase { skip }).await {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            leaf.handle().coherence().ignore_what_is_there(&**leaf.handle().clock());
            true
        }
        Err(_) => false,
    }
}

/// Who has leaves brought up to date.
pub trait Reconciles: Send + Sync + 'static {
    /// The expression that is brought up to date.
    type Expression: Backend + ?Sized;

    /// The expression.
    fn expression(&self) -> &Self::Expression;

    /// Whether a daemon runs.
    fn reconciler(&self) -> &Reconciler;

    /// A key is up to date again in every leaf.
    fn reconciled(&self, key: &CacheKey);
}

/// The state of somebody who [`Reconciles`].
#[derive(Debug, Default)]
pub struct Reconciler {
    is_running: Arc<AtomicBool>,
}

/// The daemon that runs; dropped, it makes room for another.
pub(crate) struct Running(Arc<AtomicBool>);

impl Running {
    /// Unless another runs.
    pub(crate) fn start(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then(|| Self(flag.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Attempts at the end of a cache.
const TRIES: usize = 3;

/// Invalidations that are recorded at a time.
const CHUNK: usize = 500;

/// Has the layers record the invalidations that they have not; whether all are recorded.
pub(crate) async fn record<B: Backend + ?Sized>(backend: &B) -> bool {
    while backend.layout().has_unrecorded() {
        let done = backend.maintain(&Maintenance::Record { limit: CHUNK }).await;
        if !done.and_then(Maintained::into_recorded).is_ok_and(|left| left > 0) {
            break;
        }
    }
    !backend.layout().has_unrecorded()
}

fn is_behind(layout: &Layout) -> bool {
    layout.has_dirty() || layout.has_unrecorded()
}

impl Reconciler {
    /// Has the owner's leaves brought up to date in the background, unless that is under way. The daemon ends when
    /// nothing is dirty, or when nobody else holds the owner.
    pub fn wake<O: Reconciles>(owner: &Arc<O>, offload: &dyn Offload, clock: &Arc<dyn Clock>) {
        let Some(running) = Running::start(&owner.reconciler().is_running) else { return };
        let task = Task::new(TaskKind::RECONCILE, run(Arc::downgrade(owner), clock.clone(), running));
        if let Err(Refused { why, .. }) = offload.register(task.daemon()) {
            // The next failure tries again; the refused task has made room for it.
            tracing::debug!(?why, "layers that failed are not brought up to date");
        }
    }
}

/// One attempt at all that the owner's layers have missed, at once and whoever else is at it. Says whether they have it now.
pub fn bring_up_to_date<O: Reconciles>(owner: Arc<O>, clock: Arc<dyn Clock>) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        // A daemon that is at it has its turn first; a layer that takes nothing is not tried for ever.
        for _ in 0..TRIES {
            if !is_behind(owner.expression().layout()) {
                break;
            }
            reconcile(&*owner, &clock, &mut Schedule::default()).await;
            record(owner.expression()).await;
            if is_behind(owner.expression().layout()) {
                clock.sleep(SHORTEST_PAUSE).await;
            }
        }
        !is_behind(owner.expression().layout())
    })
}

/// When keys that could not be brought up to date are tried again, by leaf: each waits for itself, so that one that can never
/// be written keeps no other from it.
#[derive(Debug, Default)]
struct Schedule(HashMap<(LeafPosition, CacheKey), Retry>);

#[derive(Clone, Copy, Debug)]
struct Retry {
    /// On the monotonic clock.
    at: Duration,
    pause: Duration,
}

impl Schedule {
    fn is_due(&self, leaf: LeafPosition, key: &CacheKey, now: Duration) -> bool {
        // Nothing is cloned unless some have failed.
        self.0.is_empty() || self.0.get(&(leaf, key.clone())).is_none_or(|retry| retry.at <= now)
    }

    fn failed(&mut self, leaf: LeafPosition, key: CacheKey, now: Duration) {
        let retry = self.0.entry((leaf, key)).or_insert(Retry { at: now, pause: SHORTEST_PAUSE });
        retry.at = now + retry.pause;
        retry.pause = (retry.pause * 2).min(LONGEST_PAUSE);
    }
}

/// What came of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nothing that was tried has failed.
    Clean,
    /// Something has been brought up to date, or all that is left waits.
    Going,
    /// Whatever was tried has failed.
    Stuck,
}

impl Round {
    /// How long to wait before the next round. There is always a pause: somebody else may be at what is left, and needs the
    /// thread.
    fn pause_after(self, last: Duration) -> Duration {
        match self {
            // What has failed meanwhile is new.
            Self::Clean | Self::Going => SHORTEST_PAUSE,
            Self::Stuck => (last * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Clean, other) | (other, Self::Clean) => other,
            (Self::Stuck, Self::Stuck) => Self::Stuck,
            _ => Self::Going,
        }
    }
}

async fn run<O: Reconciles>(owner: Weak<O>, clock: Arc<dyn Clock>, mut running: Running) {
    let flag = running.0.clone();
    let (mut pause, mut schedule) = (SHORTEST_PAUSE, Schedule::default());
    loop {
        clock.sleep(pause).await;
        let Some(owner) = owner.upgrade() else { return };
        if Arc::strong_count(&owner) == 1 {
            return;
        }
        let mut round = reconcile(&*owner, &clock, &mut schedule).await;
        if !record(owner.expression()).await {
            round = round.and(Round::Stuck);
        }
        if !is_behind(owner.expression().layout()) {
            drop(running);
            // Somebody may have failed in between, and left it to this daemon.
            if !is_behind(owner.expression().layout()) {
                return;
            }
            let Some(again) = Running::start(&flag) else { return };
            running = again;
        }
        pause = round.pause_after(pause);
    }
}

/// One attempt for every leaf that is dirty.
async fn reconcile<O: Reconciles>(owner: &O, clock: &Arc<dyn Clock>, schedule: &mut Schedule) -> Round {
    let backend = owner.expression();
    let mut round = Round::Clean;
    for leaf in backend.layout().leaves() {
        let coherence = leaf.handle().coherence();
        if !coherence.has_dirty() {
            continue;
        }
        // Another owner of the store may be at it.
        let Some(_reconciling) = coherence.begin_reconcile() else {
            round = round.and(Round::Stuck);
            continue;
        };
        let of_leaf = if !coherence.is_all_dirty() {
            reconcile_leaf(owner, leaf, clock, schedule).await
        } else if start_anew(backend, leaf).await {
            Round::Clean
        } else {
            Round::Stuck
        };
        round = round.and(of_leaf);
    }
    let is_dirty = |position: &LeafPosition, key: &CacheKey| {
        backend.layout().leaf(*position).is_some_and(|leaf| leaf.handle().coherence().is_dirty(key))
    };
    schedule.0.retain(|(position, key), _| is_dirty(position, key));
    round
}

/// Those dirty keys of a leaf whose time has come, some at once, until none is left or the leaf takes nothing.
async fn reconcile_leaf<O: Reconciles>(
    owner: &O,
    leaf: &LeafInfo,
    clock: &Arc<dyn Clock>,
    schedule: &mut Schedule,
) -> Round {
    let (backend, position) = (owner.expression(), leaf.position());
    let mut round = Round::Clean;
    loop {
        let now = clock.monotonic();
        let is_due = |key: &CacheKey| schedule.is_due(position, key, now);
        // Keys of other parts of the store are theirs to bring up to date.
        let keys =
            leaf.handle().coherence().some_dirty(AT_ONCE, |key| is_due(key) && leaf.outward(key).is_some());
        if keys.is_empty() {
            let is_waiting = round == Round::Clean && leaf.handle().coherence().has_dirty();
            return if is_waiting { Round::Going } else { round };
        }
        let tried = keys.iter().filter_map(|key| leaf.outward(key));
        let done = join_all(tried.map(async |key| {
            let is_done = reconcile_key(backend, &key).await;
            if is_done {
                owner.reconciled(&key);
            }
            is_done
        }));
        let done = done.await;
        let is_any = done.contains(&true);
        let failed = keys.into_iter().zip(&done).filter(|(_, is_done)| !**is_done);
        failed.for_each(|(key, _)| schedule.failed(position, key, now));
        let of_batch = if is_any { Round::Going } else { Round::Stuck };
        round = if done.iter().all(|is_done| *is_done) { round } else { round.and(of_batch) };
        if !is_any {
            return round;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PAUSE, Round, SHORTEST_PAUSE};

    #[test]
    fn no_round_follows_another_at_once() {
        let mut pause = SHORTEST_PAUSE;
        for round in [Round::Clean, Round::Stuck, Round::Going, Round::Stuck, Round::Clean, Round::Stuck] {
            pause = round.pause_after(pause);
            assert!(pause >= SHORTEST_PAUSE, "{round:?} is followed after {pause:?}");
        }
        for _ in 0..20 {
            pause = Round::Stuck.pause_after(pause);
        }
        assert_eq!(pause, LONGEST_PAUSE);
    }
}
