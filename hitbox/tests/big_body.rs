//! A body of 1 GiB, loaded once and followed by many, within 64 MiB of memory. In a process of its own, whose memory is measured.

#![cfg(all(feature = "disk", feature = "moka"))]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hitbox::backend::wrap::AdmissionRule;
use hitbox::{Body, Cache, Compose, OffloadPool, Wrap, disk::DiskBackend, moka::MokaBackend};

const LEN: u64 = 1024 * 1024 * 1024;
const CHUNK: u64 = 64 * 1024;
const FOLLOWERS: u64 = 8;
const MOST: u64 = 64 * 1024 * 1024;

/// Bytes of which each chunk is a part: where it begins tells the chunks apart.
fn pattern() -> Bytes {
    (0..2 * CHUNK).map(|at| (at * 31 % 65_521) as u8).collect::<Vec<u8>>().into()
}

fn chunk(pattern: &Bytes, number: u64) -> Bytes {
    let from = (number * 7 % CHUNK) as usize;
    pattern.slice(from..from + CHUNK as usize)
}

/// Whether a body is what it should be from there on.
async fn check(mut body: Body, from: u64, read: &AtomicU64) {
    let pattern = pattern();
    let mut at = from;
    while let Some(part) = body.chunk().await.expect("a chunk") {
        let mut rest = &part[..];
        while !rest.is_empty() {
            let (number, within) = (at / CHUNK, (at % CHUNK) as usize);
            let expected = &chunk(&pattern, number)[within..];
            let len = expected.len().min(rest.len());
            assert!(rest[..len] == expected[..len], "at byte {at}");
            (at, rest) = (at + len as u64, &rest[len..]);
        }
        read.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
    assert_eq!(at, LEN, "it ends too soon");
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak memory");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_a_gibibyte_is_followed_within_64_mib() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = MokaBackend::builder().max_bytes(8 * 1024 * 1024).build().expect("moka");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let pool = OffloadPool::new();
    let memory = memory.admission(AdmissionRule::UpTo(1024 * 1024));
    let films: Cache<()> =
        Cache::builder(memory.compose(disk, pool.shared())).name("films").build().expect("a cache");

    let pattern = pattern();
    let (loads, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counted = loads.clone();
    let load = async || {
        let (pattern, counted) = (pattern.clone(), counted.clone());
        films
            .get_or_load_stream("metropolis", || async move {
                counted.fetch_add(1, Ordering::Relaxed);
                let chunks = (0..LEN / CHUNK).map(move |number| Ok::<_, io::Error>(chunk(&pattern, number)));
                Ok::<_, io::Error>(stream::iter(chunks))
            })
            .await
            .expect("a body")
    };
    let own = read.clone();
    let leader = load().await;
    let mut reading = vec![tokio::spawn(async move { check(leader, 0, &own).await })];
    for follower in 1..=FOLLOWERS {
        // They come while it is being loaded: the next when another sixteenth has been read by those who are there.
        let come = async {
            while read.load(Ordering::Relaxed) < follower * LEN / 16 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), come).await.expect("it goes on");
        let (mut body, own) = (load().await, read.clone());
        let from = if follower % 2 == 0 { follower * 100_000_001 } else { 0 };
        body.seek(from..u64::MAX).expect("a range");
        reading.push(tokio::spawn(async move { check(body, from, &own).await }));
    }
    for reading in reading {
        reading.await.expect("a reader");
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1, "the source was read again");
    let peak = peak_memory();
    eprintln!("{FOLLOWERS} followers of {LEN} bytes: {} MiB of memory at most", peak / 1024 / 1024);
    assert!(peak < MOST, "{peak} bytes of memory");
}
