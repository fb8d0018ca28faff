//! Encoded frames in the order they are sent, kept until the other side confirms them.
//!
//! The frames form one stream of bytes, cut between frames into chunks; places in it are offsets
//! from its beginning, so releasing and opening chunks moves no cursor. Beside its bytes a frame
//! costs four bytes for its length. Frames that were dropped before they were sent leave holes in it.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Bytes of a chunk. A frame that does not fit what is left opens the next one; a larger frame has
/// a chunk of its own.
const CHUNK: usize = 64 << 10;

/// What a burst may leave behind in an empty log: this many frames' lengths.
const IDLE_LENGTHS: usize = 1 << 10;

#[derive(Debug, Default)]
pub(super) struct Log {
    chunks: VecDeque<Chunk>,
    /// An emptied chunk, so that a steady flow does not allocate.
    spare: Option<BytesMut>,
    lengths: VecDeque<u32>,
    front: u64,
    end: u64,
    /// Where the next frame to send begins, and how many stand before it.
    sent_end: u64,
    sent: usize,
    /// The same of the first that was never sent.
    ever_end: u64,
    ever_sent: usize,
    /// Where dropped frames were, in order; no frame begins where one does.
    holes: VecDeque<Hole>,
    hole_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Chunk {
    start: u64,
    data: BytesMut,
}

impl Log {
    /// Frames kept.
    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Bytes of the frames kept.
    pub(super) fn bytes(&self) -> usize {
        (self.end - self.front - self.hole_bytes) as usize
    }

    /// Frames at the front that were sent on this connection.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// Their bytes.
    pub(super) fn sent_bytes(&self) -> usize {
        let holes = self.holes.iter().take_while(|hole| hole.end <= self.sent_end);
        let holes: u64 = holes.map(|hole| hole.end - hole.start).sum();
        (self.sent_end - self.front - holes) as usize
    }

    /// Frames at the front that were sent on any connection.
    pub(super) fn ever_sent(&self) -> usize {
        self.ever_sent
    }

    /// The first `frames` were sent on an earlier connection, though this log does not know it.
    pub(super) fn mark_ever_sent(&mut self, frames: usize) {
        self.ever_sent = self.ever_sent.max(frames);
        self.ever_end = self.begin_of(self.ever_sent);
    }

    /// Frames not yet sent on this connection.
    pub(super) fn unsent(&self) -> usize {
        self.lengths.len() - self.sent
    }

    /// Appends what `encode` writes as one frame; `hint` is about how many bytes that will be.
    #[inline]
    pub(super) fn append(&mut self, hint: usize, encode: impl FnOnce(&mut BytesMut)) {
        let data = match self.chunks.back_mut() {
            Some(Chunk { data, .. }) if data.capacity() - data.len() >= hint => data,
            _ => self.open_chunk(hint),
        };
        let start = data.len();
        encode(data);
        let length = data.len() - start;
        self.end += length as u64;
        self.lengths.push_back(u32::try_from(length).expect("payloads are far below 4 GiB"));
    }

    #[cold]
    fn open_chunk(&mut self, hint: usize) -> &mut BytesMut {
        let data = match self.spare.take() {
            Some(spare) if hint <= CHUNK => spare,
            _ => BytesMut::with_capacity(hint.max(CHUNK)),
        };
        self.chunks.push_back(Chunk { start: self.end, data });
        &mut self.chunks.back_mut().expect("just pushed").data
    }

    /// Appends the next frames to `out`: at most `frames`, and at most `max` bytes of them.
    pub(super) fn send(&mut self, max: usize, frames: usize, out: &mut BytesMut) {
        let (fitting, bytes) = self.fitting(max, frames);
        self.copy(bytes, out);
        self.mark_sent(fitting, bytes);
    }

