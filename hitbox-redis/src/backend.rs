//! Redis as a leaf.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::envelope::wire;
use hitbox_backend::{
    Adoption, Answer, Backend, Capabilities, DeleteStatus, Leaf, Page, Parsed, Peek, Raw, ReadOptions,
};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind, Timestamp, VersionMismatch};
use redis::{Cmd, Pipeline};

use crate::builder::{RedisBuilder, Settings};
use crate::connection::Connection;
use crate::joined::JoinedReads;

/// The Redis backend. Clones, and all views that compositions make of it, share one connection.
#[derive(Clone)]
pub struct RedisBackend {
    connection: Connection,
    reads: JoinedReads,
    settings: Arc<Settings>,
    leaf: Leaf,
}

/// Removes a record if it is still the one that was found damaged.
const REMOVE_IF_SAME: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0";

/// Stores a record (ARGV 1, to end at ARGV 2 if that is not empty) unless the stored one has the same era and a version
/// that is not lower; then it answers with the start of that: header and attributes. A stored record with the checksum
/// ARGV 3 does not count.
const SET_IF_NEWER: &str = r"
local head = redis.pcall('GETRANGE', KEYS[1], 0, 135)
if type(head) == 'string' and #head == 136 and string.sub(head, 1, 5) == 'HBOX'
    and string.sub(head, 129, 136) ~= ARGV[3] and string.sub(head, 121, 128) == string.sub(ARGV[1], 121, 128) then
  local has_version = math.floor(struct.unpack('<I2', head, 7) / 64) % 2 == 1
  local low, high = struct.unpack('<I4I4', head, 65)
  local new_low, new_high = struct.unpack('<I4I4', ARGV[1], 65)
  if has_version and (new_high < high or (new_high == high and new_low <= low)) then
    local attributes = struct.unpack('<I4', head, 113)
    return redis.call('GETRANGE', KEYS[1], 0, 135 + attributes)
  end
end
if ARGV[2] == '' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
end
return false
";

/// Records that are overwritten while they are looked at, in a row.
const MAX_CONFLICTS: usize = 16;

/// What stands where in a record.
const CHECKSUM: std::ops::Range<usize> = wire::HEADER_BYTES - 8..wire::HEADER_BYTES;

impl RedisBackend {
    /// Settings to start from. `url` is `redis://[user:password@]host:port[/db]`, or `rediss://…` with the
    /// feature `tls`, or `redis+unix:///path`.
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder::new(url)
    }

    pub(crate) fn new(builder: RedisBuilder) -> BackendResult<Self> {
        let connection = Connection::new(&builder)?;
        let RedisBuilder { settings, options, .. } = builder;
        let reads = JoinedReads::new(connection.clone());
        Ok(Self { connection, reads, settings: Arc::new(settings), leaf: Leaf::new(options) })
    }

    /// Waits for the server's answer, at most until the deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] or [`ErrorKind::Timeout`] if there is none.
    pub async fn ping(&self) -> BackendResult<()> {
        let _: String =
            self.connection.query(&redis::cmd("PING")).await.map_err(|e| e.at(self.leaf.path()))?;
        Ok(())
    }

    fn key(&self, key: &CacheKey) -> Vec<u8> {
        self.settings.key_format.render(&self.settings.prefix, key)
    }

    /// When the server may drop an entry. Redis keeps times in signed 64 bits.
    fn end_of(&self, value: &CacheValue<Raw>) -> Option<u64> {
        let end = value.drop_at().filter(|_| self.leaf.clock().is_real())?;
        Some((end + self.settings.skew_margin).as_millis().min(i64::MAX as u64))
    }

    fn set(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<Cmd> {
        let bytes = self.leaf.to_bytes(key, value)?;
        let mut command = redis::cmd("SET");
        command.arg(self.key(key)).arg(bytes);
        if let Some(end) = self.end_of(value) {
            command.arg("PXAT").arg(end);
        }
        Ok(command)
    }

    /// A page of the keys that begin with the prefix, as the server has them.
    async fn scan(&self, cursor: u64, limit: usize) -> BackendResult<(u64, Vec<Vec<u8>>)> {
        let pattern = format!("{}*", escape_glob(&self.settings.prefix));
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(limit.clamp(1, 10_000));
        self.connection.query(&scan).await
    }

    /// Reads what says when the record ends, and removes it, as one transaction.
    fn unlink(&self, pipeline: &mut Pipeline, key: &CacheKey) {
        let key = self.key(key);
        pipeline.cmd("GETRANGE").arg(&key).arg(0).arg(wire::HEADER_BYTES - 1);
        pipeline.cmd("UNLINK").arg(key);
    }

    /// Whether a removed record was still alive.
    fn removed(&self, header: &[u8], count: u32, now: Timestamp) -> DeleteStatus {
        let gone = wire::peek_times(header).is_some_and(|entry| entry.is_gone(now));
        DeleteStatus::of(if gone { 0 } else { count })
    }

    async fn load(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let under_way = self.reads.begin();
        let found = match under_way.join(|| self.key(key)).await {
            Some(answer) => answer?,
            None => self.get(key).await?,
        };
        Ok(self.parse(key, found).await)
    }

    async fn get(&self, key: &CacheKey) -> BackendResult<Option<Vec<u8>>> {
        let mut get = redis::cmd("GET");
        get.arg(self.key(key));
        match self.connection.query::<Option<Vec<u8>>>(&get).await {
            // Somebody keeps another type of value under this key.
            Err(error) if is_wrong_type(&error) => Ok(None),
            answer => answer,
        }
    }

    async fn parse(&self, key: &CacheKey, bytes: Option<Vec<u8>>) -> Option<CacheValue<Raw>> {
        let bytes = Bytes::from(bytes?);
        match self.leaf.parse(key, &bytes) {
            Parsed::Value(value) => Some(value),
            Parsed::Leave => None,
            Parsed::Remove => {
                // Rare, and not to be a part of every read's future.
                Box::pin(self.remove_damaged(key, bytes)).await;
                None
            }
        }
    }

    async fn remove_damaged(&self, key: &CacheKey, bytes: Bytes) {
        let mut command = redis::cmd("EVAL");
        command.arg(REMOVE_IF_SAME).arg(1).arg(self.key(key)).arg(&bytes[..]);
        if let Err(error) = self.connection.query::<i64>(&command).await {
            tracing::debug!(backend = %self.leaf.path(), %error, "a damaged record could not be removed");
        }
    }
}

