//! The example proxy from end to end: a process of its own, a real origin, real clients.

#![forbid(unsafe_code)]

mod common;
mod load;
mod rules;
mod trouble;
