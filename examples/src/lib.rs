//! Holds the examples beside it: `cargo run --release --example tiers`.

#![forbid(unsafe_code)]
