//! Every test of the workspace, and before them what they need.

use crate::run::{self, Outcome, install, is_there};

/// Installs `redis-server` if it is missing, then runs tests and doctests.
pub(crate) fn run() -> Outcome {
    install("redis-server", "redis-server", "the tests need redis-server 6.2 or newer")?;
    if is_there("cargo-nextest") {
        run::run("cargo", &["nextest", "run", "--workspace", "--all-features"])?;
    } else {
        run::run("cargo", &["test", "--workspace", "--all-features", "--lib", "--bins", "--tests"])?;
    }
    run::run("cargo", &["test", "--workspace", "--all-features", "--doc"])
}
