//! Each feature builds alone.

use crate::run::{self, Outcome};

const FEATURES: &[(&str, &[&str])] = &[
    ("hitbox-core", &["chrono", "jiff"]),
    ("hitbox-backend", &["bitcode", "chrono", "gzip", "jiff", "zstd", "rkyv", "metrics", "prometheus"]),
    ("hitbox-redis", &["tls"]),
    ("hitbox-tower", &["reqwest", "status-page"]),
    (
        "hitbox",
        // Those that are handed through to its parts, where each is tried alone, are tried together.
        &[
            "disk",
            "macros",
            "moka",
            "quick",
            "redis",
            "bitcode,chrono,gzip,jiff,metrics,prometheus,rkyv,tls,zstd",
        ],
    ),
];

pub(crate) fn run() -> Outcome {
    for (package, features) in FEATURES {
        run::run("cargo", &["check", "--quiet", "--package", package, "--no-default-features"])?;
        for feature in *features {
            let with =
                ["check", "--quiet", "--package", package, "--no-default-features", "--features", feature];
            run::run("cargo", &with)?;
        }
    }
    Ok(())
}
