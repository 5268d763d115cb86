//! Tables for people, and the page `performance.md`.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use comfy_table::{CellAlignment, Table, presets};

use crate::measure::{Cost, Measure, Measured, Target, time_ratio};
use crate::plot;
use crate::replay::{self, Replayed};
use crate::stampede::{self, Stampeded};

/// One subject: cost per operation, ratios to the first one, and what has to hold.
pub fn table(measured: &Measured) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    let counted = measured.costs.iter().any(|cost| cost.counts.is_some());
    let mut header = vec!["operation", "median ns", "min – max", "× time"];
    if counted {
        header.extend(["instructions", "× instructions", "allocations"]);
    }
    table.set_header(header);
    let Some(reference) = measured.costs.first() else { return String::new() };
    for cost in &measured.costs {
        let (min, max) = cost.range();
        let mut row = vec![
            cost.operation.clone(),
            format!("{:.1}", cost.median()),
            format!("{min:.1} – {max:.1}"),
            format!("{:.2}", time_ratio(cost, reference)),
        ];
        if counted {
            let ratio = cost.counts.zip(reference.counts).map(|(a, b)| a.instructions / b.instructions);
            let show = |number: Option<f64>, digits: usize| {
                number.map_or_else(String::new, |number| format!("{number:.digits$}"))
            };
            row.push(show(cost.counts.map(|counts| counts.instructions), 0));
            row.push(show(ratio, 2));
            row.push(show(cost.counts.map(|counts| counts.allocations), 2));
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{}\n{table}\n", measured.title);
    for line in verdicts(measured) {
        text += &format!("{line}\n");
    }
    text
}

/// Each target with what was measured.
pub fn verdicts(measured: &Measured) -> Vec<String> {
    let verdict = |target: &crate::measure::Target| {
        let ratio = measured.ratio(&target.operation, &target.reference)?;
        let mark = if ratio <= target.at_most { "met" } else { "MISSED" };
        let (operation, reference) = (&target.operation, &target.reference);
        Some(format!("{mark}: {operation} ÷ {reference} = {ratio:.2}, at most {:.2}", target.at_most))
    };
    measured.targets.iter().filter_map(verdict).collect()
}

/// Writes `performance.md` into a folder, and the plots beside it.
///
/// # Errors
/// If a file cannot be written.
pub fn write(
    mut all: Vec<Measured>,
    with_metrics: &[Measured],
    replayed: &[Replayed],
    stampeded: &[Stampeded],
    into: &Path,
) -> Result<(), String> {
    all.extend(metrics_subject(&all, with_metrics));
    let plots = into.join("plots");
    std::fs::create_dir_all(&plots).map_err(|error| format!("{}: {error}", plots.display()))?;
    let mut page = String::from(HEAD);
    page += &machine();
    page += "\n## Targets\n\n| what | ratio | at most | |\n|---|---|---|---|\n";
    for measured in &all {
        for target in &measured.targets {
            let Some(ratio) = measured.ratio(&target.operation, &target.reference) else { continue };
            let met = if ratio <= target.at_most { "met" } else { "**missed**" };
            let unit = if measured.measure == Measure::Instructions { "instructions" } else { "time" };
            let _ = writeln!(
                page,
                "| {}: {} ÷ {} ({unit}) | {ratio:.2} | {:.2} | {met} |",
                measured.title, target.operation, target.reference, target.at_most
            );
        }
    }
    for measured in &all {
        plot::draw(measured, &plots.join(format!("{}.svg", measured.subject)))?;
        let _ = write!(page, "\n## {}\n\n![](plots/{}.svg)\n\n", measured.title, measured.subject);
        page += &markdown(measured);
    }
    let _ = write!(
        page,
        "\n## A whole trace\n\nThe first {} accesses of the trace, through read, miss, load and write; {} MiB of memory over \
         {} MiB on disk.\n\n",
        replayed.first().map_or(0, |replayed| replayed.accesses),
        replay::MEMORY >> 20,
        replay::DISK >> 20,
    );
    page += &replay_table(replayed);
    let _ = write!(
        page,
        "\n## A stampede\n\n{} tasks ask for one cold key of a source that takes {} ms. Loads are the most, times the \
         median of some rounds.\n\n",
        stampede::TASKS,
        stampede::SOURCE.as_millis(),
    );
    page += &stampede::table(stampeded);
    page += include_str!("../floors.md");
    let path = into.join("performance.md");
    std::fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))
}

