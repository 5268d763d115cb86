//! What an envelope points to: a live value, or bytes with the memory of their decoding.

use std::any::Any;

use hitbox_core::BackendResult;

use super::encoded::EncodedCell;
use super::{Cacheable, size};
use crate::codec::Format;

/// Behind the envelope's one pointer.
pub(super) trait Content: Send + Sync {
    /// The live value, if there is one by now.
    fn value(&self) -> Option<&dyn Any>;

    /// The bytes, unless the value came live.
    fn encoded(&self) -> Option<&EncodedCell>;

    /// Bytes of a live value in this format.
    fn encode(&self, format: Format) -> BackendResult<Vec<u8>>;

    /// Bytes that it takes in memory, estimated.
    fn weight(&self) -> u64;
}

pub(super) struct LiveCell<T>(pub(super) T);

impl<T: Cacheable> Content for LiveCell<T> {
    fn value(&self) -> Option<&dyn Any> {
        Some(&self.0)
    }

    fn encoded(&self) -> Option<&EncodedCell> {
        None
    }

    fn encode(&self, format: Format) -> BackendResult<Vec<u8>> {
        format.encode(&self.0)
    }

    fn weight(&self) -> u64 {
        size::of(&self.0)
    }
}
