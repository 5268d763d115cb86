#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::disallowed_methods)]

mod cache_status;
mod date;
mod directives;
mod fields;
mod freshness;
mod groups;
mod head;
mod invalidation;
mod key;
mod list;
mod origin;
mod policy;
mod range;
mod storable;
mod validation;
mod vary;
mod verdict;

pub use cache_status::{CacheStatusField, Forwarded};
pub use directives::{RequestDirectives, ResponseDirectives};
pub use fields::{remove_connection_fields, storable_fields};
pub use freshness::Freshness;
pub use groups::{groups_of, invalidated_groups};
pub use head::{HeadError, StoredHead};
pub use invalidation::{invalidated_uris, is_unsafe};
pub use key::{KeyRules, url_pattern};
pub use origin::{says_two_hosts, with_scheme};
pub use policy::Policy;
pub use range::{ByteRange, Requested, requested_range};
pub use storable::{NotStorable, may_store};
pub use validation::{Precondition, add_validators, remove_preconditions};
pub use vary::{Vary, VaryKey};
pub use verdict::{Terms, Verdict, is_conditional};