    /// How many of the next frames, at most `frames`, are at most `max` bytes together, and how many
    /// bytes they are.
    pub(super) fn fitting(&self, max: usize, frames: usize) -> (usize, usize) {
        let frames = frames.min(self.unsent());
        let max = match self.holes.iter().find(|hole| hole.start > self.sent_end) {
            Some(hole) => max.min((hole.start - self.sent_end) as usize),
            None => max,
        };
        let mut bytes = 0;
        let fitting = self.lengths.range(self.sent..self.sent + frames).take_while(|length| {
            let fits = bytes + **length as usize <= max;
            bytes += if fits { **length as usize } else { 0 };
            fits
        });
        (fitting.count(), bytes)
    }

    fn copy(&self, bytes: usize, out: &mut BytesMut) {
        out.reserve(bytes);
        let mut from = self.sent_end;
        let end = from + bytes as u64;
        let mut chunk = self.chunks.partition_point(|chunk| chunk.end() <= from);
        while from < end {
            let Chunk { start, data } = &self.chunks[chunk];
            let until = end.min(start + data.len() as u64);
            out.extend_from_slice(&data[(from - start) as usize..(until - start) as usize]);
            from = until;
            chunk += 1;
        }
    }

    fn mark_sent(&mut self, frames: usize, bytes: usize) {
        self.sent += frames;
        self.sent_end = self.behind_hole(self.sent_end + bytes as u64);
        if self.sent > self.ever_sent {
            (self.ever_sent, self.ever_end) = (self.sent, self.sent_end);
        }
    }

    /// Where the frame begins that follows on the one that ends at `place`.
    #[inline]
    fn behind_hole(&self, place: u64) -> u64 {
        match self.holes.iter().find(|hole| hole.start == place) {
            Some(hole) => hole.end,
            None => place,
        }
    }

    /// Drops the frame with so many before it: one that was not sent on this connection.
    pub(super) fn drop_at(&mut self, at: usize) {
        let start = if at == self.ever_sent { self.ever_end } else { self.begin_of(at) };
        let Some(length) = self.lengths.remove(at) else { return };
        let end = start + u64::from(length);
        self.hole_bytes += u64::from(length);
        let hole = self.add_hole(Hole { start, end });
        if at < self.sent {
            self.sent -= 1;
        }
        if at < self.ever_sent {
            self.ever_sent -= 1;
        }
        for place in [&mut self.sent_end, &mut self.ever_end] {
            if hole.start <= *place && *place < hole.end {
                *place = hole.end;
            }
        }
        self.leave_front(self.front);
        self.free(hole);
    }

    /// Adds a hole to those that it touches; what it is then.
    fn add_hole(&mut self, hole: Hole) -> Hole {
        let at = self.holes.partition_point(|other| other.end < hole.start);
        let touching = self.holes.range(at..).take_while(|other| other.start <= hole.end).count();
        let mut whole = hole;
        for other in self.holes.drain(at..at + touching) {
            whole = Hole { start: whole.start.min(other.start), end: whole.end.max(other.end) };
        }
        self.holes.insert(at, whole);
        whole
    }

    /// What is kept begins behind `front`.
    fn leave_front(&mut self, front: u64) {
        self.front = front;
        if let Some(hole) = self.holes.front().filter(|hole| hole.start == front) {
            self.front = hole.end;
            self.hole_bytes -= hole.end - hole.start;
            self.holes.pop_front();
        }
        self.sent_end = self.sent_end.max(self.front);
        self.ever_end = self.ever_end.max(self.front);
        while let Some(chunk) = self.chunks.front()
            && chunk.end() <= self.front
        {
            let Some(Chunk { data, .. }) = self.chunks.pop_front() else { break };
            self.spare(data);
        }
    }

    /// Gives back chunks that lie in the hole.
    fn free(&mut self, hole: Hole) {
        let at = self.chunks.partition_point(|chunk| chunk.start < hole.start);
        // Not the last one, which the next frame is appended to.
        while at + 1 < self.chunks.len() && self.chunks[at].end() <= hole.end {
            let Some(Chunk { data, .. }) = self.chunks.remove(at) else { break };
            self.spare(data);
        }
    }

