//! What the RFCs say of caches, as tables, and laws that hold for any input. One program: each is linked once.

mod common;

mod cache_status;
mod directives;
mod fields;
mod freshness;
mod groups;
mod head;
mod invalidation;
mod keys;
mod laws;
mod range;
mod storable;
mod validation;
mod vary;
mod verdict;
