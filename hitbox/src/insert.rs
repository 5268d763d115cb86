//! Writes and removals by callers, one key at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hitbox_backend::operation::{Batch, Condition, Removal, Renewal, TimeChange, Write, WriteOptions};
use hitbox_backend::{Backend, Cacheable, DeleteStatus, Raw, Receipt};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind, Lifetime};

use crate::entry_options::EntryOptions;
use crate::settings::LifetimeOverride;
use crate::shared::Shared;

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    pub(crate) async fn insert(
        self: &Arc<Self>,
        key: &CacheKey,
        value: V,
        lifetime: LifetimeOverride,
        mut options: EntryOptions,
    ) -> BackendResult<Receipt> {
        let (now, version) = (self.now(), options.version);
        options.absolute_end = lifetime.until.is_some();
        let Some(lifetime) = self.settings.lifetime(key, lifetime, false, now) else {
            if version.is_some() {
                let why = "a value that is over at once cannot be written under a version";
                return Err(BackendError::new(ErrorKind::Configuration, why));
            }
            // A value that is over at once replaces what was there with nothing.
            return self.write(key, None).await;
        };
        let entry = self.entry(Some(value), lifetime, now, options);
        match version {
            Some(version) => self.write_if_newer(key, entry, version).await,
            None => self.write(key, Some(entry)).await,
        }
    }

    async fn write_if_newer(
        self: &Arc<Self>,
        key: &CacheKey,
        entry: CacheValue<Raw>,
        version: u64,
    ) -> BackendResult<Receipt> {
        let ticket = self.backend.layout().begin_write(key);
        self.throttle.end(key);
        let write = Write::new(key.clone(), entry).with_options(WriteOptions::of(&ticket));
        let write = write.with_condition(Condition::IfNewer(version));
        let receipt = self.backend.write(Batch::one(write)).await.into_one().unwrap_or_default();
        // What was refused changes nothing, and there is nothing to bring up to date.
        if receipt.is_ok() {
            self.record_failures(key, &receipt, &ticket);
        }
        receipt.into_result()
    }

    /// Other metadata for what is stored, and other times if any are said.
    pub(crate) async fn set_metadata(
        self: &Arc<Self>,
        key: &CacheKey,
        lifetime: LifetimeOverride,
        metadata: BTreeMap<String, Bytes>,
    ) -> BackendResult<Receipt> {
        let lifetime = (lifetime != LifetimeOverride::NONE).then(|| self.renewed(key, lifetime));
        let renewal = Renewal { metadata: Some(Arc::new(metadata)), lifetime, ..Renewal::default() };
        let write = Write::renewal(key.clone(), renewal);
        self.backend.write(Batch::one(write)).await.into_one().unwrap_or_default().into_result()
    }

    /// The instants of an entry whose life starts anew. One that is over at once is over.
    pub(crate) fn renewed(&self, key: &CacheKey, lifetime: LifetimeOverride) -> Lifetime {
        let now = self.now();
        let over = || Lifetime::ttl(now, Duration::ZERO);
        self.settings.lifetime(key, lifetime, false, now).unwrap_or_else(over)
    }

    pub(crate) async fn remove(self: &Arc<Self>, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::of(self.write(key, None).await?.removed()))
    }

    /// Writes an entry or removes it.
    async fn write(
        self: &Arc<Self>,
        key: &CacheKey,
        entry: Option<CacheValue<Raw>>,
    ) -> BackendResult<Receipt> {
        let ticket = self.backend.layout().begin_write(key);
        self.throttle.end(key);
        let options = WriteOptions::of(&ticket);
        let receipts = match entry {
            Some(entry) => {
                let write = Write::new(key.clone(), entry).with_options(options);
                self.backend.write(Batch::one(write)).await
            }
            None => {
                let removal = Removal::new(key.clone()).with_options(options);
                self.backend.remove(Batch::one(removal)).await
            }
        };
        let receipt = receipts.into_one().unwrap_or_default();
        self.record_failures(key, &receipt, &ticket);
        receipt.into_result()
    }

    pub(crate) async fn expire(self: &Arc<Self>, key: &CacheKey) -> BackendResult<bool> {
        self.throttle.end(key);
        // Loads that are under way do not make it fresh again.
        let ticket = self.backend.layout().begin_write(key);
        let write = Write::times(key.clone(), TimeChange::stale_from(self.now()));
        let write = write.with_options(WriteOptions::of(&ticket));
        let receipt = self.backend.write(Batch::one(write)).await.into_one().unwrap_or_default();
        self.record_failures(key, &receipt, &ticket);
        // A copy that could not be reached is not served.
        let found = receipt.stored() + receipt.removed();
        if found > 0 { Ok(true) } else { receipt.into_result().map(|_| false) }
    }
}
