#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod backend;
mod batched_reads;
mod bodies;
mod builder;
mod commands;
mod connection;
mod driver;
mod error;
mod line;
mod listing;
mod scripts;
mod socket;
mod store;

/// The test of the driver explores schedules over others.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};
}

pub use backend::RedisBackend;
pub use builder::RedisBuilder;
pub use store::RedisStore;
