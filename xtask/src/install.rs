//! What building and testing the workspace needs beside Rust.

use crate::run::{Outcome, install};

const NEEDED: &[(&str, &str, &str)] = &[
    ("cmake", "cmake", "hitbox-pingora is built on a library in C that needs cmake"),
    ("redis-server", "redis-server", "the tests need redis-server 6.2 or newer"),
    ("chromium", "chromium", "the test of the status page needs a browser"),
    ("chromedriver", "chromium-driver", "the test of the status page needs chromedriver"),
];

/// Installs what is missing.
pub(crate) fn run() -> Outcome {
    NEEDED.iter().try_for_each(|(program, package, why)| install(program, package, why))
}
