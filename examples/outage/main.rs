//! What an outage of Redis looks like from a service that caches in memory, over Redis, over disk. Starts a Redis of its own and the
//! service as a process; keys kill, freeze and start Redis, invalidate, and restart the process.
//!
//! `cargo run --release --example outage` in a terminal; elsewhere it plays a fixed outage and tells it as lines.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

mod dashboard;
mod picture;
mod screen;
mod service;
mod story;
#[path = "../../benches/src/svg.rs"]
mod svg;
mod world;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use story::Story;
use world::{Action, World};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Shows what an outage of Redis does to a service that caches. Needs redis-server, which `cargo xtask install` brings.
#[derive(Parser)]
#[command(name = "outage")]
struct Arguments {
    /// Plays a fixed outage of half a minute and tells it as lines, also in a terminal
    #[arg(long)]
    script: bool,
    /// Plays the fixed outage and writes the moving picture to this SVG file
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Writes what happened in each tick of the fixed outage to this file, as JSON
    #[arg(long, value_name = "FILE")]
    ticks: Option<PathBuf>,
    /// Plays the fixed outage under a Prometheus server, and draws what it answers to the dashboard's expressions to this SVG file;
    /// needs prometheus
    #[arg(long, value_name = "FILE")]
    dashboard: Option<PathBuf>,
    /// The process whose calls are shown, with its Redis: the program starts itself with this
    #[arg(long, hide = true, value_name = "URL", requires = "folder")]
    service: Option<String>,
    #[arg(long, hide = true, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "PORT", requires = "service")]
    metrics: Option<u16>,
}

/// What is written of the fixed outage.
struct Files {
    record: Option<PathBuf>,
    ticks: Option<PathBuf>,
    dashboard: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    hitbox_examples::ended(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    if let (Some(redis), Some(folder)) = (&arguments.service, arguments.folder) {
        return service::run(redis, folder, arguments.metrics).await;
    }
    let is_watched = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let Arguments { script, record, ticks, dashboard, .. } = arguments;
    let files = Files { record, ticks, dashboard };
    let is_written = files.record.is_some() || files.ticks.is_some() || files.dashboard.is_some();
    let world = World::start(files.dashboard.is_some()).await?;
    if script || is_written || !is_watched {
        return play(world, files).await;
    }
    let mut terminal = ratatui::init();
    let ended = watch(world, &mut terminal).await;
    ratatui::restore();
    ended
}

/// What happens in the fixed outage, and after how many ticks.
const SCRIPT: &[(usize, Action)] = &[
    (24, Action::KillRedis),
    (44, Action::StartRedis),
    (60, Action::FreezeRedis),
    (80, Action::StartRedis),
    (92, Action::Invalidate),
    (108, Action::RestartProcess),
];
const SCRIPT_ENDS: usize = 128;

async fn play(mut world: World, files: Files) -> Result<(), Failure> {
    let Files { record, ticks, dashboard } = files;
    let server = match world.metrics() {
        Some(port) => Some(dashboard::Server::start(port).await?),
        None => None,
    };
    let mut story = Story::default();
    let mut picture = picture::Picture::default();
    while story.ticks_seen() < SCRIPT_ENDS {
        let now = story.ticks_seen();
        for (_, action) in SCRIPT.iter().filter(|(at, _)| *at == now) {
            println!("{} {action}", story.time());
            if world.act(*action).await? {
                story.note(*action);
            }
        }
        story.add(world.tick().await?);
        if story.ticks_seen() % 4 == 0 {
            println!("{}", story.line(world.redis()));
        }
        if story.ticks_seen() % 10 == 8 && record.is_some() {
            picture.add(&story, world.redis())?;
        }
    }
    if let (Some(server), Some(file)) = (&server, dashboard) {
        std::fs::write(&file, server.draw().await?)?;
        println!("the dashboard is in {}", file.display());
    }
    world.end().await?;
    println!("{} calls, {} failed", story.calls(), story.failures());
    if let Some(file) = record {
        std::fs::write(&file, picture.svg())?;
        println!("the picture is in {}", file.display());
    }
    if let Some(file) = ticks {
        story.write(&file)?;
        println!("the ticks are in {}", file.display());
    }
    if story.failures() > 0 {
        return Err("an outage of one layer has cost answers".into());
    }
    Ok(())
}

/// Shows the service in the terminal until somebody quits.
async fn watch(mut world: World, terminal: &mut ratatui::DefaultTerminal) -> Result<(), Failure> {
    let mut keys = keys();
    let mut story = Story::default();
    loop {
        terminal.draw(|frame| screen::draw(frame, &story, world.redis()))?;
        tokio::select! {
            tick = world.tick() => story.add(tick?),
            key = keys.recv() => {
                let action = match key {
                    None | Some('q') => break,
                    Some('k') => Action::KillRedis,
                    Some('f') => Action::FreezeRedis,
                    Some('s') => Action::StartRedis,
                    Some('i') => Action::Invalidate,
                    Some('r') => Action::RestartProcess,
                    Some(_) => continue,
                };
                if world.act(action).await? {
                    story.note(action);
                }
            }
        }
    }
    world.end().await
}

/// The keys that are pressed. The thread ends with the program: it waits for keys until then.
fn keys() -> mpsc::Receiver<char> {
    let (pressed, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let Event::Key(key) = event else { continue };
            let key = match key.code {
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => 'q',
                KeyCode::Char(letter) if key.kind == KeyEventKind::Press => letter,
                KeyCode::Esc => 'q',
                _ => continue,
            };
            if pressed.blocking_send(key).is_err() {
                return;
            }
        }
    });
    keys
}
