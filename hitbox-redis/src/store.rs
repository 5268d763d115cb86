//! Redis as a store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::core::{
    BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, Lifetime, Timestamp,
};
use hitbox_backend::envelope::wire;
use hitbox_backend::store::{
    Capabilities, Conditional, DeleteStatus, Page, Peek, Raw, Store, StoreCondition, Sweep,
};
use redis::{Cmd, Pipeline};

use crate::batched_reads::BatchedReads;
use crate::builder::{RedisBuilder, Settings};
use crate::connection::Connection;

/// A Redis server as a store of bytes.
pub struct RedisStore {
    connection: Connection,
    reads: BatchedReads,
    settings: Settings,
    clock: Arc<dyn Clock>,
    schema: u32,
}

/// Removes a record if it is still the one that was found damaged.
const REMOVE_IF_SAME: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0";

/// Stores a record (ARGV 1, to end at ARGV 2 if that is not empty) on a condition (ARGV 4): `newer` unless the stored one
/// has a version that is not lower, `absent` unless there is one, `same` if the stored one has the identity ARGV 3. For
/// the first two a stored record with that identity does not count, nor one of another namespace epoch. If the condition
/// does not hold the answer is the start of the stored record, header and attributes, which is empty if there is none.
const SET_IF: &str = r"
local head = redis.pcall('GETRANGE', KEYS[1], 0, 143)
local is_record = type(head) == 'string' and #head == 144
    and string.sub(head, 1, 4) == 'HBOX' and string.byte(head, 5) == 1
local start = function()
  if not is_record then return '' end
  return redis.call('GETRANGE', KEYS[1], 0, 143 + struct.unpack('<I4', head, 113))
end
local is_known = is_record and string.sub(head, 105, 112) == ARGV[3]
if ARGV[4] == 'same' then
  if not is_known then return start() end
elseif is_record and not is_known and string.sub(head, 121, 128) == string.sub(ARGV[1], 121, 128) then
  if ARGV[4] == 'absent' then return start() end
  local has_version = math.floor(struct.unpack('<I2', head, 7) / 64) % 2 == 1
  local low, high = struct.unpack('<I4I4', head, 65)
  local new_low, new_high = struct.unpack('<I4I4', ARGV[1], 65)
  if has_version and (new_high < high or (new_high == high and new_low <= low)) then return start() end
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

impl RedisStore {
    pub(crate) fn new(builder: RedisBuilder) -> BackendResult<Self> {
        let connection = Connection::new(&builder)?;
        let RedisBuilder { settings, options, .. } = builder;
        let reads = BatchedReads::new(connection.clone());
        let (clock, schema) = (options.clock, options.codec.schema);
        Ok(Self { connection, reads, settings, clock, schema })
    }

    pub(crate) async fn ping(&self) -> BackendResult<()> {
        self.connection.query::<String>(&redis::cmd("PING")).await.map(drop)
    }

    fn key(&self, key: &CacheKey) -> Vec<u8> {
        self.settings.key_format.render(&self.settings.prefix, key)
    }

    /// When the server may drop an entry. Redis keeps times in signed 64 bits.
    fn end_of(&self, value: &CacheValue<Raw>) -> Option<u64> {
        let end = value.drop_at().filter(|_| self.clock.is_real())?;
        Some((end + self.settings.skew_margin).as_millis().min(i64::MAX as u64))
    }

