//! The benchmarks without the peers.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    use hitbox_bench::{cli, replay, stampede, subjects};
    cli::main(subjects::all(), &replay::contenders(), &stampede::contenders())
}
