//! Licences, bans and sources of what is depended on, by cargo-deny: `deny.toml` says what may be.

use std::path::PathBuf;

use crate::run::{self, Outcome, is_there, root};

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";

/// The workspaces, each with a lock file of its own.
const WORKSPACES: &[&str] = &["Cargo.toml", "fuzz/Cargo.toml", "benches/peers/Cargo.toml"];

pub(crate) fn run() -> Outcome {
    let program = program()?;
    for workspace in WORKSPACES {
        let options = ["--log-level", "error", "--locked", "--manifest-path", workspace, "--config"];
        let config = root().join("deny.toml");
        let check = ["check", "--hide-inclusion-graph", "licenses", "bans", "sources"];
        run::run(&program, &[&options[..], &[&*config.to_string_lossy()], &check].concat())?;
    }
    Ok(())
}

/// The installed cargo-deny, or one that is built under `target`: without what fetches advisories, and not optimized, it takes
/// two minutes of a processor.
fn program() -> Result<String, String> {
    if is_there("cargo-deny") {
        return Ok("cargo-deny".to_owned());
    }
    let tools: PathBuf = root().join("target/tools");
    let program = tools.join("bin/cargo-deny").to_string_lossy().into_owned();
    if !is_there(&program) {
        println!("cargo-deny is missing: building it under target/tools");
        let (version, tools) = (format!("cargo-deny@{VERSION}"), tools.to_string_lossy());
        let what = ["install", &version, "--locked", "--debug", "--no-default-features", "--root", &tools];
        let target = root().join("target/tools/build");
        run::run("cargo", &[&what[..], &["--target-dir", &*target.to_string_lossy()]].concat())?;
        std::fs::remove_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    }
    Ok(program)
}
