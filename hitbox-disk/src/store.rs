//! The folder as a store: every call that blocks runs on tokio's threads for blocking work.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, select};
use hitbox_backend::core::{BackendResult, CacheKey, CacheValue, Clock};
use hitbox_backend::envelope::wire;
use hitbox_backend::store::{
    Capabilities, DeleteStatus, Occupancy, Page, Peek, Raw, Store, StoreWriter, StoredBody, Sweep,
    TimeChange, Unusable,
};

use crate::builder::DiskBuilder;
use crate::calls::{Calls, blocking};
use crate::claim::Handle;
use crate::digest::{Digest, RecentDigests, digest_of};
use crate::files::{Files, Opening};
use crate::in_place;
use crate::index::Class;
use crate::object::{self, Object};
use crate::objects::Objects;
use crate::place::in_use;
use crate::recover::{Recovered, recover};
use crate::streams::{DiskReader, DiskWriter};

/// How long an opening waits for a store of this process whose handles may be those of background work alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// A folder of objects as a store of bytes.
pub struct DiskStore {
    calls: Calls,
    digests: RecentDigests,
    clock: Arc<dyn Clock>,
    schema: u32,
    /// Longer bodies are read by chunks alone.
    max_value: u64,
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
        let max_value = options.limits.value_bytes;
        let (calls, digests) = (Calls::new(objects), RecentDigests::default());
        let store = Self { calls, digests, clock, schema, max_value, _handle: handle };
        Ok(Opened { store, damaged, expired, newer })
    }

    fn now(&self) -> u64 {
        self.clock.now().as_millis()
    }

    fn schema_under(&self, key: &CacheKey) -> u32 {
        wire::schema_under(key, self.schema)
    }
}

/// The longest file that is read as a whole: that of the largest value under a key.
fn longest_file(key: &CacheKey, max_value: u64) -> u64 {
    let record = wire::HEADER_BYTES as u64 + wire::MAX_ATTRIBUTES_BYTES + wire::trailer_len(max_value);
    object::file_len(key.as_encoded(), &[]).saturating_add(record).saturating_add(max_value)
}

pub(crate) fn digest(key: &CacheKey) -> Digest {
    digest_of(key.as_encoded())
}

/// What a file is to a leaf.
fn entry_of(object: Object) -> CacheValue<Raw> {
    match object {
        Object::Record(record) => Raw::record(record),
        Object::OtherKey | Object::Newer => Raw::unusable(Unusable::Foreign),
        Object::Damaged => Raw::unusable(Unusable::Damaged),
        Object::TooLong => Raw::unusable(Unusable::TooLarge),
    }
}

#[async_trait]
impl Store for DiskStore {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        if let Poll::Ready(stored) = self.try_read(key) {
            return Ok(stored);
        }
        let (wanted, digest, longest) = (key.clone(), digest(key), longest_file(key, self.max_value));
        let found = self.calls.run(move |objects| objects.read(digest, wanted.as_encoded(), longest)).await?;
        Ok(found.map(entry_of))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let record = Raw::to_record(key, &value)?;
        let entry = value.map(drop);
        let writing = self.calls.begin_writing(record.len()).await;
        let (key, digest) = (key.clone(), digest(key));
        let operation = self.calls.objects.begin(digest);
        self.calls
            .run(move |objects| {
                let _writing = writing;
                objects.write(&operation, key.as_encoded(), &record, &entry)
            })
            .await
    }

    async fn begin_body(
        &self,
        key: &CacheKey,
        entry: &CacheValue<Raw>,
    ) -> BackendResult<Option<Box<dyn StoreWriter>>> {
        let writer = DiskWriter::begin(&self.calls, key, entry).await?;
        Ok(Some(Box::new(writer)))
    }

    async fn open_body(&self, key: &CacheKey) -> BackendResult<StoredBody> {
        DiskReader::open(&self.calls, key, self.max_value.min(in_place::MAX_BYTES)).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let digest = digest(key);
        let operation = self.calls.objects.begin(digest);
        let now = self.now();
        let held = self.calls.run(move |objects| objects.remove(&operation)).await?;
        let is_there = held.is_some_and(|entry| entry.class == Class::User && entry.drop_at > now);
        Ok(DeleteStatus::of(u32::from(is_there)))
    }

    /// Looks at the start of the file first.
    async fn take(&self, key: &CacheKey) -> BackendResult<Peek> {
        let (key, digest, schema) = (key.clone(), digest(key), self.schema_under(key));
        let operation = self.calls.objects.begin(digest);
        self.calls
            .run(move |objects| {
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
        let known = self.digests.get(key);
        let digest = known.unwrap_or_else(|| digest(key));
        let record = self.calls.objects.read_in_place(digest, key.as_encoded());
        if known.is_none() && matches!(record, Poll::Ready(Some(_))) {
            self.digests.keep(key, digest);
        }
        record.map(|record| record.map(Raw::record))
    }

    /// The payload is not read, nor verified.
    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        let (wanted, digest, schema) = (key.clone(), digest(key), self.schema_under(key));
        if !self.calls.objects.holds(digest) {
            return Ok(Peek::Absent);
        }
        let found = self.calls.run(move |objects| objects.peek(digest, wanted.as_encoded(), schema)).await?;
        Ok(found.map_or(Peek::Absent, Peek::Entry))
    }

    /// A few bytes of the file.
    async fn change_times(&self, key: &CacheKey, change: &TimeChange) -> BackendResult<Peek> {
        let (key, digest, change) = (key.clone(), digest(key), *change);
        let schema = self.schema_under(&key);
        let operation = self.calls.objects.begin_settled(digest).await;
        if !self.calls.objects.holds(digest) {
            return Ok(Peek::Absent);
        }
        let changed = self
            .calls
            .run(move |objects| objects.change_times(&operation, key.as_encoded(), schema, &change));
        Ok(changed.await?.map_or(Peek::Absent, Peek::Entry))
    }

    async fn discard(&self, key: &CacheKey, damaged: &CacheValue<Raw>) -> BackendResult<()> {
        let (key, digest, record) = (key.clone(), digest(key), Raw::record_bytes(damaged));
        let longest = longest_file(&key, self.max_value);
        self.calls
            .run(move |objects| objects.remove_damaged(digest, key.as_encoded(), record.as_deref(), longest))
            .await
    }

    /// Waits for writes that have begun before: those whose caller has left are listed too.
    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let before = self.calls.objects.index().last_begun();
        self.calls.objects.settled(None, before).await;
        self.calls.run(move |objects| objects.keys(cursor, limit)).await
    }

    async fn count(&self) -> BackendResult<u64> {
        let now = self.now();
        self.calls.run(move |objects| objects.visible(now)).await
    }

    async fn erase(&self) -> BackendResult<()> {
        self.calls.run(Objects::erase).await
    }

    async fn sweep(&self, limit: usize) -> BackendResult<Sweep> {
        let now = self.now();
        let (dropped, cut_short) = self.calls.run(move |objects| objects.sweep(now, limit)).await?;
        Ok(Sweep { dropped, cut_short })
    }

    /// Waits for the calls that are under way; then the folder can be opened again.
    async fn close(&self) -> BackendResult<()> {
        self.calls.objects.close().await
    }

    fn occupancy(&self) -> Option<Occupancy> {
        Some(self.calls.objects.occupancy())
    }

    fn gauge_family(&self) -> Option<&'static str> {
        Some("disk")
    }
}
