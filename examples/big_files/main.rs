//! Large files through memory over disk: stored while they are read, read again, and read in parts. No file is in memory as
//! a whole unless it fits there.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program")]

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use hitbox::backend::LeafOutcome;
use hitbox::backend::wrap::AdmissionRule;
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::{Body, Cache, Compose, OffloadPool, RefillPolicy, Wrap};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

const MIB: u64 = 1024 * 1024;

/// Caches a folder of large files in memory over disk, and shows what reading them costs.
#[derive(Parser)]
#[command(name = "big_files")]
struct Arguments {
    /// The folder with the files; without it some are generated
    #[arg(long, value_name = "FOLDER")]
    source: Option<PathBuf>,
    /// How many files to generate
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..1_000))]
    files: u64,
    /// How large the largest of them is; each of the others has half of the next larger one
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    size: u64,
    /// How much memory the upper layer may take
    #[arg(long, value_name = "MIB", default_value_t = 48, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    memory: u64,
    /// How much room the disk layer may take
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    disk: u64,
    /// How many parts of 64 KiB are read at random
    #[arg(long, value_name = "N", default_value_t = 500)]
    ranges: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    hitbox_examples::ended(run(Arguments::parse()).await)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Source {
    name: String,
    path: PathBuf,
    bytes: u64,
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (generated, cached) = (tempfile::tempdir()?, tempfile::tempdir()?);
    if arguments.source.is_none() {
        generate(generated.path(), arguments.files, arguments.size * MIB)?;
    }
    let sources = files(arguments.source.as_deref().unwrap_or(generated.path()))?;
    let memory = MokaBackend::builder().max_bytes(arguments.memory * MIB).build()?;
    let disk = DiskBackend::builder(cached.path()).max_bytes(arguments.disk * MIB).open().await?;
    let pool = OffloadPool::new();
    // What would put out half of the others stays below.
    let memory = memory.admission(AdmissionRule::UpTo(arguments.memory * MIB / 2));
    let layers = memory.compose(disk, pool.shared()).with_refill(RefillPolicy::NthHit(2));
    let cache: Cache<()> = Cache::builder(layers).name("files").build()?;

    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["file", "size", "pass", "read from", "first bytes", "throughput", "memory"]);
    for column in [1, 4, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for pass in ["stored", "read", "read again"] {
        for source in &sources {
            let run =
                if pass == "stored" { store(&cache, source).await? } else { read(&cache, source).await? };
            table.add_row(run.cells(source, pass));
        }
        pool.wait_all().await;
    }
    println!("{table}");
    let (took, parts) = read_parts(&cache, &sources, arguments.ranges).await?;
    let each = took.checked_div(u32::try_from(parts.max(1))?).unwrap_or_default();
    println!("{parts} parts of 64 KiB at random: {each:.0?} each");
    Ok(())
}

/// Files that differ everywhere, each half as long as the one before.
fn generate(folder: &Path, count: u64, largest: u64) -> Result<(), Failure> {
    let mut random = StdRng::seed_from_u64(1);
    let mut block = vec![0; 1 << 16];
    let bar = progress(count, "generating");
    for number in 0..count {
        let mut file = BufWriter::new(File::create(folder.join(format!("film-{number}")))?);
        let mut left = largest >> number.min(20);
        while left > 0 {
            random.fill_bytes(&mut block);
            let more = left.min(block.len() as u64);
            file.write_all(&block[..more as usize])?;
            left -= more;
        }
        file.flush()?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for entry in folder.read_dir().map_err(|error| format!("{}: {error}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let (name, bytes) = (entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
            sources.push(Source { name, path: entry.path(), bytes });
        }
    }
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    if sources.is_empty() {
        return Err(format!("{} has no files", folder.display()).into());
    }
    Ok(sources)
}

fn progress(len: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<24} {bar:30} {percent:>3} %  {elapsed}");
    let bar = ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what.to_owned())
}

