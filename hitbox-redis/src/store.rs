//! Redis as a store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind};
use hitbox_backend::envelope::wire;
use hitbox_backend::store::{
    Capabilities, Conditional, DeleteStatus, Page, Peek, Raw, Store, StoreCondition, StoreWriter, StoredBody,
    Sweep, TimeChange,
};
use redis::{Cmd, Value};

use crate::batched_reads::{BatchedReads, string_or_nothing};
use crate::bodies::RedisWriter;
use crate::builder::RedisBuilder;
use crate::commands::Commands;
use crate::connection::Connection;
use crate::error::is_wrong_type;
use crate::scripts;

/// A Redis server as a store of bytes.
pub struct RedisStore {
    pub(crate) connection: Connection,
    pub(crate) commands: Commands,
    reads: BatchedReads,
}

/// What there is under a key without its value.
enum Start {
    /// A record of ours: its header and attributes, and what they say.
    Record(Vec<u8>, CacheValue<()>),
    /// No record that this leaf can use.
    Nothing,
    /// It was another one each time.
    Changing,
}

/// Records that are overwritten while they are looked at, in a row.
const MAX_CONFLICTS: usize = 16;

impl RedisStore {
    pub(crate) fn new(builder: RedisBuilder) -> BackendResult<Self> {
        let connection = Connection::new(&builder)?;
        let RedisBuilder { settings, options, .. } = builder;
        let reads = BatchedReads::new(connection.clone());
        let (settings, clock, schema) = (Arc::new(settings), options.clock, options.codec.schema);
        Ok(Self { connection, commands: Commands { settings, clock, schema }, reads })
    }

    pub(crate) async fn ping(&self) -> BackendResult<()> {
        self.connection.query::<String>(&redis::cmd("PING")).await.map(drop)
    }

    fn status_of(&self, held: &Peek) -> DeleteStatus {
        match held {
            Peek::Absent => DeleteStatus::Missing,
            Peek::Unknown => DeleteStatus::of(1),
            Peek::Entry(entry) => DeleteStatus::of_entry(Some(entry), self.commands.clock.now()),
        }
    }

    /// What a record says without its value, in one round trip unless it has attributes or is a body in parts.
    async fn start(&self, key: &CacheKey) -> BackendResult<Start> {
        let mut wanted = wire::HEADER_BYTES;
        // It may be overwritten by one with more in between.
        for _ in 0..MAX_CONFLICTS {
            let mut range = redis::cmd("GETRANGE");
            range.arg(self.commands.key(key)).arg(0).arg(wanted - 1);
            let start = match self.connection.query::<Vec<u8>>(&range).await {
                Err(error) if is_wrong_type(&error) => match self.start_of_parts(key).await? {
                    Some(start) => start,
                    None => return Ok(Start::Nothing),
                },
                answer => answer?,
            };
            match wire::peek_for(key, &start, self.commands.schema) {
                Some(Ok(entry)) => return Ok(Start::Record(start, entry)),
                Some(Err(more)) if more > wanted => wanted = more,
                _ => return Ok(Start::Nothing),
            }
        }
        Ok(Start::Changing)
    }

    async fn start_of_parts(&self, key: &CacheKey) -> BackendResult<Option<Vec<u8>>> {
        let mut get = redis::cmd("HGET");
        get.arg(self.commands.key(key)).arg("start");
        match self.connection.query(&get).await {
            Err(error) if is_wrong_type(&error) => Ok(None),
            start => start,
        }
    }

