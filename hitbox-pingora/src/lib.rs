#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod admit;
mod entry;
mod hit;
mod miss;
mod storage;

pub use admit::Admitted;
pub use entry::{Stored, Tags};
pub use hit::BodyHit;
pub use storage::{BackendStorage, BackendStorageBuilder};
