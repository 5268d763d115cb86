//! What is done to stores beside reading and writing entries.

use hitbox_core::{BackendError, BackendResult, ErrorKind};

use super::LeafSet;
use crate::stats::EntryCount;
use crate::store::{Page, Sweep};

/// Work on a whole store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Maintenance {
    /// Drop entries whose time is over, at most about `limit` of them in each leaf.
    Sweep {
        /// The bound on the work.
        limit: usize,
    },
    /// Remove every entry of every leaf, one by one if need be. Refills that started earlier are not stored.
    Erase {
        /// Leaves that are left as they are.
        skip: LeafSet,
    },
    /// Count the entries of each leaf that a normal read may see, as far as their times tell.
    Count,
    /// List keys, about `limit` of them, from `cursor` on; the first page starts at 0. A key may be on two pages.
    List {
        /// Where the page starts.
        cursor: u64,
        /// The size of the page.
        limit: usize,
    },
    /// Record invalidations that a store has not taken when they were made, at most `limit` of them in each leaf. Until
    /// then other processes, and this one after a restart, may serve what was invalidated.
    Record {
        /// The bound on the work.
        limit: usize,
    },
    /// Wait until no work is under way in the background.
    Finish,
    /// Close the stores: they finish the calls that are under way, free what they have for themselves, and take no more
    /// calls. For other handles of the same stores too.
    Close,
}

/// What came of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Maintained {
    /// Entries were dropped.
    Swept(Sweep),
    /// Everything was removed.
    Erased,
    /// The entries of each leaf, from left to right.
    Counted(Vec<EntryCount>),
    /// Some keys.
    Listed(Page),
    /// No work is under way in the background.
    Finished,
    /// The stores are closed.
    Closed,
    /// So many invalidations are still to be recorded.
    Recorded(u64),
}

fn unexpected<T>() -> BackendResult<T> {
    Err(BackendError::new(ErrorKind::Protocol, "the backend answered another question than it was asked"))
}

impl Maintained {
    /// What a sweep did.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if this is the answer to something else, as a foreign backend may give it.
    pub fn into_swept(self) -> BackendResult<Sweep> {
        if let Self::Swept(sweep) = self { Ok(sweep) } else { unexpected() }
    }

    /// The entries of each leaf.
    ///
    /// # Errors
    /// As [`into_swept`](Self::into_swept).
    pub fn into_counted(self) -> BackendResult<Vec<EntryCount>> {
        if let Self::Counted(counts) = self { Ok(counts) } else { unexpected() }
    }

    /// How many invalidations are still to be recorded.
    ///
    /// # Errors
    /// As [`into_swept`](Self::into_swept).
    pub fn into_recorded(self) -> BackendResult<u64> {
        if let Self::Recorded(left) = self { Ok(left) } else { unexpected() }
    }

    /// Some keys.
    ///
    /// # Errors
    /// As [`into_swept`](Self::into_swept).
    pub fn into_listed(self) -> BackendResult<Page> {
        if let Self::Listed(page) = self { Ok(page) } else { unexpected() }
    }
}
