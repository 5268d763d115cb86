//! The room that objects take: made before it is taken, by putting others out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_backend::core::{BackendError, BackendResult, ErrorKind};
use hitbox_backend::store::Occupancy;

use crate::digest::Digest;
use crate::index::space;
use crate::objects::Objects;

impl Objects {
    /// Puts entries out until there is so much room, and reserves it.
    pub(crate) fn make_room(self: &Arc<Self>, space: u64) -> Reserved {
        let evicted = self.index().reserve(space, self.max_bytes);
        let reserved = Reserved { store: self.clone(), space, is_body: false };
        self.discard_evicted(&evicted);
        reserved
    }

    pub(crate) fn discard_evicted(&self, evicted: &[Digest]) {
        self.evicted.fetch_add(evicted.len() as u64, Ordering::Relaxed);
        self.discard(evicted);
    }

    /// Removes the files of entries that have left the index. One that cannot be removed must not keep others from
    /// being written: it is left, and counted.
    pub(crate) fn discard(&self, digests: &[Digest]) {
        for digest in digests {
            let _shelf = self.shelf(*digest);
            if !self.holds(*digest) && !self.files.remove_or_leave(*digest) {
                let left = 1 + self.left.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(left, "objects that cannot be removed take room beyond the bound");
            }
        }
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        let index = self.index();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Occupancy::new(index.users(), index.space())
            .with_bounds(None, Some(self.max_bytes))
            .with_dropped(count(&self.evicted), count(&self.expired))
    }
}

/// Room set aside for a write; given back unless the write keeps it.
#[derive(Debug)]
pub(crate) struct Reserved {
    store: Arc<Objects>,
    space: u64,
    is_body: bool,
}

impl Reserved {
    /// For a body, of which nothing has come yet.
    pub(crate) const fn for_body(store: Arc<Objects>) -> Self {
        Self { store, space: 0, is_body: true }
    }

    /// Makes room for a body whose file has so many bytes.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge) if it is larger than the store; [`Overloaded`](ErrorKind::Overloaded) if other bodies
    /// that are being written, and records that are never put out, take the room.
    pub(crate) fn grow(&mut self, bytes: u64) -> BackendResult<()> {
        let (space, max) = (space(bytes), self.store.max_bytes);
        if space > max {
            return Err(BackendError::too_large("a body", space, max));
        }
        let more = space.saturating_sub(self.space);
        if more == 0 {
            return Ok(());
        }
        let Some(evicted) = self.store.index().reserve_for_body(more, max) else {
            let message = format!(
                "bodies that are being written, and records of scopes, take most of the {max} bytes of the store"
            );
            return Err(BackendError::new(ErrorKind::Overloaded, message));
        };
        self.space = space;
        self.store.discard_evicted(&evicted);
        Ok(())
    }

    pub(crate) fn keep(mut self) {
        if self.is_body {
            self.store.index().ended_body(self.space);
        }
        self.space = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.space == 0 {
            return;
        }
        let mut index = self.store.index();
        if self.is_body {
            index.ended_body(self.space);
        }
        index.release(self.space);
    }
}
