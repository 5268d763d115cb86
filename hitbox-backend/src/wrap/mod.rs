//! Wrappers: one backend made from another. A wrapper has no path of its own: its leaves are named as if it were not
//! there.
//!
//! To write one, implement [`Wrapper`]: `inner` and `around`, and the hook for what it changes.

mod admission;
mod coalesce;
mod deadline;
mod idle;
mod namespace;
mod negative;
mod ttl;

use std::time::Duration;

pub use admission::{Admission, AdmissionRule};
pub use coalesce::Coalesce;
pub use deadline::Deadline;
pub use idle::Idle;
pub use namespace::Namespace;
pub use negative::NegativeFilter;
pub use ttl::{Ttl, TtlRule};

pub use crate::backend::Placement;
pub use crate::layout::{KeyMap, KeyMapping, Layout, LeafInfo};
pub use crate::stream::ReaderWrapper;
pub use crate::wrapper::{Offer, Wrapper, forward};
use hitbox_core::BackendResult;

use crate::into::IntoBackend;

/// Wraps backends and stores.
pub trait Wrap<Kind>: IntoBackend<Kind> {
    /// Cuts every call after `limit`.
    fn deadline(self, limit: Duration) -> Deadline {
        Deadline::new(self, limit)
    }

    /// Lets no entry live longer than `cap` in this layer.
    fn ttl_cap(self, cap: Duration) -> Ttl {
        Ttl::new(self, TtlRule::Cap(cap))
    }

    /// Gives every entry this time to live in this layer, `None` for no expiry.
    fn ttl_override(self, ttl: Option<Duration>) -> Ttl {
        Ttl::new(self, TtlRule::Override(ttl))
    }

    /// Ends entries of this layer that are not read for so long.
    ///
    /// # Panics
    /// If `time` is under a millisecond.
    fn idle(self, time: Duration) -> Idle {
        Idle::new(self, time)
    }

    /// Keeps keys apart from those of other namespaces in the same store.
    fn namespace(self, name: &str) -> Namespace {
        Namespace::new(self, name)
    }

    /// Takes only some entries into this layer.
    fn admission(self, rule: AdmissionRule) -> Admission {
        Admission::new(self, rule)
    }

    /// Keeps reads from asking this leaf for keys that it cannot have; `expected` keys take ten bits each.
    ///
    /// # Errors
    /// As [`NegativeFilter::new`].
    fn negative_filter(self, expected: u64) -> impl Future<Output = BackendResult<NegativeFilter>> + Send {
        NegativeFilter::of(self.into_shared(), expected)
    }

    /// Lets simultaneous reads of one key share one call.
    fn coalesced(self) -> Coalesce {
        Coalesce::new(self)
    }
}

impl<Kind, B: IntoBackend<Kind>> Wrap<Kind> for B {}
