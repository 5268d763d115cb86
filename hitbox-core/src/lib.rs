#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod clock;
mod context;
#[cfg(any(feature = "chrono", feature = "jiff"))]
pub mod convert;
mod error;
mod key;
mod label;
mod limits;
mod offload;
mod time;
mod value;

pub use clock::{Clock, ManualClock};
pub use context::{CacheContext, CacheStatus, ReadMode, ResponseSource};
pub use error::{BackendError, BackendResult, ErrorKind, ErrorStatus, Operation, VersionMismatch};
pub use key::{CacheKey, CacheKeyBuilder, KeyError, KeyHasher, KeyPart, KeyPattern};
pub use label::BackendLabel;
pub use limits::Limits;
pub use offload::{Lane, Offload, Refusal, Refused, Subject, Task, TaskKind};
pub use time::{Accept, Freshness, Lifetime, Timestamp};
pub use value::{CacheValue, Details, Epoch, LastValid, Priority, RecordKind, Scope, ScopeKind};

/// A boxed, sendable future that borrows for `'a`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
