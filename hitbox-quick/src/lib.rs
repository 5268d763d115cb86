#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod builder;

pub use backend::QuickBackend;
pub use builder::QuickBuilder;
pub use hitbox_backend::memory::{Bound, Weigher};
