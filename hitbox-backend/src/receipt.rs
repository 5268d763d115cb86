//! What a write or delete did in each leaf.

use hitbox_core::{BackendError, BackendLabel, BackendResult, CacheValue, ErrorKind, Timestamp};
use smallvec::SmallVec;

use crate::completion::Batch;

/// What one leaf did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LeafOutcome {
    /// It stores the value. One in memory may put it out again at once.
    Stored,
    /// It held the key and has removed it.
    Removed,
    /// It did not hold the key.
    Absent,
    /// It serves nothing any more of what was invalidated by a scope or pattern.
    Invalidated,
    /// It did not take the value, on purpose. What it held before is still there if no other leaf took the value either; if
    /// one did, the older value is removed.
    Refused(BackendError),
    /// It failed and did nothing.
    Failed(BackendError),
    /// It failed, and whether it acted cannot be known.
    Unknown(BackendError),
    /// It left the value out, as its rule of admission says, and has nothing under the key.
    NotAdmitted,
    /// It has nothing of what was brought: the key was written, or something that the entry carries was invalidated,
    /// after the load, body or refill had started.
    Superseded,
    /// It was not asked: an earlier layer failed or the policy leaves it out.
    Skipped,
    /// It has not finished; the offload goes on with it.
    Pending,
}

impl LeafOutcome {
    /// The outcome that an error stands for.
    pub fn of_error(error: BackendError) -> Self {
        match error.kind() {
            ErrorKind::TooLarge
            | ErrorKind::Unsupported
            | ErrorKind::Codec
            | ErrorKind::VersionMismatch
            | ErrorKind::Conflict => Self::Refused(error),
            kind if kind.is_outcome_unknown() => Self::Unknown(error),
            _ => Self::Failed(error),
        }
    }

    /// The error, if the leaf did not do what it was asked.
    pub const fn error(&self) -> Option<&BackendError> {
        match self {
            Self::Refused(error) | Self::Failed(error) | Self::Unknown(error) => Some(error),
            Self::Stored
            | Self::Removed
            | Self::Absent
            | Self::Invalidated
            | Self::NotAdmitted
            | Self::Superseded
            | Self::Skipped
            | Self::Pending => None,
        }
    }
}

/// One line of a receipt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeafReceipt {
    /// The leaf's dotted path.
    pub label: BackendLabel,
    /// What it did.
    pub outcome: LeafOutcome,
}

/// What a write or delete did: one line per leaf, and whether the whole counts as done.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    leaves: SmallVec<[LeafReceipt; 2]>,
    error: Option<BackendError>,
    size: Option<u64>,
}

impl Receipt {
    /// The receipt of one leaf; the whole fails if the leaf did.
    pub fn of(label: BackendLabel, outcome: LeafOutcome) -> Self {
        let error = outcome.error().cloned();
        let mut leaves = SmallVec::new();
        leaves.push(LeafReceipt { label, outcome });
        Self { leaves, error, size: None }
    }

    /// A receipt of several leaves with the same outcome.
    pub fn of_all(labels: impl IntoIterator<Item = BackendLabel>, outcome: &LeafOutcome) -> Self {
        let line = |label| LeafReceipt { label, outcome: outcome.clone() };
        let leaves = labels.into_iter().map(line).collect();
        Self { leaves, error: outcome.error().cloned(), size: None }
    }

    /// One line per leaf that was concerned, from left to right.
    pub fn leaves(&self) -> &[LeafReceipt] {
        &self.leaves
    }

    /// The lines of both, and why the whole failed, if it did.
    #[inline]
    pub fn join(mut self, other: Self, error: Option<BackendError>) -> Self {
        for line in other.leaves {
            self.leaves.push(line);
        }
        Self { leaves: self.leaves, error, size: self.size.or(other.size) }
    }

    /// Bytes of the body and its metadata, names and values, where a body was stored or evicted: what
    /// [`BodyReader::size`](crate::operation::BodyReader::size) says of it.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// The same of a body of this size, if some leaf has stored or removed it.
    pub(crate) fn of_size(mut self, size: Option<u64>) -> Self {
        let is_done = |leaf: &LeafReceipt| matches!(leaf.outcome, LeafOutcome::Stored | LeafOutcome::Removed);
        self.size = size.filter(|_| self.leaves.iter().any(is_done));
        self
    }

    /// The same lines with another answer to whether the whole failed.
    pub fn with_error(mut self, error: Option<BackendError>) -> Self {
        self.error = error;
        self
    }

    /// Why the whole failed, if it did.
    pub const fn error(&self) -> Option<&BackendError> {
        self.error.as_ref()
    }

    /// Whether the whole counts as done.
    pub const fn is_ok(&self) -> bool {
        self.error.is_none()
    }

    /// The receipt, or the error of the whole.
    ///
    /// # Errors
    /// Why the whole failed.
    pub fn into_result(self) -> BackendResult<Self> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// Leaves that removed the key.
    #[must_use]
    pub fn removed(&self) -> u32 {
        self.leaves.iter().filter(|line| matches!(line.outcome, LeafOutcome::Removed)).count() as u32
    }

    /// Leaves that store the value.
    pub fn stored(&self) -> u32 {
        self.leaves.iter().filter(|line| matches!(line.outcome, LeafOutcome::Stored)).count() as u32
    }

    /// Whether all leaves store the value.
    pub(crate) fn is_stored(&self) -> bool {
        self.leaves.iter().all(|line| matches!(line.outcome, LeafOutcome::Stored))
    }

    /// The first error of any leaf.
    pub fn first_error(&self) -> Option<&BackendError> {
        self.leaves.iter().find_map(|line| line.outcome.error())
    }
}

/// Receipts in the order of what was asked for.
pub type Receipts = Batch<Receipt>;

/// How many leaves held a key that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeleteStatus {
    /// So many leaves held it.
    Deleted(u32),
    /// No leaf held it.
    Missing,
}

impl DeleteStatus {
    /// The status for this number of leaves.
    pub const fn of(leaves: u32) -> Self {
        if leaves == 0 { Self::Missing } else { Self::Deleted(leaves) }
    }

    /// What the removal of this entry from a store counts as: what is over, or only says that the source has nothing, was
    /// not there.
    pub fn of_entry<T>(held: Option<&CacheValue<T>>, now: Timestamp) -> Self {
        Self::of(u32::from(held.is_some_and(|entry| entry.is_value() && !entry.is_gone(now))))
    }
}
