//! Leaves with one mistake each.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::{
    Adoption, Answer, Backend, Capabilities, Codec, DeleteStatus, Encoded, Encodings, Format, Found, Leaf,
    Occupancy, Outcome, Presence, Raw, ReadOptions, Receipt, RemoveItem, Ticket, TryRead, WriteItem,
    WriteOptions,
};
use hitbox_core::{
    Accept, BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, Freshness, Lifetime,
    ReadMode, Timestamp,
};

use crate::MemoryBackend;

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
    /// Copies that are hidden after a failure are served.
    ServesHidden,
    /// Deletes always say that there was nothing.
    MiscountsDeletes,
    /// Writes come without a line in the receipt.
    OmitsReceipt,
    /// Writes do not wait for their turn.
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
    IgnoresTickets,
    /// Errors do not say where they are from.
    AnonymousErrors,
}

/// A leaf with one mistake.
#[derive(Clone)]
pub struct Defective {
    defect: Defect,
    store: MemoryBackend,
    clock: Arc<dyn Clock>,
}

impl Defective {
    /// A map with this mistake.
    pub fn new(defect: Defect, clock: Arc<dyn Clock>) -> Self {
        Self { defect, store: MemoryBackend::labelled("memory", clock.clone()), clock }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn key(&self, key: &CacheKey) -> CacheKey {
        match self.defect {
            Defect::JoinsParts => {
                let mut text = format!("{}:{}", key.prefix(), key.version());
                for part in key.parts() {
                    text += &format!(
                        "&{}={}",
                        part.name,
                        String::from_utf8_lossy(part.value.unwrap_or_default())
                    );
                }
                CacheKey::new(&text)
            }
            Defect::IgnoresNamespace | Defect::IgnoresReservation => {
                let mut bare = CacheKey::builder(key.prefix()).version(key.version());
                for part in key.parts() {
                    bare = match part.value {
                        Some(value) => bare.part_bytes(part.name, value),
                        None => bare.flag(part.name),
                    };
                }
                bare.build()
            }
            Defect::CutsKeys => {
                let text = key.to_string();
                CacheKey::new(&text[..text.len().min(1024)])
            }
            _ => key.clone(),
        }
    }

    /// The entry as it is stored.
    async fn spoilt(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<Option<CacheValue<Raw>>> {
        let encode = |value: &CacheValue<Raw>, codec: Codec| {
            value.data().to_encoded(&codec, None, &Encodings::default(), None)
        };
        Ok(Some(match self.defect {
            Defect::DropsLargeValues if value.data().weight() >= 1 << 20 => return Ok(None),
            Defect::LosesWrites => return Ok(None),
            Defect::RoundsToSeconds => {
                let round = |t: Timestamp| Timestamp::from_millis(t.as_millis().div_ceil(1000) * 1000);
                let old = *value.lifetime();
                let new =
                    Lifetime::new(old.stale().map(round), old.expire().map(round), old.retain().map(round));
                value.with_lifetime(new)
            }
            Defect::KeepsOldLifetime if value.lifetime().is_forever() => {
                let old = self.store.read(key).await?.map(|old| *old.lifetime());
                value.with_lifetime(old.unwrap_or_default())
            }
            Defect::MistakesFormat => {
                let encoded = encode(&value, Codec::default())?;
                value.map(|_| Raw::encoded(Encoded { format: Format::Json, ..encoded }, None))
            }
            Defect::EncodesNeedlessly => {
                encode(&value, Codec::default())?;
                encode(&value, Codec { format: Format::Json, ..Codec::default() })?;
                value
            }
            _ => value,
        }))
    }

    fn served(&self, value: CacheValue<Raw>, freshness: Freshness) -> Found {
        let leaf = self.store.leaves().remove(0);
        Found { value, freshness, label: leaf.path(), leaf: 0, mode: ReadMode::Direct }
    }

    /// The entry as it comes back.
    fn returned(&self, value: CacheValue<Raw>) -> CacheValue<Raw> {
        match self.defect {
            Defect::DropsInstants => value.with_lifetime(Lifetime::FOREVER),
            Defect::CopiesPayload => match value.data().decode::<Bytes>() {
                Ok(bytes) => value.map(|_| Raw::live(Bytes::copy_from_slice(&bytes))),
                Err(_) => value,
            },
            _ => value,
        }
    }

    fn nameless(&self, kind: ErrorKind) -> BackendError {
        BackendError::new(kind, "failed")
    }
}

#[async_trait]
impl Backend for Defective {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.store.read(&self.key(key)).await?.map(|value| self.returned(value)))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let key = self.key(key);
        match self.spoilt(&key, value).await? {
            Some(value) => self.store.write(&key, value).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.remove(&self.key(key)).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.answers_at_once = false;
        if matches!(self.defect, Defect::IgnoresSchema | Defect::MistakesFormat) {
            capabilities.keeps_live_values = false;
        }
        capabilities
    }

    fn leaf(&self) -> Option<&Leaf> {
        self.store.leaf()
    }

    fn occupancy(&self) -> Option<Occupancy> {
        let held = Occupancy::new(self.store.len() as u64, 0);
        self.has(Defect::IgnoresBound).then(|| held.with_bounds(Some(100), None))
    }

    fn try_read(&self, _: &CacheKey, _: &ReadOptions) -> TryRead {
        TryRead::WouldWait(hitbox_backend::LeafSet::EMPTY)
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        let stored = self.read(key).await?;
        let now = self.clock.now();
        match (self.defect, stored) {
            (Defect::ServesExpired, Some(value)) => Ok(Some(self.served(value, Freshness::Fresh))),
            (Defect::ServesHidden, Some(value)) => {
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
            (Defect::AnonymousErrors, _) => Err(self.nameless(ErrorKind::Protocol)),
            _ if self.has(Defect::DropsInstants) || self.has(Defect::CopiesPayload) => {
                let found = self.store.read_with(key, options).await?;
                Ok(found.map(|found| Found { value: self.returned(found.value), ..found }))
            }
            _ => self.store.read_with(&self.key(key), options).await,
        }
    }

    async fn read_many(&self, keys: &[CacheKey], options: &ReadOptions) -> Vec<Answer> {
        let mut answers = Vec::new();
        for key in keys {
            answers.push(self.read_with(key, options).await);
        }
        if self.has(Defect::ReversesBatches) {
            answers.reverse();
        }
        answers
    }

    async fn write_with(&self, key: &CacheKey, value: CacheValue<Raw>, options: &WriteOptions) -> Receipt {
        let stored_key = self.key(key);
        let label = self.store.leaves().remove(0).path();
        let spoilt = match self.spoilt(&stored_key, value).await {
            Ok(Some(value)) => value,
            Ok(None) => return Receipt::of(label, Outcome::Stored),
            Err(error) => return Receipt::of(label, Outcome::of_error(error)),
        };
        match self.defect {
            Defect::IgnoresOrder | Defect::IgnoresTickets => {
                let written = self.store.write(&stored_key, spoilt).await;
                Receipt::of(label, written.map_or_else(Outcome::of_error, |()| Outcome::Stored))
            }
            Defect::OmitsReceipt => {
                let _stored = self.store.write_with(&stored_key, spoilt, options).await;
                Receipt::default()
            }
            _ => self.store.write_with(&stored_key, spoilt, options).await,
        }
    }

    async fn remove_with(&self, key: &CacheKey, options: &WriteOptions) -> Receipt {
        let label = self.store.leaves().remove(0).path();
        let receipt = match self.defect {
            Defect::IgnoresOrder | Defect::IgnoresTickets => {
                let removed = self.store.remove(key).await;
                Receipt::of(label, removed.map_or_else(Outcome::of_error, |_| Outcome::Removed))
            }
            _ => self.store.remove_with(&self.key(key), options).await,
        };
        if self.has(Defect::MiscountsDeletes) { Receipt::of(label, Outcome::Absent) } else { receipt }
    }

    async fn write_many(&self, items: Vec<WriteItem>) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for WriteItem { key, value, options } in items {
            receipts.push(self.write_with(&key, value, &options).await);
        }
        receipts
    }

    async fn remove_many(&self, items: Vec<RemoveItem>) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for RemoveItem { key, options } in items {
            receipts.push(self.remove_with(&key, &options).await);
        }
        receipts
    }

    async fn install_if(&self, key: &CacheKey, value: CacheValue<Raw>, ticket: &Ticket) -> Receipt {
        let label = self.store.leaves().remove(0).path();
        match self.defect {
            Defect::LosesRefills => Receipt::of(label, Outcome::Stored),
            Defect::RestartsLifetime => {
                let value = value.with_lifetime(Lifetime::FOREVER);
                self.store.install_if(key, value, ticket).await
            }
            Defect::IgnoresTickets => {
                let written = self.store.write(key, value).await;
                Receipt::of(label, written.map_or_else(Outcome::of_error, |()| Outcome::Stored))
            }
            _ => self.store.install_if(key, value, ticket).await,
        }
    }

    async fn contains(&self, key: &CacheKey) -> BackendResult<Presence> {
        self.store.contains(&self.key(key)).await
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        if self.has(Defect::ForgetsPath) {
            return Some(Arc::new(self.clone()));
        }
        let store = self.store.adopted_store(adoption);
        Some(Arc::new(Self { store, ..self.clone() }))
    }
}