/// What one file cost.
struct Run {
    layer: String,
    first: Duration,
    took: Duration,
    /// Resident memory of the process, in bytes, where the system tells.
    resident: Option<u64>,
}

impl Run {
    fn cells(&self, source: &Source, pass: &str) -> [String; 7] {
        let throughput = source.bytes as f64 / self.took.as_secs_f64().max(1e-9);
        [
            source.name.clone(),
            HumanBytes(source.bytes).to_string(),
            pass.to_owned(),
            self.layer.clone(),
            format!("{:.2?}", self.first),
            format!("{}/s", HumanBytes(throughput as u64)),
            self.resident.map_or_else(|| "?".to_owned(), |bytes| HumanBytes(bytes).to_string()),
        ]
    }
}

/// Stores a file while it is read: at no time is there more of it in memory than a few chunks of each layer, or what the upper
/// one may keep.
async fn store(cache: &Cache<()>, source: &Source) -> Result<Run, Failure> {
    let (began, bar) = (Instant::now(), progress(source.bytes, &format!("storing {}", source.name)));
    let mut sink = cache.write_body(source.name.as_str()).await?;
    let mut file = tokio::fs::File::open(&source.path).await?;
    let mut first = None;
    loop {
        let mut chunk = Vec::with_capacity(1 << 16);
        if tokio::io::AsyncReadExt::read_buf(&mut file, &mut chunk).await? == 0 {
            break;
        }
        first.get_or_insert_with(|| began.elapsed());
        bar.inc(chunk.len() as u64);
        sink.chunk(chunk).await?;
    }
    let receipt = sink.finish().await?;
    bar.finish_and_clear();
    let stored = receipt.leaves().iter().filter(|line| matches!(line.outcome, LeafOutcome::Stored));
    let stored: Vec<String> = stored.map(|line| format!("to {}", line.label)).collect();
    let (took, first) = (began.elapsed(), first.unwrap_or_default());
    Ok(Run { layer: stored.join(", "), first, took, resident: resident() })
}

async fn open(cache: &Cache<()>, source: &Source) -> Result<Body, Failure> {
    let body = cache.open_body(source.name.as_str()).await?;
    Ok(body.ok_or_else(|| format!("{} is not cached: it has no room", source.name))?)
}

/// Reads a file out of the cache.
async fn read(cache: &Cache<()>, source: &Source) -> Result<Run, Failure> {
    let (began, bar) = (Instant::now(), progress(source.bytes, &format!("reading {}", source.name)));
    let mut body = open(cache, source).await?;
    let mut first = None;
    let mut len = 0;
    while let Some(chunk) = body.chunk().await? {
        first.get_or_insert_with(|| began.elapsed());
        len += chunk.len() as u64;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    if len != source.bytes {
        return Err(format!("{} of {} bytes came", len, source.bytes).into());
    }
    let (took, first) = (began.elapsed(), first.unwrap_or_default());
    Ok(Run { layer: body.label().to_string(), first, took, resident: resident() })
}

/// Reads parts at random, and compares them with the files.
async fn read_parts(cache: &Cache<()>, sources: &[Source], count: u64) -> Result<(Duration, u64), Failure> {
    let mut random = StdRng::seed_from_u64(2);
    let (mut took, mut parts) = (Duration::ZERO, 0);
    for source in sources {
        let mut file = File::open(&source.path)?;
        for _ in 0..count / sources.len() as u64 {
            let start = random.random_range(0..source.bytes.max(1));
            let end = (start + (1 << 16)).min(source.bytes);
            let began = Instant::now();
            let mut body = open(cache, source).await?;
            body.seek(start..end)?;
            let mut part = Vec::with_capacity(1 << 16);
            while let Some(chunk) = body.chunk().await? {
                part.extend_from_slice(&chunk);
            }
            took += began.elapsed();
            parts += 1;
            let mut expected = vec![0; (end - start) as usize];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut expected)?;
            if part != expected {
                return Err(format!("{}: other bytes from {start} on", source.name).into());
            }
        }
    }
    Ok((took, parts))
}

/// Resident memory of this process in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
