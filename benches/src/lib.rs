#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

pub mod callgrind;
pub mod cli;
pub mod measure;
pub mod overview;
pub mod payload;
pub mod plot;
pub mod replay;
pub mod report;
pub mod stampede;
pub mod subjects;
mod svg;
