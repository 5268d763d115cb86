//! The layer before real services, over real sockets.

#![forbid(unsafe_code)]

mod bodies;
mod choice;
mod clients;
mod collapsed;
mod common;
mod grpc;
mod hazards;
mod key_body;
mod layers;
mod purging;
mod stale;
