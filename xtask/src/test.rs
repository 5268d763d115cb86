//! Every test of the workspace, and before them what they need.

use crate::install;
use crate::run::{self, Outcome, is_there};

/// Installs what is missing, then runs tests and doctests.
pub(crate) fn run() -> Outcome {
    run_named("")?;
    run::run("cargo", &["test", "--workspace", "--all-features", "--doc"])
}

/// Runs those tests whose names have this in them, always of the whole workspace: what other selections need is built
/// again, with other features, and takes as much of the disk once more.
pub(crate) fn run_named(part: &str) -> Outcome {
    install::run()?;
    if is_there("cargo-nextest") {
        run::run("cargo", &["nextest", "run", "--workspace", "--all-features", part])
    } else {
        let of_workspace = ["test", "--workspace", "--all-features", "--lib", "--bins", "--tests"];
        run::run("cargo", &[&of_workspace[..], &["--", part]].concat())
    }
}
