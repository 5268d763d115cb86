#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod admit;
mod entry;
mod hit;
mod miss;
mod purges;
mod storage;

/// The chapter of the book, so that its examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/src/pingora.md")]
mod book {}

pub use admit::Admitted;
pub use entry::{Stored, Tags};
pub use hit::BodyHit;
pub use storage::{BackendStorage, BackendStorageBuilder};