const HEAD: &str = "# Performance

What hitbox costs beside the caches and clients that it is made of, and beside other caches. All numbers of a table are
from one run; ratios are to its first line. Instructions are counted by callgrind; times are medians of rounds in which
the operations took turns, and are as good as the machine was quiet.

This page is written by `cargo xtask bench`; the subjects are in `benches/src/subjects`. `cargo xtask instructions` is
what CI guards.
";

fn machine() -> String {
    let first_of = |path: &str, prefix: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
        line.map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let said_by = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "\n## Machine\n\n- processor: {}, {threads} threads\n- memory: {}\n- kernel: {}\n- {}\n- {}\n",
        first_of("/proc/cpuinfo", "model name"),
        first_of("/proc/meminfo", "MemTotal:"),
        first_of("/proc/sys/kernel/osrelease", ""),
        said_by("rustc"),
        said_by("valgrind"),
    )
}

/// A hit with metrics beside one without, which are two builds.
fn metrics_subject(all: &[Measured], with_metrics: &[Measured]) -> Option<Measured> {
    const HIT: &str = "one composition";
    let find = |from: &[Measured], name: &str| -> Option<Cost> {
        let subject = from.iter().find(|measured| measured.subject == "hit")?;
        let cost = subject.costs.iter().find(|cost| cost.operation == HIT)?.clone();
        Some(Cost { operation: name.to_owned(), ..cost })
    };
    let costs = vec![find(all, "metrics off")?, find(with_metrics, "metrics on, recorder installed")?];
    let (reference, operation) = (costs[0].operation.clone(), costs[1].operation.clone());
    Some(Measured {
        subject: "metrics".to_owned(),
        title: "A hit in memory with metrics".to_owned(),
        measure: Measure::Instructions,
        costs,
        targets: vec![Target { operation, reference, at_most: 1.25 }],
    })
}

fn markdown(measured: &Measured) -> String {
    let mut text = String::from(
        "| operation | median ns | min – max | × time | instructions | × instructions | allocations |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
    );
    let Some(reference) = measured.costs.first() else { return text };
    let show =
        |number: Option<f64>, digits: usize| number.map_or_else(String::new, |n| format!("{n:.digits$}"));
    for cost in &measured.costs {
        let (min, max) = cost.range();
        let ratio = cost.counts.zip(reference.counts).map(|(a, b)| a.instructions / b.instructions);
        let _ = writeln!(
            text,
            "| {} | {:.1} | {min:.1} – {max:.1} | {:.2} | {} | {} | {} |",
            cost.operation,
            cost.median(),
            time_ratio(cost, reference),
            show(cost.counts.map(|counts| counts.instructions), 0),
            show(ratio, 2),
            show(cost.counts.map(|counts| counts.allocations), 2),
        );
    }
    text
}

/// What came of replays, as a table of Markdown.
pub fn replay_table(all: &[Replayed]) -> String {
    let mut text = String::from(
        "| cache | hit ratio | accesses per second | MiB read from disk | MiB written to disk |\n|---|--:|--:|--:|--:|\n",
    );
    for Replayed { name, hits, accesses, seconds, disk_bytes } in all {
        let mib = |bytes: Option<u64>| bytes.map_or_else(String::new, |bytes| format!("{}", bytes >> 20));
        let _ = writeln!(
            text,
            "| {name} | {:.1} % | {:.0} | {} | {} |",
            *hits as f64 / *accesses as f64 * 100.0,
            *accesses as f64 / seconds,
            mib(disk_bytes.map(|bytes| bytes.0)),
            mib(disk_bytes.map(|bytes| bytes.1)),
        );
    }
    text
}
