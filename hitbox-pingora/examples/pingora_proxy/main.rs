//! A caching reverse proxy on Pingora: memory over disk before one origin.
//!
//! ```text
//! cargo run -p hitbox-pingora --release --example pingora_proxy -- \
//!     --listen 127.0.0.1:8080 --origin 127.0.0.1:9000 --memory 256M --disk /var/cache/proxy --disk-max 10G
//! curl -i http://127.0.0.1:8080/                        # x-cache says hit or miss, and from which layer
//! curl -i -X PURGE http://127.0.0.1:8080/               # from this machine only; with "x-purge: expire" it stays as stale, one variant of it
//! curl http://127.0.0.1:9091/metrics                    # with --metrics 127.0.0.1:9091
//! ```

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

mod metrics;
mod proxy;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Parser;
use hitbox_backend::wrap::AdmissionRule;
use hitbox_backend::{CacheBackend, Compose, OffloadPool, RefillPolicy, Wrap};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_pingora::BackendStorage;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::listening::Service;
use tokio::runtime::{Handle, Runtime};

use crate::metrics::Metrics;
use crate::proxy::CachingProxy;

/// Stands before a web server, and answers what that answers.
#[derive(Parser)]
#[command(name = "pingora_proxy")]
struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The web server that it stands before
    #[arg(long, value_name = "HOST:PORT")]
    origin: String,
    /// How much memory the upper layer may take
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    memory: ByteSize,
    /// The folder of the lower layer; without one responses are kept in memory alone
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// How much room the lower layer may take
    #[arg(long, value_name = "SIZE", default_value = "10G")]
    disk_max: ByteSize,
    /// Where to show metrics of all layers, for Prometheus
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Seconds in which a client has to take something, or is let go
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    write_timeout: u64,
    /// Threads that serve requests
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    threads: usize,
}

/// Larger responses are kept on disk alone.
const LARGEST_IN_MEMORY: u64 = 8 * 1024 * 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Pingora makes its own runtimes. This one opens the layers, and closes them when Pingora has ended.
    let runtime = Runtime::new()?;
    let export = hitbox_backend::metrics::prometheus()?;
    let storage = runtime.block_on(storage(arguments))?;
    let proxy = CachingProxy::new(&arguments.origin, storage, Duration::from_secs(arguments.write_timeout))?;

    let conf = ServerConf {
        threads: arguments.threads,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(10),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = pingora_proxy::http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&arguments.listen.to_string());
    server.add_service(service);
    if let Some(address) = arguments.metrics {
        let mut service = Service::new("metrics".to_owned(), Metrics(export));
        service.add_tcp(&address.to_string());
        server.add_service(service);
    }
    println!("listening on {}", arguments.listen);
    server.run(RunArgs::default());
    runtime.block_on(storage.close())?;
    Ok(())
}

async fn storage(arguments: &Arguments) -> Result<&'static BackendStorage, Failure> {
    // Pingora's runtimes end before the storage is closed, with all that is under way on them.
    let pool = OffloadPool::builder().runtime(Handle::current()).build();
    let memory = MokaBackend::builder().max_bytes(arguments.memory.as_u64()).build()?;
    let small = memory.admission(AdmissionRule::UpTo(LARGEST_IN_MEMORY));
    let layers = match &arguments.disk {
        None => small.shared(),
        Some(folder) => {
            let disk = DiskBackend::builder(folder).max_bytes(arguments.disk_max.as_u64()).open().await?;
            small.compose(disk, pool.shared()).with_refill(RefillPolicy::Always).with_label("tiers").shared()
        }
    };
    Ok(BackendStorage::builder(layers).offload(pool.shared()).build().leak())
}
