//! From a connection's outputs to the slices that go to its socket.
//!
//! Everything small is copied into one buffer that all connections share; a large payload is not
//! copied at all but sent from where the bus holds it. Only what a socket does not take at once
//! costs the connection memory of its own.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    ops::Range,
    sync::Arc,
};

use bytes::{Buf, Bytes, BytesMut};
use kps_proto::bus::Published;
use smallvec::SmallVec;

use crate::net::websocket::{Opcode, server_header};

/// Payloads from this size on are sent from where they are: below it a copy is cheaper than one
/// more slice for the kernel to walk.
pub(super) const SHARE_FROM: usize = 4096;

/// Slices handed to one `writev`; what is beyond takes another one.
const MAX_SLICES: usize = 64;

/// Room for the longest header of an unmasked WebSocket frame.
const MAX_HEADER: usize = 10;

/// Collects WebSocket messages (or bare ones, for a pipe) for one write.
#[derive(Debug, Default)]
pub(super) struct Egress {
    /// What is copied; every open message has [`MAX_HEADER`] bytes of room before it.
    pub(super) buffer: BytesMut,
    pieces: Vec<Piece>,
    /// Where in `buffer` the current message's next piece starts.
    piece_start: usize,
    /// Where the current message's header goes: index of its piece, start of its body.
    message: Option<(usize, usize)>,
    shared_bytes: usize,
    bare: bool,
    texts: Texts,
}

/// The frames that messages of this turn became for a first KPS JSON recipient. Holding the message
/// keeps its address its own.
type Texts = HashMap<usize, (Arc<Published>, Bytes), ahash::RandomState>;

#[derive(Debug)]
enum Piece {
    Copied(Range<usize>),
    Shared(Bytes),
}

impl Egress {
    /// Empties it for another connection. `bare`: no WebSocket headers.
    pub(super) fn reset(&mut self, bare: bool) {
        self.buffer.clear();
        self.pieces.clear();
        self.message = None;
        self.piece_start = 0;
        self.bare = bare;
    }

    /// Puts what `put` puts for `published`, which is the same for every recipient of a turn.
    pub(super) fn put_text(&mut self, published: &Arc<Published>, put: impl FnOnce(&mut Self)) {
        let address = Arc::as_ptr(published).addr();
        if let Some((_, text)) = self.texts.get(&address) {
            let text = text.clone();
            if text.len() >= SHARE_FROM {
                self.close_piece();
                self.pieces.push(Piece::Shared(text));
            } else {
                self.buffer.extend_from_slice(&text);
                self.close_piece();
                self.join_last();
            }
            return;
        }
        let before = self.buffer.len();
        put(self);
        // Alone it has room for its longest header in front, of which it uses the end.
        let start = match self.pieces.last() {
            Some(Piece::Copied(last)) if last.start > before => last.start,
            _ => before,
        };
        // Worth keeping if somebody else may get it too.
        if Arc::strong_count(published) > 1 {
            let text = Bytes::copy_from_slice(&self.buffer[start..]);
            self.texts.insert(address, (published.clone(), text));
        }
    }

    /// Forgets the texts of a turn.
    pub(super) fn end_turn(&mut self) {
        self.texts.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.message.is_none()
    }

    /// Starts a message; what is then written to `buffer` is its body.
    pub(super) fn begin(&mut self) {
        debug_assert!(self.message.is_none(), "messages do not nest");
        if !self.bare {
            self.buffer.extend_from_slice(&[0; MAX_HEADER]);
        }
        self.message = Some((self.pieces.len(), self.buffer.len()));
        self.piece_start = self.buffer.len();
        self.shared_bytes = 0;
    }

    /// Bytes of the current message so far; `None` if there is none.
    pub(super) fn message_length(&self) -> Option<usize> {
        self.message.map(|(_, start)| self.buffer.len() - start + self.shared_bytes)
    }

    /// Adds bytes to the message without copying them.
    pub(super) fn share(&mut self, bytes: Bytes) {
        self.close_piece();
        self.shared_bytes += bytes.len();
        self.pieces.push(Piece::Shared(bytes));
    }

    fn close_piece(&mut self) {
        let end = self.buffer.len();
        if self.piece_start < end {
            self.pieces.push(Piece::Copied(self.piece_start..end));
            self.piece_start = end;
        }
    }

    /// Ends the message: its length is known now and goes in front.
    pub(super) fn end(&mut self, opcode: Opcode) {
        let length = self.message_length().expect("begin was called");
        self.close_piece();
        let (piece, start) = self.message.take().expect("begin was called");
        if self.bare {
            return;
        }
        let (header, size) = server_header(opcode, length);
        let at = start - size;
        self.buffer[at..start].copy_from_slice(&header[..size]);
        match &mut self.pieces[piece..] {
            [Piece::Copied(range), ..] => range.start = at,
            _ => self.pieces.insert(piece, Piece::Copied(at..start)),
        }
        if piece + 1 == self.pieces.len() {
            self.join_last();
        }
    }

    /// Moves the last piece next to the one before, if only the room for its header is between
    /// them: a slice less costs the kernel more than the copy costs here.
    fn join_last(&mut self) {
        let [.., Piece::Copied(before), Piece::Copied(last)] = &mut self.pieces[..] else { return };
        let gap = last.start - before.end;
        if gap < MAX_HEADER && last.len() < SHARE_FROM {
            self.buffer.copy_within(last.clone(), before.end);
            before.end += last.len();
            self.buffer.truncate(before.end);
            self.piece_start = before.end;
            self.pieces.pop();
        }
    }

