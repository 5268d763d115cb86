//! What is in Redis, or in the folder of a disk cache, under a key: times, tags, format, and the value where its format says
//! what it holds. Nothing is changed or locked.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hitbox::Cache;
use hitbox::backend::envelope::Inspection;
use hitbox::backend::{CacheKeyFormat, SystemClock};
use hitbox::core::{CacheKey, Clock, Timestamp};
use hitbox::disk::{DiskBackend, inspect};
use serde::{Deserialize, Serialize};

/// Shows what Redis or the folder of a disk cache has under a key. Without arguments it makes a cache and looks into it.
#[derive(Parser)]
#[command(name = "inspect")]
struct Arguments {
    /// The server: redis://host:port/db
    #[arg(long, value_name = "URL", conflicts_with = "disk", requires = "key")]
    redis: Option<String>,
    /// What the cache puts before its keys in Redis
    #[arg(long, value_name = "TEXT", default_value = "hitbox:", requires = "redis")]
    prefix: String,
    /// The folder of a disk cache; a program may have it open
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// The key as it stands in the log, users:0:key=42, or in Redis. Without it the keys of the folder are listed
    key: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    hitbox_examples::ended(run(Arguments::parse()).await)
}

type Failed = Box<dyn std::error::Error>;

async fn run(arguments: Arguments) -> Result<(), Failed> {
    match (&arguments.redis, &arguments.disk, &arguments.key) {
        (Some(url), _, Some(key)) => in_redis(url, &arguments.prefix, key).await,
        (None, Some(folder), Some(key)) => in_folder(folder, key),
        (None, Some(folder), None) => list(folder),
        (None, None, Some(_)) => Err("say where: --redis URL or --disk FOLDER".into()),
        (_, _, None) => demonstrate().await,
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}

async fn in_redis(url: &str, prefix: &str, key: &str) -> Result<(), Failed> {
    let client = redis::Client::open(url)?;
    let connection = client.get_multiplexed_async_connection().await;
    let mut connection = connection.map_err(|error| format!("{url} cannot be reached: {error}"))?;
    let key = &format!("{prefix}{}", key.strip_prefix(prefix).unwrap_or(key));
    let record: Option<Vec<u8>> = redis::cmd("GET").arg(key).query_async(&mut connection).await?;
    let life: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await?;
    let record = record.ok_or_else(|| format!("Redis has nothing under {key}"))?;
    println!("key       {key}");
    match life {
        millis @ 0.. => println!("redis     drops it in {:?}", Duration::from_millis(millis as u64)),
        _ => println!("redis     drops it when it needs the room"),
    }
    let inspection = Inspection::of(&record.into(), now())?;
    print!("{inspection}");
    let parsed = CacheKeyFormat::Text.parse(prefix, key.as_bytes());
    if parsed.is_some_and(|parsed| !inspection.is_of(&parsed)) {
        println!("warning   it was stored under another key, or with another prefix: no read finds it here");
    }
    Ok(())
}

fn in_folder(folder: &Path, key: &str) -> Result<(), Failed> {
    let parsed = CacheKey::from_text(key.as_bytes())
        .ok_or_else(|| format!("{key} is no key: one looks like users:0:key=42"))?;
    let found = inspect::entry(folder, &parsed, now())?;
    let found = found.ok_or_else(|| format!("{} has nothing under {key}", folder.display()))?;
    println!("key       {key}");
    print!("{found}");
    Ok(())
}

fn list(folder: &Path) -> Result<(), Failed> {
    for key in inspect::keys(folder)? {
        println!("{key}");
    }
    Ok(())
}

#[derive(Clone, Serialize, Deserialize)]
struct User {
    name: String,
    groups: Vec<String>,
}

/// A cache on disk with an entry, and what can be seen of it from outside while it is open.
async fn demonstrate() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let disk = DiskBackend::builder(folder.path()).open().await?;
    let users: Cache<User> = Cache::builder(disk)
        .name("users")
        .ttl(Duration::from_secs(60))
        .stale(Duration::from_secs(30))
        .build()?;
    let ada = User { name: "Ada".to_owned(), groups: vec!["admins".to_owned()] };
    users.entry(42).tag("group:admins").insert(ada).await?;
    println!("the keys of the folder:");
    list(folder.path())?;
    println!("\nthe first of them:");
    let key = inspect::keys(folder.path())?.next().ok_or("the entry is not there")?;
    in_folder(folder.path(), &key.to_string())?;
    let shown = inspect::entry(folder.path(), &key, now())?.ok_or("the entry is not there")?.value()?;
    let expected = r#"{"name": "Ada", "groups": ["admins"]}"#;
    if shown != expected { Err(format!("{shown} is shown instead of {expected}").into()) } else { Ok(()) }
}
