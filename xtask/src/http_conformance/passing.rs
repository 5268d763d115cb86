//! The tests that have to pass: a list that is checked in, so that none is lost unseen.

use std::fs;

use crate::run::Outcome;

use super::checked_in;

/// Compares what passed with the list, or makes it the list.
///
/// Those that do not pass, and matter, are in a list of their own, with a line that says why.
pub(super) fn compare(passed: &[&str], missed: &[&str], bless: bool) -> Outcome {
    let path = checked_in().join("passing.txt");
    let failed = |error| format!("{}: {error}", path.display());
    let text = match fs::read_to_string(&path) {
        Err(error) if bless && error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.map_err(failed)?,
    };
    let listed: Vec<&str> = text.lines().collect();
    let lost: Vec<_> = listed.iter().copied().filter(|id| !passed.contains(id)).collect();
    let gained: Vec<_> = passed.iter().copied().filter(|id| !listed.contains(id)).collect();
    for id in &gained {
        println!("passes now: {id}");
    }
    if bless {
        for id in &lost {
            println!("passes no more: {id}");
        }
        let lines: String = passed.iter().map(|id| format!("{id}\n")).collect();
        return fs::write(&path, lines).map_err(failed);
    }
    if !lost.is_empty() {
        return Err(format!("pass no more, or did not run: {}", lost.join(", ")));
    }
    explained(missed)?;
    if !gained.is_empty() {
        println!("`cargo xtask http-conformance --bless` adds what passes now to the list");
    }
    Ok(())
}

fn explained(missed: &[&str]) -> Outcome {
    let path = checked_in().join("failing.txt");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let known: Vec<&str> = text.lines().filter_map(|line| line.split_once(": ").map(|(id, _)| id)).collect();
    let unknown: Vec<_> = missed.iter().copied().filter(|id| !known.contains(id)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format!("{} does not say why these do not pass: {}", path.display(), unknown.join(", ")))
}
