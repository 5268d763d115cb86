//! A body that came by chunks, which stay as they are and are shared by all who read it.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hitbox_core::{BackendError, BackendResult, ErrorKind};

use super::encoded::EncodedCell;
use super::live::Content;
use crate::codec::{Format, TypeTag};

/// Shorter chunks are put together: each costs a pointer and a count.
const SHORT: usize = 4 * 1024;
/// What they are put together to.
const TOGETHER: usize = 64 * 1024;
/// Bytes that a chunk takes beside its own.
const OVERHEAD: u64 = 48;

/// The chunks of a body, each with where it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks(Arc<Vec<(u64, Bytes)>>);

impl Chunks {
    pub(crate) fn len(&self) -> u64 {
        self.0.last().map_or(0, |(end, _)| *end)
    }

    /// The bytes from the start of a range on that one chunk has, at most `limit`; nothing if the range is empty.
    pub(crate) fn read(&self, range: Range<u64>, limit: u64) -> Option<Bytes> {
        let index = self.0.partition_point(|(end, _)| *end <= range.start);
        part_of_chunk(self.0.get(index).filter(|_| !range.is_empty())?, range, limit)
    }

    /// All of them in one; nothing is copied if there is one.
    fn join(&self) -> Bytes {
        if let [(_, only)] = &**self.0 {
            return only.clone();
        }
        let mut whole = BytesMut::with_capacity(self.len() as usize);
        self.0.iter().for_each(|(_, chunk)| whole.extend_from_slice(chunk));
        whole.freeze()
    }
}

impl From<Bytes> for Chunks {
    fn from(whole: Bytes) -> Self {
        Self(Arc::new(vec![(whole.len() as u64, whole)]))
    }
}

/// The chunks of a body that grows, or the last of them.
#[derive(Debug, Default)]
pub(crate) struct GrowingChunks {
    chunks: VecDeque<(u64, Bytes)>,
    /// Short ones that have come last.
    short: BytesMut,
    /// Where the first chunk that is held begins.
    start: u64,
    len: u64,
}

impl GrowingChunks {
    /// Bytes that have come.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Where what is held begins.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// Bytes that are held, and what they take beside their own.
    pub(crate) fn weight(&self) -> u64 {
        self.len - self.start + OVERHEAD * self.chunks.len() as u64
    }

    /// The same when this chunk has come, too.
    pub(crate) fn weight_with(&self, chunk: &Bytes) -> u64 {
        let ends_short = !self.short.is_empty() && chunk.len() >= SHORT;
        self.weight() + chunk.len() as u64 + OVERHEAD * (1 + u64::from(ends_short))
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len() as u64;
        if chunk.len() < SHORT {
            self.short.extend_from_slice(&chunk);
            if self.short.len() >= TOGETHER {
                self.end_short(self.len);
            }
            return;
        }
        self.end_short(self.len - chunk.len() as u64);
        self.chunks.push_back((self.len, chunk));
    }

    fn end_short(&mut self, end: u64) {
        if !self.short.is_empty() {
            self.chunks.push_back((end, self.short.split().freeze()));
        }
    }

    /// The bytes from the start of a range on that are held together, at most `limit`; nothing if the range is empty, or these have
    /// not come or are not held any more.
    pub(crate) fn read(&self, range: Range<u64>, limit: u64) -> Option<Bytes> {
        let range = range.start..range.end.min(self.len);
        if range.is_empty() || range.start < self.start {
            return None;
        }
        let short_from = self.len - self.short.len() as u64;
        if range.start >= short_from {
            let (from, to) =
                (range.start - short_from, range.end.min(range.start.saturating_add(limit)) - short_from);
            return Some(Bytes::copy_from_slice(&self.short[from as usize..to as usize]));
        }
        let index = self.chunks.partition_point(|(end, _)| *end <= range.start);
        part_of_chunk(self.chunks.get(index)?, range, limit)
    }

    /// Where the first chunk that is held ends; nothing if that is still growing.
    pub(crate) fn first_end(&self) -> Option<u64> {
        self.chunks.front().map(|(end, _)| *end)
    }

    /// The first chunk is not held any more.
    pub(crate) fn drop_first(&mut self) {
        if let Some((end, _)) = self.chunks.pop_front() {
            self.start = end;
        }
    }

    /// All that have come, if none was dropped.
    pub(crate) fn finish(mut self) -> Chunks {
        self.end_short(self.len);
        Chunks(Arc::new(self.chunks.into()))
    }
}

/// What one chunk has of a range that begins in it, at most `limit`.
fn part_of_chunk((end, chunk): &(u64, Bytes), range: Range<u64>, limit: u64) -> Option<Bytes> {
    let from = range.start - (end - chunk.len() as u64);
    let to = (range.end - range.start).min(limit).min(end - range.start) + from;
    Some(chunk.slice(from as usize..to as usize))
}

