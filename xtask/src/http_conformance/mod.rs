//! The cache tests of the HTTP working group, against the example proxy or another one.
//!
//! `xtask/http-conformance` has what is installed for them, the program that runs them, and the list of those that pass. The
//! tests are of three kinds: what HTTP requires, what a cache does at best, and how it behaves where more than one way is
//! right.

mod passing;
mod program;
mod results;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::run::{self, Outcome, install, root};

use program::Program;
use results::Results;

const INSTALLING: Duration = Duration::from_secs(3 * 60);
const BUILDING: Duration = Duration::from_secs(30 * 60);
const TESTING: Duration = Duration::from_secs(5 * 60);

/// The tests expect a cache that does all that HTTP allows. By default the proxy is more careful: it stores no cookies, and guesses nothing.
const AS_TESTED: [&str; 5] = ["--store-set-cookie", "--heuristic", "0.1", "--surrogate", "cached-proxy"];

/// Where npm puts what it installs, and the lock file that this was done by.
const INSTALLED: &str = "node_modules/installed.json";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this test, with all that is sent and received; can be given several times.
    #[arg(long, value_name = "ID")]
    test: Vec<String>,
    /// A proxy that listens already, in place of the example; nothing is compared.
    #[arg(long, value_name = "URL", requires = "origin", conflicts_with = "bless")]
    proxy: Option<String>,
    /// Where the origin of the tests listens: what that proxy was told.
    #[arg(long, value_name = "ADDRESS")]
    origin: Option<SocketAddr>,
    /// Makes the tests that pass now the ones that have to.
    #[arg(long, conflicts_with = "test")]
    bless: bool,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let why = "the cache tests need Node.js 18 or newer with npm";
    install("node", "nodejs", why)?;
    install("npm", "npm", why)?;
    let folder = prepare()?;
    let results = test(&folder, options)?;
    if !options.test.is_empty() {
        results.print_each();
        return Ok(());
    }
    results.print();
    if options.proxy.is_some() {
        Ok(())
    } else {
        passing::compare(&results.passed(), &results.missed(), options.bless)
    }
}

/// The folder under `xtask` with what is checked in.
fn checked_in() -> PathBuf {
    root().join("xtask/http-conformance")
}

/// Makes the folder that the tests run in, and installs them there unless they are.
fn prepare() -> Result<PathBuf, String> {
    let folder = root().join("target/http-conformance");
    let failed = |error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    for name in ["package.json", "package-lock.json", "run.mjs"] {
        fs::copy(checked_in().join(name), folder.join(name)).map_err(failed)?;
    }
    let lock = fs::read(folder.join("package-lock.json")).map_err(failed)?;
    let installed = folder.join(INSTALLED);
    if fs::read(&installed).is_ok_and(|by| by == lock) {
        return Ok(folder);
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder);
    Program::start("npm", &mut npm)?.wait(INSTALLING)?;
    fs::write(installed, lock).map_err(failed)?;
    Ok(folder)
}

/// Runs the tests. What was started for them has ended when this returns.
fn test(folder: &Path, options: &Options) -> Result<Results, String> {
    let proxy = if options.proxy.is_some() { None } else { Some(build_proxy()?) };
    let file = folder.join("results.json");
    let origin = options.origin.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut node = Command::new("node");
    node.args(["--no-warnings", "run.mjs", &origin.ip().to_string(), &origin.port().to_string()])
        .arg(&file)
        .args(&options.test)
        .current_dir(folder);
    let mut tests = Program::start("the program of the tests", &mut node)?;
    let origin = tests.listens_on()?;

    let mut proxy = proxy.map(|program| start_proxy(&program, origin)).transpose()?;
    let url = match (&proxy, &options.proxy) {
        (Some((_, address)), _) => format!("http://{address}"),
        (None, Some(url)) => url.clone(),
        (None, None) => return Err("there is no proxy to test".to_owned()),
    };
    println!("testing {url} before {origin}");
    tests.tell(&url)?;
    let printed = tests.wait(TESTING)?;
    if let Some((proxy, _)) = &mut proxy {
        proxy.runs()?;
    }
    if !options.test.is_empty() {
        println!("{}", printed.join("\n"));
    }
    Results::read(&file)
}

/// Builds the example, and says where the program is.
fn build_proxy() -> Result<PathBuf, String> {
    let mut cargo = run::command("cargo");
    cargo
        .args(["build", "--locked", "--package", "hitbox-examples", "--example", "cached_proxy"])
        .arg("--message-format=json-render-diagnostics");
    let messages = Program::start("cargo", &mut cargo)?.wait(BUILDING)?;
    let executable = |line: &String| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_proxy = message["target"]["name"] == "cached_proxy";
        message["executable"].as_str().filter(|_| is_proxy).map(PathBuf::from)
    };
    messages.iter().find_map(executable).ok_or_else(|| "cargo does not say what it built".to_owned())
}

fn start_proxy(program: &Path, origin: SocketAddr) -> Result<(Program, SocketAddr), String> {
    let mut command = Command::new(program);
    command.args(["--listen", "127.0.0.1:0", "--origin", &format!("http://{origin}")]).args(AS_TESTED);
    let proxy = Program::start("the proxy", &mut command)?;
    let address = proxy.listens_on()?;
    Ok((proxy, address))
}
