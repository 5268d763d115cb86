//! Which copy wins: how the answers of two layers become one. The same table for every read policy:
//!
//! | L1 ╲ L2 | hit | miss | error |
//! |---|---|---|---|
//! | hit | the longer-lived copy, L1's if equal | L1's copy | L1's copy |
//! | miss | L2's copy | miss | miss; error if L2 is required |
//! | error | L2's copy | miss; error if L1 is required | one error with both causes |

use hitbox_core::BackendError;

use super::{Layer, LayerAnswers, Pair, Requirement};
use crate::operation::{Answer, Found};

/// The copy to serve and the layer that it is from; a second one is told to `spare`.
pub(super) fn choose(
    answers: LayerAnswers,
    required: &Pair<Requirement>,
    spare: impl FnOnce(&Found),
) -> Result<Option<(Layer, Found)>, BackendError> {
    match (answers.l1, answers.l2) {
        (Some(Ok(Some(l1))), Some(Ok(Some(l2)))) => {
            let l2_is_longer = l2.value.lifetime().outlives(l1.value.lifetime());
            spare(if l2_is_longer { &l1 } else { &l2 });
            Ok(Some(if l2_is_longer { (Layer::L2, l2) } else { (Layer::L1, l1) }))
        }
        (Some(Ok(Some(l1))), _) => Ok(Some((Layer::L1, l1))),
        (_, Some(Ok(Some(l2)))) => Ok(Some((Layer::L2, l2))),
        (Some(Err(l1)), Some(Err(l2))) => Err(BackendError::all_layers(vec![l1, l2])),
        (l1, l2) => {
            failed(Layer::L1, l1, required)?;
            failed(Layer::L2, l2, required)?;
            Ok(None)
        }
    }
}

fn failed(layer: Layer, answer: Option<Answer>, required: &Pair<Requirement>) -> Result<(), BackendError> {
    match answer {
        Some(Err(error)) if required[layer] == Requirement::Required => {
            Err(BackendError::required_layer(error))
        }
        _ => Ok(()),
    }
}
