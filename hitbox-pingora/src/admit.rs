//! What is stored, told to an eviction manager of Pingora's after a restart.

use hitbox_backend::operation::ReadOptions;
use hitbox_backend::{Backend, Body, CacheBackend};
use hitbox_core::BackendResult;
use pingora_cache::eviction::{CacheEntryId, CacheEntryKey, EvictionManager};

use crate::entry::compact_key;
use crate::storage::BackendStorage;

/// Keys that are listed at a time.
const PAGE: usize = 256;

/// What an eviction manager was told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admitted {
    /// Responses.
    pub responses: u64,
    /// Bytes of their bodies and metadata.
    pub bytes: u64,
}

impl BackendStorage {
    /// Tells an eviction manager of all that is stored, with its size and the end of its freshness: after a restart, which a disk
    /// survives and the manager does not. What the manager knows already is not told again. Nothing is evicted, as with
    /// [`EvictionManager::access`]. Takes an opening of each response.
    ///
    /// # Errors
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) unless all layers can list their keys. A response that cannot be read is
    /// left out.
    ///
    /// # Cancellation
    /// The manager knows of a part.
    pub async fn admit_stored(&self, manager: &dyn EvictionManager) -> BackendResult<Admitted> {
        let mut admitted = Admitted::default();
        let mut cursor = 0;
        loop {
            let page = self.backend.list_keys(cursor, PAGE).await?;
            for key in &page.keys {
                let options = ReadOptions::NORMAL.without_reconcile().in_background();
                let Ok(Some(reader)) = self.backend.open_reader(key, &options).await else { continue };
                let body = Body::from(reader);
                let Some(compact) = compact_key(&self.name, key, body.entry()) else { continue };
                let meta = self.metas.of(key, &body, self.backend.layout());
                let (Ok(Some(meta)), Some(size)) = (meta, body.size()) else { continue };
                let entry = CacheEntryKey::identified(compact, CacheEntryId::new(body.generation()));
                if manager.peek(&entry) {
                    continue;
                }
                manager.access(&entry, usize::try_from(size).unwrap_or(usize::MAX), meta.fresh_until());
                admitted.responses += 1;
                admitted.bytes += size;
            }
            match page.next {
                Some(next) => cursor = next,
                None => return Ok(admitted),
            }
        }
    }
}
