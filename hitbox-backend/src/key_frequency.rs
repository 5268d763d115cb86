//! How often keys were asked for or offered, for decisions on the n-th time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hitbox_core::CacheKey;

const SHARDS: usize = 16;
/// Keys that are counted, per shard; when it is full the counts start anew.
const KEYS_PER_SHARD: usize = 4096;

/// Counts per key since its last write, of a bounded number of keys.
#[derive(Debug, Default)]
pub(crate) struct KeyFrequency([Mutex<HashMap<CacheKey, u32>>; SHARDS]);

impl KeyFrequency {
    fn shard(&self, key: &CacheKey) -> std::sync::MutexGuard<'_, HashMap<CacheKey, u32>> {
        let shard = (key.process_hash() >> 32) as usize % SHARDS;
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, key: &CacheKey) -> u32 {
        let mut shard = self.shard(key);
        if shard.len() >= KEYS_PER_SHARD && !shard.contains_key(key) {
            shard.clear();
        }
        let count = shard.entry(key.clone()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }

    pub(crate) fn forget(&self, key: &CacheKey) {
        self.shard(key).remove(key);
    }
}
