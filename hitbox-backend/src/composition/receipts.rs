//! How the receipts of two layers become one, and whether the whole counts as done.

use hitbox_core::BackendError;

use super::policy::Needs;
use super::{Layer, Pair, Requirement, Written};
use crate::receipt::{LeafOutcome, Receipt};

/// The receipts of both layers as one, and whether the whole failed.
pub(super) fn join_writes(written: Written, needs: Needs, required: &Pair<Requirement>) -> Receipt {
    let Written { l1, l2 } = written;
    if [&l1, &l2].into_iter().flatten().all(Receipt::is_ok) {
        // Nobody failed: there is nothing to weigh up.
        return l1.unwrap_or_default().join(l2.unwrap_or_default(), None);
    }
    let receipts = Pair { l1: l1.as_ref(), l2: l2.as_ref() };
    let error_of = |layer: Layer| receipts[layer].and_then(Receipt::error);
    // A layer that was left out, or is not waited for, has not succeeded yet.
    let asked = |receipt: &Receipt| {
        let open = |outcome: &LeafOutcome| {
            matches!(outcome, LeafOutcome::Skipped | LeafOutcome::NotAdmitted | LeafOutcome::Pending)
        };
        receipt.leaves().iter().any(|line| !open(&line.outcome))
    };
    let is_ok = |layer: Layer| receipts[layer].is_some_and(|receipt| receipt.is_ok() && asked(receipt));
    let required_failed =
        Layer::BOTH.into_iter().filter(|layer| required[*layer] == Requirement::Required).find_map(error_of);
    let needed_failed = Layer::BOTH
        .into_iter()
        .filter(|layer| needs == Needs::Every && required[*layer] == Requirement::ByPolicy)
        .find_map(error_of);
    let error = if let Some(error) = required_failed {
        Some(BackendError::required_layer(error.clone()))
    } else if needed_failed.is_some() {
        needed_failed.cloned()
    } else if is_ok(Layer::L1) || is_ok(Layer::L2) {
        None
    } else {
        match (error_of(Layer::L1), error_of(Layer::L2)) {
            (Some(l1), Some(l2)) => Some(BackendError::all_layers(vec![l1.clone(), l2.clone()])),
            (one, other) => one.or(other).cloned(),
        }
    };
    l1.unwrap_or_default().join(l2.unwrap_or_default(), error)
}

/// The receipts of a delete: every layer that failed is an error of the whole.
pub(super) fn join_removes(l1: Receipt, l2: Receipt) -> Receipt {
    let error = match (l1.error(), l2.error()) {
        (Some(l1), Some(l2)) => Some(BackendError::all_layers(vec![l1.clone(), l2.clone()])),
        (one, other) => one.or(other).cloned(),
    };
    l1.join(l2, error)
}

/// Whether a leaf has what the write or delete was to bring about.
pub(super) fn is_done(outcome: &LeafOutcome) -> bool {
    matches!(
        outcome,
        LeafOutcome::Stored
            | LeafOutcome::Removed
            | LeafOutcome::Absent
            | LeafOutcome::Invalidated
            | LeafOutcome::NotAdmitted
            | LeafOutcome::Superseded
    )
}
