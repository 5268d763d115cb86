#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod ask;
mod body;
mod choice;
mod end;
mod exchange;
mod heads;
mod key_body;
mod layer;
mod load;
mod lookup;
mod purge;
mod recent;
#[cfg(feature = "reqwest")]
mod reqwest;
mod respond;
mod service;
mod settings;
#[cfg(feature = "status-page")]
mod status;
mod watch;

pub use body::{BoxError, CacheBody};
pub use choice::{RequestHead, ResponseHead};
pub use hitbox_http::{self as rules, KeyRules, Policy};
pub use key_body::RequestBody;
pub use layer::{CacheLayer, CacheLayerBuilder};
pub use purge::Purge;
#[cfg(feature = "reqwest")]
pub use reqwest::CacheMiddleware;
pub use service::{CacheService, ResponseFuture};
#[cfg(feature = "status-page")]
pub use status::StatusPage;
