//! Leaves with one mistake each: in their store, or in what is around it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::envelope::{Encoded, Encodings};
use hitbox_backend::operation::{Answer, Answers, Content, Found, Removal, Write};
use hitbox_backend::operation::{Batch, Completion, Receipts};
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::{Capabilities, DeleteStatus, Occupancy, Page, Peek, Raw, Store};
use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{Backend, Codec, Format, Leaf, LeafOutcome, ReadOptions, Receipt};
use hitbox_core::{
    Accept, BackendError, BackendLabel, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, Freshness,
    Lifetime, ReadMode, Timestamp,
};

use crate::MemoryStore;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// Values of 1 MiB and more are not stored.
    DropsLargeValues,
    /// Entries come back without their instants.
    DropsInstants,
    /// Instants are rounded up to whole seconds.
    RoundsToSeconds,
    /// An overwrite without instants keeps the old ones.
    KeepsOldLifetime,
    /// Copies past their time are served as fresh.
    ServesExpired,
    /// A copy past its time is an error.
    FailsOnExpired,
    /// Encoded values come back under another format.
    MistakesFormat,
    /// Values are encoded although they are kept live.
    EncodesNeedlessly,
    /// Every hit gets a copy of the payload.
    CopiesPayload,
    /// Records of any schema version are taken.
    IgnoresSchema,
    /// More is kept than the bound allows.
    IgnoresBound,
    /// Keys are told apart by an unescaped join of their parts.
    JoinsParts,
    /// Namespaces are not told apart.
    IgnoresNamespace,
    /// Keys are told apart by their first 1,024 bytes.
    CutsKeys,
    /// Reserved keys are not told apart from those of users.
    IgnoresReservation,
    /// Writes are acknowledged and forgotten.
    LosesWrites,
    /// Copies that are dirty after a failure are served.
    ServesDirty,
    /// Deletes are acknowledged and forgotten.
    KeepsRemoved,
    /// Deletes always say that there was nothing.
    MiscountsDeletes,
    /// Writes come without a line in the receipt.
    OmitsReceipt,
    /// Writes do not wait for their slot.
    IgnoresOrder,
    /// The leaf keeps its short name wherever it stands.
    ForgetsPath,
    /// Batches are answered back to front.
    ReversesBatches,
    /// Refills are acknowledged and forgotten.
    LosesRefills,
    /// A refilled copy starts a new life.
    RestartsLifetime,
    /// Refills go on top of what was written meanwhile.
    IgnoresPermits,
    /// Errors do not say where they are from.
    AnonymousErrors,
}

/// A map of live values that never answers at once, with at most one mistake.
pub(super) struct SpoiltStore {
    defect: Option<Defect>,
    map: MemoryStore,
}

impl SpoiltStore {
    pub(super) fn new(defect: Option<Defect>, clock: Arc<dyn Clock>) -> Self {
        Self { defect, map: MemoryStore::new(clock) }
    }

    /// Entries that are stored, whatever their age.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// The key under which the map knows an entry.
    fn key(&self, key: &CacheKey) -> CacheKey {
        match self.defect {
            Some(Defect::JoinsParts) => {
                let mut text = format!("{}:{}", key.prefix(), key.version());
                for part in key.parts() {
                    let value = String::from_utf8_lossy(part.value.unwrap_or_default());
                    text += &format!("&{}={value}", part.name);
                }
                CacheKey::new(&text)
            }
            Some(Defect::IgnoresNamespace | Defect::IgnoresReservation) => {
                let mut bare = CacheKey::builder(key.prefix()).version(key.version());
                for part in key.parts() {
                    bare = match part.value {
                        Some(value) => bare.part_bytes(part.name, value),
                        None => bare.flag(part.name),
                    };
                }
                bare.build()
            }
            Some(Defect::CutsKeys) => {
                let text = key.to_string();
                CacheKey::new(&text[..text.len().min(1024)])
            }
            _ => key.clone(),
        }
    }