    fn spare(&mut self, mut data: BytesMut) {
        if self.spare.is_none() && data.capacity() <= CHUNK {
            data.clear();
            self.spare = Some(data);
        }
    }

    /// Length of the next frame to send.
    pub(super) fn next_length(&self) -> Option<usize> {
        self.lengths.get(self.sent).map(|length| *length as usize)
    }

    /// The next frame to send.
    pub(super) fn peek(&self) -> Option<&[u8]> {
        Some(self.slice(self.sent_end, self.next_length()?))
    }

    /// The frame with this many before it.
    pub(super) fn frame(&self, at: usize) -> Option<&[u8]> {
        let length = *self.lengths.get(at)? as usize;
        Some(self.slice(self.begin_of(at), length))
    }

    /// Where the frame begins that has so many before it.
    fn begin_of(&self, at: usize) -> u64 {
        let before: u64 = self.lengths.range(..at).map(|length| u64::from(*length)).sum();
        let mut place = self.front + before;
        for hole in &self.holes {
            if hole.start > place {
                break;
            }
            place += hole.end - hole.start;
        }
        place
    }

    fn slice(&self, from: u64, length: usize) -> &[u8] {
        let chunk = self.chunks.partition_point(|chunk| chunk.end() <= from);
        let Chunk { start, data } = &self.chunks[chunk];
        &data[(from - start) as usize..][..length]
    }

    /// The next frame counts as sent, by other means than [`Log::send`].
    pub(super) fn skip(&mut self) {
        if let Some(length) = self.next_length() {
            self.mark_sent(1, length);
        }
    }

    /// Forgets the first `frames`.
    pub(super) fn release(&mut self, frames: usize) {
        let frames = frames.min(self.lengths.len());
        let front = self.begin_of(frames);
        let gone = self.holes.iter().take_while(|hole| hole.end <= front).count();
        for hole in self.holes.drain(..gone) {
            self.hole_bytes -= hole.end - hole.start;
        }
        self.lengths.drain(..frames);
        self.sent = self.sent.saturating_sub(frames);
        self.ever_sent = self.ever_sent.saturating_sub(frames);
        self.leave_front(front);
        if self.lengths.is_empty() && self.lengths.capacity() > IDLE_LENGTHS {
            self.lengths = VecDeque::new();
        }
    }

    /// Forgets what was sent.
    pub(super) fn release_sent(&mut self) {
        self.release(self.sent);
    }

    /// A new connection: nothing of what is kept was sent on it.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.sent_end) = (0, self.front);
    }

    /// Empties the log and hands out what it held.
    pub(super) fn take(&mut self) -> Log {
        std::mem::take(self)
    }

