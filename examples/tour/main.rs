//! Stores a few users in Redis, or in a folder, for the book's tour with redis-cli and for the example `inspect`.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use hitbox::Cache;
use hitbox::backend::{Backend, CacheBackend};
use hitbox::disk::DiskBackend;
use hitbox::redis::RedisBackend;
use serde::{Deserialize, Serialize};

/// Stores the users 7, 8 and 42 for five minutes, in Redis or in the folder of a disk cache.
#[derive(Parser)]
#[command(name = "tour")]
struct Arguments {
    /// The server
    #[arg(long, value_name = "URL", default_value = "redis://localhost/0")]
    redis: String,
    /// A folder, instead of a server
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
}

#[derive(Clone, Serialize, Deserialize)]
struct User {
    name: String,
    groups: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    hitbox_examples::ended(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let backend: Arc<dyn Backend> = match arguments.disk {
        Some(folder) => DiskBackend::builder(folder).open().await?.shared(),
        None => RedisBackend::builder(&arguments.redis).build()?.shared(),
    };
    let users: Cache<User> = Cache::builder(backend)
        .name("users")
        .ttl(Duration::from_secs(300))
        .stale(Duration::from_secs(60))
        .build()?;
    for (id, name) in [(7, "Ada"), (8, "Grace"), (42, "Edsger")] {
        let user = User { name: name.to_owned(), groups: vec!["admins".to_owned()] };
        users.entry(&id).tag("group:admins").insert(user).await?;
        println!("stored {name} under {}", users.key(&id));
    }
    users.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
