//! Variable-length integers (unsigned LEB128): seven bits a byte, lowest first, the top bit says
//! that more follow.

/// Integers on the wire stay at or below this, 2^53 - 1: JavaScript's numbers count no further.
pub(super) const MAX_INT: u64 = (1 << 53) - 1;

/// Bytes of the longest varint that is accepted.
const MAX_LEN: usize = 10;

/// How many bytes `value` takes: one for every seven bits begun.
#[inline]
pub(super) const fn len(value: u64) -> usize {
    let highest_bit = (value | 1).ilog2() as usize;
    (highest_bit * 9 + 73) / 64
}

/// Writes `value` to the start of `buffer` and says how many bytes it took.
///
/// # Panics
/// If `buffer` is shorter than [`len`] of the value.
#[inline]
pub(super) fn write(mut value: u64, buffer: &mut [u8]) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        buffer[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    buffer[at] = value as u8;
    at + 1
}

/// Why bytes are not a varint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They end before it does.
    Short,
    /// It is longer than ten bytes or does not fit 64 bits.
    Overflow,
}

/// Reads one from the front of `bytes`, which then start after it.
#[inline(always)]
pub(super) fn read(bytes: &mut &[u8]) -> Result<u64, Fault> {
    if let [byte @ ..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Ok(u64::from(*byte));
    }
    match bytes.first_chunk() {
        Some(chunk) => read_chunk(u64::from_le_bytes(*chunk), bytes),
        None => read_long(bytes),
    }
}

/// Reads a varint of at most eight bytes, which `chunk` holds, without a loop.
#[inline(always)]
fn read_chunk(chunk: u64, bytes: &mut &[u8]) -> Result<u64, Fault> {
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let last = !chunk & TOPS;
    if last == 0 {
        return read_long(bytes);
    }
    // All bits up to the first clear top bit, then eight groups of seven bits pushed together: by
    // one place within pairs, by two within fours, by four at last.
    let bits = chunk & (last ^ (last - 1)) & !TOPS;
    let bits = (bits & 0x007f_007f_007f_007f) | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
    let bits = (bits & 0x0000_3fff_0000_3fff) | (bits & 0x3fff_0000_3fff_0000) >> 2;
    let bits = (bits & 0x0fff_ffff) | (bits & 0x0fff_ffff_0000_0000) >> 4;
    *bytes = &bytes[last.trailing_zeros() as usize / 8 + 1..];
    Ok(bits)
}

fn read_long(bytes: &mut &[u8]) -> Result<u64, Fault> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(MAX_LEN).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for the 64th bit alone.
        if at == MAX_LEN - 1 && bits > 1 {
            return Err(Fault::Overflow);
        }
        value |= bits << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(if bytes.len() < MAX_LEN { Fault::Short } else { Fault::Overflow })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: u64) -> Vec<u8> {
        let mut buffer = [0; MAX_LEN];
        let len = write(value, &mut buffer);
        buffer[..len].to_vec()
    }

    #[test]
    fn every_width_round_trips_and_its_length_is_foretold() {
        for bit in 0..64 {
            for value in [1 << bit, (1 << bit) - 1, u64::MAX >> bit] {
                let bytes = written(value);
                assert_eq!(bytes.len(), len(value), "{value}");
                let mut rest = &bytes[..];
                assert_eq!(read(&mut rest), Ok(value));
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn padding_is_read_but_more_than_64_bits_are_not() {
        assert_eq!(read(&mut &[0x81, 0x80, 0x00][..]), Ok(1));
        assert_eq!(read(&mut &[0xff; 9][..]), Err(Fault::Short));
        assert_eq!(read(&mut &[0xff; 11][..]), Err(Fault::Overflow));
        let mut sixty_fifth_bit = [0x80; 10];
        sixty_fifth_bit[9] = 2;
        assert_eq!(read(&mut &sixty_fifth_bit[..]), Err(Fault::Overflow));
    }

    #[test]
    fn what_follows_is_left() {
        let mut rest = &[0xac, 0x02, 7][..];
        assert_eq!(read(&mut rest), Ok(300));
        assert_eq!(rest, [7]);
    }
}
