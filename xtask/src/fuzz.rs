//! Fuzzing with cargo-fuzz.

use crate::run::{self, Outcome, is_there};

const TARGETS: &[&str] = &["wire", "object", "key"];

pub(crate) fn run(seconds: u64) -> Outcome {
    run::run("rustc", &["+nightly", "--version"])
        .map_err(|_| "fuzzing needs the nightly toolchain: rustup toolchain install nightly".to_owned())?;
    if !is_there("cargo-fuzz") {
        run::run("cargo", &["install", "cargo-fuzz", "--locked"])?;
    }
    for target in TARGETS {
        let time = format!("-max_total_time={seconds}");
        // An allocation of more than 64 MiB by an input of at most 1 MiB is a finding.
        let limits = ["-max_len=1048576", "-malloc_limit_mb=64", "-print_final_stats=1"];
        let mut arguments = vec!["+nightly", "fuzz", "run", target, "--", &time];
        arguments.extend(limits);
        run::run("cargo", &arguments)?;
    }
    Ok(())
}
