#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod backend;
mod body;
mod cache_backend;
mod capability;
mod clock;
mod codec;
mod coherence;
mod completion;
mod composition;
mod decoded_metadata;
#[doc(hidden)]
pub mod doc;
pub mod envelope;
mod feed;
mod in_flight;
mod into;
mod jitter;
mod key_format;
mod key_frequency;
mod layout;
mod leaf;
pub mod metrics;
mod offload;
pub mod operation;
mod receipt;
mod reconcile;
mod stats;
pub mod store;
mod stream;
mod typed;
mod unpanicked;
pub mod wrap;
mod wrapper;

pub use hitbox_core as core;

pub use backend::Backend;
pub use body::{Body, BodySink};
pub use cache_backend::CacheBackend;
pub use capability::Capabilities;
pub use clock::SystemClock;
pub use codec::{Codec, CompressionRules, Compressor, CustomFormat, Format};
pub use composition::policy;
pub use composition::policy::{
    OptimisticParallelWritePolicy, ParallelReadPolicy, RaceReadPolicy, RaceWritePolicy, SequentialReadPolicy,
    SequentialWritePolicy,
};
pub use composition::{Compose, CompositionBackend, CompositionPolicy, Layer, RefillPolicy, Requirement};
pub use envelope::{Cacheable, Live, Raw};
pub use into::IntoBackend;
pub use jitter::Jitter;
pub use key_format::CacheKeyFormat;
pub use leaf::Leaf;
pub use offload::{OffloadPool, OffloadPoolBuilder, OffloadStatistics};
pub use operation::ReadOptions;
pub use receipt::{DeleteStatus, LeafOutcome, LeafReceipt, Receipt};
pub use stats::{EntryCount, LeafStatistics, Statistics};
pub use store::Store;
pub use wrap::Wrap;

/// What the other crates of the framework need, and nobody else.
#[doc(hidden)]
pub mod internal {
    pub use crate::body::source_failed;
    pub use crate::coherence::{LoadPermit, RefillPermit, WriteTicket};
    pub use crate::decoded_metadata::DecodedMetadata;
    pub use crate::feed::{BodyFeed, PATIENCE, QUEUE, patience_with, took_nothing};
    pub use crate::in_flight::{Follower, InFlightBody};
    pub use crate::layout::Notes;
    pub use crate::reconcile::{Reconciler, Reconciles, bring_up_to_date};
    pub use crate::stats::{Event, Striped};
    pub use crate::stream::{TryOpen, open_reader, open_tried, try_open_reader};
    pub use crate::typed::{Decoded, live_hit, note_read, read, read_many, settle_try, try_read};
    pub use crate::unpanicked::panic_message;

    /// The cache line in which the calling thread counts hits of a leaf.
    pub fn counting_line(leaf: &crate::store::LeafHandle) -> usize {
        leaf.counters().line(Event::Hit)
    }
}
