//! A body that came by chunks, which stay as they are and are shared by all who read it.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hitbox_core::BackendResult;

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
        let (end, chunk) = self.0.get(index).filter(|_| !range.is_empty())?;
        let from = range.start - (end - chunk.len() as u64);
        let to = (range.end - range.start).min(limit).min(end - range.start) + from;
        Some(chunk.slice(from as usize..to as usize))
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

/// Collects the chunks of a body.
#[derive(Debug, Default)]
pub(crate) struct ChunksBuilder {
    chunks: Vec<(u64, Bytes)>,
    /// Short ones that have come last.
    short: BytesMut,
    len: u64,
}

impl ChunksBuilder {
    pub(crate) const fn len(&self) -> u64 {
        self.len
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
        self.chunks.push((self.len, chunk));
    }

    fn end_short(&mut self, end: u64) {
        if !self.short.is_empty() {
            self.chunks.push((end, self.short.split().freeze()));
        }
    }

    pub(crate) fn finish(mut self) -> Chunks {
        self.end_short(self.len);
        Chunks(Arc::new(self.chunks))
    }
}

/// A body in an envelope.
pub(super) struct ChunksCell(pub(super) Chunks);

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

    use super::{Chunks, ChunksBuilder, SHORT};

    fn built(lengths: &[usize]) -> (Chunks, Vec<u8>) {
        let (mut builder, mut whole) = (ChunksBuilder::default(), Vec::new());
        for len in lengths {
            let chunk: Vec<u8> = (whole.len()..whole.len() + len).map(|at| (at * 7 / 3) as u8).collect();
            whole.extend_from_slice(&chunk);
            builder.push(chunk.into());
            assert_eq!(builder.len(), whole.len() as u64);
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
    fn long_chunks_are_shared_and_short_ones_put_together() {
        let long = Bytes::from(vec![1; SHORT]);
        let mut builder = ChunksBuilder::default();
        builder.push(long.clone());
        for _ in 0..100 {
            builder.push(Bytes::from_static(b"short"));
        }
        let chunks = builder.finish();
        assert_eq!(chunks.0.len(), 2);
        assert_eq!(chunks.0[0].1.as_ptr(), long.as_ptr());
    }
}
