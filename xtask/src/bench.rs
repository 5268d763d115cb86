//! Benchmarks: the page `docs/performance.md`, and the instructions that CI guards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::run::{self, Outcome, install, root};
use crate::weight;

/// A path may not cost so much more than its baseline without a changed baseline in the same commit.
const GROWTH: f64 = 1.03;

/// Subjects that the guarded paths are from.
const GUARDED: &[&str] = &["cache", "hit", "key", "miss", "payload", "policy", "refilled", "set", "tagged"];

/// What `hitbox-bench count` prints.
#[derive(Deserialize)]
struct Counted {
    name: String,
    counts: Counts,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct Counts {
    instructions: f64,
    allocations: f64,
}

/// Builds the benchmarks in their own profile, and says where the program is.
fn build(workspace: &str, package: &str, features: &[&str]) -> Result<PathBuf, String> {
    let folder = root().join(workspace);
    let manifest = folder.join("Cargo.toml").display().to_string();
    // Another folder for another set of features, so that neither is built again and again.
    let target = root().join("target").join(if features.is_empty() { "bench" } else { "bench-metrics" });
    let target_dir = target.display().to_string();
    let mut arguments = vec!["build", "--profile", "bench", "--locked", "--manifest-path", &manifest];
    arguments.extend(["--package", package, "--target-dir", &target_dir]);
    let features = features.join(",");
    if !features.is_empty() {
        arguments.extend(["--features", &features]);
    }
    run::run("cargo", &arguments)?;
    Ok(target.join("release").join(package))
}

/// Measures everything, peers included, and writes the pages; or what users are told of, and their page; or only shows some subjects.
pub(crate) fn bench(subjects: &[String], only_overview: bool) -> Outcome {
    install("valgrind", "valgrind", "counting instructions needs valgrind")?;
    install("redis-server", "redis-server", "the Redis subjects need redis-server")?;
    let program = build("benches/peers", "hitbox-bench-peers", &[])?.display().to_string();
    let mut chosen = Vec::new();
    for subject in subjects {
        chosen.extend(["--subject", subject.as_str()]);
    }
    if !subjects.is_empty() {
        return run::run(&program, &[&["measure"], &chosen[..]].concat());
    }
    let file = |name: &str| root().join("target").join(name).display().to_string();
    let (all, metrics) = (file("bench.json"), file("bench-metrics.json"));
    let chosen: &[&str] = if only_overview { &["--subject", "hit", "--no-instructions"] } else { &[] };
    run::run(&program, &[&["measure", "--json", &all], chosen].concat())?;
    let replayed = file("bench-replayed.json");
    let trace = root().join("../shared/traces/cloudphysics.csv");
    let mut replay = vec!["replay", "--json", &replayed];
    let shown = trace.display().to_string();
    if trace.exists() {
        replay.extend(["--trace", &shown]);
    }
    run::run(&program, &replay)?;
    let stampeded = file("bench-stampeded.json");
    run::run(&program, &["stampede", "--json", &stampeded])?;
    let weights = file("bench-weights.json");
    weight::run(Some(Path::new(&weights)))?;
    let ticks = file("bench-outage.json");
    run::run("cargo", &["run", "--release", "--locked", "--example", "outage", "--", "--ticks", &ticks])?;
    let results = ["--json", &all, "--replayed", &replayed, "--stampeded", &stampeded];
    let of_users = ["--weights", &weights, "--outage", &ticks];
    let book = root().join("docs/src").display().to_string();
    run::run(&program, &[&["overview", "--into", &book], &results[..], &of_users].concat())?;
    if only_overview {
        return Ok(());
    }
    let with_metrics = build(".", "hitbox-bench", &["metrics"])?.display().to_string();
    run::run(&with_metrics, &["measure", "--subject", "hit", "--rounds", "5", "--json", &metrics])?;
    let into = root().join("docs").display().to_string();
    run::run(&program, &[&["report", "--into", &into, "--metrics", &metrics], &results[..]].concat())
}

/// Counts the guarded paths and compares them with the baseline, or makes them the baseline.
pub(crate) fn instructions(bless: bool) -> Outcome {
    install("valgrind", "valgrind", "counting instructions needs valgrind")?;
    let program = build(".", "hitbox-bench", &[])?;
    let mut counted = count(&program)?;
    let path = root().join("benches/baseline.json");
    if bless {
        // Those of others are no concern of ours.
        counted.retain(|name, _| !name.contains(": moka"));
        let text = serde_json::to_string_pretty(&counted).map_err(|error| error.to_string())?;
        return fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()));
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let baseline: BTreeMap<String, Counts> =
        serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if compare(&baseline, &counted).is_ok() {
        return Ok(());
    }
    // moka does its housekeeping by the machine's clock: what was in one count by chance is not in another.
    for (name, again) in count(&program)? {
        let Some(known) = counted.get_mut(&name) else { continue };
        known.instructions = known.instructions.min(again.instructions);
        known.allocations = known.allocations.min(again.allocations);
    }
    compare(&baseline, &counted)
}

/// What the guarded paths take.
fn count(program: &Path) -> Result<BTreeMap<String, Counts>, String> {
    let mut command = Command::new(program);
    command.arg("count");
    for subject in GUARDED {
        command.args(["--subject", subject]);
    }
    let output = command.output().map_err(|error| format!("the benchmark cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut counted = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Counted { name, counts } =
            serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
        counted.insert(name, counts);
    }
    Ok(counted)
}

fn compare(baseline: &BTreeMap<String, Counts>, counted: &BTreeMap<String, Counts>) -> Outcome {
    let mut complaints = Vec::new();
    for (name, before) in baseline {
        let Some(now) = counted.get(name) else {
            complaints.push(format!("  {name}: is not counted any more"));
            continue;
        };
        let growth = now.instructions / before.instructions;
        println!(
            "{name:<44} {:>7.0} instructions, {:>+5.1} %, {:.2} allocations",
            now.instructions,
            (growth - 1.0) * 100.0,
            now.allocations
        );
        if growth > GROWTH {
            complaints.push(format!(
                "  {name}: {:.0} instructions, was {:.0}",
                now.instructions, before.instructions
            ));
        }
        if now.allocations > before.allocations + 0.05 {
            complaints.push(format!(
                "  {name}: {:.2} allocations, were {:.2}",
                now.allocations, before.allocations
            ));
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    let hint =
        "if it has to be, `cargo xtask instructions --bless` makes it the baseline, in the same commit";
    Err(format!("these paths cost more than before:\n{}\n{hint}", complaints.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Counts, compare};

    fn of(instructions: f64, allocations: f64) -> BTreeMap<String, Counts> {
        BTreeMap::from([("hit".to_owned(), Counts { instructions, allocations })])
    }

    #[test]
    fn growth_of_more_than_three_percent_and_new_allocations_are_refused() {
        let before = of(1_000.0, 0.0);
        assert!(compare(&before, &of(1_029.0, 0.0)).is_ok());
        assert!(compare(&before, &of(800.0, 0.0)).is_ok());
        assert!(compare(&before, &of(1_031.0, 0.0)).is_err());
        assert!(compare(&before, &of(1_000.0, 1.0)).is_err());
        assert!(compare(&before, &BTreeMap::new()).is_err(), "a path that vanished");
    }
}
