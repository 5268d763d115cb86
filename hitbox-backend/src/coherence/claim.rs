//! The right to store what a load brings: it ends when its key is written, deleted or cleared meanwhile.
//!
//! A ticket, by which refills go, is worthless once anything in its stripe was written. A load takes far longer
//! than a refill, so it is told exactly whether its own key was written: every write of a key ends the claims to it
//! in the moment it takes its place, under the stripe's lock. A claim that is made while its key is being written
//! ends with that write: what it brings may be shared until then, and is never stored.

use smallvec::SmallVec;

use super::fence::{Fence, Mutation, Places};
use super::moment::Began;
use super::sync::Arc;

/// A claim to write one key, in all stores that it concerns. Dropping it gives it up.
pub struct Claim {
    stores: SmallVec<[(Arc<Fence>, u64, u64); 2]>,
    began: Began,
}

impl Claim {
    /// Claims a key in these stores.
    pub fn new(places: Places) -> Self {
        let claim = |(fence, hash): (Arc<Fence>, u64)| {
            let id = fence.claim(hash);
            (fence, hash, id)
        };
        let began = Began::load();
        Self { stores: places.0.into_iter().map(claim).collect(), began }
    }

    /// When it was made.
    pub(crate) fn began(&self) -> Began {
        self.began
    }

    /// Whether what was loaded under it may be shown to a read that starts now: no write of the key has begun or
    /// ended since.
    pub fn is_current(&self) -> bool {
        self.stores.iter().all(|(fence, hash, id)| fence.is_pending(*hash, *id))
    }

    /// Begins the write that was claimed, unless somebody else's came first. It ends all other claims to the
    /// key; this one stays current until the write ends.
    pub fn begin(&self) -> Option<Arc<Mutation>> {
        Mutation::begin_if(self)
    }

    pub(super) fn stores(&self) -> &[(Arc<Fence>, u64, u64)] {
        &self.stores
    }

    pub(super) fn id(&self, fence: &Fence, hash: u64) -> Option<u64> {
        let mine = |(known, other, _): &&(Arc<Fence>, u64, u64)| known.id() == fence.id() && *other == hash;
        self.stores.iter().find(mine).map(|(.., id)| *id)
    }

    pub(super) fn places(&self) -> Places {
        let mut places = Places::default();
        self.stores.iter().for_each(|(fence, hash, _)| places.add(fence, *hash));
        places
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.stores.iter().for_each(|(fence, hash, id)| fence.give_up(*hash, *id));
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("current", &self.is_current()).finish_non_exhaustive()
    }
}
