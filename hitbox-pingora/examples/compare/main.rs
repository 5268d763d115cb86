//! The proxy's storage beside others, each in a proxy process of its own: Pingora's memory cache for hits in memory, plain files for hits on
//! disk, and no cache at all for the first byte of a cold response. Prints ratios that were measured in one run.
//!
//! ```text
//! cargo run -p hitbox-pingora --release --example compare
//! ```

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

mod files;
mod load;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures storages of Pingora beside each other.
#[derive(Parser)]
#[command(name = "compare")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds of each measurement; its result is the median
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Measures only what has this in its name
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one proxy; for this program itself
    Serve { storage: Kind, address: String, origin: String, folder: PathBuf },
}

/// What a proxy stores responses in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Nothing
    Uncached,
    /// Pingora's own, in memory
    PingoraMemory,
    /// A file for each response, and nothing else
    Files,
    /// Memory of hitbox, moka
    Memory,
    /// Memory of hitbox, quick_cache
    Quick,
    /// Memory over disk of hitbox; what is read here is too large for memory
    Tiers,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Serve { storage, address, origin, folder }) => {
            serve::run(storage, &address, &origin, &folder)
        }
        None => load::compare(arguments.rounds, &arguments.only),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
