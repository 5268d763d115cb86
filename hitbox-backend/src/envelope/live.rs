//! Values that stay as they are, behind one pointer.

use std::any::Any;

use hitbox_core::BackendResult;

use super::{Cacheable, REREAD, size};
use crate::codec::Format;

pub(super) trait Live: Any + Send + Sync {
    fn encode(&self, format: Format) -> BackendResult<Vec<u8>>;
    fn size(&self) -> u64;
    fn as_any(&self) -> &dyn Any;
}

pub(super) struct LiveCell<T>(pub(super) T);

impl<T: Cacheable> Live for LiveCell<T> {
    fn encode(&self, format: Format) -> BackendResult<Vec<u8>> {
        format.encode(&self.0)
    }

    fn size(&self) -> u64 {
        size::of(&self.0)
    }

    fn as_any(&self) -> &dyn Any {
        &self.0
    }
}

/// The value as a `T`: a clone if it is one, else through its encoded form.
pub(super) fn read<T: Cacheable>(live: &dyn Live) -> BackendResult<T> {
    match live.as_any().downcast_ref::<T>() {
        Some(value) => Ok(value.clone()),
        None => REREAD.decode(&live.encode(REREAD)?),
    }
}
