//! The project's own commands: `cargo xtask test`, `tidy`, `features`, `behaviours`.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

mod behaviours;
mod features;
mod run;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finds or installs what the tests need, and runs every test and doctest of the workspace.
    Test,
    /// Checks what no compiler does: layering, module docs, file sizes, fences.
    Tidy,
    /// Builds each feature of each crate alone.
    Features,
    /// Lists, per acceptance id, its test and the broken backends that it rejects.
    Behaviours,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Test => test::run(),
        Command::Tidy => tidy::run(),
        Command::Features => features::run(),
        Command::Behaviours => behaviours::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}
