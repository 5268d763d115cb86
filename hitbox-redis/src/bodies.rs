//! Bodies that come and go by chunks. A body of up to [`PART`] bytes is one value, as any other. A longer one is a hash: its parts, and what
//! its record says. So the server replaces it, lets it end and puts it out as a whole, whoever writes its key, and it has one generation. While it is
//! written it has a key of its own, which becomes that of the entry when it is committed.

use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use hitbox_backend::core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};
use hitbox_backend::envelope::Encoded;
use hitbox_backend::envelope::wire::{self, CHUNK_BYTES, Framing, WholeRecord};
use hitbox_backend::store::{
    Conditional, Raw, StoreCondition, StoreReader, StoreWriter, StoredBody, WrittenPart,
};
use redis::Value;

use crate::commands::{Commands, ConditionArguments};
use crate::connection::Connection;
use crate::error::is_wrong_type;
use crate::scripts;
use crate::store::RedisStore;

/// Bytes of a part: whole chunks. One of them is on its way at a time, and within the deadline of a call.
pub(crate) const PART: usize = 4 * CHUNK_BYTES;
/// How long the server keeps the parts of a body of which no more come.
const KEPT: Duration = Duration::from_secs(600);

/// The checksums of a part depend on the body that it is of, and on its place in it.
fn framing_of(identity: u64, part: u64) -> Framing {
    Framing::new(identity.wrapping_add(part))
}

fn is_gone() -> BackendError {
    BackendError::new(ErrorKind::Conflict, "the body was replaced or removed while it was read")
}

/// Where the parts of a body are.
#[derive(Clone)]
struct Parts {
    connection: Connection,
    /// The key of the hash.
    hash: Vec<u8>,
    identity: u64,
}

impl Parts {
    async fn write(&self, part: u64, bytes: &[u8]) -> BackendResult<()> {
        let mut framing = framing_of(self.identity, part);
        framing.add(bytes);
        let stored = [bytes, &framing.trailer()].concat();
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::WRITE_PART).arg(1).arg(&self.hash);
        command.arg(part).arg(stored).arg(KEPT.as_millis() as u64);
        self.connection.query::<i64>(&command).await.map(drop)
    }

    /// A part of so many bytes; nothing if it is not there.
    async fn read(&self, part: u64, len: u64) -> BackendResult<Option<Bytes>> {
        let mut get = redis::cmd("HGET");
        get.arg(&self.hash).arg(part);
        let stored = self.connection.query::<Option<Vec<u8>>>(&get).await?;
        stored.map(|stored| self.verified(part, len, stored)).transpose()
    }

    /// The same of a body that has been committed under a key, if that still has it.
    async fn read_committed(&self, key: &[u8], part: u64, len: u64) -> BackendResult<Bytes> {
        let mut get = redis::cmd("HMGET");
        get.arg(key).arg("identity").arg(part);
        let (identity, stored) = match self.connection.query::<(Option<Vec<u8>>, Option<Vec<u8>>)>(&get).await
        {
            Err(error) if is_wrong_type(&error) => return Err(is_gone()),
            answer => answer?,
        };
        if identity.as_deref() != Some(&self.identity.to_le_bytes()) {
            return Err(is_gone());
        }
        let missing = || BackendError::new(ErrorKind::Codec, "a part of a stored body is missing");
        self.verified(part, len, stored.ok_or_else(missing)?)
    }

    fn verified(&self, part: u64, len: u64, stored: Vec<u8>) -> BackendResult<Bytes> {
        let damaged = || BackendError::new(ErrorKind::Codec, "a part of a stored body is damaged");
        if wire::payload_len(stored.len() as u64) != Some(len) {
            return Err(damaged());
        }
        let mut framing = framing_of(self.identity, part);
        framing.add(&stored[..len as usize]);
        if framing.trailer() != stored[len as usize..] {
            return Err(damaged());
        }
        let mut bytes = Bytes::from(stored);
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    async fn remove(&self) -> BackendResult<()> {
        self.connection.query::<i64>(redis::cmd("UNLINK").arg(&self.hash)).await.map(drop)
    }
}

/// What the server has of a body that is being written.
struct Written {
    parts: Parts,
    /// The key of the entry.
    key: Vec<u8>,
    /// Bytes in the parts that are there.
    readable: AtomicU64,
    /// The hash has been asked to take a part, and may be there.
    is_begun: AtomicBool,
    /// It is the entry by now.
    is_committed: AtomicBool,
    has_ended: AtomicBool,
    last: LastPart,
}

impl Drop for Written {
    fn drop(&mut self) {
        if *self.is_begun.get_mut() && !*self.is_committed.get_mut() {
            self.parts.connection.unlink_later(mem::take(&mut self.parts.hash));
        }
    }
}

impl Written {
    async fn part(&self, part: u64, len: u64) -> BackendResult<Bytes> {
        if !self.is_committed.load(Ordering::Acquire)
            && let Some(bytes) = self.parts.read(part, len).await?
        {
            return Ok(bytes);
        }
        // It may have been committed just now.
        self.parts.read_committed(&self.key, part, len).await
    }
}

