//! The public API of every crate, as text that is checked in: a change of it is seen in review.
//!
//! rustdoc's JSON output is not stable: `xtask/rustdoc-json` tells it that this is known.

use std::fs;
use std::path::{Path, PathBuf};

use crate::options;
use crate::run::{self, Outcome, root};

const CRATES: &[&str] = &[
    "hitbox-core",
    "hitbox-backend",
    "hitbox-testkit",
    "hitbox-moka",
    "hitbox-quick",
    "hitbox-redis",
    "hitbox-disk",
    "hitbox",
    "hitbox-http",
    "hitbox-tower",
    "hitbox-pingora",
];

pub(crate) fn run(bless: bool) -> Outcome {
    let folder = root().join("docs/api");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut changed = Vec::new();
    let built = describe()?;
    for name in CRATES {
        let text = api_of(name, &built)?;
        let path = folder.join(format!("{name}.txt"));
        let known = fs::read_to_string(&path).unwrap_or_default();
        if text == known {
            continue;
        }
        if bless {
            fs::write(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("{}: {} lines", path.display(), text.lines().count());
        } else {
            changed.extend(difference(name, &known, &text));
        }
    }
    let page = root().join("docs/src/options.md");
    let text = options::page(&built)?;
    if text != fs::read_to_string(&page).unwrap_or_default() {
        if bless {
            fs::write(&page, &text).map_err(|error| format!("{}: {error}", page.display()))?;
            println!("{}: {} lines", page.display(), text.lines().count());
        } else {
            changed.push(
                "  docs/src/options.md does not say what the documentation of the settings says".to_owned(),
            );
        }
    }
    if changed.is_empty() {
        println!("the public API is the one in docs/api");
        return Ok(());
    }
    Err(format!(
        "the public API has changed; if that is meant, `cargo xtask api --bless`:\n{}",
        changed.join("\n")
    ))
}

fn difference(name: &str, known: &str, text: &str) -> Vec<String> {
    let gone = known.lines().filter(|line| !text.lines().any(|other| other == *line));
    let new = text.lines().filter(|line| !known.lines().any(|other| other == *line));
    let gone = gone.map(|line| format!("  {name}: - {line}"));
    gone.chain(new.map(|line| format!("  {name}: + {line}"))).collect()
}

/// Has rustdoc describe all crates as JSON, in one run, and says where. What it needs is what `cargo doc` needs, and is built once.
fn describe() -> Result<PathBuf, String> {
    let rustdoc = root().join("xtask/rustdoc-json").display().to_string();
    let flags = "-Z unstable-options --output-format json --cap-lints allow";
    let arguments = ["doc", "--quiet", "--workspace", "--no-deps", "--lib", "--all-features"];
    run::run_with("cargo", &arguments, &[("RUSTDOC", &rustdoc), ("RUSTDOCFLAGS", flags)])?;
    Ok(run::target().join("doc"))
}

fn api_of(name: &str, built: &Path) -> Result<String, String> {
    let json = built.join(format!("{}.json", name.replace('-', "_")));
    let builder = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true);
    let api = builder.build().map_err(|error| format!("{}: {error}", json.display()))?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}
