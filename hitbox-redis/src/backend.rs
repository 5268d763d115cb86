//! Redis as a leaf.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::envelope::wire;
use hitbox_backend::{Adoption, Answer, Backend, Capabilities, DeleteStatus, Leaf, Parsed, Raw, ReadOptions};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind, Timestamp};
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

    fn set(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<Cmd> {
        let bytes = self.leaf.to_bytes(key, value)?;
        let mut command = redis::cmd("SET");
        command.arg(self.key(key)).arg(bytes);
        let expiry = value.drop_at().filter(|_| self.leaf.clock().is_real());
        if let Some(end) = expiry {
            // Redis keeps times in signed 64 bits.
            let end = (end + self.settings.skew_margin).as_millis().min(i64::MAX as u64);
            command.arg("PXAT").arg(end);
        }
        Ok(command)
    }

    /// Reads what says when the record ends, and removes it, as one transaction.
    fn unlink(&self, pipeline: &mut Pipeline, key: &CacheKey) {
        let key = self.key(key);
        pipeline.cmd("GETRANGE").arg(&key).arg(0).arg(wire::HEADER_BYTES - 1);
        pipeline.cmd("UNLINK").arg(key);
    }

    /// Whether a removed record was still alive.
    fn removed(&self, header: &[u8], count: u32, now: Timestamp) -> DeleteStatus {
        let gone = wire::peek_drop_at(header).flatten().is_some_and(|end| end <= now);
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
        self.leaf.read_with(key, options, || self.load(key)).await
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
    async fn clear(&self) -> BackendResult<()> {
        if self.settings.prefix.is_empty() {
            return Err(BackendError::unsupported("clear without a key prefix"));
        }
        let pattern = format!("{}*", escape_glob(&self.settings.prefix));
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
            let (next, keys) = self.connection.query::<(u64, Vec<Vec<u8>>)>(&scan).await?;
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

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PLAIN;
        capabilities.durable = true;
        capabilities.shared = true;
        capabilities.clears = !self.settings.prefix.is_empty();
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
