//! Bodies that are being written, and those who follow them. A follower gets the bytes of the writer that it follows, and of no other.
//!
//! The last chunks are held in memory. Who is further behind reads from a layer that can be read while it is written. Nobody is waited for
//! but the one for whom a body is loaded, if there is one.

mod follower;

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::{Either, select};
use hitbox_core::{BackendError, BackendLabel, CacheKey, CacheValue, Clock, KeyHasher};
use tokio::sync::Notify;

use crate::coherence::LoadPermit;
use crate::envelope::{DeferredDrops, GrowingChunks};
use crate::feed::{self, PATIENCE};
use crate::layout::Layout;
use crate::store::WrittenPart;

pub use follower::Follower;

/// Bytes of a body that are held for those who follow it; more, as long as a layer is about to have them.
pub(crate) const HELD: u64 = 2 * 1024 * 1024;

/// The bodies that are being written under each key, in the order in which they were begun.
type Bodies = HashMap<CacheKey, Vec<Arc<Followed>>, BuildHasherDefault<KeyHasher>>;

/// Where bodies that are being written are found.
#[derive(Default)]
pub(crate) struct InFlightBodies(Mutex<Bodies>);

impl InFlightBodies {
    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layout {
    /// Follows the last body that was begun under a key, of those since whose beginning the key was not written, and nothing that they
    /// carry was invalidated. One whose beginning is neither held any more nor in a layer is left out.
    pub(crate) fn follow(&self, key: &CacheKey) -> Option<Follower> {
        // What a layer has of a body may be let go of here, and with it entries of others.
        let _drops = DeferredDrops::begin();
        let bodies = self.in_flight().lock().get(key)?.clone();
        let is_current = |followed: &Arc<Followed>| {
            let scopes = followed.entry.details().map_or(&[][..], |details| &details.scopes);
            let permit = &followed.permit;
            permit.is_current() && !self.is_superseded(key, scopes, permit) && followed.lock().has_beginning()
        };
        let last = bodies.into_iter().rev().find(is_current)?;
        Some(Follower::of(last, false))
    }

    /// The body of this generation is not stored, if it is being written.
    pub fn revoke(&self, key: &CacheKey, generation: u64) {
        let bodies = self.in_flight().lock();
        let of_key = bodies.get(key).into_iter().flatten();
        of_key.filter(|body| body.permit.generation() == generation).for_each(|body| body.permit.revoke());
    }
}

/// A body that is being written, as those who follow it see it.
struct Followed {
    entry: CacheValue<()>,
    label: BackendLabel,
    permit: Arc<LoadPermit>,
    clock: Arc<dyn Clock>,
    progress: Mutex<Progress>,
    changed: Notify,
}

struct Progress {
    held: GrowingChunks,
    /// What layers have of it; nothing if none can be read.
    written: Option<Arc<dyn WrittenPart>>,
    state: State,
    /// The one for whom it is loaded, if there is one.
    leader: Option<Leader>,
}

#[derive(Clone, Copy)]
struct Leader {
    at: u64,
    /// It is waited for, unless it takes nothing for too long and a layer has, or will have, what it misses.
    is_awaited: bool,
}

/// What a body is to those who follow it.
#[derive(Clone, Debug)]
enum State {
    Partial,
    /// All of it has come. What layers have may still grow, until they are done.
    Complete {
        is_settled: bool,
    },
    Aborted(BackendError),
}

impl Progress {
    fn readable(&self) -> u64 {
        self.written.as_ref().map_or(0, |part| part.readable())
    }

    /// Whether layers may come to have what they have not.
    fn is_being_written(&self) -> bool {
        !self.is_settled() && self.written.as_ref().is_some_and(|part| !part.has_ended())
    }

    /// Whether somebody can read it from its beginning: there is no gap between what layers have and what is held, or it is about
    /// to be closed.
    fn has_beginning(&self) -> bool {
        let is_aborted = matches!(self.state, State::Aborted(_));
        !is_aborted && (self.held.start() <= self.readable() || self.is_being_written())
    }

    /// Whether layers have no more than a beginning after which something is missing: nobody comes past it.
    fn has_a_gap(&self) -> bool {
        !self.is_being_written() && self.readable() < self.held.start()
    }

    /// Whether nothing changes any more.
    const fn is_settled(&self) -> bool {
        matches!(self.state, State::Complete { is_settled: true } | State::Aborted(_))
    }

    /// Lets go of what is held and need not be.
    fn trim(&mut self) {
        let (readable, is_being_written) = (self.readable(), self.is_being_written());
        if !is_being_written && let Some(leader) = &mut self.leader {
            // Nobody else has what comes from here on.
            leader.is_awaited = true;
        }
        while self.held.weight() > HELD
            && let Some(end) = self.held.first_end()
        {
            let is_awaited = self.leader.is_some_and(|leader| leader.is_awaited && leader.at < end);
            if is_awaited || (end > readable && (is_being_written || self.is_settled())) {
                return;
            }
            self.held.drop_first();
        }
    }

    /// What the leader has not taken, if it is waited for.
    fn behind(&self) -> u64 {
        let leader = self.leader.filter(|leader| leader.is_awaited);
        leader.map_or(0, |leader| self.held.len().saturating_sub(leader.at))
    }

