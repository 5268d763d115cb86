//! Instructions per operation, counted by callgrind: the same on every run, but for what depends on the
//! process's random secrets.

use std::process::Command;

use crate::measure::{Measure, Subject};

/// Operations that are counted: enough for a cache's own bookkeeping to take its share.
const TIMES: u64 = 20_000;

/// Instructions per operation. This program is started again under callgrind.
///
/// # Errors
/// What keeps callgrind from counting.
pub fn instructions(subject: &Subject, operation: &str) -> Result<Option<f64>, String> {
    if subject.measure != Measure::Instructions {
        return Ok(None);
    }
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured_section*"])
        .arg(program)
        .args(["run", subject.name, operation, &TIMES.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected =
        said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<u64>().ok());
    match collected {
        Some(collected) if output.status.success() => Ok(Some(collected as f64 / TIMES as f64)),
        _ => Err(format!("callgrind did not count {operation} of {}: {said}", subject.name)),
    }
}
