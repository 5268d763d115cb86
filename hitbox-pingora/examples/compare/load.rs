//! The load, and what is made of it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::Table;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::{Failure, Kind};

const SMALL: usize = 1024;
const LARGE: usize = 1024 * 1024;
const COLD: usize = 100 * 1024 * 1024;
/// Connections of a load, each with one request under way.
const CONNECTIONS: usize = 16;
/// After so many rounds new proxies are started: how fast a process is depends, for as long as it runs, on where the kernel has put it.
const ROUNDS_OF_A_PROXY: usize = 8;
/// Requests of a round, over all connections.
const SMALL_REQUESTS: usize = 16_000;
const LARGE_REQUESTS: usize = 320;

/// A proxy until it is dropped.
struct Proxy {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Proxy {
    /// Waits until it has nothing to do any more: what it still stores would be counted as the other's time.
    async fn becomes_idle(&self) -> Result<(), Failure> {
        let used = || -> Result<Vec<String>, Failure> {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
            // Its processor time by now, in user and in kernel mode, in ticks of 10 ms: proc_pid_stat(5), fields 14 and 15.
            let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            Ok(fields.skip(11).take(2).map(str::to_owned).collect())
        };
        let (mut before, deadline) = (used()?, Instant::now() + Duration::from_secs(30));
        while Instant::now() < deadline {
            // Three ticks.
            tokio::time::sleep(Duration::from_millis(30)).await;
            let now = used()?;
            if now == before {
                // What the kernel still writes takes a core, too.
                return if Command::new("sync").status()?.success() {
                    Ok(())
                } else {
                    Err("sync fails".into())
                };
            }
            before = now;
        }
        Err("a proxy does not come to rest".into())
    }
}

fn free_address() -> Result<SocketAddr, Failure> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn start(kind: Kind, origin: SocketAddr) -> Result<Proxy, Failure> {
    let (address, folder) = (free_address()?, tempfile::tempdir()?);
    let name = clap::ValueEnum::to_possible_value(&kind).ok_or("a kind has a name")?.get_name().to_owned();
    let process = Command::new(std::env::current_exe()?)
        .args(["serve", &name, &address.to_string(), &origin.to_string()])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()?;
    let mut proxy = Proxy { process, address, _folder: folder };
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).await.is_err() {
        if proxy.process.try_wait()?.is_some() || Instant::now() > deadline {
            return Err(format!("the proxy with {name} does not answer").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(proxy)
}

/// An origin: `/small/…`, `/large/…` and `/cold/…` are as long as their names say, and fresh for an hour.
///
/// It has a thread of its own: a client that shared it would see a first byte when the origin lets it.
fn origin() -> Result<(Runtime, SocketAddr), Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let chunk: Arc<[u8]> = vec![b'x'; 64 * 1024].into();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let chunk = chunk.clone();
            // A proxy that closes its connection ends it.
            tokio::spawn(async move { drop(answer(stream, &chunk).await) });
        }
    });
    Ok((runtime, address))
}

async fn answer(mut stream: TcpStream, chunk: &[u8]) -> std::io::Result<()> {
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let len = match &request[..] {
            text if text.starts_with(b"GET /small") => SMALL,
            text if text.starts_with(b"GET /large") => LARGE,
            _ => COLD,
        };
        let head = format!("HTTP/1.1 200 OK\r\ncache-control: max-age=3600\r\ncontent-length: {len}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut left = len;
        while left > 0 {
            let part = left.min(chunk.len());
            stream.write_all(&chunk[..part]).await?;
            left -= part;
        }
    }
}

/// Asks, and reads an answer of so many bytes. Says when its first byte had come.
async fn ask(
    stream: &mut TcpStream,
    path: &str,
    len: usize,
    buffer: &mut Vec<u8>,
) -> Result<Duration, Failure> {
    let began = Instant::now();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n").as_bytes()).await?;
    buffer.clear();
    let mut first = None;
    let head = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the proxy has closed".into());
        }
        if let Some(end) = buffer.windows(4).position(|end| end == b"\r\n\r\n") {
            if buffer.len() > end + 4 {
                first.get_or_insert_with(|| began.elapsed());
            }
            break end + 4;
        }
    };
    if !buffer.starts_with(b"HTTP/1.1 200") {
        return Err("the proxy has no answer".into());
    }
    let mut left = (head + len).checked_sub(buffer.len()).ok_or("more than was asked for")?;
    buffer.resize(256 * 1024, 0);
    while left > 0 {
        let read = stream.read(&mut buffer[..left.min(256 * 1024)]).await?;
        if read == 0 {
            return Err("the proxy has closed in the middle".into());
        }
        first.get_or_insert_with(|| began.elapsed());
        left -= read;
    }
    Ok(first.unwrap_or_else(|| began.elapsed()))
}

