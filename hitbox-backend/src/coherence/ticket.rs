//! The right to refill a store, if nothing is written to it meanwhile.

use smallvec::SmallVec;

use super::fence::Fence;
use super::moment::Began;

/// The generations of the stores that a refill may fill, as they were before it read its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    stores: SmallVec<[(u64, u64, u64); 2]>,
    began: Began,
}

impl Default for Ticket {
    fn default() -> Self {
        Self { stores: SmallVec::new(), began: Began::load() }
    }
}

impl Ticket {
    /// Adds a store, with its generation now.
    pub(crate) fn add(&mut self, fence: &Fence, hash: u64) {
        self.stores.push((fence.id(), hash, fence.generation(hash)));
    }

    /// When it was taken.
    pub(crate) fn began(&self) -> Began {
        self.began
    }

    /// The generation of a key's stripe in this store and when it was noted, if the ticket was taken for it.
    pub fn generation(&self, fence: &Fence, hash: u64) -> Option<(u64, Began)> {
        let mine = |(id, other, _): &&(u64, u64, u64)| *id == fence.id() && *other == hash;
        self.stores.iter().find(mine).map(|(.., generation)| (*generation, self.began))
    }
}