/// The last part that was read of a body: readers may ask for less at a time.
#[derive(Default)]
struct LastPart(Mutex<Option<(u64, Bytes)>>);

impl LastPart {
    /// At most `limit` bytes from `at` on, of a body of which there are so many, by a read of one part and its length.
    async fn read<R>(
        &self,
        at: u64,
        limit: u64,
        len: u64,
        read: impl FnOnce(u64, u64) -> R,
    ) -> BackendResult<Bytes>
    where
        R: Future<Output = BackendResult<Bytes>>,
    {
        let part = at / PART as u64;
        let from = part * PART as u64;
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = match last {
            Some((known, bytes)) if known == part => bytes,
            _ => {
                let bytes = read(part, (len - from).min(PART as u64)).await?;
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((part, bytes.clone()));
                bytes
            }
        };
        let (from, limit) = ((at - from) as usize, usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(bytes.slice(from..from.saturating_add(limit).min(bytes.len())))
    }
}

#[async_trait]
impl WrittenPart for Written {
    fn readable(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    async fn read_at(&self, at: u64, limit: u64) -> BackendResult<Bytes> {
        self.last.read(at, limit, self.readable(), |part, len| self.part(part, len)).await
    }
}

/// A body on its way to the server.
pub(crate) struct RedisWriter {
    commands: Commands,
    key: CacheKey,
    frame: Encoded,
    written: Arc<Written>,
    /// What has come and is not a part yet: one at most.
    rest: Vec<u8>,
    /// Bytes that have come.
    len: u64,
    /// A part has failed, or its caller has left.
    is_broken: bool,
}

impl Drop for RedisWriter {
    fn drop(&mut self) {
        self.written.has_ended.store(true, Ordering::Release);
    }
}

impl RedisWriter {
    pub(crate) fn begin(store: &RedisStore, key: &CacheKey, entry: &CacheValue<Raw>) -> BackendResult<Self> {
        let live = || BackendError::new(ErrorKind::Codec, "a live value reached a store of bytes");
        let (commands, frame) =
            (store.commands.clone(), entry.data().as_encoded().cloned().ok_or_else(live)?);
        let hash = CacheKey::builder("body")
            .part_bytes("key", key.as_encoded())
            .part("identity", frame.identity)
            // Other processes may be at a copy of the same body.
            .part("writer", RandomState::new().hash_one(frame.identity))
            .reserved()
            .build();
        let parts = Parts {
            connection: store.connection.clone(),
            hash: commands.key(&hash),
            identity: frame.identity,
        };
        let written = Arc::new(Written {
            parts,
            key: commands.key(key),
            readable: AtomicU64::new(0),
            is_begun: AtomicBool::new(false),
            is_committed: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            last: LastPart::default(),
        });
        let (rest, key) = (Vec::new(), key.clone());
        Ok(Self { commands, key, frame, written, rest, len: 0, is_broken: false })
    }

    fn check(&self) -> BackendResult<()> {
        let message = "the body was given up when one of its parts failed";
        if self.is_broken { Err(BackendError::new(ErrorKind::Closed, message)) } else { Ok(()) }
    }

    fn is_one_value(&self) -> bool {
        self.len <= PART as u64
    }

    /// Has what has come stored as a part. If that is cut short the writer is of no use.
    async fn flush(&mut self) -> BackendResult<()> {
        let part = (self.len - self.rest.len() as u64) / PART as u64;
        self.is_broken = true;
        self.written.is_begun.store(true, Ordering::Release);
        self.written.parts.write(part, &self.rest).await?;
        self.is_broken = false;
        self.rest.clear();
        self.written.readable.store(self.len, Ordering::Release);
        Ok(())
    }

    /// The entry with the body, which is short.
    fn whole(&self, entry: &CacheValue<Raw>) -> CacheValue<Raw> {
        let mut frame = self.frame.clone();
        (frame.plain_len, frame.bytes) = (self.len, Bytes::copy_from_slice(&self.rest));
        entry.clone().map(|_| Raw::encoded(frame, None))
    }

    fn commit_command(&self, entry: &CacheValue<Raw>, condition: &ConditionArguments) -> redis::Cmd {
        let start = wire::encode_body_start(&self.key, entry, &self.frame);
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::COMMIT_BODY).arg(2).arg(&self.written.parts.hash).arg(&self.written.key);
        command.arg(start).arg(self.commands.end_argument(entry));
        command.arg(&condition.identity).arg(condition.mode);
        command.arg(self.len.div_ceil(PART as u64)).arg(self.len);
        command
    }

