//! Follows the README and the book: every command that they tell to run is run, as it stands there.
//!
//! Ports and folders in the documentation are the ones that a reader would use. So that nothing of this machine is in their way, or
//! is changed by them, they are run apart: in a network and under folders of their own (unshare(1)).

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::book;
use crate::run::{self, Outcome, install, root};

/// Set in the process that runs them.
const APART: &str = "HITBOX_COMMANDS_APART";
/// How long a server may take until it listens, and a command that looks on is looked at.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: &str = "5";

/// What is told to be run, in one place: the servers that it starts end with it.
struct Block {
    place: String,
    commands: Vec<String>,
}

/// Programs that run until they are stopped, and where they listen.
const SERVERS: &[(&str, &str)] = &[
    ("pingora_proxy", "127.0.0.1:8080"),
    ("axum_shop", "127.0.0.1:8080"),
    ("cached_proxy", "127.0.0.1:8080"),
];
/// Commands that go on until they are stopped.
const ENDLESS: &[&str] = &["redis-cli --latency", "redis-cli monitor", "redis-cli --hotkeys"];
/// Follows them.
pub(crate) fn run() -> Outcome {
    let blocks = collect()?;
    if std::env::var_os(APART).is_some() {
        return follow(&blocks);
    }
    install("redis-server", "redis-server", "the tour with redis-cli needs it")?;
    install("curl", "curl", "readers ask the proxy with it")?;
    install("ip", "iproute2", "a network of one's own is set up with it")?;
    install("prometheus", "prometheus", "the dashboard is drawn of what it answers")?;
    book::install_mdbook()?;
    let all = || blocks.iter().flat_map(|block| &block.commands);
    // What they need is built while there is a network, as they build it.
    for command in all().filter(|command| is_followed(command)).collect::<BTreeSet<_>>() {
        if let Some(rest) = command.strip_prefix("cargo run ") {
            let build = rest.split(" -- ").next().unwrap_or(rest);
            run::run("sh", &["-c", &format!("cargo build --locked {build}")])?;
        }
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
    let apart = ["--net", "--mount", "--fork", "--kill-child", &program, "commands"];
    run::run_with("unshare", &apart, &[(APART, "1"), ("CARGO_NET_OFFLINE", "true")])
}

/// All but the project's own commands: those are what CI runs, and some of them write what is checked in.
fn is_followed(command: &str) -> bool {
    !command.starts_with("cargo xtask")
}

fn example_of(command: &str) -> Option<&str> {
    let (_, after) = command.split_once("--example ")?;
    after.split_whitespace().next().filter(|_| command.starts_with("cargo run"))
}

/// Everything that is told to be run, by README, CONTRIBUTING and the book.
fn collect() -> Result<Vec<Block>, String> {
    let mut files = vec![PathBuf::from("README.md"), PathBuf::from("CONTRIBUTING.md")];
    let book = fs::read_dir(root().join("docs/src")).map_err(|error| format!("docs/src: {error}"))?;
    let mut chapters: Vec<_> =
        book.flatten().map(|entry| Path::new("docs/src").join(entry.file_name())).collect();
    chapters.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    chapters.sort();
    files.extend(chapters);
    let mut blocks = Vec::new();
    for file in files {
        let text =
            fs::read_to_string(root().join(&file)).map_err(|error| format!("{}: {error}", file.display()))?;
        blocks.extend(blocks_of(&file.display().to_string(), &text));
    }
    if blocks.len() < 15 {
        return Err(format!(
            "only {} places tell to run something: they are not found any more",
            blocks.len()
        ));
    }
    Ok(blocks)
}

/// Blocks of the language sh, lines that begin with `$` in blocks of text, and code within sentences that begins with a program.
fn blocks_of(file: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut language, mut commands, mut begun, mut before) = (None, Vec::<String>::new(), 0, String::new());
    for (number, line) in text.lines().enumerate() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            if language.is_none() {
                (language, begun) = (Some(fence.trim().to_owned()), number + 1);
            } else {
                language = None;
                if !commands.is_empty() {
                    blocks.push(Block {
                        place: format!("{file}:{begun}"),
                        commands: std::mem::take(&mut commands),
                    });
                }
            }
            continue;
        }
        let told = match language.as_deref() {
            Some("sh") => Some(line),
            Some("text") => line.strip_prefix("$ "),
            Some(_) => None,
            None => {
                let inline: Vec<_> = line
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::trim)
                    .filter(|code| is_command(code))
                    .collect();
                let place = format!("{file}:{}", number + 1);
                blocks.extend(
                    inline
                        .into_iter()
                        .map(|code| Block { place: place.clone(), commands: vec![code.to_owned()] }),
                );
                None
            }
        };
        let Some(told) = told.map(|told| told.split("  #").next().unwrap_or(told).trim()) else { continue };
        if let Some(more) = told.strip_suffix('\\') {
            before.push_str(more);
        } else if !told.is_empty() {
            commands.push(std::mem::take(&mut before) + told);
        }
    }
    blocks
}

