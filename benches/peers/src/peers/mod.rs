//! The published caches: each with the operations that the subjects ask of it.

pub(crate) mod cachet;
pub(crate) mod foyer;
pub(crate) mod foyer_hybrid;
pub(crate) mod hitbox;
pub(crate) mod http;
pub(crate) mod multi_tier;
pub(crate) mod quick_cache;

use std::time::Duration;

use hitbox_bench::payload::KEYS;

/// Peers key by text.
pub(crate) fn names() -> Vec<String> {
    (0..KEYS).map(|number| format!("user:0:tenant=acme:id={number}:lang=de")).collect()
}

pub(crate) fn nth(names: &[String], number: u64) -> &String {
    &names[(number % KEYS) as usize]
}

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// What a cache of clones holds.
pub(crate) trait Value: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Value for T {}
