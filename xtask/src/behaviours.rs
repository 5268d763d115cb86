//! Per acceptance id: its test, and the broken backends that it rejects.

use std::fs;

use serde::Deserialize;

use crate::run::{self, Outcome, built_example, sources};

/// What the suite says of one acceptance id.
#[derive(Deserialize)]
struct Behaviour {
    id: String,
    name: String,
    /// Broken backends that it rejects.
    rejects: Vec<String>,
    /// Those that it does not.
    accepts: Vec<String>,
}

/// Ids whose tests stand outside the suite, since they concern one crate. Each has a test named after it,
/// and one named `<id>_rejects_…` that shows a broken backend to be rejected.
const ELSEWHERE: &[&str] = &[
    "value_13",
    "compose_17",
    "presence_02",
    "stats_02",
    "stats_04",
    "background_01",
    "background_02",
    "disk_01",
    "disk_02",
    "disk_03",
    "disk_04",
    "disk_05",
    "redis_01",
    "redis_02",
    "redis_03",
    "redis_04",
    "expiry_01",
    "expiry_02",
    "expiry_03",
    "expiry_04",
    "expiry_05",
    "expiry_06",
    "expiry_07",
    "expiry_08",
    "load_01",
    "load_02",
    "load_03",
    "load_04",
    "load_05",
    "load_06",
    "load_07",
    "load_08",
    "load_09",
    "load_10",
];

/// Ids that no backend or layer can get wrong.
const OF_CORE: &[&str] = &["key_02"];

/// Groups of cases that were reported of caches in production, and how many there are in each.
const CASES: &[(char, usize)] =
    &[('a', 10), ('b', 11), ('c', 18), ('d', 21), ('e', 15), ('f', 29), ('g', 11), ('h', 11)];

/// Names the tests of each case, and the cases that have none yet.
fn list_cases(tests: &[String]) {
    let mut without = Vec::new();
    for (group, count) in CASES {
        for number in 1..=*count {
            let prefix = format!("case_{group}{number:02}_");
            let mut of_case: Vec<_> = tests.iter().filter_map(|test| test.strip_prefix(&prefix)).collect();
            of_case.sort_unstable();
            of_case.dedup();
            match &of_case[..] {
                [] => without.push(format!("{group}{number:02}")),
                of_case => println!("case {group}{number:02}     {}", of_case.join(", ").replace('_', " ")),
            }
        }
    }
    let all: usize = CASES.iter().map(|(_, count)| count).sum();
    println!("{} of {all} cases have a test; without: {}", all - without.len(), without.join(" "));
}

pub(crate) fn run() -> Outcome {
    let tests = test_names()?;
    list_cases(&tests);
    let mut complaints = Vec::new();
    for Behaviour { id, name, rejects, accepts } in suite()? {
        println!("{id:<12} {name:<56} rejects {}", rejects.join(", "));
        if !tests.contains(&name) {
            complaints.push(format!("{id} has no test named {name}"));
        }
        if rejects.is_empty() {
            complaints.push(format!("{id} has no broken backend"));
        }
        complaints.extend(accepts.iter().map(|accepted| format!("{id} accepts the broken {accepted}")));
    }
    for id in ELSEWHERE.iter().chain(OF_CORE) {
        let (rejections, shown): (Vec<&String>, Vec<&String>) = tests
            .iter()
            .filter(|test| test.starts_with(&format!("{id}_")))
            .partition(|test| test.starts_with(&format!("{id}_rejects_")));
        let Some(test) = shown.first() else {
            complaints.push(format!("{id} has no test"));
            continue;
        };
        let rejected: Vec<String> = rejections
            .iter()
            .filter_map(|name| name.split_once("_rejects_"))
            .map(|(_, broken)| broken.replace('_', " "))
            .collect();
        println!("{id:<12} {test:<56} rejects {}", rejected.join(", "));
        if rejected.is_empty() && !OF_CORE.contains(id) {
            complaints.push(format!("{id} has no test named {id}_rejects_…"));
        }
    }
    // Those outside the suite show by themselves that they reject.
    if let Err(what) = crate::test::run_named("_rejects_") {
        complaints.push(what);
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

/// Runs the suite over the broken backends.
fn suite() -> Result<Vec<Behaviour>, String> {
    let program = built_example("behaviours")?;
    let said = run::output(&program.display().to_string(), &[])?;
    said.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))).collect()
}

/// Names of functions in test files: those of tests, and those that a macro makes tests of.
fn test_names() -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for path in sources()? {
        if !path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for line in text.lines() {
            let line = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("async ");
            let line = line.trim_start_matches("fn ");
            let name: String = line
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                .collect();
            if name.contains('_') {
                names.push(name);
            }
        }
    }
    Ok(names)
}
