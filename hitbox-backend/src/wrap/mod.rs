//! One backend made from another. A wrapper has no path of its own: its leaves are named as if it were
//! not there.

mod admission;
mod coalesce;
mod deadline;
mod namespace;
mod negative;
mod ttl;

use std::time::Duration;

pub use admission::{Admission, AdmissionRule};
pub use coalesce::Coalesce;
pub use deadline::Deadline;
pub use namespace::Namespace;
pub use negative::NegativeFilter;
pub use ttl::{Ttl, TtlRule};

use hitbox_core::BackendResult;

use crate::backend::Backend;

/// Wraps backends.
pub trait Wrap: Backend + Sized {
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
        NegativeFilter::new(self, expected)
    }

    /// Lets simultaneous reads of one key share one call.
    fn coalesced(self) -> Coalesce {
        Coalesce::new(self)
    }
}

impl<B: Backend> Wrap for B {}
