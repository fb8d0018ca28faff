//! Bytes as lib0 writes them: what Yjs, its protocols and its ports exchange.

/// The largest integer that every language holds exactly.
pub(crate) const MAX_INT: u64 = (1 << 53) - 1;

/// Lists and maps within each other, at most, in a value.
const MAX_DEPTH: usize = 100;

/// Reads; `None`: the bytes end too early, or are no such thing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    pub(crate) fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(usize::try_from(count).ok()?)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(crate) fn int(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..56).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return (number <= MAX_INT).then_some(number);
            }
        }
        None
    }

    /// How many things follow, of at least so many bytes each.
    pub(crate) fn count(&mut self, least: usize) -> Option<u64> {
        let count = self.int()?;
        let most = self.bytes.len() / least;
        (count <= most as u64).then_some(count)
    }

    pub(crate) fn buffer(&mut self) -> Option<&'a [u8]> {
        let count = self.int()?;
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.buffer()?).ok()
    }

    /// Skips a value.
    pub(crate) fn any(&mut self) -> Option<()> {
        self.any_within(MAX_DEPTH)
    }

    fn any_within(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self.byte()? {
            // Undefined, null, false, true.
            127 | 126 | 121 | 120 => {}
            125 => self.signed()?,
            124 => drop(self.take(4)?),
            123 | 122 => drop(self.take(8)?),
            119 => drop(self.text()?),
            118 => {
                for _ in 0..self.count(2)? {
                    self.text()?;
                    self.any_within(depth)?;
                }
            }
            117 => {
                for _ in 0..self.count(1)? {
                    self.any_within(depth)?;
                }
            }
            116 => drop(self.buffer()?),
            _ => return None,
        }
        Some(())
    }

    /// Skips a signed integer: 6 bits in the first byte, then 7 each.
    fn signed(&mut self) -> Option<()> {
        for _ in 0..8 {
            if self.byte()? < 0x80 {
                return Some(());
            }
        }
        None
    }
}

/// Writes an integer.
pub(crate) fn put_int(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes bytes with their length before them.
pub(crate) fn put_buffer(out: &mut Vec<u8>, bytes: &[u8]) {
    put_int(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), MAX_INT] {
            let mut out = Vec::new();
            put_int(&mut out, number);
            assert_eq!(Reader::new(&out).int(), Some(number));
            assert_eq!(Reader::new(&out[..out.len() - 1]).int(), None);
        }
        let mut out = Vec::new();
        put_buffer(&mut out, "é".as_bytes());
        assert_eq!(Reader::new(&out).text(), Some("é"));
    }

    #[test]
    fn numbers_that_are_too_large_and_values_that_are_too_deep_are_none() {
        assert_eq!(Reader::new(&[0xff; 16]).int(), None);
        let mut out = Vec::new();
        put_int(&mut out, MAX_INT + 1);
        assert_eq!(Reader::new(&out).int(), None);
        // A list in a list in a list …
        let deep: Vec<u8> = [117, 1].repeat(10_000);
        assert_eq!(Reader::new(&deep).any(), None);
        // A map of 250 million entries, none of them there.
        assert_eq!(Reader::new(&[118, 0xff, 0xff, 0xff, 0x7a]).any(), None);
        assert_eq!(Reader::new(&[118, 1, 1, b'a', 117, 2, 126, 125, 5]).any(), Some(()));
    }
}
