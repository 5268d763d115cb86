//! The benchmarks without the peers.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    hitbox_bench::cli::main(hitbox_bench::subjects::all(), &hitbox_bench::replay::contenders())
}
