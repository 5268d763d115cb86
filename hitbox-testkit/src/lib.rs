#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod broken;
mod faulty;
mod history;
mod memory;
pub mod model;
mod recorder;
mod seed;
mod server;
mod subject;
pub mod suite;
mod troubled;
mod unsteady;

pub use faulty::{Fault, Faults, Faulty, Operation};
pub use history::{History, Moment};
pub use memory::{MemoryBackend, MemoryStore};
pub use recorder::{Call, Recorder, Recording};
pub use seed::{number_from, seed};
pub use server::RedisServer;
pub use subject::{
    Composer, Exception, Factory, Setup, Subject, Subjects, World, factory, left_nest, pair, right_nest,
};
pub use troubled::{Trouble, Troubled};
pub use unsteady::{Unsteady, dawdle, random_policy};
