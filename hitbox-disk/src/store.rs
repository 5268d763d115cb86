//! The folder as a store: every call that blocks runs on tokio's threads for blocking work.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, select};
use hitbox_backend::core::{BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind};
use hitbox_backend::envelope::wire;
use hitbox_backend::store::{
    Capabilities, DeleteStatus, Occupancy, Page, Peek, Raw, Store, Sweep, TimeChange, Unusable,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::builder::DiskBuilder;
use crate::claim::Handle;
use crate::files::{Files, Opening};
use crate::index::{Class, Digest, digest_of};
use crate::object::Object;
use crate::objects::Objects;
use crate::place::in_use;
use crate::recover::{Recovered, recover};

/// How long an opening waits for a store of this process whose handles may be those of background work alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// Calls that wait for a thread, or that the disk keeps waiting, also those whose callers have left. More wait before they
/// begin, with their callers.
const MAX_CALLS: usize = 4_096;
/// Bytes of what such calls write, in units of a kilobyte.
const MAX_WRITTEN: u32 = 64 * 1_024;

/// A folder of objects as a store of bytes.
pub struct DiskStore {
    objects: Arc<Objects>,
    calls: Arc<Semaphore>,
    written: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    schema: u32,
    _handle: Handle,
}

/// A folder that has been opened, and what was found in it.
pub(crate) struct Opened {
    pub(crate) store: DiskStore,
    /// Objects that were damaged, and those over their time, which have been removed.
    pub(crate) damaged: u64,
    pub(crate) expired: u64,
    /// Objects of a newer release, which stay.
    pub(crate) newer: u64,
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").finish_non_exhaustive()
    }
}

/// Runs what blocks on a thread for that. It runs to its end, even if the future is dropped.
#[expect(clippy::disallowed_methods, reason = "file systems block, and the offload may be full")]
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

impl DiskStore {
    pub(crate) async fn open(settings: DiskBuilder) -> BackendResult<Opened> {
        let DiskBuilder { folder, max_bytes, durability, options } = settings;
        let now = options.clock.now();
        // Dropped with this future too.
        let handle = Handle::default();
        let mut has_waited = false;
        let (objects, damaged, expired, newer) = loop {
            let (root, given_up) = (folder.clone(), handle.0.clone());
            let opening = blocking(move || {
                let files = match Files::open(&root, durability, &given_up)? {
                    Opening::Open(files) => files,
                    Opening::Held(holder) => return Ok(Err(holder)),
                };
                let Recovered { index, damaged, expired, newer, left } = recover(&files, now)?;
                if left > 0 {
                    tracing::warn!(left, "what has the name of an object and is no use was left");
                }
                Ok(Ok((Objects::new(files, index, max_bytes, left)?, damaged, expired, newer)))
            });
            match opening.await? {
                Ok(opened) => break opened,
                // Not on a thread that may block: what it waits for may need that.
                Err(holder) if holder.is_ending() => holder.released().await,
                // Background work may have the last handles, or somebody uses it.
                Err(_) if has_waited || !options.clock.is_real() => return Err(in_use(&folder)),
                Err(holder) => {
                    has_waited = true;
                    select(pin!(holder.released()), options.clock.sleep(PATIENCE)).await;
                }
            }
        };
        let (clock, schema) = (options.clock, options.codec.schema);
        let (calls, written) = (Semaphore::new(MAX_CALLS), Semaphore::new(MAX_WRITTEN as usize));
        let (calls, written) = (Arc::new(calls), Arc::new(written));
        let store = Self { objects: Arc::new(objects), calls, written, clock, schema, _handle: handle };
        Ok(Opened { store, damaged, expired, newer })
    }

    /// Runs `work` on a thread that may block. It goes on if its caller leaves, and has a part of what may be under way
    /// until it ends.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Objects>) -> BackendResult<T> + Send + 'static,
    ) -> BackendResult<T> {
        let (objects, permit) = (self.objects.clone(), permits(&self.calls, 1).await);
        blocking(move || {
            let _permit = permit;
            work(&objects)
        })
        .await
    }

    fn now(&self) -> u64 {
        self.clock.now().as_millis()
    }

    fn schema_under(&self, key: &CacheKey) -> u32 {
        wire::schema_under(key, self.schema)
    }
}

/// Waits for its turn. The semaphores are never closed.
async fn permits(of: &Arc<Semaphore>, count: u32) -> Option<OwnedSemaphorePermit> {
    of.clone().acquire_many_owned(count).await.ok()
}

fn digest(key: &CacheKey) -> Digest {
    digest_of(key.as_encoded())
}

/// What a file is to a leaf.
fn entry_of(object: Object) -> CacheValue<Raw> {
    match object {
        Object::Record(record) => Raw::record(record),
        Object::OtherKey | Object::Newer => Raw::unusable(Unusable::Foreign),
        Object::Damaged => Raw::unusable(Unusable::Damaged),
    }
}