    /// The frames kept, oldest first.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut chunks = self.chunks.iter().peekable();
        let mut holes = self.holes.iter().peekable();
        let mut place = self.front;
        self.lengths.iter().map(move |length| {
            if let Some(hole) = holes.next_if(|hole| hole.start == place) {
                place = hole.end;
            }
            while chunks.next_if(|chunk| chunk.end() <= place).is_some() {}
            let Chunk { start, data } = chunks.peek().expect("every frame is in a chunk");
            let frame = &data[(place - start) as usize..][..*length as usize];
            place += u64::from(*length);
            frame
        })
    }
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Append(usize),
        Send(usize, usize),
        Release(usize),
        Skip,
        Rewind,
        Drop,
        DropAt(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![4 => 1usize..40, 1 => 20_000usize..90_000].prop_map(Step::Append),
            2 => (0usize..200_000, 0usize..9).prop_map(|(max, frames)| Step::Send(max, frames)),
            2 => (0usize..6).prop_map(Step::Release),
            1 => Just(Step::Skip),
            1 => Just(Step::Rewind),
            2 => Just(Step::Drop),
            2 => (0usize..4).prop_map(Step::DropAt),
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_list_of_frames_with_a_cursor(steps in prop::collection::vec(step(), 1..60)) {
            let mut log = Log::default();
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let (mut sent, mut ever, mut stamp, mut dropped) = (0usize, 0usize, 0u8, false);
            for step in steps {
                match step {
                    Step::Append(length) => {
                        stamp = stamp.wrapping_add(1);
                        let frame = vec![stamp; length];
                        log.append(length, |data| data.extend_from_slice(&frame));
                        model.push_back(frame);
                    }
                    Step::Send(max, frames) => {
                        let (mut out, mut want) = (BytesMut::new(), Vec::new());
                        log.send(max, frames, &mut out);
                        let mut ended_early = false;
                        for frame in model.iter().skip(sent).take(frames) {
                            ended_early = want.len() == out.len();
                            if want.len() + frame.len() > max || ended_early {
                                break;
                            }
                            want.extend_from_slice(frame);
                            sent += 1;
                        }
                        prop_assert!(out == want);
                        // Where something was dropped, a send may end.
                        let next = model.get(sent).map_or(usize::MAX, Vec::len);
                        prop_assert!(!ended_early || next > max - out.len() || dropped);
                        ever = ever.max(sent);
                    }
                    Step::Release(frames) => {
                        let frames = frames.min(model.len());
                        model.drain(..frames);
                        (sent, ever) = (sent.saturating_sub(frames), ever.saturating_sub(frames));
                        log.release(frames);
                    }
                    Step::Skip => {
                        prop_assert_eq!(log.peek(), model.get(sent).map(|frame| &frame[..]));
                        sent += usize::from(sent < model.len());
                        ever = ever.max(sent);
                        log.skip();
                    }
                    Step::Drop => {
                        model.remove(ever);
                        dropped = true;
                        log.drop_at(ever);
                        let chunks: usize = log.chunks.iter().map(|chunk| chunk.data.len()).sum();
                        prop_assert!(chunks <= log.bytes() + 3 * (CHUNK + 90_000) + log.hole_bytes as usize);
                    }
                    Step::Rewind => {
                        sent = 0;
                        log.rewind();
                    }
                    Step::DropAt(at) if at < model.len() && sent == 0 => {
                        model.remove(at);
                        ever -= usize::from(at < ever);
                        dropped = true;
                        log.drop_at(at);
                    }
                    Step::DropAt(_) => {}
                }
                prop_assert_eq!(log.sent(), sent);
                prop_assert_eq!(log.len(), model.len());
                prop_assert_eq!(log.bytes(), model.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(log.sent_bytes(), model.iter().take(sent).map(Vec::len).sum::<usize>());
                prop_assert_eq!(log.frame(3), model.get(3).map(|frame| &frame[..]));
                prop_assert!(log.frames().eq(model.iter().map(|frame| &frame[..])));
            }
        }
    }

    #[test]
    fn what_is_dropped_behind_what_was_sent_gives_its_memory_back() {
        let mut log = Log::default();
        let append = |log: &mut Log| log.append(1000, |data| data.extend_from_slice(&[7; 1000]));
        (0..10).for_each(|_| append(&mut log));
        log.send(usize::MAX, usize::MAX, &mut BytesMut::new());
        for _ in 0..10_000 {
            append(&mut log);
            if log.len() > 100 {
                log.drop_at(10);
            }
        }
        assert_eq!((log.len(), log.bytes(), log.sent()), (100, 100_000, 10));
        assert!(log.chunks.len() <= 5 && log.holes.len() == 1);
        log.release(10);
        assert_eq!((log.len(), log.bytes(), log.holes.len()), (90, 90_000, 0));
    }

    #[test]
    fn a_steady_flow_keeps_to_two_chunks() {
        let mut log = Log::default();
        let mut out = BytesMut::new();
        for _ in 0..10_000 {
            log.append(100, |data| data.extend_from_slice(&[0; 100]));
            log.send(usize::MAX, usize::MAX, &mut out);
            log.release_sent();
            out.clear();
            assert!(log.chunks.len() <= 1);
        }
        assert_eq!((log.len(), log.bytes()), (0, 0));
    }
}