    /// The leader has come there.
    fn leader_is_at(&mut self, at: u64) {
        let is_held = at >= self.held.start();
        if let Some(leader) = &mut self.leader {
            *leader = Leader { at, is_awaited: leader.is_awaited || is_held };
        }
    }
}

impl Followed {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the leader takes something, or leaves, that was so far behind.
    async fn leader_moves(&self, behind: u64) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.lock().behind() != behind {
                return;
            }
            changed.await;
        }
    }

    /// Changes it, and tells all who wait for a change.
    fn change(&self, change: impl FnOnce(&mut Progress)) {
        // What a layer has of it may be let go of, and with it entries of others.
        let _drops = DeferredDrops::begin();
        let useless = {
            let mut progress = self.lock();
            change(&mut progress);
            progress.trim();
            if progress.has_a_gap() { progress.written.take() } else { None }
        };
        drop(useless);
        self.changed.notify_waiters();
    }
}

/// The writing half of a body that can be followed. Dropped before the body is complete, it ends all who follow it with an error.
pub struct InFlightBody {
    followed: Arc<Followed>,
    layout: Layout,
    key: CacheKey,
}

impl fmt::Debug for InFlightBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlightBody").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Drop for InFlightBody {
    fn drop(&mut self) {
        let mut bodies = self.layout.in_flight().lock();
        if let Some(of_key) = bodies.get_mut(&self.key) {
            of_key.retain(|known| !Arc::ptr_eq(known, &self.followed));
            if of_key.is_empty() {
                bodies.remove(&self.key);
            }
        }
        drop(bodies);
        self.followed.change(|progress| match &mut progress.state {
            State::Partial => {
                progress.state = State::Aborted(feed::given_up());
                progress.written = None;
            }
            State::Complete { is_settled } => *is_settled = true,
            State::Aborted(_) => {}
        });
    }
}

impl InFlightBody {
    /// Begins a body of this entry that is loaded under this permit, and that can be read from what is written of it.
    pub fn begin(
        layout: &Layout,
        key: &CacheKey,
        entry: CacheValue<()>,
        permit: Arc<LoadPermit>,
        written: Option<Arc<dyn WrittenPart>>,
    ) -> Self {
        let followed = Arc::new(Followed {
            entry,
            label: layout.paths().last().unwrap_or_else(|| BackendLabel::new("none")),
            permit,
            clock: layout.clock().clone(),
            progress: Mutex::new(Progress {
                held: GrowingChunks::default(),
                written,
                state: State::Partial,
                leader: None,
            }),
            changed: Notify::new(),
        });
        Self { followed, layout: layout.clone(), key: key.clone() }
    }

    /// The same body, which is found by its key.
    #[must_use]
    pub fn listed(self) -> Self {
        let mut bodies = self.layout.in_flight().lock();
        bodies.entry(self.key.clone()).or_default().push(self.followed.clone());
        drop(bodies);
        self
    }

    /// Another who follows it, from its beginning.
    pub fn follow(&self) -> Follower {
        Follower::of(self.followed.clone(), false)
    }

    /// The one for whom it is loaded: others get no further ahead than it can be held in memory.
    pub fn lead(&self) -> Follower {
        self.follow().lead()
    }

    /// Where the one is for whom it is loaded, if there is one: how many bytes it has taken or passed over.
    pub fn leader_at(&self) -> Option<u64> {
        self.followed.lock().leader.map(|leader| leader.at)
    }

    /// Nothing is held any more for the one for whom it is loaded: it reads on as others do.
    pub fn let_go_of_leader(&self) {
        self.followed.change(|progress| progress.leader = None);
    }

    /// The next chunk has come.
    pub fn push(&self, chunk: Bytes) {
        self.followed.change(|progress| progress.held.push(chunk));
    }

    /// Layers have taken more of it.
    pub fn has_been_written(&self) {
        self.followed.change(|_| {});
    }

    /// Waits until the leader, if there is one, is near enough for more to be held.
    pub async fn has_room(&self) {
        let followed = &*self.followed;
        loop {
            let behind = followed.lock().behind();
            if behind <= HELD / 2 {
                return;
            }
            let moves = pin!(followed.leader_moves(behind));
            if let Either::Right(_) = select(moves, followed.clock.sleep(PATIENCE)).await {
                followed.change(|progress| {
                    let is_being_written = progress.is_being_written();
                    if progress.behind() == behind
                        && let Some(leader) = &mut progress.leader
                    {
                        leader.is_awaited = !is_being_written;
                    }
                });
            }
        }
    }

    /// All of it has come.
    pub fn complete(&self) {
        self.followed.change(|progress| {
            if matches!(progress.state, State::Partial) {
                progress.state = State::Complete { is_settled: false };
            }
        });
    }

    /// It does not come to its end.
    pub fn abort(&self, error: BackendError) {
        self.followed.change(|progress| {
            if matches!(progress.state, State::Partial) {
                progress.state = State::Aborted(error);
                // Those who are behind are told now, and need nothing more.
                progress.written = None;
            }
        });
    }
}
