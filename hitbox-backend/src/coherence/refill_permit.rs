//! The right to fill a store from a lower layer, as long as nothing is written to it meanwhile.

use smallvec::SmallVec;

use super::logical_clock::StartedAt;
use super::write_queue::WriteQueue;

/// The generations that the stores had before a refill read its source. A store is filled only if its generation is
/// still the same.
#[derive(Clone, Debug)]
pub struct RefillPermit {
    stores: SmallVec<[(u64, u64, u64); 2]>,
    started: StartedAt,
}

impl Default for RefillPermit {
    fn default() -> Self {
        Self { stores: SmallVec::new(), started: StartedAt::read() }
    }
}

impl RefillPermit {
    /// Adds a store, with the generation that it has now.
    pub(crate) fn add(&mut self, queue: &WriteQueue, hash: u64) {
        self.stores.push((queue.id(), hash, queue.generation(hash)));
    }

    /// When it was taken.
    pub(crate) fn started(&self) -> StartedAt {
        self.started
    }

    /// The generation of a key in this store when the permit was taken; `None` if it was not taken for this store.
    pub fn generation(&self, queue: &WriteQueue, hash: u64) -> Option<u64> {
        let mine = |(id, other, _): &&(u64, u64, u64)| *id == queue.id() && *other == hash;
        self.stores.iter().find(mine).map(|(.., generation)| *generation)
    }
}
