//! RFC 6455 framing without I/O, for both ends: bytes in, whole messages out.
//!
//! Messages are handed out as slices of the caller's read buffer wherever they arrived in one
//! piece, so that a connection owns memory only while a frame is incomplete.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
};

use bytes::{BufMut, BytesMut};

/// Which end this is: clients mask, servers do not (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads unmasked frames.
    Client,
    /// Reads masked frames.
    Server,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of a fragmented message.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The connection ends.
    Close = 8,
    /// Answer with a pong.
    Ping = 9,
    /// The answer.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// Some pong.
    Pong(&'a [u8]),
    /// The peer closes; nothing after it is read. Code 1005: it gave none.
    Close {
        /// RFC 6455 §7.4.
        code: u16,
        /// For people.
        reason: &'a str,
    },
}

/// The peer broke the protocol or a limit; answer with a close frame of `code` and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// 1002 protocol error, 1007 not UTF-8, 1009 too big.
    pub code: u16,
    /// What was wrong.
    pub reason: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebSocket close {}: {}", self.code, self.reason)
    }
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    max_message: usize,
    /// The beginning of an incomplete frame; empty (and unallocated) between frames.
    partial: Vec<u8>,
    /// The fragments of an incomplete message.
    fragments: Vec<u8>,
    /// The first fragment's opcode.
    fragmented: Option<Opcode>,
    closed: bool,
}

impl Decoder {
    /// A decoder for one connection; larger messages than `max_message` bytes are violations.
    pub fn new(role: Role, max_message: usize) -> Self {
        Decoder {
            role,
            max_message,
            partial: Vec::new(),
            fragments: Vec::new(),
            fragmented: None,
            closed: false,
        }
    }

    /// Bytes held for incomplete frames and messages.
    pub fn held_bytes(&self) -> usize {
        self.partial.len() + self.fragments.len()
    }

    /// Takes the next `bytes` of the stream (and unmasks in them); calls `sink` for everything
    /// that is complete, in order. An error ends the connection: of the peer as a [`Violation`], or
    /// what `sink` returned.
    pub fn feed<E: From<Violation>>(
        &mut self,
        mut bytes: &mut [u8],
        sink: &mut dyn FnMut(Received<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.partial.is_empty() && !bytes.is_empty() {
            let missing = match self.header(&self.partial)? {
                Some(header) => header.total() - self.partial.len(),
                // Headers are short; growing byte by byte keeps the rest of the stream in place.
                None => 1,
            };
            let (head, tail) = bytes.split_at_mut(missing.min(bytes.len()));
            self.partial.extend_from_slice(head);
            bytes = tail;
            if let Some(header) = self.header(&self.partial)?
                && header.total() == self.partial.len()
            {
                let mut frame = std::mem::take(&mut self.partial);
                self.frame(&header, &mut frame, sink)?;
            }
        }
        while !bytes.is_empty() && !self.closed {
            match self.header(bytes)? {
                Some(header) if header.total() <= bytes.len() => {
                    let (frame, tail) = bytes.split_at_mut(header.total());
                    bytes = tail;
                    self.frame(&header, frame, sink)?;
                }
                incomplete => {
                    // One allocation of the right size, however many reads the rest takes.
                    let total = incomplete.map_or(bytes.len(), |header| header.total());
                    self.partial.reserve_exact(total.min(PARTIAL_RESERVE).max(bytes.len()));
                    self.partial.extend_from_slice(bytes);
                    break;
                }
            }
        }
        Ok(())
    }

    /// The header at the start of `bytes`, checked; `None` if it is incomplete.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(violation(1002, "unknown opcode"))?;
        let fin = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(violation(1002, "reserved bits are set"));
        }
        let masked = second & 0x80 != 0;
        if masked != (self.role == Role::Server) {
            return Err(violation(1002, "clients must mask, servers must not"));
        }
        let (length, length_bytes) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(&bytes) => (u64::from(u16::from_be_bytes(bytes)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(&bytes) => (u64::from_be_bytes(bytes), 8),
                None => return Ok(None),
            },
            short => (u64::from(short), 0),
        };
        if opcode.is_control() && (length > 125 || !fin) {
            return Err(violation(1002, "a control frame is long or fragmented"));
        }
        let room = self.max_message - self.fragments.len().min(self.max_message);
        let Some(payload) = usize::try_from(length).ok().filter(|&n| n <= room || n <= 125) else {
            return Err(violation(1009, "the message is over the limit"));
        };
        let start = 2 + length_bytes + if masked { 4 } else { 0 };
        Ok((bytes.len() >= start).then_some(Header { fin, opcode, masked, start, payload }))
    }

    /// Handles one whole frame.
    fn frame<E: From<Violation>>(
        &mut self,
        header: &Header,
        frame: &mut [u8],
        sink: &mut dyn FnMut(Received<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (head, payload) = frame.split_at_mut(header.start);
        if header.masked {
            mask(payload, *head.last_chunk().expect("a masked header ends with its key"));
        }
        let payload = &*payload;
        match header.opcode {
            Opcode::Ping => sink(Received::Ping(payload)),
            Opcode::Pong => sink(Received::Pong(payload)),
            Opcode::Close => {
                self.closed = true;
                sink(close(payload)?)
            }
            Opcode::Text | Opcode::Binary if self.fragmented.is_some() => {
                Err(violation(1002, "a message began inside another").into())
            }
            opcode @ (Opcode::Text | Opcode::Binary) if header.fin => {
                sink(message(opcode, payload)?)
            }
            opcode @ (Opcode::Text | Opcode::Binary) => {
                self.fragmented = Some(opcode);
                self.fragments.extend_from_slice(payload);
                Ok(())
            }
            Opcode::Continuation => {
                let Some(opcode) = self.fragmented else {
                    return Err(violation(1002, "a continuation of nothing").into());
                };
                self.fragments.extend_from_slice(payload);
                if !header.fin {
                    return Ok(());
                }
                self.fragmented = None;
                let whole = std::mem::take(&mut self.fragments);
                sink(message(opcode, &whole)?)
            }
        }
    }
}

