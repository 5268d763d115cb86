//! The storage over every kind of expression, called as Pingora calls it.

#![forbid(unsafe_code)]

mod admitting;
mod breaking;
mod common;
mod failing;
mod hybrid;
mod memory_cases;
