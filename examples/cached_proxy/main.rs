//! A reverse proxy that caches by the rules of HTTP, in memory over disk: requests that nothing stored answers go to one origin, and bodies
//! through it as they come.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

mod origin;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Parser;
use hitbox::backend::wrap::AdmissionRule;
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::{Compose, OffloadPool, RefillPolicy, Wrap};
use hitbox_tower::{CacheLayer, Policy};
use tokio::net::TcpListener;
use tower_layer::Layer;

use origin::{Address, Origin};

/// Stands before a web server, and answers what that answers.
#[derive(Parser)]
#[command(name = "cached_proxy")]
struct Arguments {
    /// Where to listen; with port 0, on a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The web server that it stands before
    #[arg(long, value_name = "URL")]
    origin: Address,
    /// How much memory the upper layer may take
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    memory: ByteSize,
    /// The folder of the lower layer; without one responses are kept in memory alone
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// How much room the lower layer may take
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    disk_max: ByteSize,
    /// Store responses that set cookies, if they say how long they are fresh: everybody gets the cookie of the first
    #[arg(long)]
    store_set_cookie: bool,
    /// Responses that say when they were changed, and not how long they are fresh, are fresh for this fraction of the time since then
    #[arg(long, value_name = "FRACTION")]
    heuristic: Option<f64>,
    /// Heed `Surrogate-Control`, which names this proxy so
    #[arg(long, value_name = "NAME")]
    surrogate: Option<String>,
}

/// Larger responses are kept on disk alone.
const LARGEST_IN_MEMORY: u64 = 8 * 1024 * 1024;
/// Responses that are being stored, and validations in the background, have so long to end.
const STOPPING: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    hitbox_examples::ended(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let layer = caching(&arguments).await?;
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    server::serve(listener, layer.layer(Origin::new(arguments.origin))).await?;
    let end = layer.cache().shutdown(STOPPING).await;
    if !end.is_clean() {
        eprintln!("some responses were not stored to the end");
    }
    Ok(())
}

async fn caching(arguments: &Arguments) -> Result<CacheLayer, Failure> {
    let mut policy = Policy::shared().store_set_cookie(arguments.store_set_cookie);
    if let Some(fraction) = arguments.heuristic {
        policy = policy.heuristic(fraction);
    }
    if let Some(name) = &arguments.surrogate {
        policy = policy.surrogate(name);
    }
    let memory = MokaBackend::builder().max_bytes(arguments.memory.as_u64()).build()?;
    let Some(folder) = &arguments.disk else {
        return Ok(CacheLayer::builder(memory).name("cached-proxy").policy(policy).build()?);
    };
    let disk = DiskBackend::builder(folder).max_bytes(arguments.disk_max.as_u64()).open().await?;
    let small = memory.admission(AdmissionRule::UpTo(LARGEST_IN_MEMORY));
    let layers = small.compose(disk, OffloadPool::new().shared()).with_refill(RefillPolicy::Always);
    Ok(CacheLayer::builder(layers).name("cached-proxy").policy(policy).build()?)
}