    /// The entry as it is stored, if it is.
    fn spoilt(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<Option<CacheValue<Raw>>> {
        let encode = |value: &CacheValue<Raw>, codec: Codec| {
            value.data().to_encoded(&codec, None, &Encodings::default(), None)
        };
        Ok(Some(match self.defect {
            Some(Defect::DropsLargeValues) if value.data().weight() >= 1 << 20 => return Ok(None),
            Some(Defect::LosesWrites) => return Ok(None),
            Some(Defect::RoundsToSeconds) => {
                let round = |t: Timestamp| Timestamp::from_millis(t.as_millis().div_ceil(1000) * 1000);
                let old = *value.lifetime();
                let new =
                    Lifetime::new(old.stale().map(round), old.expire().map(round), old.retain().map(round));
                value.with_lifetime(new)
            }
            Some(Defect::KeepsOldLifetime) if value.lifetime().is_forever() => {
                let old = self.map.get(key).map(|old| *old.lifetime());
                value.with_lifetime(old.unwrap_or_default())
            }
            Some(Defect::MistakesFormat) => {
                let mut encoded: Encoded = encode(&value, Codec::default())?;
                encoded.format = Format::Json;
                value.map(|_| Raw::encoded(encoded, None))
            }
            Some(Defect::IgnoresSchema) => match value.data().as_encoded().cloned() {
                Some(encoded) => value.map(|_| Raw::encoded(encoded.with_schema(0), None)),
                None => value,
            },
            Some(Defect::EncodesNeedlessly) => {
                encode(&value, Codec::default())?;
                encode(&value, Codec { format: Format::Json, ..Codec::default() })?;
                value
            }
            _ => value,
        }))
    }

    /// The entry as it comes back.
    fn returned(&self, value: CacheValue<Raw>) -> CacheValue<Raw> {
        match self.defect {
            Some(Defect::DropsInstants) => value.with_lifetime(Lifetime::FOREVER),
            Some(Defect::CopiesPayload) => match value.data().decode::<Bytes>() {
                Ok(bytes) => value.map(|_| Raw::live(Bytes::copy_from_slice(&bytes))),
                Err(_) => value,
            },
            _ => value,
        }
    }
}

#[async_trait]
impl Store for SpoiltStore {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.map.get(&self.key(key)).map(|value| self.returned(value)))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let key = self.key(key);
        if let Some(value) = self.spoilt(&key, value)? {
            self.map.insert(&key, value);
        }
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        if self.defect == Some(Defect::KeepsRemoved) {
            return Ok(DeleteStatus::of(1));
        }
        Ok(self.map.take(&self.key(key)))
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::MEMORY;
        capabilities.answers_at_once = false;
        // It takes bytes, and hands them out as an entry that nobody looks into.
        let takes_bytes = matches!(self.defect, Some(Defect::IgnoresSchema | Defect::MistakesFormat));
        capabilities.keeps_live_values = !takes_bytes;
        capabilities
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        self.map.peek(&self.key(key)).await
    }

    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        self.map.keys(cursor, limit).await
    }

    async fn count(&self) -> BackendResult<u64> {
        self.map.count().await
    }

    async fn erase(&self) -> BackendResult<()> {
        self.map.erase().await
    }

    fn occupancy(&self) -> Option<Occupancy> {
        let held = Occupancy::new(self.map.len() as u64, 0);
        (self.defect == Some(Defect::IgnoresBound)).then(|| held.with_bounds(Some(100), None))
    }
}

/// A leaf with one mistake.
#[derive(Clone)]
pub struct Defective {
    defect: Defect,
    store: Arc<SpoiltStore>,
    clock: Arc<dyn Clock>,
    inner: Arc<dyn Backend>,
}

impl Defective {
    /// A map with this mistake.
    pub fn new(defect: Defect, clock: Arc<dyn Clock>) -> Self {
        let store = Arc::new(SpoiltStore::new(Some(defect), clock.clone()));
        let inner = Leaf::of(store.clone(), LeafOptions::new("memory").with_clock(clock.clone()));
        Self { defect, store, clock, inner: Arc::new(inner) }
    }

