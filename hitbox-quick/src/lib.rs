#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod backend;
mod builder;
mod store;

pub use backend::QuickBackend;
pub use builder::QuickBuilder;
pub use hitbox_backend::store::memory::{Bound, Weigher};
pub use store::QuickStore;
