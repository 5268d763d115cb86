//! Instructions and allocations per operation, counted by callgrind: the same on every run, but for what depends
//! on the process's random secrets.

use std::collections::HashMap;
use std::process::Command;

use crate::measure::{Counts, Measure, Subject};

/// Operations that are counted: enough for a cache's own bookkeeping to take its share.
const TIMES: u64 = 20_000;
/// Calls are counted outside the measured section too: a second, shorter run tells how many those are.
const FEWER_TIMES: u64 = 10_000;

/// What asks for memory.
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// What the runtime's threads allocate now and then falls into one run and not into the next: an operation's own
/// allocations are in all of them.
const ATTEMPTS: usize = 3;

/// Counts one operation. This program is started again under callgrind.
///
/// # Errors
/// What keeps callgrind from counting.
pub fn count(subject: &Subject, operation: &str) -> Result<Option<Counts>, String> {
    if subject.measure != Measure::Instructions {
        return Ok(None);
    }
    let mut least: Option<Counts> = None;
    for _ in 0..ATTEMPTS {
        let (instructions, many) = profile(subject, operation, TIMES)?;
        let (_, few) = profile(subject, operation, FEWER_TIMES)?;
        let counts = Counts {
            instructions: instructions as f64 / TIMES as f64,
            allocations: many.saturating_sub(few) as f64 / (TIMES - FEWER_TIMES) as f64,
        };
        least = Some(least.filter(|known| known.allocations <= counts.allocations).unwrap_or(counts));
        if least.is_some_and(|known| !(0.05..0.5).contains(&known.allocations)) {
            break;
        }
    }
    Ok(least)
}

/// Instructions within the measured section, and calls of the allocator in all.
fn profile(subject: &Subject, operation: &str, times: u64) -> Result<(u64, u64), String> {
    let failed = |what: String| format!("callgrind did not count {operation} of {}: {what}", subject.name);
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
    let file = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured_section*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["run", subject.name, operation, &times.to_string()])
        .output()
        .map_err(|error| failed(format!("valgrind cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let profile = std::fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
    parse(&profile).ok_or_else(|| failed("its profile has no totals".to_owned()))
}

/// Instructions and calls of the allocator in a profile (callgrind's format, version 1): `summary:` has the
/// total; a call is a line `cfn=(id) name`, with the name where the id occurs first, and a line `calls=n …`.
fn parse(profile: &str) -> Option<(u64, u64)> {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut instructions, mut allocations, mut called) = (None, 0, "");
    for line in profile.lines() {
        if let Some(total) = line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")) {
            instructions = total.trim().parse().ok();
        } else if let Some(calls) = line.strip_prefix("calls=") {
            if ALLOCATORS.contains(&names.get(called).copied().unwrap_or("")) {
                allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
            }
        } else if let Some((kind, function)) = line.split_once('=')
            && matches!(kind, "fn" | "cfn")
        {
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            if kind == "cfn" {
                called = id;
            }
        }
    }
    Some((instructions?, allocations))
}

#[cfg(test)]
mod tests {
    #[test]
    fn totals_and_calls_of_the_allocator_are_found() {
        let profile = "events: Ir\nfn=(1) main\n5 10\ncfn=(2) malloc\ncalls=3 0\n5 60\ncfn=(3) free\ncalls=9 0\n\
                       5 9\nfn=(4) other\ncfn=(2)\ncalls=4 0\n7 80\ntotals: 159\n";
        assert_eq!(super::parse(profile), Some((159, 7)));
        assert_eq!(super::parse("nothing"), None);
    }
}
