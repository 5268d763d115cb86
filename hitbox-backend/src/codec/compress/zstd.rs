//! Zstandard through the reference library.

use std::io;

pub(super) fn compress(plain: &[u8], level: i32) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(plain, level)
}

pub(super) fn decompress(packed: &[u8], plain_len: u64) -> io::Result<Vec<u8>> {
    super::read_up_to(zstd::stream::read::Decoder::with_buffer(packed)?, packed.len(), plain_len)
}
