//! Fuzzing with libFuzzer, on the stable toolchain: rustc counts what is covered, and each target is linked with the fuzzer.

use crate::run::{self, Outcome, root};

const TARGETS: &[&str] = &["wire", "object", "start", "key", "http"];

/// What has rustc count the edges that are covered, as cargo-fuzz does.
const COVERAGE: &str = "--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The target triple of this machine: with one, what runs while building is not instrumented.
fn host() -> Result<String, String> {
    let text = run::output("rustc", &["-vV"])?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not say for which machine it builds".to_owned())
}

pub(crate) fn run(seconds: u64) -> Outcome {
    let host = host()?;
    let build = [
        "build",
        "--release",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target-dir",
        "target/fuzz",
        "--locked",
    ];
    let build = [&build[..], &["--target", &host, "--bins"]].concat();
    run::run_with("cargo", &build, &[("RUSTFLAGS", COVERAGE)])?;
    let found = root().join("target/fuzz/corpus");
    for target in TARGETS {
        let program = root().join("target/fuzz").join(&host).join("release").join(target);
        let corpus = found.join(target);
        std::fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
        let time = format!("-max_total_time={seconds}");
        let artifacts = format!("-artifact_prefix={}/", corpus.display());
        let seeds = root().join("fuzz/seeds").join(target);
        // What makes more than 512 MiB of an input of at most 1 MiB is a finding.
        let limits =
            ["-max_len=1048576", "-rss_limit_mb=512", "-timeout=10", "-print_final_stats=1", "-verbosity=0"];
        let arguments =
            [&[&*time, &artifacts][..], &limits, &[&corpus.to_string_lossy(), &seeds.to_string_lossy()]];
        run::run(&program.to_string_lossy(), &arguments.concat())?;
    }
    Ok(())
}
