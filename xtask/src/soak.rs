//! The random tests, for hours.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::run::{self, Outcome, is_there};
use crate::test::TESTS;

/// A package, its test program and which tests of it, the variable that says how long they run, and how long that is in
/// a round: a few minutes in all, so that there are many seeds.
const ROUND: &[(&str, &str, &str, &str, u64)] = &[
    ("hitbox-testkit", "integration", "model::", "HITBOX_CASES", 20_000),
    ("hitbox-testkit", "write_queue", "", "HITBOX_SCHEDULES", 200_000),
    ("hitbox-redis", "driver", "", "HITBOX_SCHEDULES", 100_000),
    ("hitbox-testkit", "integration", "histories::", "HITBOX_RUNS", 5_000),
    ("hitbox-disk", "disk", "", "HITBOX_KILLS", 100),
    ("hitbox", "integration", "races::", "HITBOX_RUNS", 10_000),
    ("hitbox", "integration", "histories::", "HITBOX_RUNS", 5_000),
    ("hitbox", "integration", "versions::", "HITBOX_RUNS", 5_000),
    ("hitbox", "integration", "invalidation::", "HITBOX_OPERATIONS", 500_000),
];

/// Runs these tests, of what `cargo xtask test` has built if nextest is there: another selection has other features, and would be
/// built again.
fn command(package: &str, program: &str, tests: &str) -> Command {
    let mut command = run::command("cargo");
    if is_there("cargo-nextest") {
        let of_program = format!("package({package}) and binary({program}) and test(/^{tests}/)");
        command.args(["nextest", "run", "--profile", "soak"]).args(TESTS);
        command.args(["--show-progress", "none", "--status-level", "fail", "-E", &of_program]);
    } else {
        let of_package = ["test", "--quiet", "--package", package, "--all-features", "--test", program];
        command.args(of_package).args(["--", tests]);
    }
    command
}

pub(crate) fn run(minutes: u64, seed: u64) -> Outcome {
    let started = Instant::now();
    let mut failures = Vec::new();
    let mut rounds = 0;
    while rounds == 0 || started.elapsed() < Duration::from_secs(minutes * 60) {
        let seed = seed.wrapping_add(rounds);
        for (package, program, tests, variable, amount) in ROUND {
            let begun = Instant::now();
            let status = command(package, program, tests)
                .env("HITBOX_SEED", seed.to_string())
                .env(variable, amount.to_string())
                .env("RUST_BACKTRACE", "0")
                .status()
                .map_err(|error| format!("cargo cannot be run: {error}"))?;
            let verdict = if status.success() { "passed" } else { "FAILED" };
            let seconds = begun.elapsed().as_secs();
            let test = format!("{package} {tests}");
            println!("soak: {test} HITBOX_SEED={seed} {variable}={amount}: {verdict} after {seconds} s");
            if !status.success() {
                failures.push(format!("{test} with HITBOX_SEED={seed} {variable}={amount}"));
            }
        }
        rounds += 1;
    }
    println!("soak: {rounds} rounds from seed {seed} in {} s", started.elapsed().as_secs());
    if failures.is_empty() { Ok(()) } else { Err(format!("failed: {}", failures.join(", "))) }
}
