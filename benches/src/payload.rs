//! Keys and values that all operations share.

use std::sync::Arc;

use bytes::Bytes;
use hitbox_core::CacheKey;
use serde::{Deserialize, Serialize};

/// How many keys an operation goes through, in turns.
pub const KEYS: u64 = 1_024;

/// A small value, held as `Arc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Small {
    /// Its number.
    pub id: u64,
    /// Some text.
    pub name: String,
    /// Some numbers.
    pub roles: Vec<u32>,
}

/// The small value with this number.
pub fn small(id: u64) -> Arc<Small> {
    Arc::new(Small { id, name: format!("user {id}"), roles: vec![1, 2, 3] })
}

/// A body of so many bytes, which do not compress.
pub fn body(len: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// A key of three parts.
pub fn key(number: u64) -> CacheKey {
    CacheKey::builder("user").part("tenant", "acme").part("id", number).part("lang", "de").build()
}

/// All keys, in order.
pub fn keys() -> Vec<CacheKey> {
    (0..KEYS).map(key).collect()
}

/// The key for the n-th operation.
pub fn nth(keys: &[CacheKey], number: u64) -> &CacheKey {
    &keys[(number % KEYS) as usize]
}