/// Seconds for so many requests, over all connections.
async fn load(proxy: &Proxy, path: &'static str, len: usize, requests: usize) -> Result<f64, Failure> {
    // It is stored by one request: plain files have nothing for those that come meanwhile.
    let mut first = TcpStream::connect(proxy.address).await?;
    ask(&mut first, path, len, &mut Vec::new()).await?;
    let mut connections = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(proxy.address).await?;
        connections.spawn(async move {
            let mut buffer = Vec::new();
            for _ in 0..requests / CONNECTIONS {
                ask(&mut stream, path, len, &mut buffer).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    Ok(began.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What is measured.
struct Subject {
    what: &'static str,
    ours: Kind,
    reference: Kind,
    measure: Measure,
    /// The most that ours may take, as a multiple of the time of the reference. Without one it says what others take.
    target: Option<f64>,
}

/// How it is measured.
#[derive(Clone, Copy)]
enum Measure {
    /// The first byte of a response that nobody has asked for before.
    FirstByte,
    /// So many requests for one path, answered with so many bytes each.
    Hits { path: &'static str, len: usize, requests: usize },
}

const SUBJECTS: [Subject; 6] = [
    first_bytes(
        "first byte of a cold response of 100 MiB ÷ uncached",
        Kind::Tiers,
        Kind::Uncached,
        Some(1.1),
    ),
    first_bytes("the same of Pingora's memory cache", Kind::PingoraMemory, Kind::Uncached, None),
    first_bytes(
        "the same of our memory over disk ÷ Pingora's memory cache",
        Kind::Tiers,
        Kind::PingoraMemory,
        None,
    ),
    small_hits("hits of 1 KiB in memory, moka ÷ Pingora's memory cache", Kind::Memory),
    small_hits("hits of 1 KiB in memory, quick_cache ÷ Pingora's memory cache", Kind::Quick),
    Subject {
        what: "hits of 1 MiB on disk ÷ plain files",
        ours: Kind::Tiers,
        reference: Kind::Files,
        measure: Measure::Hits { path: "/large/1", len: LARGE, requests: LARGE_REQUESTS },
        target: Some(1.0 / 0.8),
    },
];

const fn first_bytes(what: &'static str, ours: Kind, reference: Kind, target: Option<f64>) -> Subject {
    Subject { what, ours, reference, measure: Measure::FirstByte, target }
}

const fn small_hits(what: &'static str, ours: Kind) -> Subject {
    let measure = Measure::Hits { path: "/small/1", len: SMALL, requests: SMALL_REQUESTS };
    Subject { what, ours, reference: Kind::PingoraMemory, measure, target: Some(1.0 / 0.95) }
}

impl Measure {
    /// Seconds that it takes.
    async fn run(self, proxy: &Proxy, round: usize) -> Result<f64, Failure> {
        match self {
            Self::FirstByte => first_byte(proxy, round).await,
            Self::Hits { path, len, requests } => load(proxy, path, len, requests).await,
        }
    }
}

/// Measures what has this in its name, and says what is over its target.
pub(crate) fn compare(rounds: usize, only: &str) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (origin_runtime, origin) = origin()?;
    let compared = runtime.block_on(async {
        let mut table = Table::new();
        table.set_header(["measured", "ms", "reference, ms", "ratio of times", "target"]);
        let mut missed = Vec::new();
        for subject in SUBJECTS.into_iter().filter(|subject| subject.what.contains(only)) {
            let (mut times, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            let (mut ours, mut reference) =
                (start(subject.ours, origin).await?, start(subject.reference, origin).await?);
            let mut is_first = true;
            for round in 0..rounds {
                if round > 0 && round % ROUNDS_OF_A_PROXY == 0 {
                    ours = start(subject.ours, origin).await?;
                    reference = start(subject.reference, origin).await?;
                    is_first = true;
                }
                // In turns, so that what disturbs the machine, and being the second, disturbs both.
                let mut took = [0.0; 2];
                let turns = if round % 2 == 0 { [0, 1] } else { [1, 0] };
                for turn in turns {
                    let proxy = [&ours, &reference][turn];
                    let failed = |error| format!("{}, round {round}, {turn}: {error}", subject.what);
                    took[turn] = subject.measure.run(proxy, round).await.map_err(failed)?;
                    proxy.becomes_idle().await?;
                }
                let [time, other] = took;
                // The first round of a proxy stores.
                if !std::mem::take(&mut is_first) || rounds == 1 {
                    times.push(time * 1000.0);
                    others.push(other * 1000.0);
                    ratios.push(time / other);
                }
            }
            let ratio = median(ratios);
            table.add_row([
                subject.what.to_owned(),
                format!("{:.2}", median(times)),
                format!("{:.2}", median(others)),
                format!("{ratio:.2}"),
                subject.target.map_or_else(|| "–".to_owned(), |target| format!("≤ {target:.2}")),
            ]);
            if let Some(target) = subject.target.filter(|target| ratio > *target) {
                missed.push(format!("{}: {ratio:.2} for {target:.2}", subject.what));
            }
        }
        println!("{table}");
        for line in missed {
            println!("missed: {line}");
        }
        Ok(())
    });
    origin_runtime.shutdown_background();
    compared
}

/// Seconds until the first byte of a body that nobody has asked for before.
async fn first_byte(proxy: &Proxy, round: usize) -> Result<f64, Failure> {
    let mut stream = TcpStream::connect(proxy.address).await?;
    let mut buffer = Vec::new();
    let first = ask(&mut stream, &format!("/cold/{round}"), COLD, &mut buffer).await?;
    Ok(first.as_secs_f64())
}
