//! Random runs that can be run again.

use std::hash::{BuildHasher, RandomState};

/// The number in an environment variable.
pub fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The seed in `HITBOX_SEED`, or a new one. Print it before using it.
pub fn seed() -> u64 {
    number_from("HITBOX_SEED").unwrap_or_else(|| RandomState::new().hash_one("seed"))
}
