//! A bounded pool for background work on a tokio runtime.
//!
//! Invariants: no more tasks run or wait than the settings say; a task that ends in any way, panicked,
//! timed out or cancelled, frees its worker and its key; whatever is refused goes back to whoever
//! registered it.

mod builder;
mod pool;

pub use builder::OffloadPoolBuilder;
pub use pool::{OffloadPool, OffloadStatistics};
