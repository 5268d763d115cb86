//! gzip through flate2's pure-Rust back end.

use std::io::{self, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

pub(super) fn compress(plain: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::new(level.min(9)));
    encoder.write_all(plain)?;
    encoder.finish()
}

pub(super) fn decompress(packed: &[u8], plain_len: u64) -> io::Result<Vec<u8>> {
    super::read_up_to(GzDecoder::new(packed), packed.len(), plain_len)
}
