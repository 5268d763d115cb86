//! What it takes to build a program with hitbox, beside one with what it is made of: crates, and processor seconds.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::run::{self, Outcome, root};

/// A program, what it depends on, and how many times as long as another it may take.
struct Program {
    name: &'static str,
    dependencies: &'static str,
    at_most: Option<(&'static str, f64)>,
}

const MOKA: &str = "moka";
const MOKA_AND_REDIS: &str = "moka and redis, without hitbox";

const PROGRAMS: &[Program] = &[
    Program {
        name: MOKA,
        dependencies: "moka = { version = \"0.12\", default-features = false, features = [\"sync\"] }",
        at_most: None,
    },
    Program {
        name: "moka, tokio and serde: what a service has anyway",
        dependencies: "moka = { version = \"0.12\", default-features = false, features = [\"sync\"] }\n\
                       serde = { version = \"1\", features = [\"derive\"] }\n\
                       tokio = { version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }",
        at_most: None,
    },
    Program {
        name: "hitbox, in memory",
        dependencies: "hitbox = { path = \"HITBOX\", default-features = false, features = [\"moka\"] }",
        at_most: Some((MOKA, 2.5)),
    },
    Program {
        name: MOKA_AND_REDIS,
        dependencies: "moka = { version = \"0.12\", default-features = false, features = [\"sync\"] }\n\
                       redis = { version = \"1\", default-features = false, features = [\"tokio-comp\", \"connection-manager\"] }\n\
                       serde = { version = \"1\", features = [\"derive\"] }\n\
                       serde_json = \"1\"\n\
                       tokio = { version = \"1\", features = [\"macros\", \"rt-multi-thread\", \"sync\", \"time\"] }",
        at_most: None,
    },
    Program {
        name: "hitbox, in memory over Redis",
        dependencies: "hitbox = { path = \"HITBOX\", default-features = false, features = [\"moka\", \"redis\"] }\n\
                       serde = { version = \"1\", features = [\"derive\"] }\n\
                       tokio = { version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }",
        at_most: Some((MOKA_AND_REDIS, 1.4)),
    },
];

/// As `hitbox-bench report` reads it.
#[derive(Serialize)]
struct Weight {
    name: &'static str,
    crates: u64,
    seconds: f64,
    at_most: Option<(&'static str, f64)>,
}

/// Builds each program from nothing, and shows what that took.
pub(crate) fn run(json: Option<&Path>) -> Outcome {
    let mut weights = Vec::new();
    for program in PROGRAMS {
        println!("building {} …", program.name);
        weights.push(build(program)?);
    }
    println!("{}", table(&weights));
    let Some(file) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&weights).map_err(|error| error.to_string())?;
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn build(program: &Program) -> Result<Weight, String> {
    let folder = root().join("target/weight");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    fs::create_dir_all(folder.join("src")).map_err(failed)?;
    let hitbox = root().join("hitbox").display().to_string();
    let dependencies = program.dependencies.replace("HITBOX", &hitbox);
    let manifest = format!(
        "[package]\nname = \"weight\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{dependencies}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).map_err(failed)?;
    // The same versions as here.
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).map_err(failed)?;
    fs::write(folder.join("src/main.rs"), "fn main() {}\n").map_err(failed)?;
    let cargo = |arguments: &[&str]| {
        let mut command = run::command("cargo");
        command.args(arguments).current_dir(&folder).env("CARGO_TARGET_DIR", folder.join("target"));
        command.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "false").env_remove("RUSTFLAGS");
        command
    };
    quiet(cargo(&["fetch"]))?;
    let tree = quiet(cargo(&["tree", "-e", "normal,build", "--prefix", "none"]))?;
    let mut crates: Vec<_> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    crates.sort_unstable();
    crates.dedup();
    let before = seconds_of_children()?;
    quiet(cargo(&["build", "--offline"]))?;
    let seconds = seconds_of_children()? - before;
    // All but the program itself.
    Ok(Weight { name: program.name, crates: crates.len() as u64 - 1, seconds, at_most: program.at_most })
}

/// What it prints; what it says of its progress is shown if it fails.
fn quiet(mut command: Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cargo: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What all processes that this one has waited for have taken, by proc(5).
fn seconds_of_children() -> Result<f64, String> {
    let stat =
        fs::read_to_string("/proc/self/stat").map_err(|error| format!("only Linux says it: {error}"))?;
    // The state is the first field behind the name, which is in brackets; the 14th and 15th from there are meant.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let ticks = fields
        .and_then(|fields| Some(fields.get(13)?.parse::<f64>().ok()? + fields.get(14)?.parse::<f64>().ok()?));
    // Of which Linux tells programs 100 in a second.
    ticks.map(|ticks| ticks / 100.0).ok_or_else(|| "proc says nothing of children".to_owned())
}

fn table(weights: &[Weight]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "dependencies",
        "crates",
        "processor seconds",
        "",
    ]);
    for Weight { name, crates, seconds, at_most } in weights {
        let beside = at_most.and_then(|(other, at_most)| {
            let other = weights.iter().find(|weight| weight.name == other)?;
            let ratio = seconds / other.seconds;
            let met = if ratio <= at_most { "met" } else { "MISSED" };
            Some(format!("{ratio:.2} times {}, at most {at_most:.1}: {met}", other.name))
        });
        table.add_row([
            (*name).to_owned(),
            crates.to_string(),
            format!("{seconds:.1}"),
            beside.unwrap_or_default(),
        ]);
    }
    for column in 1..3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
