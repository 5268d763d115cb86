//! The benchmarks with the peers beside them: the same keys and values, in the same run.

#![forbid(unsafe_code)]

mod beside;
mod migration;
mod peers;
mod stampede;

use std::process::ExitCode;

fn main() -> ExitCode {
    let subjects = hitbox_bench::subjects::all().into_iter().map(beside::beside);
    let mut contenders = hitbox_bench::replay::contenders();
    contenders.push(("peer: foyer, hybrid", peers::foyer_hybrid::foyer));
    hitbox_bench::cli::main(subjects.collect(), &contenders, &stampede::contenders())
}