    async fn commit_parts(
        &mut self,
        entry: &CacheValue<Raw>,
        condition: &ConditionArguments,
    ) -> BackendResult<Option<Vec<u8>>> {
        self.check()?;
        if !self.rest.is_empty() {
            self.flush().await?;
        }
        let command = self.commit_command(entry, condition);
        match self.written.parts.connection.query::<Value>(&command).await? {
            Value::Nil => {
                self.written.is_committed.store(true, Ordering::Release);
                Ok(None)
            }
            Value::BulkString(start) => Ok(Some(start)),
            _ => {
                Err(BackendError::new(ErrorKind::Io, "the server has lost parts of a body that was written"))
            }
        }
    }
}

#[async_trait]
impl StoreWriter for RedisWriter {
    async fn chunk(&mut self, mut chunk: Bytes) -> BackendResult<()> {
        self.check()?;
        let limit = self.commands.settings.body_limit;
        if self.len.saturating_add(chunk.len() as u64) > limit {
            self.is_broken = true;
            return Err(BackendError::too_large(
                "a body",
                self.len.saturating_add(chunk.len() as u64),
                limit,
            ));
        }
        while chunk.has_remaining() {
            if self.rest.len() == PART {
                self.flush().await?;
            }
            let more = chunk.len().min(PART - self.rest.len());
            self.rest.extend_from_slice(&chunk[..more]);
            self.len += more as u64;
            chunk.advance(more);
        }
        Ok(())
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        Some(self.written.clone())
    }

    async fn commit(mut self: Box<Self>, entry: CacheValue<Raw>) -> BackendResult<()> {
        self.check()?;
        if self.is_one_value() {
            let set = self.commands.set(&self.key, &self.whole(&entry))?;
            return self.written.parts.connection.query::<()>(&set).await;
        }
        self.commit_parts(&entry, &ConditionArguments::ALWAYS).await.map(drop)
    }

    async fn commit_if(
        &mut self,
        entry: &CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        self.check()?;
        let in_the_way = if self.is_one_value() {
            let set = self.commands.set_if(&self.key, &self.whole(entry), condition)?;
            self.written.parts.connection.query(&set).await?
        } else {
            self.commit_parts(entry, &ConditionArguments::of(condition)?).await?
        };
        Ok(self.commands.came_of(&self.key, in_the_way))
    }

    async fn abort(self: Box<Self>) {
        let written = self.written.clone();
        drop(self);
        // Who still reads it keeps it until then.
        if let Some(mut written) = Arc::into_inner(written)
            && *written.is_begun.get_mut()
        {
            match written.parts.remove().await {
                Ok(()) => *written.is_begun.get_mut() = false,
                // It is tried once more when this is dropped.
                Err(error) => tracing::debug!(%error, "parts of a body that was given up are still there"),
            }
        }
    }
}

/// A body of one value, which has been read.
struct ShortBody {
    record: WholeRecord,
    connection: Connection,
    key: Vec<u8>,
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

    async fn discard(&self) -> BackendResult<()> {
        RedisStore::remove_if_same(&self.connection, &self.key, self.record.bytes()).await
    }
}

/// A body in parts.
struct LongBody {
    commands: Commands,
    key: CacheKey,
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
        let Some(frame) = entry.data().as_encoded() else { return Ok(None) };
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::SET_START).arg(1).arg(&self.parts.hash);
        command.arg(wire::encode_body_start(&self.key, entry, frame)).arg(self.commands.end_argument(entry));
        command.arg(&self.start);
        let is_done = self.parts.connection.query::<i64>(&command).await? == 1;
        Ok(Some(if is_done { Conditional::Written } else { Conditional::Conflict(None) }))
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
        let stored = self.commands.key(key);
        let mut both = redis::pipe();
        both.get(&stored).cmd("HMGET").arg(&stored).arg("start").arg("len");
        let answers = self.connection.pipeline::<Value>(&mut both).await?;
        let is_other = |answer: &BackendResult<Value>| answer.as_ref().is_err_and(is_wrong_type);
        if answers.iter().all(is_other) {
            // Another type, or one that was replaced by the other in between.
            return Ok(StoredBody::Unsupported);
        }
        let mut answers = answers.into_iter();
        let (string, hash) = (of_this_type(answers.next())?, of_this_type(answers.next())?);
        if let Some(Value::BulkString(record)) = string {
            let record = WholeRecord::of(Bytes::from(record));
            let (connection, key) = (self.connection.clone(), stored);
            let short = record.map(|record| ShortBody { record, connection, key });
            return Ok(short.map_or(StoredBody::Unsupported, |short| StoredBody::There(Box::new(short))));
        }
        let parts = hash.map(redis::from_redis_value::<HashStart>).transpose();
        let Ok(Some((Some(start), Some(len)))) = parts else { return Ok(StoredBody::Absent) };
        let Some(identity) = wire::identity_of(&start) else { return Ok(StoredBody::Absent) };
        let parts = Parts { connection: self.connection.clone(), hash: stored, identity };
        let (commands, key, last) = (self.commands.clone(), key.clone(), LastPart::default());
        Ok(StoredBody::There(Box::new(LongBody { commands, key, parts, start, len, last })))
    }
}

/// Nothing where the key has another type of value.
fn of_this_type(answer: Option<BackendResult<Value>>) -> BackendResult<Option<Value>> {
    match answer {
        Some(Err(error)) if is_wrong_type(&error) => Ok(None),
        answer => answer.transpose(),
    }
}
