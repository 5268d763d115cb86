#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod builder;
mod connection;
mod error;
mod joined;

pub use backend::RedisBackend;
pub use builder::RedisBuilder;