/// The size of a body that is still growing, in an envelope: it weighs what the body would.
pub(super) struct SizeCell(pub(super) u64);

impl Content for SizeCell {
    fn value(&self) -> Option<&dyn Any> {
        None
    }

    fn encoded(&self) -> Option<&EncodedCell> {
        None
    }

    fn encode(&self, _: Format) -> BackendResult<(Format, Bytes)> {
        Err(BackendError::new(ErrorKind::Codec, "the size of a body is no value"))
    }

    fn type_tag(&self, _: Format) -> TypeTag {
        TypeTag::UNSAID
    }

    fn weight(&self) -> u64 {
        self.0
    }

    fn known_len(&self) -> Option<u64> {
        Some(self.0)
    }
}

/// A body in an envelope, and the identity of its record.
pub(super) struct ChunksCell(pub(super) Chunks, pub(super) u64);

impl Content for ChunksCell {
    fn value(&self) -> Option<&dyn Any> {
        None
    }

    fn encoded(&self) -> Option<&EncodedCell> {
        None
    }

    fn encode(&self, _: Format) -> BackendResult<(Format, Bytes)> {
        Ok((Format::Opaque, self.0.join()))
    }

    fn identity(&self) -> Option<u64> {
        Some(self.1)
    }

    fn type_tag(&self, _: Format) -> TypeTag {
        TypeTag::UNSAID
    }

    fn weight(&self) -> u64 {
        self.0.len() + OVERHEAD * self.0.0.len() as u64
    }

    fn known_len(&self) -> Option<u64> {
        Some(self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Chunks, GrowingChunks, SHORT};

    fn built(lengths: &[usize]) -> (Chunks, Vec<u8>) {
        let (mut builder, mut whole) = (GrowingChunks::default(), Vec::new());
        for len in lengths {
            let chunk: Vec<u8> = (whole.len()..whole.len() + len).map(|at| (at * 7 / 3) as u8).collect();
            whole.extend_from_slice(&chunk);
            builder.push(chunk.into());
            assert_eq!(builder.len(), whole.len() as u64);
            let (mut at, mut read) = (0, Vec::new());
            while let Some(part) = builder.read(at..u64::MAX, 50_000) {
                at += part.len() as u64;
                read.extend_from_slice(&part);
            }
            assert!(read == whole, "what has come can be read while it grows");
        }
        (builder.finish(), whole)
    }

    #[test]
    fn every_range_is_what_was_pushed() {
        for lengths in [&[][..], &[0], &[1], &[SHORT], &[3, SHORT, 5, 7, 2 * SHORT, 1], &[100; 2_000]] {
            let (chunks, whole) = built(lengths);
            assert_eq!(chunks.len(), whole.len() as u64);
            assert_eq!(chunks.join(), whole);
            let len = chunks.len();
            for (start, end) in [(0, len), (1, len), (len / 2, len / 2 + 3), (len, len), (len / 3, len)] {
                let (mut at, end, mut read) = (start.min(len), end.min(len), Vec::new());
                while let Some(part) = chunks.read(at..end, 1_000) {
                    assert!(!part.is_empty() && part.len() <= 1_000);
                    at += part.len() as u64;
                    read.extend_from_slice(&part);
                }
                assert_eq!(read, whole[start.min(len) as usize..end.max(start.min(len)) as usize]);
            }
        }
    }

    #[test]
    fn what_is_dropped_from_the_front_is_not_read() {
        let mut growing = GrowingChunks::default();
        [7, 9, 11].iter().for_each(|byte| growing.push(vec![*byte; SHORT].into()));
        growing.push(Bytes::from_static(b"end"));
        growing.drop_first();
        let second = SHORT as u64;
        assert!(growing.read(second - 1..u64::MAX, 10).is_none());
        assert_eq!(growing.read(second..u64::MAX, 2).as_deref(), Some(&[9, 9][..]));
        assert_eq!(growing.first_end(), Some(2 * second));
        assert_eq!(growing.read(3 * second + 1..u64::MAX, 10).as_deref(), Some(&b"nd"[..]));
        assert!(growing.read(3 * second + 3..u64::MAX, 10).is_none(), "it has not come");
        assert_eq!(growing.weight(), 2 * second + 3 + 2 * super::OVERHEAD);
    }

    #[test]
    fn long_chunks_are_shared_and_short_ones_put_together() {
        let long = Bytes::from(vec![1; SHORT]);
        let mut builder = GrowingChunks::default();
        builder.push(long.clone());
        for _ in 0..100 {
            builder.push(Bytes::from_static(b"short"));
        }
        let chunks = builder.finish();
        assert_eq!(chunks.0.len(), 2);
        assert_eq!(chunks.0[0].1.as_ptr(), long.as_ptr());
    }
}
