//! The project's own commands: `cargo xtask install`, `test`, `tidy`, `deny`, `features`, `api`, `package`, `behaviours`,
//! `http-conformance`, `instructions`, `bench`, `heap`, `weight`,
//! `commands`, `links`, `book`, `fuzz`, `soak`.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

mod api;
mod behaviours;
mod bench;
mod book;
mod commands;
mod deny;
mod features;
mod fuzz;
mod heap;
mod http_conformance;
mod install;
mod links;
mod options;
mod package;
mod published_links;
mod run;
mod soak;
mod test;
mod tidy;
mod weight;

use std::path::PathBuf;
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
    /// Finds or installs what building and testing the workspace needs beside Rust.
    Install,
    /// The same, and runs every test and doctest of the workspace.
    Test,
    /// Checks what no compiler does: layering, module docs, file sizes, fences, links.
    Tidy,
    /// Checks licences, bans and sources of what is depended on.
    Deny,
    /// Builds each feature of each crate alone.
    Features,
    /// Compares the public API of every crate with the one that is checked in under docs/api, and the book's page of settings with
    /// what the documentation says of them.
    Api {
        /// Makes what there is now the one that is checked in.
        #[arg(long)]
        bless: bool,
    },
    /// Packages every crate that is published, and checks what is in the packages.
    Package,
    /// Lists, per acceptance id, its test and the broken backends that it rejects.
    Behaviours,
    /// Runs the HTTP working group's cache tests against the example proxy, and compares what passes with the list of what
    /// has to.
    HttpConformance(http_conformance::Options),
    /// Counts instructions and allocations of the most important paths, and compares them with the baseline.
    Instructions {
        /// Makes what was counted the baseline.
        #[arg(long)]
        bless: bool,
    },
    /// Measures everything beside its references and peers, and writes docs/performance.md and the book's benchmarks.
    Bench {
        /// Only these subjects (names that begin like this), as tables; nothing is written.
        #[arg(long)]
        subject: Vec<String>,
        /// Only what users are told of, in the book's benchmarks.
        #[arg(long, conflicts_with = "subject")]
        overview: bool,
    },
    /// Measures what memory takes on the heap beside its bound, and writes docs/src/heap.md.
    Heap,
    /// Builds programs with hitbox and without it from nothing, and shows how many crates and processor seconds that takes.
    Weight {
        /// Writes the results there, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Runs every command that the README and the book tell to run, apart from the rest of the machine; needs root and Linux.
    Commands,
    /// Checks the links that lead to what others have published, in their packages.
    Links {
        /// Asks the web for all others, too.
        #[arg(long)]
        web: bool,
    },
    /// Builds the book, and takes a picture of each page in both colour schemes.
    Book,
    /// Fuzzes everything that parses, from the seeds that are checked in.
    Fuzz {
        /// Seconds per target.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Runs the random tests again and again with new seeds, and says which.
    Soak {
        /// Rounds are begun until so many minutes have passed.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// The seed of the first round; later ones count on.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Install => install::run(),
        Command::Test => test::run(),
        Command::Tidy => tidy::run(),
        Command::Deny => deny::run(),
        Command::Features => features::run(),
        Command::Api { bless } => api::run(bless),
        Command::Package => package::run(),
        Command::Behaviours => behaviours::run(),
        Command::HttpConformance(options) => http_conformance::run(&options),
        Command::Instructions { bless } => bench::instructions(bless),
        Command::Bench { subject, overview } => bench::bench(&subject, overview),
        Command::Heap => heap::run(),
        Command::Weight { json } => weight::run(json.as_deref()),
        Command::Commands => commands::run(),
        Command::Links { web } => published_links::run(web),
        Command::Book => book::run(),
        Command::Fuzz { seconds } => fuzz::run(seconds),
        Command::Soak { minutes, seed } => soak::run(minutes, seed),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}