#[async_trait]
impl Store for DiskStore {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        if let Poll::Ready(stored) = self.try_read(key) {
            return Ok(stored);
        }
        let (wanted, digest) = (key.clone(), digest(key));
        let found = self.run(move |objects| objects.read(digest, wanted.as_encoded())).await?;
        Ok(found.map(entry_of))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let record = Raw::to_record(key, &value)?;
        let entry = value.map(drop);
        let units = u32::try_from(record.len() / 1_024).unwrap_or(MAX_WRITTEN).clamp(1, MAX_WRITTEN);
        let permits = permits(&self.written, units).await;
        let (key, digest) = (key.clone(), digest(key));
        let operation = self.objects.begin(digest);
        self.run(move |objects| {
            let _permits = permits;
            objects.write(&operation, key.as_encoded(), &record, &entry)
        })
        .await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let digest = digest(key);
        let operation = self.objects.begin(digest);
        let now = self.now();
        let held = self.run(move |objects| objects.remove(&operation)).await?;
        let is_there = held.is_some_and(|entry| entry.class == Class::User && entry.drop_at > now);
        Ok(DeleteStatus::of(u32::from(is_there)))
    }

    /// Looks at the start of the file first.
    async fn take(&self, key: &CacheKey) -> BackendResult<Peek> {
        let (key, digest, schema) = (key.clone(), digest(key), self.schema_under(key));
        let operation = self.objects.begin(digest);
        self.run(move |objects| {
            // What cannot be read is removed all the same.
            let held = objects.peek(digest, key.as_encoded(), schema).ok().flatten();
            let removed = objects.remove(&operation)?;
            Ok(held.map_or(if removed.is_some() { Peek::Unknown } else { Peek::Absent }, Peek::Entry))
        })
        .await
    }

    async fn take_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Peek>> {
        join_all(keys.iter().map(|key| self.take(key))).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.durable = true;
        capabilities.erases = true;
        capabilities.enumerates = true;
        capabilities.counts = true;
        capabilities
    }

    /// The index answers a miss without I/O, and the kernel's page cache what it has.
    fn try_read(&self, key: &CacheKey) -> Poll<Option<CacheValue<Raw>>> {
        let record = self.objects.read_in_place(digest(key), key.as_encoded());
        record.map(|record| record.map(Raw::record))
    }

    /// The payload is not read, nor verified.
    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        let (wanted, digest, schema) = (key.clone(), digest(key), self.schema_under(key));
        if !self.objects.holds(digest) {
            return Ok(Peek::Absent);
        }
        let found = self.run(move |objects| objects.peek(digest, wanted.as_encoded(), schema)).await?;
        Ok(found.map_or(Peek::Absent, Peek::Entry))
    }

    /// A few bytes of the file.
    async fn change_times(&self, key: &CacheKey, change: &TimeChange) -> BackendResult<Peek> {
        let (key, digest, change) = (key.clone(), digest(key), *change);
        let schema = self.schema_under(&key);
        // A write whose caller has left may be under way.
        let before = self.objects.index().last_begun();
        self.objects.settled(Some(digest), before).await;
        if !self.objects.holds(digest) {
            return Ok(Peek::Absent);
        }
        let operation = self.objects.begin(digest);
        let changed =
            self.run(move |objects| objects.change_times(&operation, key.as_encoded(), schema, &change));
        Ok(changed.await?.map_or(Peek::Absent, Peek::Entry))
    }

    async fn discard(&self, key: &CacheKey, damaged: &CacheValue<Raw>) -> BackendResult<()> {
        let (key, digest, record) = (key.clone(), digest(key), Raw::record_bytes(damaged));
        self.run(move |objects| objects.remove_damaged(digest, key.as_encoded(), record.as_deref())).await
    }

    /// Waits for writes that have begun before: those whose caller has left are listed too.
    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let before = self.objects.index().last_begun();
        self.objects.settled(None, before).await;
        self.run(move |objects| objects.keys(cursor, limit)).await
    }

    async fn count(&self) -> BackendResult<u64> {
        let now = self.now();
        self.run(move |objects| objects.visible(now)).await
    }

    async fn erase(&self) -> BackendResult<()> {
        self.run(Objects::erase).await
    }

    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let now = self.now();
        let (dropped, cut_short) = self.run(move |objects| objects.sweep(now, limit)).await?;
        Ok(Sweep { dropped, cut_short })
    }

    /// Waits for the calls that are under way; then the folder can be opened again.
    async fn close(&self) -> BackendResult<()> {
        self.objects.close().await
    }

    fn occupancy(&self) -> Option<Occupancy> {
        Some(self.objects.occupancy())
    }

    fn gauge_family(&self) -> Option<&'static str> {
        Some("disk")
    }
}
