//! Bytes that are put together one after the other.

use std::fmt::{self, Debug};
use std::ops::{Deref, DerefMut};

/// So many bytes need no allocation.
const INLINE: usize = 192;

/// Bytes, in place as long as they are few.
///
/// Keys are put together of many short pieces. What a vector spends on each of them would be most of what a key costs.
pub(super) struct Buffer {
    inline: [u8; INLINE],
    len: usize,
    /// All of them, once they are more. It is empty until then.
    spilled: Vec<u8>,
}

impl Buffer {
    #[inline]
    pub(super) const fn new() -> Self {
        Self { inline: [0; INLINE], len: 0, spilled: Vec::new() }
    }

    #[inline]
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.inline.get_mut(self.len..end) {
            Some(room) => room.copy_from_slice(bytes),
            None => self.spill(bytes),
        }
        self.len = end;
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        if self.spilled.is_empty() {
            self.spilled.extend_from_slice(&self.inline[..self.len]);
        }
        self.spilled.extend_from_slice(bytes);
    }
}

impl Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&**self, f)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        if self.spilled.is_empty() { &self.inline[..self.len] } else { &self.spilled }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        if self.spilled.is_empty() { &mut self.inline[..self.len] } else { &mut self.spilled }
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, INLINE};

    #[test]
    fn what_is_appended_is_there_wherever_it_outgrows_its_place() {
        for first in [0, 1, INLINE - 1, INLINE, INLINE + 1, 3 * INLINE] {
            for second in [0, 1, 2, INLINE, 2 * INLINE] {
                let mut buffer = Buffer::new();
                buffer.append(&vec![1; first]);
                buffer.append(&vec![2; second]);
                buffer.append(b"3");
                let expected: Vec<u8> = [vec![1; first], vec![2; second], vec![b'3']].concat();
                assert_eq!(*buffer, expected);
                buffer[first + second] = 4;
                assert_eq!(buffer.last(), Some(&4));
            }
        }
    }
}
