//! What a write or delete did in each leaf.

use hitbox_core::{BackendError, BackendLabel, BackendResult, ErrorKind};
use smallvec::SmallVec;

/// What one leaf did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It stores the value.
    Stored,
    /// It held the key and has removed it.
    Removed,
    /// It did not hold the key.
    Absent,
    /// It did not take the value, on purpose, and what it held before is still there.
    Refused(BackendError),
    /// It failed and did nothing.
    Failed(BackendError),
    /// It failed, and whether it acted cannot be known.
    Unknown(BackendError),
    /// It left the value out, as its rule of admission says, and holds nothing under the key.
    NotAdmitted,
    /// It was not asked: an earlier layer failed, the policy leaves it out, or a refill came too late.
    Skipped,
    /// It has not finished; the offload goes on with it.
    Pending,
}

impl Outcome {
    /// The outcome that an error stands for.
    pub fn of_error(error: BackendError) -> Self {
        match error.kind() {
            ErrorKind::TooLarge | ErrorKind::Unsupported | ErrorKind::Codec | ErrorKind::VersionMismatch => {
                Self::Refused(error)
            }
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
            | Self::NotAdmitted
            | Self::Skipped
            | Self::Pending => None,
        }
    }
}

/// One line of a receipt.
#[derive(Clone, Debug)]
pub struct LeafReceipt {
    /// The leaf's dotted path.
    pub label: BackendLabel,
    /// What it did.
    pub outcome: Outcome,
}

/// What a write or delete did: one line per leaf, and whether the whole counts as done.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    /// One line per leaf that was concerned, from left to right.
    pub leaves: SmallVec<[LeafReceipt; 2]>,
    error: Option<BackendError>,
}

impl Receipt {
    /// The receipt of one leaf; the whole fails if the leaf did.
    pub fn of(label: BackendLabel, outcome: Outcome) -> Self {
        let error = outcome.error().cloned();
        Self { leaves: SmallVec::from_iter([LeafReceipt { label, outcome }]), error }
    }

    /// The lines of both, and the verdict that the caller gives.
    pub fn join(mut self, other: Self, error: Option<BackendError>) -> Self {
        self.leaves.extend(other.leaves);
        Self { leaves: self.leaves, error }
    }

    /// The same lines with another verdict.
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
    /// The verdict.
    pub fn into_result(self) -> BackendResult<Self> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// Leaves that removed the key.
    pub fn removed(&self) -> u32 {
        self.leaves.iter().filter(|line| matches!(line.outcome, Outcome::Removed)).count() as u32
    }

    /// Leaves that store the value.
    pub fn stored(&self) -> u32 {
        self.leaves.iter().filter(|line| matches!(line.outcome, Outcome::Stored)).count() as u32
    }

    /// The first error of any leaf.
    pub fn first_error(&self) -> Option<&BackendError> {
        self.leaves.iter().find_map(|line| line.outcome.error())
    }
}

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
}
