//! The invariants of ARCHITECTURE.md that a machine can check.

use std::fs;
use std::path::Path;

use crate::links;
use crate::run::{self, Outcome, root, sources};

/// No file of the product has more lines of code; documentation, comments and tests at its end do not count.
const MAX_LINES: usize = 400;

pub(crate) fn run() -> Outcome {
    let mut complaints = Vec::new();
    for path in sources()? {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        check_file(&shown, &text, &mut complaints);
    }
    check_manifests(&mut complaints)?;
    check_book(&mut complaints)?;
    links::check(&mut complaints)?;
    check_locks(&mut complaints);
    if complaints.is_empty() {
        println!("tidy");
        return Ok(());
    }
    Err(format!("not tidy:\n{}", complaints.join("\n")))
}

fn check_file(path: &str, text: &str, complaints: &mut Vec<String>) {
    let mut complain = |what: &str| complaints.push(format!("  {path}: {what}"));
    let is_test = path.contains("/tests/")
        || ["hitbox-testkit/", "fuzz/", "benches/"].iter().any(|folder| path.starts_with(folder));
    let lines = lines_of_code(text);
    if lines > MAX_LINES && !is_test {
        complain(&format!("{lines} lines of code; more than {MAX_LINES}"));
    }
    let documented = text.starts_with("//!") || text.starts_with("#![doc");
    if !documented {
        complain("does not open with what it is for");
    }
    if text.lines().any(|line| line.trim_start().starts_with("//") && line.contains("```ignore")) {
        complain("has an example that nothing compiles");
    }
    let is_root = path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
    if is_root && !text.contains("#![forbid(unsafe_code)]") {
        complain("does not forbid unsafe code");
    }
    let is_library = path.ends_with("/src/lib.rs") && !is_test && !path.starts_with("hitbox-macros/");
    if is_library && !path.starts_with("examples/") && !text.contains("#![warn(clippy::disallowed_methods)]")
    {
        complain("does not warn of calls that read the time or spawn");
    }
    if path.contains("composition/policy/") {
        for name in ["CacheKey", "Codec", "metrics", "std::io", "Backend"] {
            let uses = text.lines().filter(|line| line.starts_with("use "));
            if uses.clone().any(|line| line.contains(name)) {
                complain(&format!("a policy sees {name}"));
            }
        }
    }
}

/// Lines that are neither empty nor comments, up to the tests at the end of the file.
fn lines_of_code(text: &str) -> usize {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    product.lines().filter(is_code).count()
}

/// Workspaces whose lock files are checked in.
const WORKSPACES: [&str; 3] = ["Cargo.toml", "fuzz/Cargo.toml", "benches/peers/Cargo.toml"];

/// What one workspace adds to its dependencies, those that use it have to lock too.
fn check_locks(complaints: &mut Vec<String>) {
    for manifest in WORKSPACES {
        let arguments = ["update", "--workspace", "--locked", "--quiet", "--manifest-path", manifest];
        if let Err(why) = run::output("cargo", &arguments) {
            complaints.push(format!("  {manifest}: its lock file is behind: {why}"));
        }
    }
}

/// core has no runtime and no format crate.
fn check_manifests(complaints: &mut Vec<String>) -> Outcome {
    let path = root().join("hitbox-core/Cargo.toml");
    let manifest = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or("");
    for forbidden in ["tokio", "serde", "bitcode", "futures"] {
        if dependencies.lines().any(|line| line.starts_with(forbidden)) {
            complaints.push(format!("  hitbox-core/Cargo.toml: depends on {forbidden}"));
        }
    }
    for license in ["LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        if !Path::new(&root()).join(license).exists() {
            complaints.push(format!("  {license} is missing"));
        }
    }
    Ok(())
}

/// Every chapter is in the summary, and its examples are compiled.
fn check_book(complaints: &mut Vec<String>) -> Outcome {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let chapters = root().join("docs/src");
    let summary = read(&chapters.join("SUMMARY.md"))?;
    // What needs Pingora is compiled where Pingora is.
    let compiled =
        read(&root().join("examples/src/lib.rs"))? + &read(&root().join("hitbox-pingora/src/lib.rs"))?;
    let entries = fs::read_dir(&chapters).map_err(|error| format!("{}: {error}", chapters.display()))?;
    for name in entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        if name.ends_with(".md") && name != "SUMMARY.md" {
            if !summary.contains(&format!("({name})")) {
                complaints.push(format!("  docs/src/{name}: is not in SUMMARY.md"));
            }
            if !compiled.contains(&format!("docs/src/{name}\"")) {
                complaints.push(format!("  docs/src/{name}: its examples are not compiled"));
            }
        }
    }
    Ok(())
}
