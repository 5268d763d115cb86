#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod backend;
mod builder;
mod calls;
mod claim;
mod digest;
mod error;
mod files;
mod in_place;
mod index;
pub mod inspect;
#[cfg(not(fuzzing))]
#[allow(unreachable_pub, reason = "fuzzing looks in here")]
mod object;
#[cfg(fuzzing)]
pub mod object;
mod objects;
mod overwrite;
mod pinned;
mod place;
mod recover;
mod room;
mod start;
mod store;
mod stored;
mod streams;
mod trust;
mod window;
mod written;

/// Whether bytes are the start of an object that this release understands. For fuzzing.
#[cfg(fuzzing)]
pub fn is_start(bytes: &[u8]) -> bool {
    matches!(start::Start::parse(bytes), start::Look::Entry(start) if !start.record.is_empty())
}

pub use backend::DiskBackend;
pub use builder::{DiskBuilder, Durability};
pub use store::DiskStore;
