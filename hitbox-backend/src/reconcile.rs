//! Brings leaves up to date that failed while others succeeded. Their copies of some keys are dirty: each is written anew
//! with what the other leaves have, or removed where they have nothing.
//!
//! The work list is the tables of dirty keys themselves. So the last state wins by itself, and nothing that was written
//! meanwhile is overwritten: the write takes its slot among the writes of its key before it looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hitbox_core::{Accept, BackendResult, CacheKey, CacheValue, Clock, Offload, Refused, Task, TaskKind};

use crate::backend::Backend;
use crate::completion::Batch;
use crate::envelope::Raw;
use crate::layout::{Layout, LeafInfo};
use crate::operation::{LeafSet, Maintenance, ReadOptions, Removal, Write, WriteOptions};

/// The pause after an attempt that failed, at first.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Pauses double up to here.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Dirty keys that are taken from a leaf at a time.
const KEYS: usize = 256;

/// The copy that lives longest in any leaf, which is what the others were made of: an upper one may have been capped.
///
/// # Errors
/// If no layer answers.
pub async fn longest_copy<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    absent: bool,
) -> BackendResult<Option<CacheValue<Raw>>> {
    let mut longest: Option<CacheValue<Raw>> = None;
    let mut options = ReadOptions::NORMAL.accepting(Accept::Expired).with_absent(absent).without_reconcile();
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
    if let Some(entry) = found {
        let options = WriteOptions::of(&ticket).skipping(all_but(layout, dirty));
        let write = Write::new(key.clone(), entry).with_options(options);
        drop(backend.write(Batch::one(write)).await);
    }
    // What cannot be written there, or is nowhere else, is removed.
    let dirty = dirty_leaves(layout, key);
    if !dirty.is_empty() {
        let options = WriteOptions::of(&ticket).skipping(all_but(layout, dirty));
        drop(backend.remove(Batch::one(Removal::new(key.clone()).with_options(options))).await);
    }
    dirty_leaves(layout, key).is_empty()
}

/// Has one leaf erased that missed too much: nobody knows which of its copies are outdated.
async fn erase<B: Backend + ?Sized>(backend: &B, leaf: &LeafInfo) -> bool {
    let skip = all_but(backend.layout(), LeafSet::of(leaf.position()));
    backend.maintain(&Maintenance::Erase { skip }).await.is_ok()
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
struct Running {
    flag: Arc<AtomicBool>,
    is_mine: bool,
}

impl Running {
    /// Unless another runs.
    fn start(&mut self) -> bool {
        self.is_mine = !self.flag.swap(true, Ordering::AcqRel);
        self.is_mine
    }

    fn stop(&mut self) {
        if std::mem::take(&mut self.is_mine) {
            self.flag.store(false, Ordering::Release);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Reconciler {
    /// Has the owner's leaves brought up to date in the background, unless that is under way. The daemon ends when
    /// nothing is dirty, or when nobody else holds the owner.
    pub fn wake<O: Reconciles>(owner: &Arc<O>, offload: &dyn Offload, clock: &Arc<dyn Clock>) {
        let flag = owner.reconciler().is_running.clone();
        let mut running = Running { flag, is_mine: false };
        if !running.start() {
            return;
        }
        let task = Task::new(TaskKind::RECONCILE, run(Arc::downgrade(owner), clock.clone(), running));
        if let Err(Refused { why, .. }) = offload.register(task.daemon()) {
            // The next failure tries again; the refused task has made room for it.
            tracing::debug!(?why, "layers that failed are not brought up to date");
        }
    }
}

async fn run<O: Reconciles>(owner: Weak<O>, clock: Arc<dyn Clock>, mut running: Running) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        clock.sleep(pause).await;
        let Some(owner) = owner.upgrade() else { return };
        if Arc::strong_count(&owner) == 1 {
            return;
        }
        let is_clean = reconcile(&*owner).await;
        if !owner.expression().layout().has_dirty() {
            running.stop();
            // Somebody may have failed in between, and left it to this daemon.
            if !owner.expression().layout().has_dirty() || !running.start() {
                return;
            }
        }
        pause = if is_clean { Duration::ZERO } else { (pause * 2).min(LONGEST_PAUSE) };
    }
}

/// One attempt for every leaf that is dirty; whether all succeeded.
async fn reconcile<O: Reconciles>(owner: &O) -> bool {
    let backend = owner.expression();
    let mut all = true;
    for leaf in backend.layout().leaves() {
        let coherence = leaf.handle().coherence();
        if !coherence.has_dirty() {
            continue;
        }
        // Another owner of the store may be at it.
        let Some(_reconciling) = coherence.begin_reconcile() else {
            all = false;
            continue;
        };
        if coherence.is_all_dirty() {
            all &= erase(backend, leaf).await;
            continue;
        }
        for key in coherence.some_dirty(KEYS) {
            // Keys of other parts of the store are theirs to bring up to date.
            let Some(key) = leaf.outward(&key) else { continue };
            if !reconcile_key(backend, &key).await {
                all = false;
                break;
            }
            owner.reconciled(&key);
        }
    }
    all
}
