//! The command line, for the benchmarks with and without the peers.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::callgrind;
use crate::measure::{Measure, Measured, Subject, run_once, time_subject};
use crate::overview;
use crate::replay::{self, Contender};
use crate::report;
use crate::stampede;

/// Measures operations beside their references.
#[derive(Parser)]
#[command(name = "hitbox-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Times the subjects, counts their instructions, and prints a table of each.
    Measure {
        /// Subjects whose name begins like this; all without it.
        #[arg(long)]
        subject: Vec<String>,
        /// Rounds of timing.
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// Leaves out the counting of instructions.
        #[arg(long)]
        no_instructions: bool,
        /// Writes the results there, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Counts instructions and allocations alone, as JSON lines.
    Count {
        /// Subjects whose name begins like this; all without it.
        #[arg(long)]
        subject: Vec<String>,
    },
    /// Replays a whole trace through caches in memory and on disk.
    Replay {
        /// A CSV file with the columns key and size; a generated trace without it.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Writes the results there, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// A thousand tasks ask for one cold key, through every cache.
    Stampede {
        /// Writes the results there, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Writes `performance.md` and its plots from results.
    Report {
        /// What `measure --json` wrote.
        #[arg(long)]
        json: PathBuf,
        /// The same for the subject `hit` with metrics on.
        #[arg(long)]
        metrics: PathBuf,
        /// What `replay --json` wrote.
        #[arg(long)]
        replayed: PathBuf,
        /// What `stampede --json` wrote.
        #[arg(long)]
        stampeded: PathBuf,
        /// The folder to write to.
        #[arg(long)]
        into: PathBuf,
    },
    /// Writes the book's page for users, and its plots, from results.
    Overview {
        /// What `measure --json` wrote; of it the subject `hit`.
        #[arg(long)]
        json: PathBuf,
        /// What `replay --json` wrote.
        #[arg(long)]
        replayed: PathBuf,
        /// What `stampede --json` wrote.
        #[arg(long)]
        stampeded: PathBuf,
        /// What it takes to build programs, as `cargo xtask weight --json` writes it.
        #[arg(long)]
        weights: PathBuf,
        /// What the example `outage` writes with `--ticks`.
        #[arg(long)]
        outage: PathBuf,
        /// The book's folder.
        #[arg(long)]
        into: PathBuf,
    },
    /// Performs one operation; callgrind watches it.
    Run {
        /// The subject.
        subject: String,
        /// Its operation.
        operation: String,
        /// How often.
        times: u64,
    },
}

/// Runs the program on these subjects.
pub fn main(subjects: Vec<Subject>, contenders: &[Contender], loading: &[stampede::Contender]) -> ExitCode {
    match run(&subjects, contenders, loading, Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    subjects: &[Subject],
    contenders: &[Contender],
    loading: &[stampede::Contender],
    command: Command,
) -> Result<(), String> {
    match command {
        Command::Measure { subject, rounds, no_instructions, json } => {
            let mut all = Vec::new();
            for subject in subjects.iter().filter(|s| is_wanted(s, &subject)) {
                eprintln!("measuring {} …", subject.name);
                // What waits for others varies more from round to round.
                let rounds = if subject.measure == Measure::Time { rounds * 3 } else { rounds };
                let mut measured = time_subject(subject, rounds);
                if !no_instructions {
                    count(subject, &mut measured)?;
                }
                println!("{}", report::table(&measured));
                all.push(measured);
            }
            json.map_or(Ok(()), |path| save(&path, &all))
        }
        Command::Count { subject } => {
            for subject in subjects.iter().filter(|s| is_wanted(s, &subject)) {
                for operation in &subject.operations {
                    if let Some(counts) = callgrind::count(subject, &operation.name)? {
                        let name = format!("{}: {}", subject.name, operation.name);
                        println!("{}", serde_json::json!({ "name": name, "counts": counts }));
                    }
                }
            }
            Ok(())
        }
        Command::Replay { trace, json } => {
            let replayed = replay::all(contenders, trace.as_deref())?;
            println!("{}", report::replay_table(&replayed));
            json.map_or(Ok(()), |path| save(&path, &replayed))
        }
        Command::Stampede { json } => {
            let stampeded = stampede::all(loading);
            println!("{}", stampede::table(&stampeded));
            json.map_or(Ok(()), |path| save(&path, &stampeded))
        }
        Command::Report { json, metrics, replayed, stampeded, into } => report::write(
            load(&json)?,
            &load::<Vec<Measured>>(&metrics)?,
            &load::<Vec<_>>(&replayed)?,
            &load::<Vec<_>>(&stampeded)?,
            &into,
        ),
        Command::Overview { json, replayed, stampeded, weights, outage, into } => {
            let (measured, replayed) = (load::<Vec<_>>(&json)?, load::<Vec<_>>(&replayed)?);
            let (stampeded, weights) = (load::<Vec<_>>(&stampeded)?, load::<Vec<_>>(&weights)?);
            let results = overview::Results {
                measured: &measured,
                replayed: &replayed,
                stampeded: &stampeded,
                weights: &weights,
                outage: &load(&outage)?,
            };
            overview::write(&results, &into)
        }
        Command::Run { subject, operation, times } => {
            let subject = subjects.iter().find(|known| known.name == subject);
            run_once(subject.ok_or("there is no such subject")?, &operation, times);
            Ok(())
        }
    }
}

fn is_wanted(subject: &Subject, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| subject.name.starts_with(name))
}

fn count(subject: &Subject, measured: &mut Measured) -> Result<(), String> {
    for cost in &mut measured.costs {
        cost.counts = callgrind::count(subject, &cost.operation)?;
    }
    Ok(())
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn save<T: Serialize>(path: &Path, results: &T) -> Result<(), String> {
    let text = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
