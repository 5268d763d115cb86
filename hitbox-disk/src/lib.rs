#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod builder;
mod error;
mod files;
mod index;
mod object;
mod recover;
mod store;

pub use backend::DiskBackend;
pub use builder::{DiskBuilder, Durability};
