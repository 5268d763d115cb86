//! Running programs and walking the workspace.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong, for people.
pub(crate) type Outcome = Result<(), String>;

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// A program in the workspace's folder, with the environment that this one was called with.
///
/// `cargo run` has said what package it runs. Build scripts look at that, as that of ring does: what was built by a call of cargo would be
/// built again by one that is made from here, and all that depends on it.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let of_package = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    std::env::vars_os().map(|(name, _)| name).filter(of_package).for_each(|name| {
        command.env_remove(name);
    });
    command.current_dir(root());
    command
}

/// What a program prints.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{program} {}: {why}", arguments.join(" "));
    let output = command(program).args(arguments).output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(&error))
}

/// Runs a program in the workspace's folder.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Outcome {
    run_with(program, arguments, &[])
}

/// The same with these variables in its environment.
pub(crate) fn run_with(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    println!("$ {program} {}", arguments.join(" "));
    let status = command(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .status()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{program} {} ended with {status}", arguments.join(" ")))
    }
}

/// Builds an example of the workspace as tests are built, so that they share what they are made of, and says where it is.
pub(crate) fn built_example(name: &str) -> Result<PathBuf, String> {
    run("cargo", &["build", "--profile", "test", "--workspace", "--all-features", "--example", name])?;
    Ok(target().join("debug/examples").join(name))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Whether a program can be run.
pub(crate) fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        // Not all of them have a version to tell.
        .is_ok()
}

/// Sees to it that a program is there: installs its Debian package if this is root, else says what to do.
pub(crate) fn install(program: &str, package: &str, why: &str) -> Outcome {
    if is_there(program) {
        return Ok(());
    }
    let say = || {
        format!(
            "{why}: install the package {package} (Debian, Ubuntu; elsewhere it has a like name), and run this again"
        )
    };
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !is_root || !is_there("apt-get") {
        return Err(say());
    }
    println!("{program} is missing: installing {package} with apt-get");
    run("apt-get", &["update", "-qq"])?;
    run("apt-get", &["install", "-y", "-qq", "--no-install-recommends", package])?;
    if is_there(program) { Ok(()) } else { Err(say()) }
}

/// The workspace's source files, without what is built.
pub(crate) fn sources() -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
