//! What came of the tests, as tables and lists.

use std::fmt;
use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;

/// What came of one test.
#[derive(Deserialize)]
struct Test {
    id: String,
    name: String,
    suite: String,
    kind: Kind,
    verdict: Verdict,
    reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Required,
    Optimal,
    Check,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Passed,
    Failed,
    SetupFailed,
    Retried,
    DependencyFailed,
    Untested,
}

/// What came of all tests that ran.
pub(super) struct Results(Vec<Test>);

impl Results {
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let tests = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Self(tests))
    }

    /// Ids of those that passed, in order.
    pub(super) fn passed(&self) -> Vec<&str> {
        let passed = self.0.iter().filter(|test| test.verdict == Verdict::Passed);
        let mut ids: Vec<_> = passed.map(|test| test.id.as_str()).collect();
        ids.sort_unstable();
        ids
    }

    /// Ids of those that HTTP requires, or that a cache passes at best, and this one does not.
    pub(super) fn missed(&self) -> Vec<&str> {
        let counts = |test: &&Test| test.kind != Kind::Check && test.verdict != Verdict::Passed;
        self.0.iter().filter(counts).map(|test| test.id.as_str()).collect()
    }

    /// How many passed of each kind, and what those that should have passed failed for.
    pub(super) fn print(&self) {
        for kind in [Kind::Required, Kind::Optimal] {
            for test in self.of(kind).filter(|test| test.verdict != Verdict::Passed) {
                println!("{kind} {} ({}) {}", test.id, test.suite, test.outcome());
            }
        }
        println!("{}", self.table());
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "tests",
            "passed",
            "of",
            "failed",
            "retried",
            "failed in setup",
            "not judged, since another failed",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for kind in [Kind::Required, Kind::Optimal, Kind::Check] {
            let count = |verdict| self.of(kind).filter(|test| test.verdict == verdict).count().to_string();
            table.add_row([
                kind.to_string(),
                count(Verdict::Passed),
                self.of(kind).count().to_string(),
                count(Verdict::Failed),
                count(Verdict::Retried),
                count(Verdict::SetupFailed),
                count(Verdict::DependencyFailed),
            ]);
        }
        table
    }

    /// Each test with what came of it.
    pub(super) fn print_each(&self) {
        for test in &self.0 {
            println!("{} {} ({}) {}\n  {}", test.kind, test.id, test.suite, test.outcome(), test.name);
        }
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Test> {
        self.0.iter().filter(move |test| test.kind == kind)
    }
}

impl Test {
    fn outcome(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}: {reason}", self.verdict),
            None => self.verdict.to_string(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Optimal => "optimal",
            Self::Check => "behaviour",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::SetupFailed => "failed in setup",
            Self::Retried => "retried",
            Self::DependencyFailed => "not judged",
            Self::Untested => "not run",
        })
    }
}