    pub(crate) async fn remove_if_same(
        connection: &Connection,
        key: &[u8],
        record: &[u8],
    ) -> BackendResult<()> {
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::REMOVE_IF_SAME).arg(1).arg(key).arg(record);
        match connection.query::<i64>(&command).await {
            // Somebody has put another type of value there since.
            Err(error) if is_wrong_type(&error) => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn get(&self, key: &CacheKey) -> BackendResult<Option<Vec<u8>>> {
        let key = self.commands.key(key);
        let mut get = Cmd::with_capacity(2, 3 + key.len());
        get.arg("GET").arg(key);
        string_or_nothing(self.connection.query(&get).await)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("settings", &self.commands.settings)
            .field("database", &self.connection.database())
            .finish_non_exhaustive()
    }
}

fn entry_of(bytes: Option<Vec<u8>>) -> Option<CacheValue<Raw>> {
    bytes.map(|bytes| Raw::record(Bytes::from(bytes)))
}

/// What a pipeline answers for each of its commands; a pipeline that was not answered fails for all.
fn each<T, U: Clone>(
    result: BackendResult<Vec<BackendResult<T>>>,
    count: usize,
    then: impl Fn(BackendResult<T>) -> BackendResult<U>,
) -> Vec<BackendResult<U>> {
    match result {
        Ok(values) => values.into_iter().map(then).collect(),
        Err(error) => vec![Err(error); count],
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let under_way = self.reads.begin();
        let found = match under_way.batched(|| self.commands.key(key)).await {
            Some(answer) => answer?,
            None => self.get(key).await?,
        };
        Ok(entry_of(found))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let set = self.commands.set(key, &value)?;
        self.connection.query::<()>(&set).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(self.status_of(&self.take(key).await?))
    }

    async fn take(&self, key: &CacheKey) -> BackendResult<Peek> {
        Ok(self.commands.removed(key, self.connection.query::<Vec<_>>(&self.commands.unlink(key)).await?))
    }

    async fn take_same(&self, key: &CacheKey, identity: u64) -> BackendResult<Option<Peek>> {
        let found = self.connection.query::<Vec<_>>(&self.commands.unlink_same(key, identity)).await?;
        Ok(Some(self.commands.removed(key, found)))
    }

    async fn read_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| self.commands.key(key)).collect();
        let found = self.reads.reads.read(&keys).await;
        found.into_iter().map(|found| found.map(entry_of)).collect()
    }

    async fn write_batch(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        let mut pipeline = redis::pipe();
        for (key, value) in &entries {
            match self.commands.set(key, value) {
                Ok(set) => pipeline.add_command(set),
                Err(error) => return vec![Err(error); entries.len()],
            };
        }
        let written = self.connection.pipeline::<()>(&mut pipeline).await;
        each(written, entries.len(), |written| written)
    }

    async fn remove_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        self.take_batch(keys).await.into_iter().map(|held| Ok(self.status_of(&held?))).collect()
    }

    async fn take_batch(&self, keys: &[CacheKey]) -> Vec<BackendResult<Peek>> {
        let mut pipeline = redis::pipe();
        keys.iter().for_each(|key| {
            pipeline.add_command(self.commands.unlink(key));
        });
        match self.connection.pipeline::<Vec<_>>(&mut pipeline).await {
            Ok(removed) => {
                keys.iter().zip(removed).map(|(key, found)| Ok(self.commands.removed(key, found?))).collect()
            }
            Err(error) => vec![Err(error); keys.len()],
        }
    }

    /// Scans for keys with the prefix and removes them in batches of about 1,000. What begins with the prefix and is no key
    /// of ours stays, and so does what is no record.
    async fn erase(&self) -> BackendResult<()> {
        self.erase_records().await
    }

    /// Keys of others, and the framework's own, are left out.
    async fn keys(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        self.list(cursor, limit).await
    }

    /// Looks at the header of every record.
    async fn count(&self) -> BackendResult<u64> {
        self.count_records().await
    }

    async fn peek(&self, key: &CacheKey) -> BackendResult<Peek> {
        Ok(match self.start(key).await? {
            Start::Record(_, entry) => Peek::Entry(entry),
            Start::Nothing => Peek::Absent,
            Start::Changing => Peek::Unknown,
        })
    }

    /// Replaces the header of the record, which is read first: two round trips, whatever the value's size.
    async fn change_times(&self, key: &CacheKey, change: &TimeChange) -> BackendResult<Peek> {
        for _ in 0..MAX_CONFLICTS {
            let (start, entry) = match self.start(key).await? {
                Start::Record(start, entry) => (start, entry),
                Start::Nothing => return Ok(Peek::Absent),
                Start::Changing => break,
            };
            let entry = match change.apply(entry) {
                Ok(entry) => entry,
                Err(entry) => return Ok(Peek::Entry(entry)),
            };
            let Some(header) = wire::with_times(&start, &entry) else { return Ok(Peek::Absent) };
            let mut command = redis::cmd("EVAL");
            command.arg(scripts::SET_HEADER).arg(1).arg(self.commands.key(key));
            command.arg(&start[..wire::HEADER_BYTES]).arg(&header[..]);
            command.arg(self.commands.end_argument(&entry));
            match self.connection.query::<i64>(&command).await {
                Ok(0) => {}
                // Somebody has put another type of value there since.
                Err(error) if is_wrong_type(&error) => return Ok(Peek::Absent),
                changed => return changed.map(|_| Peek::Entry(entry)),
            }
        }
        Err(BackendError::new(ErrorKind::Overloaded, "the stored entry changes all the time"))
    }

    async fn write_if(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Conditional> {
        let command = self.commands.set_if(key, &value, condition)?;
        Ok(self.commands.came_of(key, self.connection.query(&command).await?))
    }

    /// In one pipeline, in this order.
    async fn write_after(
        &self,
        records: Vec<(CacheKey, CacheValue<Raw>)>,
        version: u64,
        key: &CacheKey,
        value: CacheValue<Raw>,
    ) -> BackendResult<Vec<Conditional>> {
        let mut pipeline = redis::pipe();
        let condition = StoreCondition::IfNewer { version, ignoring: None };
        for (key, record) in &records {
            pipeline.add_command(self.commands.set_if(key, record, &condition)?);
        }
        pipeline.add_command(self.commands.set(key, &value)?);
        let mut answers = self.connection.pipeline::<Value>(&mut pipeline).await?;
        answers.pop().transpose()?;
        let in_the_way = |answer| match answer {
            Value::BulkString(start) => Some(start),
            _ => None,
        };
        let came = records.iter().zip(answers);
        came.map(|((key, _), answer)| Ok(self.commands.came_of(key, in_the_way(answer?)))).collect()
    }

    async fn begin_body(
        &self,
        key: &CacheKey,
        entry: &CacheValue<Raw>,
    ) -> BackendResult<Option<Box<dyn StoreWriter>>> {
        Ok(Some(Box::new(RedisWriter::begin(self, key, entry)?)))
    }

    async fn open_body(&self, key: &CacheKey) -> BackendResult<StoredBody> {
        self.open(key).await
    }

    /// Removes the record if it is still the one that was found.
    async fn discard(&self, key: &CacheKey, damaged: &CacheValue<Raw>) -> BackendResult<()> {
        let Some(record) = Raw::record_bytes(damaged) else { return Ok(()) };
        Self::remove_if_same(&self.connection, &self.commands.key(key), &record).await
    }

    /// The server drops what is over by itself.
    async fn sweep(&self, _: usize) -> BackendResult<Sweep> {
        Ok(Sweep::default())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.durable = true;
        capabilities.shared = true;
        capabilities.erases = !self.commands.settings.prefix.is_empty();
        capabilities.enumerates = true;
        capabilities.counts = true;
        capabilities.writes_conditionally = true;
        capabilities
    }
}
