#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod backend;
mod builder;
mod claim;
mod error;
mod files;
mod in_place;
mod index;
#[cfg(not(fuzzing))]
#[allow(unreachable_pub, reason = "fuzzing looks in here")]
mod object;
#[cfg(fuzzing)]
pub mod object;
mod objects;
mod pinned;
mod place;
mod recover;
mod start;
mod store;
mod trust;

pub use backend::DiskBackend;
pub use builder::{DiskBuilder, Durability};
pub use store::DiskStore;
