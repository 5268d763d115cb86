//! The storage over every kind of expression, called as Pingora calls it.

mod admitting;
mod breaking;
mod common;
mod failing;
mod hybrid;
mod memory_cases;