/// Whether code within a sentence is a command: a program with what it is to do.
fn is_command(code: &str) -> bool {
    ["cargo run ", "cargo xtask ", "redis-cli ", "mdbook "].iter().any(|program| code.starts_with(program))
}

/// Runs them, in a network and folders of their own; the folders that are mounted over stay as they were.
fn follow(blocks: &[Block]) -> Outcome {
    run::run("ip", &["link", "set", "lo", "up"])?;
    for folder in ["/var/cache", "/mnt", "/tmp/hitbox-tour"] {
        fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
        run::run("mount", &["-t", "tmpfs", "tmpfs", folder])?;
    }
    for folder in ["/mnt/files", "/mnt/store"] {
        fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
    }
    fs::write("/mnt/files/film", vec![7; 3 << 20]).map_err(|error| format!("a file: {error}"))?;
    let _redis = Running::start(
        "redis-server --save '' --maxmemory 100mb --maxmemory-policy allkeys-lfu",
        "127.0.0.1:6379",
    )?;
    let shop = "cargo run --quiet --release --example axum_shop -- --listen 127.0.0.1:9000";
    let _origin = Running::start(shop, "127.0.0.1:9000")?;
    let mut done = BTreeSet::new();
    for block in blocks {
        let mut servers = Vec::new();
        // What several places tell is followed once.
        if !done.insert(&block.commands) {
            continue;
        }
        for command in block.commands.iter().filter(|command| is_followed(command)) {
            println!("\n{}: {command}", block.place);
            let command = &with_places(command);
            match SERVERS.iter().find(|(name, _)| example_of(command) == Some(name)) {
                Some((_, listens)) => servers.push(Running::start(command, listens)?),
                None => shell(command)?,
            }
        }
        for server in servers {
            server.stop()?;
        }
    }
    println!("\nwhat {} places tell was followed", done.len());
    Ok(())
}

/// A command with what its reader is to put in.
fn with_places(command: &str) -> String {
    let folder = if command.contains("--source") { "/mnt/files" } else { "/mnt/store" };
    let command = command.replace("FOLDER", folder).replace("HOST:PORT", "127.0.0.1:9000");
    // A picture that is checked in stays as it is.
    command.replace("docs/src/pictures/", "/mnt/")
}

fn shell(command: &str) -> Outcome {
    let endless = ENDLESS.iter().any(|endless| command.starts_with(endless));
    // The second is how timeout(1) says that it was.
    let command = if endless {
        format!("timeout {LOOK} sh -c '{command}' || test $? = 124")
    } else {
        command.to_owned()
    };
    let status = run::command("bash").args(["-o", "pipefail", "-c", &command]).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command}: {status}")),
        Err(error) => Err(format!("{command}: {error}")),
    }
}

/// A server, which ends with this.
struct Running(Child);

impl Running {
    fn start(command: &str, listens: &str) -> Result<Self, String> {
        let mut shell: Command = run::command("bash");
        let shell = shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::null());
        let mut server = Self(shell.spawn().map_err(|error| format!("{command}: {error}"))?);
        let began = Instant::now();
        while TcpStream::connect(listens).is_err() {
            if let Ok(Some(status)) = server.0.try_wait() {
                return Err(format!("{command} ended with {status}"));
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{command} does not listen on {listens}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Asks it to stop, as a service manager does.
    fn stop(mut self) -> Outcome {
        run::run("kill", &["-TERM", &self.0.id().to_string()])?;
        match self.0.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("a server that was asked to stop ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::blocks_of;

    #[test]
    fn commands_are_found_in_blocks_and_sentences() {
        let text = "Run `cargo xtask test`, not `cargo`.\n```sh\na \\\n  b   # c\n\nd\n```\n```text\n$ e\noutput\n```\n```rust\n$ f\n```\n";
        let found: Vec<_> =
            blocks_of("x", text).into_iter().map(|block| (block.place, block.commands)).collect();
        let of = |place: &str, commands: &[&str]| {
            (place.to_owned(), commands.iter().map(|command| (*command).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(found, [of("x:1", &["cargo xtask test"]), of("x:2", &["a b", "d"]), of("x:8", &["e"])]);
    }
}
