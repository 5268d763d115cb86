//! The tests that cross leaves: the suite over every expression, and what it does not say. One program, so that it is linked
//! once.

mod allocations;
mod background;
mod behaviours;
mod book;
mod bound;
mod cases;
mod codecs;
mod common;
mod contract;
mod documents;
mod formats;
mod health;
mod heap;
mod histories;
mod inspect;
mod large;
mod memory;
mod metrics;
mod model;
mod namespaces;
mod refused;
mod rejects;
mod scenarios;
mod scopes;
mod streams;
