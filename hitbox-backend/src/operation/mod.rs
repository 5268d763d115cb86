//! The operations of backends as values: what is read, written, removed, invalidated and maintained, and how. A new
//! kind of an operation is a new value here; it passes every wrapper and composition.

mod invalidation;
mod maintenance;
mod read;
mod write;

pub use crate::completion::{Batch, Completion};
pub use crate::receipt::Receipts;
pub use crate::store::WrittenPart;
pub use crate::stream::{BodyReader, BodyWriter, MAX_BUFFERED_BODY};
pub use invalidation::{Invalidation, InvalidationTarget, Origin};
pub use maintenance::{Maintained, Maintenance};
pub(crate) use read::status_of;
pub use read::{Answer, Answers, Found, LeafPosition, LeafSet, MAX_LEAVES, Presence, ReadOptions, TryRead};
pub(crate) use write::LastWrites;
pub use write::{
    BodyOrigin, BodyRefill, Condition, Content, Reach, Removal, Renewal, Target, TimeChange, Write,
    WriteOptions,
};
