//! Every test of the workspace, and before them what they need.

use std::process::Command;

use crate::run::{self, Outcome, is_there};

/// Installs `redis-server` if it is missing, then runs tests and doctests.
pub(crate) fn run() -> Outcome {
    find_or_install_redis()?;
    if is_there("cargo-nextest") {
        run::run("cargo", &["nextest", "run", "--workspace", "--all-features"])?;
    } else {
        run::run("cargo", &["test", "--workspace", "--all-features", "--lib", "--bins", "--tests"])?;
    }
    run::run("cargo", &["test", "--workspace", "--all-features", "--doc"])
}

fn find_or_install_redis() -> Outcome {
    const SAY: &str = "the tests need redis-server 6.2 or newer: install the package redis-server (Debian, \
                       Ubuntu), redis (Fedora, Alpine, Homebrew), and run this again";
    if is_there("redis-server") {
        return Ok(());
    }
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !is_root || !is_there("apt-get") {
        return Err(SAY.to_owned());
    }
    println!("redis-server is missing: installing it with apt-get");
    run::run("apt-get", &["update", "-qq"])?;
    run::run("apt-get", &["install", "-y", "-qq", "--no-install-recommends", "redis-server"])?;
    if is_there("redis-server") { Ok(()) } else { Err(SAY.to_owned()) }
}
