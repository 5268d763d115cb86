//! The keys under the prefix: listing, counting, erasing.

use hitbox_backend::core::{BackendError, BackendResult, CacheKey};
use hitbox_backend::envelope::wire;
use hitbox_backend::store::Page;

use crate::commands::digest_in_record;
use crate::error::is_wrong_type;
use crate::scripts;
use crate::store::RedisStore;

/// Keys that are asked for at a time by what goes through all of them.
const PAGE: usize = 1_000;

impl RedisStore {
    /// A page of the keys that begin with the prefix and are keys of ours, as the server has them and as they
    /// are.
    async fn scan(&self, cursor: u64, limit: usize) -> BackendResult<(u64, Vec<(Vec<u8>, CacheKey)>)> {
        let prefix = &self.commands.settings.prefix;
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}*", escape_glob(prefix)));
        scan.arg("COUNT").arg(limit.clamp(1, 10_000));
        let (next, found) = self.connection.query::<(u64, Vec<Vec<u8>>)>(&scan).await?;
        let keys = found.into_iter().filter_map(|found| {
            let key = self.commands.settings.key_format.parse(prefix, &found)?;
            Some((found, key))
        });
        Ok((next, keys.collect()))
    }

    /// A page of users' keys that hold a record, each with its header. A record of another key is one of a store whose
    /// prefix begins with this one's.
    async fn records(&self, cursor: u64, limit: usize) -> BackendResult<(u64, Vec<(CacheKey, Vec<u8>)>)> {
        let (next, mut keys) = self.scan(cursor, limit).await?;
        keys.retain(|(_, key)| !key.is_reserved());
        if keys.is_empty() {
            return Ok((next, Vec::new()));
        }
        let mut heads = redis::pipe();
        for (stored, _) in &keys {
            heads.cmd("GETRANGE").arg(stored).arg(0).arg(wire::HEADER_BYTES - 1);
        }
        let heads = self.connection.pipeline::<Vec<u8>>(&mut heads).await?;
        let (mut records, mut others) = (Vec::with_capacity(keys.len()), Vec::new());
        for ((stored, key), head) in keys.into_iter().zip(heads) {
            match head {
                Ok(head) if wire::is_of_key(&head, &key) => records.push((key, head)),
                Ok(_) => {}
                Err(error) if is_wrong_type(&error) => others.push((stored, key)),
                Err(error) => return Err(error),
            }
        }
        // Bodies in parts, and values of others.
        let mut starts = redis::pipe();
        for (stored, _) in &others {
            starts.hget(stored, "start");
        }
        let starts = self.connection.pipeline::<Option<Vec<u8>>>(&mut starts).await?;
        for ((_, key), start) in others.into_iter().zip(starts) {
            match start {
                Ok(Some(start)) if wire::is_of_key(&start, &key) => records.push((key, start)),
                Ok(_) => {}
                Err(error) if is_wrong_type(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((next, records))
    }

    pub(crate) async fn list(&self, cursor: u64, limit: usize) -> BackendResult<Page> {
        let (next, records) = self.records(cursor, limit).await?;
        let keys = records.into_iter().map(|(key, _)| key).collect();
        Ok(Page { keys, next: (next != 0).then_some(next) })
    }

    pub(crate) async fn count_records(&self) -> BackendResult<u64> {
        let (now, mut count, mut cursor) = (self.commands.clock.now(), 0, 0);
        loop {
            let (next, records) = self.records(cursor, PAGE).await?;
            let is_readable =
                |head: &[u8]| wire::peek_times(head).is_some_and(|entry| entry.is_readable(now));
            count += records.iter().filter(|(_, head)| is_readable(head)).count();
            if next == 0 {
                return Ok(count as u64);
            }
            cursor = next;
        }
    }

    pub(crate) async fn erase_records(&self) -> BackendResult<()> {
        if self.commands.settings.prefix.is_empty() {
            return Err(BackendError::unsupported("erasing without a key prefix"));
        }
        let mut cursor = 0;
        loop {
            let (next, keys) = self.scan(cursor, PAGE).await?;
            if !keys.is_empty() {
                let mut remove = redis::cmd("EVAL");
                remove.arg(scripts::REMOVE).arg(keys.len());
                for (stored, _) in &keys {
                    remove.arg(stored);
                }
                for (_, key) in &keys {
                    remove.arg(digest_in_record(key));
                }
                self.connection.query::<redis::Value>(&remove).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
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
