#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod builder;
mod expiry;

pub use backend::MokaBackend;
pub use builder::{Bound, MokaBuilder, Weigher};
