#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod advisor;
mod batch;
#[cfg(feature = "macros")]
mod blocking;
mod body;
mod builder;
mod bypass;
mod cache;
mod call;
mod cycle;
mod entry_options;
mod error;
mod events;
mod flight;
mod get_or_load;
mod get_or_load_many;
mod get_or_load_stream;
mod inline;
mod insert;
mod invalidate;
mod key;
mod lead;
mod load;
mod load_stream;
mod loaded;
mod many;
mod null;
mod reconcile;
mod response;
mod serde_key;
mod settings;
mod shared;
mod shutdown;
pub mod stacks;
mod throttle;
mod timeouts;
mod touch;

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

pub use hitbox_backend::{Body, BodySink, Cacheable, Compose, Live, OffloadPool, RefillPolicy, Wrap};
#[cfg(feature = "macros")]
pub use hitbox_macros::{ToKey, cached};

pub use advisor::Advice;
#[cfg(feature = "macros")]
pub use blocking::wait;
pub use builder::CacheBuilder;
pub use cache::Cache;
pub use call::Entry;
pub use error::{LoadError, LoadErrorKind};
pub use events::{CacheEvent, CacheStatistics};
pub use key::ToKey;
#[doc(hidden)]
pub use key::{inner_name, type_part};
pub use loaded::{Load, Loaded};
pub use response::{AnswerKind, Outcome, Response};
pub use serde_key::SerdeKey;
pub use settings::{AfterTimeout, OnStale};
pub use shutdown::Shutdown;
