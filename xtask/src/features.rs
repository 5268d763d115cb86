//! Each feature alone builds, and is documented, without a warning.

use crate::run::{self, Outcome};

const FEATURES: &[(&str, &[&str])] = &[
    ("hitbox-core", &["chrono", "jiff"]),
    (
        "hitbox-backend",
        &[
            "bitcode",
            "chrono",
            "gzip",
            "jiff",
            "json",
            "metrics",
            "postcard",
            "prometheus",
            "rkyv",
            "table",
            "zstd",
        ],
    ),
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
            "bitcode,chrono,gzip,jiff,json,metrics,postcard,prometheus,rkyv,table,tls,zstd",
        ],
    ),
];

pub(crate) fn run() -> Outcome {
    for (package, features) in FEATURES {
        for feature in [""].iter().chain(*features) {
            let with =
                ["--quiet", "--package", package, "--lib", "--no-default-features", "--features", feature];
            let deny = ["--", "-D", "warnings"];
            run::run("cargo", &[&["clippy"], &with[..], &deny].concat())?;
            run::run("cargo", &[&["rustdoc"], &with[..], &deny].concat())?;
        }
    }
    Ok(())
}
