#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod cache_backend;
mod capability;
mod clock;
mod codec;
mod coherence;
mod composition;
#[doc(hidden)]
pub mod doc;
pub mod envelope;
mod erased;
mod hits;
mod jitter;
mod key_format;
mod leaf;
pub mod memory;
pub mod metrics;
mod offload;
mod read;
mod receipt;
mod stats;
mod stream;
mod wrap;

pub use hitbox_core as core;

/// The cache line in which the calling thread counts hits of a leaf. For tests that look behind it.
#[doc(hidden)]
pub fn counting_line(leaf: &Leaf) -> usize {
    leaf.counters().line(Event::Hit)
}

pub use backend::{
    Adoption, Backend, Page, RemoveItem, Sweep, WriteItem, WriteOptions, adopt, with_identity,
};
pub use cache_backend::CacheBackend;
pub use capability::Capabilities;
pub use clock::SystemClock;
pub use codec::{Codec, CompressionRules, Compressor, CustomFormat, Format};
pub use coherence::{
    Claim, Coherence, Mutation, Ticket, claim, is_superseded, mutation, ticket_of_leaf, upkeep,
};
pub use composition::policy::{
    self, BatchOrder, Loser, Needs, OptimisticParallelWritePolicy, ParallelReadPolicy, RaceReadPolicy,
    RaceWritePolicy, ReadPolicy, SequentialReadPolicy, SequentialWritePolicy, WritePolicy,
};
pub use composition::{
    Answers, Compose, CompositionBackend, CompositionPolicy, Layer, Pair, ReadAttempts, RefillPolicy,
    Requirement, TryAnswer, TryAttempts, WriteAttempts, Written,
};
pub use envelope::{Cacheable, Encoded, Encodings, Raw};
pub use jitter::Jitter;
pub use key_format::CacheKeyFormat;
pub use leaf::{Invalidation, Leaf, LeafOptions, Matched, Parsed};
pub use offload::{OffloadPool, OffloadPoolBuilder, OffloadStatistics};
pub use read::{Answer, Found, LeafPosition, LeafSet, MAX_LEAVES, Peek, Presence, ReadOptions, TryRead};
pub use receipt::{DeleteStatus, LeafReceipt, Outcome, Receipt};
pub use stats::{Event, LeafLen, LeafStatistics, Occupancy, Occupied, Statistics};
pub use stream::{BodyReader, BodyWriter, MAX_BUFFERED_BODY};
pub use wrap::{Admission, AdmissionRule, Coalesce, Deadline, Namespace, NegativeFilter, Ttl, TtlRule, Wrap};
