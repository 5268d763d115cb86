//! The tests of the typed cache. One program: each is linked once, and all share the topologies.

#[macro_use]
mod common;

mod at_once;
mod batches;
mod bodies;
mod cached;
mod cases;
mod conveniences;
mod counts;
mod expiry;
mod expressions;
mod flight;
mod histories;
mod idle;
mod invalidation;
mod live;
mod load;
mod loaded_bodies;
mod loaded_bodies_in_trouble;
mod metrics;
mod no_runtime;
mod observe;
mod outage;
mod overtaking;
mod patterns;
mod processes;
mod races;
mod rare;
mod reloads;
mod renewed_bodies;
mod scenarios;
mod tags;
mod timeouts;
mod times;
mod turns;
mod versions;
