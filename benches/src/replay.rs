//! A whole trace through read, miss, load and write: how often each cache has it, how fast, and how many bytes go
//! to disk and come from it.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use hitbox_backend::{Backend, CacheBackend, Compose, CompositionBackend, RefillPolicy};
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use serde::{Deserialize, Serialize};

use crate::measure::Env;
use crate::payload::body;

#[path = "../../examples/tiers/trace.rs"]
mod trace;

/// Bytes of the memory layer.
pub const MEMORY: u64 = 64 << 20;
/// Bytes of the disk layer.
pub const DISK: u64 = 512 << 20;
/// Accesses that are replayed.
pub const ACCESSES: u64 = 30_000;

/// One access: a block and its size in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The block.
    pub key: u64,
    /// Bytes.
    pub size: u32,
}

/// What came of a replay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replayed {
    /// The cache.
    pub name: String,
    /// Accesses that it had.
    pub hits: u64,
    /// Accesses.
    pub accesses: u64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes read from disk and written to it, where the cache says so.
    pub disk_bytes: Option<(u64, u64)>,
}

/// A future that a cache answers with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A cache that a trace can be replayed through.
pub trait Replay {
    /// Whether it has the block.
    fn get(&self, access: Access) -> Answer<'_, bool>;
    /// Stores the block.
    fn set(&self, access: Access, body: Bytes) -> Answer<'_, ()>;
    /// Bytes read from disk and written to it.
    fn disk_bytes(&self) -> Option<(u64, u64)>;
}

/// A named way to open a cache in a folder.
pub type Contender = (&'static str, fn(&Env, &Path) -> Box<dyn Replay>);

/// Ours.
pub fn contenders() -> Vec<Contender> {
    vec![
        ("moka over disk", |env, folder| {
            Box::new(over_disk(
                env,
                folder,
                MokaBackend::builder().max_bytes(MEMORY).build().expect("memory"),
            ))
        }),
        ("quick over disk", |env, folder| {
            Box::new(over_disk(
                env,
                folder,
                QuickBackend::builder().max_bytes(MEMORY).build().expect("memory"),
            ))
        }),
        ("moka alone", |_, _| Box::new(MokaBackend::builder().max_bytes(MEMORY).build().expect("memory"))),
        ("quick alone", |_, _| Box::new(QuickBackend::builder().max_bytes(MEMORY).build().expect("memory"))),
    ]
}

fn over_disk(env: &Env, folder: &Path, memory: impl Backend) -> CompositionBackend {
    let disk = env.block_on(DiskBackend::builder(folder).max_bytes(DISK).open()).expect("disk");
    memory.compose(disk, env.pool.shared()).with_refill(RefillPolicy::Always)
}

fn key(access: Access) -> CacheKey {
    CacheKey::builder("block").part("number", access.key).build()
}

impl<B: Backend> Replay for B {
    fn get(&self, access: Access) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut context = CacheContext::new();
            CacheBackend::get::<Bytes>(self, &key(access), &mut context).await.expect("a read").is_some()
        })
    }

    fn set(&self, access: Access, body: Bytes) -> Answer<'_, ()> {
        Box::pin(async move {
            // A block larger than a layer stays out of it.
            let _ =
                CacheBackend::set(self, &key(access), CacheValue::new(body), &mut CacheContext::new()).await;
        })
    }

    fn disk_bytes(&self) -> Option<(u64, u64)> {
        let leaves = CacheBackend::snapshot(self).leaves;
        let disk = leaves.iter().find(|leaf| leaf.label.as_str().ends_with("disk"))?;
        Some((disk.bytes_read, disk.bytes_written))
    }
}

/// Replays a trace, or a generated one, through each cache.
///
/// # Errors
/// If the trace cannot be read.
pub fn all(contenders: &[Contender], file: Option<&Path>) -> Result<Vec<Replayed>, String> {
    let accesses = match file {
        Some(file) => trace::read(file, Some(ACCESSES))?,
        None => trace::zipf(ACCESSES),
    };
    let largest = accesses.iter().map(|access| access.size).max().unwrap_or(0);
    let source = body(largest as usize);
    let env = Env::new();
    let replay = |(name, open): &Contender| {
        eprintln!("replaying through {name} …");
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let cache = open(&env, folder.path());
        let started = Instant::now();
        let mut hits = 0;
        env.block_on(async {
            for trace::Access { key, size } in accesses.iter().copied() {
                let access = Access { key, size };
                if cache.get(access).await {
                    hits += 1;
                } else {
                    cache.set(access, source.slice(..size as usize)).await;
                }
            }
        });
        let seconds = started.elapsed().as_secs_f64();
        let (name, accesses) = ((*name).to_owned(), accesses.len() as u64);
        Ok(Replayed { name, hits, accesses, seconds, disk_bytes: cache.disk_bytes() })
    };
    contenders.iter().map(replay).collect()
}
