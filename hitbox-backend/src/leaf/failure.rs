//! What a call answers with that was not carried out: each leaf that it concerned counts it and has a line.

use hitbox_core::{BackendError, BackendResult};

use crate::completion::Batch;
use crate::layout::Layout;
use crate::receipt::{LeafOutcome, Receipt, Receipts};
use crate::stats::Event;

/// Counts an error in every leaf. If there is one leaf the error names it.
pub(crate) fn count(layout: &Layout, event: Event, error: BackendError) -> BackendError {
    match layout.leaves() {
        [leaf] => leaf.handle().failed(event, error),
        leaves => {
            leaves.iter().for_each(|leaf| drop(leaf.handle().failed(event, error.clone())));
            error
        }
    }
}

/// Names the leaf in an error, if there is one leaf.
pub(crate) fn name(layout: &Layout, error: BackendError) -> BackendError {
    match layout.leaves() {
        [leaf] => error.at(leaf.path()),
        _ => error,
    }
}

/// The receipt of a call that failed as a whole. Whether the leaves have acted depends on the kind of the error.
pub(crate) fn receipt(layout: &Layout, event: Event, error: BackendError) -> Receipt {
    let line = |error: BackendError| LeafOutcome::of_error(error);
    let lines = layout.leaves().iter().map(|leaf| {
        let error = leaf.handle().failed(event, error.clone());
        Receipt::of(leaf.path(), line(error))
    });
    let whole = lines.reduce(|all, line| {
        let error = all.error().cloned();
        all.join(line, error)
    });
    whole.unwrap_or_default()
}

pub(crate) fn receipts(layout: &Layout, event: Event, error: BackendError, count: usize) -> Receipts {
    (0..count).map(|_| receipt(layout, event, error.clone())).collect()
}

/// An error for each of so many.
pub(crate) fn each<T>(error: &BackendError, count: usize) -> Batch<BackendResult<T>> {
    (0..count).map(|_| Err(error.clone())).collect()
}
