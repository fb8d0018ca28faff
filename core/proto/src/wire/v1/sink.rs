//! Where an encoder writes. A body is described once and goes through two sinks: one counts, so
//! that the length can stand in front; the other writes into room that was made by the count.

use crate::wire::varint::{self, MAX_INT};

pub(super) trait Sink {
    /// One byte.
    fn byte(&mut self, byte: u8);

    /// A varint of any 64-bit value.
    fn varint(&mut self, value: u64);

    /// Bytes as they are.
    fn raw(&mut self, bytes: &[u8]);

    /// A varint that a peer accepts. Counters never come near the bound; a duration beyond it
    /// (285,000 years in milliseconds) is as good as the bound.
    #[inline]
    fn int(&mut self, value: u64) {
        self.varint(value.min(MAX_INT));
    }

    /// Length and bytes.
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Length and UTF-8.
    #[inline]
    fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }
}

/// Counts.
#[derive(Default)]
pub(super) struct Count(pub(super) usize);

impl Sink for Count {
    #[inline]
    fn byte(&mut self, _: u8) {
        self.0 += 1;
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        self.0 += varint::len(value);
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Writes into a slice as long as [`Count`] said.
pub(super) struct Fill<'a> {
    pub(super) room: &'a mut [u8],
    pub(super) at: usize,
}

impl Sink for Fill<'_> {
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.room[self.at] = byte;
        self.at += 1;
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        self.at += varint::write(value, &mut self.room[self.at..]);
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.room[self.at..][..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}
