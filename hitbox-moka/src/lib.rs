#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod backend;
mod builder;
mod priority;
mod reservation;
mod store;

pub use backend::MokaBackend;
pub use builder::MokaBuilder;
pub use hitbox_backend::store::memory::{Bound, Weigher};
pub use store::MokaStore;
