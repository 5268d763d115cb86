//! A body that the server has.

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};
use hitbox_backend::envelope::wire::{self, WholeRecord};
use hitbox_backend::store::{Conditional, Raw, StoreReader, StoredBody};
use redis::Value;

use super::{LastPart, Parts};
use crate::commands::Commands;
use crate::connection::Connection;
use crate::error::is_wrong_type;
use crate::scripts;
use crate::store::RedisStore;

/// A body of one value, which has been read.
struct ShortBody {
    stored: StoredUnder,
    record: WholeRecord,
}

/// Where a body is stored.
struct StoredUnder {
    commands: Commands,
    connection: Connection,
    key: CacheKey,
}

impl StoredUnder {
    /// Replaces header and attributes, if they are still these.
    async fn replace_start(
        &self,
        start: &[u8],
        entry: &CacheValue<Raw>,
    ) -> BackendResult<Option<Conditional>> {
        let Some(frame) = entry.data().as_encoded() else { return Ok(None) };
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::SET_START).arg(1).arg(self.commands.key(&self.key));
        command.arg(wire::encode_body_start(&self.key, entry, frame)).arg(self.commands.end_argument(entry));
        command.arg(start);
        let is_done = self.connection.query::<i64>(&command).await? == 1;
        Ok(Some(if is_done { Conditional::Written } else { Conditional::Conflict(None) }))
    }
}

#[async_trait]
impl StoreReader for ShortBody {
    fn start(&self) -> &[u8] {
        self.record.start()
    }

    fn body_len(&self) -> u64 {
        self.record.payload_len()
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        let damaged = || BackendError::new(ErrorKind::Codec, "a stored body is damaged");
        self.record.read(at, limit).ok_or_else(damaged)
    }

    async fn replace_entry(&self, entry: &CacheValue<Raw>) -> BackendResult<Option<Conditional>> {
        self.stored.replace_start(self.record.start(), entry).await
    }

    async fn discard(&self) -> BackendResult<()> {
        let StoredUnder { commands, connection, key } = &self.stored;
        RedisStore::remove_if_same(connection, &commands.key(key), self.record.bytes()).await
    }
}

/// A body in parts.
struct LongBody {
    stored: StoredUnder,
    parts: Parts,
    start: Vec<u8>,
    len: u64,
    last: LastPart,
}

#[async_trait]
impl StoreReader for LongBody {
    fn start(&self) -> &[u8] {
        &self.start
    }

    fn body_len(&self) -> u64 {
        self.len
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        let key = &self.parts.hash;
        self.last.read(at, limit, self.len, |part, len| self.parts.read_committed(key, part, len)).await
    }

    async fn replace_entry(&self, entry: &CacheValue<Raw>) -> BackendResult<Option<Conditional>> {
        self.stored.replace_start(&self.start, entry).await
    }

    async fn discard(&self) -> BackendResult<()> {
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::REMOVE_BODY).arg(1).arg(&self.parts.hash);
        command.arg(&self.parts.identity.to_le_bytes()[..]);
        self.parts.connection.query::<i64>(&command).await.map(drop)
    }
}

type HashStart = (Option<Vec<u8>>, Option<u64>);

impl RedisStore {
    /// Asks for both forms that a body may have, in one round trip.
    pub(crate) async fn open(&self, key: &CacheKey) -> BackendResult<StoredBody> {
        let (commands, connection) = (self.commands.clone(), self.connection.clone());
        let stored = StoredUnder { commands, connection, key: key.clone() };
        let stored_key = self.commands.key(key);
        let mut both = redis::pipe();
        both.get(&stored_key).cmd("HMGET").arg(&stored_key).arg("start").arg("len");
        let answers = self.connection.pipeline::<Value>(&mut both).await?;
        let is_other = |answer: &BackendResult<Value>| answer.as_ref().is_err_and(is_wrong_type);
        if answers.iter().all(is_other) {
            // Another type, or one that was replaced by the other in between.
            return Ok(StoredBody::Unsupported);
        }
        let mut answers = answers.into_iter();
        let (string, hash) = (of_this_type(answers.next())?, of_this_type(answers.next())?);
        if let Some(Value::BulkString(record)) = string {
            let Some(record) = WholeRecord::of(Bytes::from(record)) else {
                return Ok(StoredBody::Unsupported);
            };
            return Ok(StoredBody::There(Box::new(ShortBody { stored, record })));
        }
        let parts = hash.map(redis::from_redis_value::<HashStart>).transpose();
        let Ok(Some((Some(start), Some(len)))) = parts else { return Ok(StoredBody::Absent) };
        let Some(identity) = wire::identity_of(&start) else { return Ok(StoredBody::Absent) };
        let parts = Parts { connection: self.connection.clone(), hash: stored_key, identity };
        Ok(StoredBody::There(Box::new(LongBody { stored, parts, start, len, last: LastPart::default() })))
    }
}

/// Nothing where the key has another type of value.
fn of_this_type(answer: Option<BackendResult<Value>>) -> BackendResult<Option<Value>> {
    match answer {
        Some(Err(error)) if is_wrong_type(&error) => Ok(None),
        answer => answer.transpose(),
    }
}
