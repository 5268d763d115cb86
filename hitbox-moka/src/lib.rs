#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod builder;
mod priority;

pub use backend::MokaBackend;
pub use builder::MokaBuilder;
pub use hitbox_backend::memory::{Bound, Weigher};