    fn label(&self) -> BackendLabel {
        self.inner.layout().paths().next().unwrap_or("memory".into())
    }

    fn served(&self, value: CacheValue<Raw>, freshness: Freshness) -> Found {
        let leaf = self.inner.layout().leaves().first().map_or(0, |leaf| leaf.position());
        Found { value, freshness, label: self.label(), leaf, mode: ReadMode::Direct }
    }

    async fn read_one(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        let right = async || {
            let answers = self.inner.read(std::slice::from_ref(key), options).await;
            answers.into_one().unwrap_or(Ok(None))
        };
        let now = self.clock.now();
        let stored = self.store.read(key).await?;
        match (self.defect, stored) {
            (Defect::ServesExpired, Some(value)) => Ok(Some(self.served(value, Freshness::Fresh))),
            (Defect::ServesDirty, Some(value)) => {
                let freshness = value.lifetime().freshness(now);
                Ok(options.accept.allows(freshness).then(|| self.served(value, freshness)))
            }
            (Defect::FailsOnExpired, Some(value)) => {
                let freshness = value.lifetime().freshness(now);
                if Accept::Stale.allows(freshness) {
                    return Ok(Some(self.served(value, freshness)));
                }
                Err(BackendError::new(ErrorKind::Protocol, "the copy is over its time"))
            }
            (Defect::AnonymousErrors, _) => Err(BackendError::new(ErrorKind::Protocol, "failed")),
            _ => right().await,
        }
    }

    async fn write_one(&self, mut write: Write) -> Receipt {
        let is_refill = write.condition.is_refill();
        match self.defect {
            Defect::LosesRefills if is_refill => return Receipt::of(self.label(), LeafOutcome::Stored),
            Defect::RestartsLifetime if is_refill => {
                if let Content::Entry(value) = write.content {
                    write.content = Content::Entry(value.with_lifetime(Lifetime::FOREVER));
                }
            }
            Defect::IgnoresOrder if is_refill => {}
            Defect::IgnoresOrder | Defect::IgnoresPermits => {
                if let Content::Entry(value) = write.content {
                    let written = self.store.write(&write.key, value).await;
                    let outcome = written.map_or_else(LeafOutcome::of_error, |()| LeafOutcome::Stored);
                    return Receipt::of(self.label(), outcome);
                }
            }
            _ => {}
        }
        let receipt = self.inner.write(Batch::one(write)).await.into_one().unwrap_or_default();
        if self.defect == Defect::OmitsReceipt && !is_refill { Receipt::default() } else { receipt }
    }

    async fn remove_one(&self, removal: Removal) -> Receipt {
        let receipt = match self.defect {
            Defect::IgnoresOrder | Defect::IgnoresPermits => {
                let removed = self.store.remove(&removal.key).await;
                let outcome = removed.map_or_else(LeafOutcome::of_error, |_| LeafOutcome::Removed);
                Receipt::of(self.label(), outcome)
            }
            _ => self.inner.remove(Batch::one(removal)).await.into_one().unwrap_or_default(),
        };
        let is_miscounted = self.defect == Defect::MiscountsDeletes;
        if is_miscounted { Receipt::of(self.label(), LeafOutcome::Absent) } else { receipt }
    }
}

impl Wrapper for Defective {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        // It stays what it was, wherever it stands.
        let inner = if self.defect == Defect::ForgetsPath { self.inner.clone() } else { inner };
        Arc::new(Self { inner, ..self.clone() })
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        Completion::later(async move {
            let mut answers = Vec::with_capacity(keys.len());
            for key in keys {
                answers.push(self.read_one(key, options).await);
            }
            if self.defect == Defect::ReversesBatches {
                answers.reverse();
            }
            answers.into()
        })
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        Completion::later(async move {
            let mut receipts = Receipts::with_capacity(writes.len());
            for write in writes {
                receipts.push(self.write_one(write).await);
            }
            receipts
        })
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        Completion::later(async move {
            let mut receipts = Receipts::with_capacity(removals.len());
            for removal in removals {
                receipts.push(self.remove_one(removal).await);
            }
            receipts
        })
    }
}
