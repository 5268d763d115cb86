//! A cache in tiers, replaying an access trace: moka over disk, or (moka over Redis) over disk when
//! `REDIS_URL` is set.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

mod report;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use hitbox_backend::{CacheBackend, Compose, CompositionBackend, OffloadPool, RefillPolicy};
use hitbox_core::{CacheContext, CacheKey, CacheValue, ResponseSource};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_redis::RedisBackend;
use indicatif::{ProgressBar, ProgressStyle};
use report::Served;
use trace::Access;

/// Replays an access trace through moka over disk, or (moka over Redis) over disk when REDIS_URL is set,
/// and shows which layer served the reads.
#[derive(Parser)]
#[command(name = "tiers")]
struct Arguments {
    /// A CSV file with the columns key and size (bytes); without it a Zipf trace is generated
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// How many accesses to generate, or to take from the trace at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    operations: Option<u64>,
    /// How much memory the upper layer may take
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    memory: u64,
    /// How much room the disk layer may take
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    disk: u64,
    /// Where the disk layer lives; a temporary folder if not given
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    hitbox_examples::ended(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let accesses = match &arguments.trace {
        Some(file) => trace::read(file, arguments.operations)?,
        None => trace::zipf(arguments.operations.unwrap_or(200_000)),
    };
    let temporary = match &arguments.folder {
        Some(_) => None,
        None => {
            Some(tempfile::tempdir().map_err(|error| format!("no temporary folder can be made: {error}"))?)
        }
    };
    let folder = match (&arguments.folder, &temporary) {
        (Some(folder), _) => folder.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => Path::new("."),
    };
    let pool = OffloadPool::new();
    let cache = compose(&arguments, folder, &pool).await?;
    println!("layers: {}", paths(&cache));
    println!("replaying {} accesses …", accesses.len());
    let served = replay(&cache, &accesses).await?;
    pool.wait_all().await;
    report::show(&cache, &served);

    // A restart: every handle goes, and the folder is opened again.
    drop(cache);
    let disk = open_disk(&arguments, folder).await?;
    let recent: Vec<Access> = accesses.iter().rev().take(1_000).copied().collect();
    let mut warm = 0;
    for access in &recent {
        warm += u64::from(read(&disk, access).await?.is_some());
    }
    println!(
        "\nafter a restart the disk layer serves {warm} of the last {} accesses without loading",
        recent.len()
    );
    disk.close().await;
    Ok(())
}

async fn open_disk(arguments: &Arguments, folder: &Path) -> Result<DiskBackend, String> {
    let disk = DiskBackend::builder(folder).max_bytes(arguments.disk << 20).open().await;
    disk.map_err(|error| error.to_string())
}

/// `outer`: (moka over Redis) over disk, where the part above is `inner`; without Redis moka over disk.
async fn compose(
    arguments: &Arguments,
    folder: &Path,
    pool: &OffloadPool,
) -> Result<CompositionBackend, String> {
    let memory = MokaBackend::builder().max_bytes(arguments.memory << 20).build();
    let memory = memory.map_err(|error| error.to_string())?;
    let disk = open_disk(arguments, folder).await?;
    let outer = match std::env::var("REDIS_URL") {
        Ok(url) if !url.is_empty() => {
            let redis = RedisBackend::builder(&url).prefix("tiers:").build().map_err(|e| e.to_string())?;
            redis.ping().await.map_err(|error| format!("REDIS_URL is set, but {error}"))?;
            let inner = memory.compose(redis, pool.shared()).with_label("inner");
            inner.with_refill(RefillPolicy::Always).compose(disk, pool.shared())
        }
        _ => memory.compose(disk, pool.shared()),
    };
    Ok(outer.with_refill(RefillPolicy::Always).with_label("outer"))
}

fn paths(cache: &CompositionBackend) -> String {
    use hitbox_backend::Backend;
    cache.layout().paths().map(|path| path.to_string()).collect::<Vec<_>>().join(", ")
}

fn key(access: &Access) -> CacheKey {
    CacheKey::builder("block").part("number", access.key).build()
}

/// The value that the source would give: the key, repeated up to the size.
fn load(access: &Access) -> Bytes {
    let pattern = access.key.to_le_bytes();
    pattern.iter().copied().cycle().take(access.size as usize).collect()
}

/// A read of one layer or of all; the value is checked.
async fn read(cache: &impl CacheBackend, access: &Access) -> Result<Option<ResponseSource>, String> {
    let mut context = CacheContext::new();
    let found = cache.get::<Bytes>(&key(access), &mut context).await.map_err(|error| error.to_string())?;
    let Some(found) = found else { return Ok(None) };
    let pattern = access.key.to_le_bytes();
    let is_right = found.data().iter().zip(pattern.iter().cycle()).all(|(a, b)| a == b);
    if is_right { Ok(Some(*context.source())) } else { Err(format!("block {} came back wrong", access.key)) }
}

async fn replay(cache: &CompositionBackend, accesses: &[Access]) -> Result<Served, String> {
    let bar = ProgressBar::new(accesses.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    let started = Instant::now();
    let mut served = Served::default();
    for access in accesses {
        let asked = Instant::now();
        let source = read(cache, access).await?;
        served.count(source, asked.elapsed());
        if source.is_none() {
            // Written where it can be; a layer that fails is counted, and the request goes on.
            let written =
                cache.set(&key(access), CacheValue::new(load(access)), &mut CacheContext::new()).await;
            served.failed_writes += u64::from(written.is_err());
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    served.took = started.elapsed().max(Duration::from_millis(1));
    Ok(served)
}
