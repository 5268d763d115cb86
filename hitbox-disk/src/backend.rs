//! The folder as a leaf: every call that blocks runs on tokio's threads for blocking work.

use std::fmt::{self, Debug};
use std::sync::{Arc, Weak};
use std::task::Poll;

use async_trait::async_trait;
use hitbox_backend::envelope::wire::key_digest;
use hitbox_backend::{
    Adoption, Backend, Capabilities, DeleteStatus, Event, Leaf, Occupancy, Occupied, Page, Parsed, Peek, Raw,
    ReadOptions, Sweep, TryRead,
};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};

use crate::builder::DiskBuilder;
use crate::files::Files;
use crate::object::Object;
use crate::recover::{Recovered, recover};
use crate::store::Store;

/// The disk backend. Clones, and all views that compositions make of it, share the folder.
///
/// # Cancellation
/// A write or delete whose future is dropped goes on, and is ordered before every later one of its key.
#[derive(Clone)]
pub struct DiskBackend {
    store: Arc<Store>,
    leaf: Leaf,
}

/// Runs what blocks on a thread for that. It runs to its end, even if the future is dropped.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> BackendResult<T> + Send + 'static,
) -> BackendResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(BackendError::new(ErrorKind::Closed, "the thread did not finish").with_source(error))
        }
    }
}

impl DiskBackend {
    /// Settings to start from.
    pub fn builder(folder: impl AsRef<std::path::Path>) -> DiskBuilder {
        DiskBuilder::new(folder.as_ref())
    }

    pub(crate) async fn open(settings: DiskBuilder) -> BackendResult<Self> {
        let DiskBuilder { folder, max_bytes, durability, options } = settings;
        let now = options.clock.now();
        let (store, damaged, expired, newer) = blocking(move || {
            let files = Files::open(&folder, durability)?;
            let Recovered { index, damaged, expired, newer } = recover(&files, now)?;
            Ok((Store::new(files, index, max_bytes)?, damaged, expired, newer))
        })
        .await?;
        let store = Arc::new(store);
        let weak: Weak<Store> = Arc::downgrade(&store);
        let leaf = Leaf::new(options).showing("disk", weak);
        leaf.count(Event::Damaged, damaged);
        leaf.count(Event::Foreign, newer);
        if damaged + expired > 0 {
            tracing::info!(backend = %leaf.path(), damaged, expired, "removed objects while opening");
        }
        Ok(Self { store, leaf })
    }

    /// Waits until this is the only handle and no call is under way, then releases the folder: after this
    /// it can be opened again. Handles that compositions hold count; drop them first.
    pub async fn close(self) {
        let mut released = self.store.released.subscribe();
        drop(self);
        // Nothing is ever sent: what ends the wait is that the sender goes with the store.
        let _ = released.changed().await;
    }

    /// The entry, if it can be had without waiting. The index answers a miss without I/O.
    fn read_in_place(&self, key: &CacheKey, digest: u128) -> Poll<Option<CacheValue<Raw>>> {
        let Poll::Ready(record) = self.store.read_in_place(digest, key.as_encoded()) else {
            return Poll::Pending;
        };
        Poll::Ready(record.and_then(|record| match self.leaf.parse_verified(key, &record) {
            Parsed::Value(value) => Some(value),
            Parsed::Leave | Parsed::Remove => None,
        }))
    }

    /// Says what a stored file is worth to this leaf.
    async fn parse(
        &self,
        key: &CacheKey,
        object: Object,
        sequence: u64,
    ) -> BackendResult<Option<CacheValue<Raw>>> {
        let damaged = match object {
            Object::Record(record) => match self.leaf.parse_verified(key, &record) {
                Parsed::Value(value) => return Ok(Some(value)),
                Parsed::Leave => false,
                Parsed::Remove => true,
            },
            Object::OtherKey | Object::Newer => {
                self.leaf.count(Event::Foreign, 1);
                false
            }
            Object::Damaged => {
                self.leaf.count(Event::Damaged, 1);
                tracing::warn!(backend = %self.leaf.path(), %key, "a stored object is damaged");
                true
            }
        };
        if damaged {
            let (store, digest) = (self.store.clone(), key_digest(key));
            blocking(move || store.remove_damaged(digest, sequence)).await?;
        }
        Ok(None)
    }
}

impl Debug for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskBackend").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for DiskBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let digest = key_digest(key);
        if let Poll::Ready(stored) = self.read_in_place(key, digest) {
            return Ok(stored);
        }
        let (store, wanted) = (self.store.clone(), key.clone());
        match blocking(move || store.read(digest, wanted.as_encoded())).await? {
            Some((object, sequence)) => self.parse(key, object, sequence).await,
            None => Ok(None),
        }
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let record = self.leaf.to_bytes(key, &value)?;
        let facts = value.map(drop);
        let (store, key, digest) = (self.store.clone(), key.clone(), key_digest(key));
        let sequence = store.begin(digest);
        blocking(move || {
            let operation = store.resume(digest, sequence);
            store.write(&operation, key.as_encoded(), &record, &facts)
        })
        .await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let (store, digest) = (self.store.clone(), key_digest(key));
        let sequence = store.begin(digest);
        let now = self.leaf.clock().now().as_millis();
        let drop_at = blocking(move || store.remove(&store.resume(digest, sequence))).await?;
        Ok(DeleteStatus::of(u32::from(drop_at.is_some_and(|end| end > now))))
    }

    async fn erase(&self) -> BackendResult<()> {
        let store = self.store.clone();
        blocking(move || store.clear()).await
    }

    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let store = self.store.clone();
        blocking(move || store.keys(cursor, limit)).await
    }

    async fn entry_count(&self) -> BackendResult<u64> {
        let (store, now) = (self.store.clone(), self.leaf.clock().now().as_millis());
        blocking(move || Ok(store.visible(now))).await
    }

    /// The payload is not read, nor verified.
    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        let (store, wanted, digest) = (self.store.clone(), key.clone(), key_digest(key));
        if !store.holds(digest) {
            return Ok(Peek::Absent);
        }
        let schema = self.leaf.codec().schema;
        let found = blocking(move || store.peek(digest, wanted.as_encoded(), schema)).await?;
        Ok(found.map_or(Peek::Absent, Peek::Entry))
    }

    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let (store, now) = (self.store.clone(), self.leaf.clock().now().as_millis());
        let (dropped, cut_short) = blocking(move || store.sweep(now, limit)).await?;
        Ok(Sweep { dropped, cut_short })
    }

    fn occupancy(&self) -> Option<Occupancy> {
        Some(self.store.occupancy())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.durable = true;
        capabilities.erases = true;
        capabilities.enumerates = true;
        capabilities
    }

    fn leaf(&self) -> Option<&Leaf> {
        Some(&self.leaf)
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.leaf.try_read_or_wait(key, options, || self.read_in_place(key, key_digest(key)))
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        let weak: Weak<Store> = Arc::downgrade(&self.store);
        let leaf = self.leaf.adopted(adoption).showing("disk", weak);
        Some(Arc::new(Self { store: self.store.clone(), leaf }))
    }
}