/// Memory reserved at once for a frame whose length a peer merely claims.
const PARTIAL_RESERVE: usize = 64 << 10;

#[derive(Clone, Copy)]
struct Header {
    fin: bool,
    opcode: Opcode,
    masked: bool,
    start: usize,
    payload: usize,
}

impl Header {
    fn total(&self) -> usize {
        self.start + self.payload
    }
}

fn violation(code: u16, reason: &'static str) -> Violation {
    Violation { code, reason }
}

fn message(opcode: Opcode, payload: &[u8]) -> Result<Received<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Received::Text(text(payload)?),
        _ => Received::Binary(payload),
    })
}

fn close(payload: &[u8]) -> Result<Received<'_>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Received::Close { code: 1005, reason: "" }),
            _ => Err(violation(1002, "a close code is cut off")),
        };
    };
    match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => {
            Ok(Received::Close { code, reason: text(reason)? })
        }
        _ => Err(violation(1002, "an invalid close code")),
    }
}

fn text(payload: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(payload).map_err(|_| violation(1007, "text is not UTF-8"))
}

/// The longest header: two bytes, a 64-bit length, a masking key.
pub const MAX_HEADER: usize = 14;

/// The unmasked header of an unfragmented frame, as a server sends it: its bytes and their count.
pub fn server_header(opcode: Opcode, payload: usize) -> ([u8; MAX_HEADER], usize) {
    let mut header = [0; MAX_HEADER];
    header[0] = 0x80 | opcode as u8;
    let len = match payload {
        0..=125 => {
            header[1] = payload as u8;
            2
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    (header, len)
}

/// Appends an unfragmented frame; with a key it is masked, as clients must.
pub fn put_frame(out: &mut BytesMut, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    let (mut header, len) = server_header(opcode, payload.len());
    out.reserve(len + 4 + payload.len());
    if key.is_some() {
        header[1] |= 0x80;
    }
    out.put_slice(&header[..len]);
    if let Some(key) = key {
        out.put_slice(&key);
    }
    let start = out.len();
    out.put_slice(payload);
    if let Some(key) = key {
        mask(&mut out[start..], key);
    }
}

/// Appends a close frame. `reason` is cut to what fits.
pub fn put_close(out: &mut BytesMut, code: u16, reason: &str, key: Option<[u8; 4]>) {
    let fits = (0..=reason.len().min(123)).rev().find(|&end| reason.is_char_boundary(end));
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..fits.unwrap_or(0)]);
    put_frame(out, Opcode::Close, &payload, key);
}

/// Masks or unmasks (it is its own inverse).
pub fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key, key].concat().try_into().expect("two keys are 8 bytes"));
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// A source of masking keys. They keep a browser's scripts from writing chosen bytes to the line
/// (RFC 6455 §10.3); here a fast generator with a random seed is enough.
#[derive(Debug)]
pub struct MaskKeys(u64);

impl Default for MaskKeys {
    fn default() -> Self {
        MaskKeys(RandomState::new().build_hasher().finish())
    }
}