    fn set(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<Cmd> {
        let bytes = Raw::to_record(key, value)?;
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

    async fn get(&self, key: &CacheKey) -> BackendResult<Option<Vec<u8>>> {
        let mut get = redis::cmd("GET");
        get.arg(self.key(key));
        match self.connection.query::<Option<Vec<u8>>>(&get).await {
            // Somebody keeps another type of value under this key.
            Err(error) if is_wrong_type(&error) => Ok(None),
            answer => answer,
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("settings", &self.settings)
            .field("database", &self.connection.database())
            .finish_non_exhaustive()
    }
}

fn entry_of(bytes: Option<Vec<u8>>) -> Option<CacheValue<Raw>> {
    bytes.map(|bytes| Raw::record(Bytes::from(bytes)))
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
impl Store for RedisStore {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let under_way = self.reads.begin();
        let found = match under_way.batched(|| self.key(key)).await {
            Some(answer) => answer?,
            None => self.get(key).await?,
        };
        Ok(entry_of(found))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let set = self.set(key, &value)?;
        self.connection.query::<()>(&set).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let now = self.clock.now();
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
        each(self.connection.query::<Vec<Option<Vec<u8>>>>(&get).await, keys.len(), entry_of)
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
        let now = self.clock.now();
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

    /// Scans for keys with the prefix and unlinks them in batches of about 1,000. What begins with the prefix and is no key
    /// of ours stays.
    async fn erase(&self) -> BackendResult<()> {
        if self.settings.prefix.is_empty() {
            return Err(BackendError::unsupported("erasing without a key prefix"));
        }
        let mut cursor = 0;
        loop {
            let (next, mut keys) = self.scan(cursor, 1_000).await?;
            keys.retain(|key| self.settings.key_format.parse(&self.settings.prefix, key).is_some());
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
    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let (next, found) = self.scan(cursor, limit).await?;
        let format = self.settings.key_format;
        let keys = found.iter().filter_map(|found| format.parse(&self.settings.prefix, found));
        let keys = keys.filter(|key| !key.is_reserved()).collect();
        Ok(Page { keys, next: (next != 0).then_some(next) })
    }

    /// Looks at the header of every record.
    async fn count(&self) -> BackendResult<u64> {
        let (now, mut count, mut cursor) = (self.clock.now(), 0, 0);
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
            match wire::peek_for(key, &start, self.schema) {
                Some(Ok(entry)) => return Ok(Peek::Entry(entry)),
                Some(Err(more)) if more > wanted => wanted = more,
                _ => return Ok(Peek::Absent),
            }
        }
        Ok(Peek::Unknown)
    }

    async fn write_if(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        let (mode, identity) = match condition {
            StoreCondition::IfNewer { ignoring, .. } => ("newer", *ignoring),
            StoreCondition::IfAbsent { ignoring } => ("absent", *ignoring),
            StoreCondition::IfSame(identity) => ("same", Some(*identity)),
            _ => return Err(BackendError::unsupported("this condition of a write")),
        };
        let record = Raw::to_record(key, &value)?;
        let end = self.end_of(&value).map_or_else(String::new, |end| end.to_string());
        let identity = identity.map_or_else(Vec::new, |identity| identity.to_le_bytes().to_vec());
        let mut command = redis::cmd("EVAL");
        command.arg(SET_IF).arg(1).arg(self.key(key)).arg(&record).arg(&end).arg(&identity).arg(mode);
        let Some(start) = self.connection.query::<Option<Vec<u8>>>(&command).await? else {
            return Ok(Conditional::Written);
        };
        let identity = wire::identity_of(&start).unwrap_or(0);
        Ok(Conditional::Conflict(match wire::peek_for(key, &start, self.schema) {
            Some(Ok(stored)) => Some((stored, identity)),
            // A record that this leaf cannot use, or none: it does not count.
            _ if start.is_empty() => None,
            _ => Some((CacheValue::new(()).with_lifetime(Lifetime::ENDED), identity)),
        }))
    }

    /// Removes the record if it is still the one that was found.
    async fn discard(&self, key: &CacheKey, damaged: &CacheValue<Raw>) -> BackendResult<()> {
        let Some(record) = Raw::record_bytes(damaged) else { return Ok(()) };
        let mut command = redis::cmd("EVAL");
        command.arg(REMOVE_IF_SAME).arg(1).arg(self.key(key)).arg(&record[..]);
        self.connection.query::<i64>(&command).await.map(drop)
    }

    /// The server drops what is over by itself.
    async fn sweep(&self, _: usize) -> BackendResult<Sweep> {
        Ok(Sweep::default())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.durable = true;
        capabilities.shared = true;
        capabilities.erases = !self.settings.prefix.is_empty();
        capabilities.enumerates = true;
        capabilities.counts = true;
        capabilities.writes_conditionally = true;
        capabilities
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
