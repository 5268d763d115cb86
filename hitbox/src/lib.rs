#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod advisor;
mod builder;
mod cache;
mod call;
mod error;
mod events;
mod flight;
mod invalidate;
mod key;
mod load;
mod loaded;
mod many;
mod null;
mod obtain;
mod outcome;
mod recovery;
mod remarks;
mod settings;
mod shared;
pub mod stacks;

pub use hitbox_backend as backend;
pub use hitbox_core as core;

#[cfg(feature = "disk")]
pub use hitbox_disk as disk;
#[cfg(feature = "moka")]
pub use hitbox_moka as moka;
#[cfg(feature = "quick")]
pub use hitbox_quick as quick;
#[cfg(feature = "redis")]
pub use hitbox_redis as redis;

pub use hitbox_backend::{Cacheable, Compose, OffloadPool, RefillPolicy, Wrap};
#[cfg(feature = "macros")]
pub use hitbox_macros::{ToKey, cached};

pub use advisor::Advice;
pub use builder::CacheBuilder;
pub use cache::Cache;
pub use call::Entry;
pub use error::{LoadError, LoadErrorKind};
pub use events::{CacheEvent, CacheStatistics};
pub use key::ToKey;
#[doc(hidden)]
pub use key::inner_name;
pub use loaded::{Load, Loaded};
pub use outcome::{How, Outcome, Served};
pub use settings::{AfterTimeout, OnStale};
