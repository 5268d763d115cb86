//! Access traces: read from a file, or generated.

use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};

/// One access: a block and its size in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) key: u64,
    pub(crate) size: u32,
}

/// A value larger than this is no cache entry.
const MAX_SIZE: u64 = 256 << 20;

/// Reads `key,size` lines.
pub(crate) fn read(path: &Path, limit: Option<u64>) -> Result<Vec<Access>, String> {
    let shown = path.display();
    let mut reader =
        csv::Reader::from_path(path).map_err(|error| format!("the trace {shown} cannot be read: {error}"))?;
    let headers = reader.headers().map_err(|error| format!("the trace {shown} cannot be read: {error}"))?;
    let column = |name: &str| {
        let found = headers.iter().position(|header| header.trim() == name);
        found.ok_or_else(|| format!("the trace {shown} has no column {name:?}; it needs key and size"))
    };
    let (key, size) = (column("key")?, column("size")?);
    let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let mut accesses = Vec::new();
    for record in reader.records().take(limit) {
        let record = record.map_err(|error| format!("the trace {shown} cannot be read: {error}"))?;
        let line = record.position().map_or(0, csv::Position::line);
        let number = |column: usize| record.get(column).and_then(|field| field.trim().parse::<u64>().ok());
        match (number(key), number(size)) {
            (Some(key), Some(size)) if size <= MAX_SIZE => accesses.push(Access { key, size: size as u32 }),
            _ => {
                return Err(format!(
                    "line {line} of the trace {shown} is not two whole numbers, a key and a size of at most {MAX_SIZE}"
                ));
            }
        }
    }
    if accesses.is_empty() {
        return Err(format!("the trace {shown} has no accesses"));
    }
    Ok(accesses)
}

/// 50,000 blocks, of which few are asked for often (Zipf's law with exponent 0.9), of 512 bytes to 32 KiB.
pub(crate) fn zipf(operations: u64) -> Vec<Access> {
    const BLOCKS: f64 = 50_000.0;
    let mut random = StdRng::seed_from_u64(42);
    let Ok(zipf) = Zipf::new(BLOCKS, 0.9) else { return Vec::new() };
    let access = |_| {
        let key = zipf.sample(&mut random) as u64;
        Access { key, size: 512 << (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61).min(6) }
    };
    (0..operations).map(access).collect()
}