    /// A whole control frame of a WebSocket, at most 125 bytes; a pipe has none.
    pub(super) fn control(&mut self, opcode: Opcode, body: &[u8]) {
        if self.bare {
            return;
        }
        self.begin();
        self.buffer.extend_from_slice(&body[..body.len().min(125)]);
        self.end(opcode);
    }

    /// Writes with `write` until all is written or it would block, and keeps the rest in `rest`.
    pub(super) fn write(
        &mut self,
        rest: &mut Backlog,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        debug_assert!(self.message.is_none(), "the last message was ended");
        // What goes into a pipe must not be cut: frames do not span messages.
        let most = if self.bare { usize::MAX } else { MAX_SLICES };
        let mut first = 0;
        let mut offset = 0;
        while rest.is_empty() && first < self.pieces.len() {
            let pieces = self.pieces[first..].iter().take(most);
            let mut slices: SmallVec<[IoSlice<'_>; 4]> =
                pieces.map(|piece| IoSlice::new(piece.bytes(&self.buffer))).collect();
            slices[0].advance(offset);
            let mut written = match write(&slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                written => written?,
            };
            for slice in &slices {
                if written < slice.len() {
                    offset += written;
                    break;
                }
                written -= slice.len();
                first += 1;
                offset = 0;
            }
        }
        for piece in self.pieces.drain(..).skip(first) {
            match piece {
                Piece::Copied(range) => {
                    rest.copy(&self.buffer[range.start + offset..range.end]);
                }
                Piece::Shared(mut bytes) => {
                    bytes.advance(offset);
                    rest.share(bytes);
                }
            }
            offset = 0;
        }
        Ok(())
    }
}

impl Piece {
    fn bytes<'a>(&'a self, buffer: &'a [u8]) -> &'a [u8] {
        match self {
            Piece::Copied(range) => &buffer[range.clone()],
            Piece::Shared(bytes) => bytes,
        }
    }
}

/// What a socket did not take yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    done: VecDeque<Bytes>,
    copied: BytesMut,
    length: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
        self.length += bytes.len();
    }

    fn share(&mut self, bytes: Bytes) {
        self.close_copied();
        self.length += bytes.len();
        self.done.push_back(bytes);
    }

    fn close_copied(&mut self) {
        if !self.copied.is_empty() {
            self.done.push_back(std::mem::take(&mut self.copied).freeze());
        }
    }

    /// Writes until it is empty (`true`) or `write` would block (`false`).
    pub(super) fn write(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        self.close_copied();
        while !self.done.is_empty() {
            let slices: SmallVec<[IoSlice<'_>; 4]> =
                self.done.iter().take(MAX_SLICES).map(|bytes| IoSlice::new(bytes)).collect();
            let mut written = match write(&slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                written => written?,
            };
            drop(slices);
            self.length -= written;
            while let Some(bytes) = self.done.front_mut() {
                if written < bytes.len() {
                    bytes.advance(written);
                    break;
                }
                written -= bytes.len();
                self.done.pop_front();
            }
        }
        *self = Backlog::default();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes `step` bytes a call and blocks after `room`.
    fn take(
        step: usize,
        mut room: usize,
        into: &mut Vec<u8>,
    ) -> impl FnMut(&[IoSlice<'_>]) -> io::Result<usize> {
        move |slices| {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = all.len().min(step).min(room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            room -= count;
            into.extend_from_slice(&all[..count]);
            Ok(count)
        }
    }

    fn fill(egress: &mut Egress) -> Vec<u8> {
        egress.reset(false);
        let large = Bytes::from(vec![7; 70_000]);
        egress.begin();
        egress.buffer.extend_from_slice(b"head");
        egress.share(large.clone());
        egress.buffer.extend_from_slice(b"tail");
        egress.end(Opcode::Binary);
        egress.control(Opcode::Ping, b"x");
        egress.begin();
        egress.share(large.slice(..200));
        egress.end(Opcode::Text);
        let mut expected = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x78];
        expected.extend_from_slice(b"head");
        expected.extend_from_slice(&large);
        expected.extend_from_slice(b"tail\x89\x01x");
        expected.extend_from_slice(&[0x81, 126, 0, 200]);
        expected.extend_from_slice(&large[..200]);
        expected
    }

    #[test]
    fn the_same_bytes_arrive_wherever_the_socket_blocks() {
        let mut egress = Egress::default();
        for (step, room) in
            [(1 << 20, 1 << 20), (1000, 1 << 20), (3, 50), (1 << 20, 0), (1 << 20, 70_016)]
        {
            let expected = fill(&mut egress);
            let (mut backlog, mut out) = (Backlog::default(), Vec::new());
            egress.write(&mut backlog, take(step, room, &mut out)).unwrap();
            assert_eq!(backlog.len(), expected.len() - out.len());
            assert!(backlog.write(take(977, usize::MAX, &mut out)).unwrap());
            assert!(out == expected, "step {step}, room {room}");
        }
    }

    #[test]
    fn a_pipe_gets_no_headers() {
        let mut egress = Egress::default();
        egress.reset(true);
        egress.begin();
        egress.buffer.extend_from_slice(b"frames");
        egress.end(Opcode::Binary);
        let (mut backlog, mut out) = (Backlog::default(), Vec::new());
        egress.write(&mut backlog, take(100, 100, &mut out)).unwrap();
        assert_eq!(out, b"frames");
    }
}
