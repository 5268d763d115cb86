//! What memory takes on the heap beside its bound: the page `docs/src/heap.md`.

use std::fs;
use std::process::Stdio;

use crate::run::{self, Outcome, root};

const HEAD: &str = "# Heap measured against `max_bytes`

This page compares the heap that a memory takes with the bound that you give it as `max_bytes`. Each number is the most bytes on the heap while
entries of four times the bound are written, divided by the bound. The bound is 16 MiB. `cargo xtask heap` measures it and writes this page. A test allows 1.25 at most
(`case_f13_the_bound_holds_for_the_heap`).

| bytes of a value | TTL | tags | moka | quick_cache |
|---:|---|---|---:|---:|
";

/// Measures, and writes the page.
pub(crate) fn run() -> Outcome {
    let arguments = [
        "test",
        "--release",
        "--package",
        "hitbox-testkit",
        "--all-features",
        "--test",
        "integration",
        "--",
        "heap::case_f13",
        "--nocapture",
    ];
    println!("$ cargo {}", arguments.join(" "));
    let output = run::command("cargo").args(arguments).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cargo cannot be run: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let rows: String =
        printed.lines().filter(|line| line.starts_with("| ")).map(|row| format!("{row}\n")).collect();
    print!("{rows}");
    if !output.status.success() || rows.is_empty() {
        return Err("the heap cannot be measured, or is over the bound".to_owned());
    }
    let path = root().join("docs/src/heap.md");
    fs::write(&path, format!("{HEAD}{rows}")).map_err(|error| format!("{}: {error}", path.display()))
}
