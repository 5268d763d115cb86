#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod backend;
mod batched_reads;
mod builder;
mod connection;
mod error;
mod line;
mod listing;
mod scripts;
mod store;

pub use backend::RedisBackend;
pub use builder::RedisBuilder;
pub use store::RedisStore;
