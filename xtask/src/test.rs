//! Every test of the workspace, and before them what they need.

use crate::install;
use crate::run::{self, Outcome, is_there};

/// Which tests there are, for cargo.
pub(crate) const TESTS: [&str; 5] = ["--workspace", "--all-features", "--lib", "--bins", "--tests"];

/// Installs what is missing, then runs tests and doctests.
pub(crate) fn run() -> Outcome {
    run_named("")?;
    run::run("cargo", &["test", "--workspace", "--all-features", "--doc"])
}

/// Runs those tests whose names have this in them, always of the whole workspace: what other selections need is built
/// again, with other features, and takes as much of the disk once more.
pub(crate) fn run_named(part: &str) -> Outcome {
    install::run()?;
    // Of the examples only the one that a test runs as a process: the others are checked by clippy, and run as programs. It is
    // built by itself, since selected beside tests it would be built as one of them.
    run::built_example("pingora_proxy")?;
    if is_there("cargo-nextest") {
        run::run("cargo", &[&["nextest", "run"], &TESTS[..], &[part]].concat())
    } else {
        run::run("cargo", &[&["test"], &TESTS[..], &["--", part]].concat())
    }
}
