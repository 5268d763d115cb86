#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod broken;
mod faulty;
mod memory;
pub mod model;
mod recorder;
mod subject;
pub mod suite;

pub use faulty::{Fault, Faults, Faulty, Operation};
pub use memory::MemoryBackend;
pub use recorder::{Call, Recorder, Recording};
pub use subject::{Composer, Factory, Setup, Subject, World, factory, left_nest, pair, right_nest};
