//! A shop on axum over SQLite: pages are cached as responses, and what they are made of as values. A change of a price removes both.
//!
//! `cargo run --release --example axum_shop` runs it; with `REDIS_URL` set several of them share what they cache.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

mod database;
mod pages;
mod shop;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::net::TcpListener;

/// Sells a few things.
#[derive(Parser)]
#[command(name = "axum_shop")]
struct Arguments {
    /// Where to listen; with port 0, on a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The database, which is made if it is not there; without it, one that ends with the shop
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Redis, for several shops that share what they cache
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    redis: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    hitbox_examples::ended(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> Result<(), shop::Failure> {
    let metrics = hitbox_backend::metrics::prometheus()?;
    let database = database::Database::open(arguments.database).await?;
    let shop = shop::Shop::new(database, arguments.redis.as_deref())?;
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, pages::router(&shop, metrics)).with_graceful_shutdown(stopped()).await?;
    if !shop.shutdown().await {
        eprintln!("some pages or values were not stored to the end");
    }
    println!("the database was asked {} times", shop.database.queries());
    Ok(())
}

/// Until the shop is asked to stop.
async fn stopped() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    // Without handlers of signals it runs until it is killed.
    if interrupted.await.is_err() {
        std::future::pending::<()>().await;
    }
}
