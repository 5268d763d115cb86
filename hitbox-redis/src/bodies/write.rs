//! A body on its way to the server.

use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use hitbox_backend::core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};
use hitbox_backend::envelope::{Encoded, wire};
use hitbox_backend::store::{Conditional, Raw, StoreCondition, StoreWriter, WrittenPart};
use redis::Value;

use super::{LastPart, PART, Parts};
use crate::commands::{Commands, ConditionArguments};
use crate::scripts;
use crate::store::RedisStore;

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