impl Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("leaf", &self.leaf)
            .field("settings", &self.settings)
            .field("database", &self.connection.database())
            .finish_non_exhaustive()
    }
}

/// A pipeline answers for all its commands or for none.
fn each<T, U: Clone>(
    result: BackendResult<Vec<T>>,
    count: usize,
    then: impl FnMut(T) -> U,
) -> Vec<BackendResult<U>> {
    match result {
        Ok(values) => values.into_iter().map(then).map(Ok).collect(),
        Err(error) => vec![Err(error); count],
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.load(key).await
    }

    async fn read_with(&self, key: &CacheKey, options: &ReadOptions) -> Answer {
        self.leaf.read_with(self, key, options, || self.load(key)).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let set = self.set(key, &value)?;
        self.connection.query::<()>(&set).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let now = self.leaf.clock().now();
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        self.unlink(&mut pipeline, key);
        match self.connection.pipeline::<(Vec<u8>, u32)>(&pipeline).await {
            Ok((header, count)) => Ok(self.removed(&header, count, now)),
            Err(error) if is_wrong_type(&error) => {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(self.key(key));
                Ok(DeleteStatus::of(self.connection.query(&unlink).await?))
            }
            Err(error) => Err(error),
        }
    }

    async fn read_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        let mut get = redis::cmd("MGET");
        keys.iter().for_each(|key| {
            get.arg(self.key(key));
        });
        let found = self.connection.query::<Vec<Option<Vec<u8>>>>(&get).await;
        let mut answers = Vec::with_capacity(keys.len());
        for (key, bytes) in keys.iter().zip(each(found, keys.len(), |bytes| bytes)) {
            answers.push(match bytes {
                Ok(bytes) => Ok(self.parse(key, bytes).await),
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn write_batch(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        let mut pipeline = redis::pipe();
        for (key, value) in &entries {
            match self.set(key, value) {
                Ok(set) => pipeline.add_command(set),
                Err(error) => return vec![Err(error); entries.len()],
            };
        }
        let written = self.connection.pipeline::<Vec<String>>(&pipeline).await;
        each(written, entries.len(), drop)
    }

    async fn remove_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        let now = self.leaf.clock().now();
        let mut pipeline = redis::pipe();
        keys.iter().for_each(|key| self.unlink(&mut pipeline, key));
        let removed = self.connection.pipeline::<Vec<redis::Value>>(&pipeline).await;
        let pairs = removed.map(|values| values.chunks(2).map(<[_]>::to_vec).collect());
        each(pairs, keys.len(), |pair: Vec<redis::Value>| {
            let header = pair.first().and_then(|v| redis::from_redis_value::<Vec<u8>>(v.clone()).ok());
            let count = pair.get(1).and_then(|v| redis::from_redis_value::<u32>(v.clone()).ok());
            self.removed(&header.unwrap_or_default(), count.unwrap_or(0), now)
        })
    }

    /// Scans for keys with the prefix and unlinks them in batches of about 1,000.
    async fn erase(&self) -> BackendResult<()> {
        if self.settings.prefix.is_empty() {
            return Err(BackendError::unsupported("erasing without a key prefix"));
        }
        let mut cursor = 0;
        loop {
            let (next, keys) = self.scan(cursor, 1_000).await?;
            if !keys.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(keys);
                self.connection.query::<u64>(&unlink).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Keys of others, and the framework's own, are left out.
    async fn enumerate(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let (next, found) = self.scan(cursor, limit).await?;
        let format = self.settings.key_format;
        let keys = found.iter().filter_map(|found| format.parse(&self.settings.prefix, found));
        let keys = keys.filter(|key| !key.is_reserved()).collect();
        Ok(Page { keys, next: (next != 0).then_some(next) })
    }

    /// Looks at the header of every record.
    async fn entry_count(&self) -> BackendResult<u64> {
        let (now, mut count, mut cursor) = (self.leaf.clock().now(), 0, 0);
        loop {
            let (next, found) = self.scan(cursor, 1_000).await?;
            let is_ours = |found: &&Vec<u8>| {
                let key = self.settings.key_format.parse(&self.settings.prefix, found);
                key.is_some_and(|key| !key.is_reserved())
            };
            let mut heads = redis::pipe();
            for key in found.iter().filter(is_ours) {
                heads.cmd("GETRANGE").arg(key).arg(0).arg(wire::HEADER_BYTES - 1);
            }
            if !heads.is_empty() {
                let heads = self.connection.pipeline::<Vec<redis::Value>>(&heads).await?;
                let heads =
                    heads.into_iter().filter_map(|head| redis::from_redis_value::<Vec<u8>>(head).ok());
                count +=
                    heads.filter(|head| wire::peek_times(head).is_some_and(|e| e.is_readable(now))).count();
            }
            if next == 0 {
                return Ok(count as u64);
            }
            cursor = next;
        }
    }

    /// Header and attributes, in one round trip unless there are attributes.
    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        let mut wanted = wire::HEADER_BYTES;
        // It may be overwritten by one with more in between.
        for _ in 0..MAX_CONFLICTS {
            let mut range = redis::cmd("GETRANGE");
            range.arg(self.key(key)).arg(0).arg(wanted - 1);
            let start = match self.connection.query::<Vec<u8>>(&range).await {
                Err(error) if is_wrong_type(&error) => return Ok(Peek::Absent),
                answer => answer?,
            };
            match wire::peek_for(key, &start, self.leaf.codec().schema) {
                Some(Ok(entry)) => return Ok(Peek::Entry(entry)),
                Some(Err(more)) if more > wanted => wanted = more,
                _ => return Ok(Peek::Absent),
            }
        }
        Ok(Peek::Unknown)
    }

    async fn write_if_newer(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let attempted = value.details().and_then(|details| details.version).unwrap_or(0);
        let record = self.leaf.to_bytes(key, &value)?;
        let end = self.end_of(&value).map_or_else(String::new, |end| end.to_string());
        let mut ignored = Vec::new();
        for _ in 0..MAX_CONFLICTS {
            let mut command = redis::cmd("EVAL");
            command.arg(SET_IF_NEWER).arg(1).arg(self.key(key)).arg(&record).arg(&end).arg(&ignored);
            let Some(start) = self.connection.query::<Option<Vec<u8>>>(&command).await? else {
                return Ok(());
            };
            let stored = wire::peek_for(key, &start, self.leaf.codec().schema).and_then(Result::ok);
            if let Some(stored) = stored
                && let Some(existing) = stored.details().and_then(|details| details.version)
                && (key.is_reserved() || self.leaf.counts(self, key, &stored).await?)
            {
                return Err(BackendError::version_mismatch(VersionMismatch { existing, attempted }));
            }
            // It does not count: its time is over, or it has been invalidated.
            ignored = start.get(CHECKSUM).map(<[u8]>::to_vec).unwrap_or_default();
        }
        Err(BackendError::new(ErrorKind::Overloaded, "the stored entry changes all the time"))
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.durable = true;
        capabilities.shared = true;
        capabilities.erases = !self.settings.prefix.is_empty();
        capabilities.enumerates = true;
        capabilities.writes_conditionally = true;
        capabilities
    }

    fn leaf(&self) -> Option<&Leaf> {
        Some(&self.leaf)
    }

    fn adopted(&self, adoption: &Adoption) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { leaf: self.leaf.adopted(adoption), ..self.clone() }))
    }
}

fn is_wrong_type(error: &BackendError) -> bool {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<redis::RedisError>());
    error.kind() == ErrorKind::Protocol && source.is_some_and(|e| e.to_string().contains("WRONGTYPE"))
}

fn escape_glob(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
