//! The benchmarks with the peers beside them: the same keys and values, in the same run.

#![forbid(unsafe_code)]

mod hits;
mod hybrid;

use std::process::ExitCode;

fn main() -> ExitCode {
    let subjects = hitbox_bench::subjects::all().into_iter().map(|subject| match subject.name {
        "hit" => hits::beside(subject),
        "payload" => hits::bodies_beside(subject),
        _ => subject,
    });
    let mut contenders = hitbox_bench::replay::contenders();
    contenders.push(("peer: foyer, hybrid", hybrid::foyer));
    hitbox_bench::cli::main(subjects.collect(), &contenders)
}