impl MaskKeys {
    /// The next key.
    pub fn next_key(&mut self) -> [u8; 4] {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) as u32).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Seen {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(u16, String),
    }

    fn own(received: Received<'_>) -> Seen {
        match received {
            Received::Text(text) => Seen::Text(text.into()),
            Received::Binary(bytes) => Seen::Binary(bytes.into()),
            Received::Ping(bytes) => Seen::Ping(bytes.into()),
            Received::Pong(bytes) => Seen::Pong(bytes.into()),
            Received::Close { code, reason } => Seen::Close(code, reason.into()),
        }
    }

    /// What a decoder makes of `stream` when it arrives in pieces of `piece` bytes.
    fn decode(role: Role, stream: &[u8], piece: usize) -> Result<Vec<Seen>, Violation> {
        let mut decoder = Decoder::new(role, 100_000);
        let mut seen = Vec::new();
        for piece in stream.to_vec().chunks_mut(piece) {
            decoder.feed::<Violation>(piece, &mut |received| {
                seen.push(own(received));
                Ok(())
            })?;
        }
        assert_eq!(decoder.held_bytes(), 0, "a whole stream leaves nothing behind");
        Ok(seen)
    }

    fn stream(key: Option<[u8; 4]>) -> (BytesMut, Vec<Seen>) {
        let mut out = BytesMut::new();
        let big: Vec<u8> = (0..70_000u32).map(|n| n as u8).collect();
        put_frame(&mut out, Opcode::Binary, b"", key);
        put_frame(&mut out, Opcode::Text, "grüße".as_bytes(), key);
        put_frame(&mut out, Opcode::Binary, &big[..300], key);
        put_frame(&mut out, Opcode::Ping, b"hm", key);
        put_frame(&mut out, Opcode::Binary, &big, key);
        put_frame(&mut out, Opcode::Pong, b"", key);
        put_close(&mut out, 1000, "bye", key);
        let seen = vec![
            Seen::Binary(vec![]),
            Seen::Text("grüße".into()),
            Seen::Binary(big[..300].into()),
            Seen::Ping(b"hm".into()),
            Seen::Binary(big),
            Seen::Pong(vec![]),
            Seen::Close(1000, "bye".into()),
        ];
        (out, seen)
    }

    #[test]
    fn messages_survive_any_cutting() {
        for (role, key) in [(Role::Server, Some([1, 2, 3, 250])), (Role::Client, None)] {
            let (bytes, expected) = stream(key);
            for piece in [1, 2, 3, 7, 13, 64, 4096, bytes.len()] {
                assert_eq!(decode(role, &bytes, piece).unwrap(), expected, "{piece}");
            }
        }
    }

    #[test]
    fn fragments_join_around_control_frames() {
        let bytes = [&[0x01, 2, b'a', b'b'][..], &[0x89, 1, b'!'], &[0x00, 0], &[0x80, 1, b'c']];
        let seen = decode(Role::Client, &bytes.concat(), 2).unwrap();
        assert_eq!(seen, [Seen::Ping(b"!".into()), Seen::Text("abc".into())]);
    }

    #[test]
    fn violations_have_their_close_codes() {
        let cases: &[(&[u8], u16)] = &[
            (&[0x83, 0], 1002),                             // unknown opcode
            (&[0xc2, 0], 1002),                             // reserved bit
            (&[0x82, 0x80, 0, 0, 0, 0], 1002),              // masked by a server
            (&[0x89, 126, 0, 200], 1002),                   // long ping
            (&[0x09, 0], 1002),                             // fragmented ping
            (&[0x80, 0], 1002),                             // continuation of nothing
            (&[0x01, 0, 0x01, 0], 1002),                    // message inside a message
            (&[0x81, 1, 0xff], 1007),                       // not UTF-8
            (&[0x82, 127, 0, 0, 0, 0, 0, 2, 0, 0], 1009),   // too big
            (&[0x82, 127, 255, 0, 0, 0, 0, 0, 0, 0], 1009), // absurd
            (&[0x88, 1, 3], 1002),                          // half a close code
            (&[0x88, 2, 3, 237], 1002),                     // 1005 may not be sent
            (&[0x88, 3, 3, 232, 0xff], 1007),               // reason not UTF-8
        ];
        for (bytes, code) in cases {
            for piece in [1, bytes.len()] {
                let result = decode(Role::Client, bytes, piece);
                assert_eq!(result.unwrap_err().code, *code, "{bytes:?}");
            }
        }
    }

    #[test]
    fn fragments_count_together_against_the_limit() {
        let mut decoder = Decoder::new(Role::Client, 150);
        let mut nothing = |_: Received<'_>| Ok::<(), Violation>(());
        let mut first = [&[0x02, 126, 0, 150][..], &[7; 150]].concat();
        decoder.feed(&mut first, &mut nothing).unwrap();
        let mut second = [&[0x80, 126, 0, 130][..], &[7; 130]].concat();
        assert_eq!(decoder.feed(&mut second, &mut nothing).unwrap_err().code, 1009);
    }

    #[test]
    fn nothing_is_read_after_a_close() {
        let bytes = [&[0x88, 0][..], &[0x82, 1, 9]].concat();
        assert_eq!(decode(Role::Client, &bytes, 64).unwrap(), [Seen::Close(1005, String::new())]);
    }

    #[test]
    fn masking_is_its_own_inverse_at_any_length() {
        let mut keys = MaskKeys::default();
        for len in 0..40 {
            let plain: Vec<u8> = (0..len).collect();
            let key = keys.next_key();
            let mut bytes = plain.clone();
            mask(&mut bytes, key);
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(*byte, plain[at] ^ key[at % 4]);
            }
            mask(&mut bytes, key);
            assert_eq!(bytes, plain);
        }
    }
}
