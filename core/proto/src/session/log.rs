//! Encoded frames in the order they are sent, kept until the other side confirms them.
//!
//! The frames form one stream of bytes, cut between frames into chunks; places in it are offsets
//! from its beginning, so releasing and opening chunks moves no cursor. Beside its bytes a frame
//! costs four bytes for its length.

use std::collections::{VecDeque, vec_deque::Iter};

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
    sent_end: u64,
    sent: usize,
    ever_sent: usize,
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
        (self.end - self.front) as usize
    }

    /// Frames at the front that were sent on this connection.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// Their bytes.
    pub(super) fn sent_bytes(&self) -> usize {
        (self.sent_end - self.front) as usize
    }

    /// Frames at the front that were sent on any connection.
    pub(super) fn ever_sent(&self) -> usize {
        self.ever_sent
    }

    /// The first `frames` were sent on an earlier connection, though this log does not know it.
    pub(super) fn mark_ever_sent(&mut self, frames: usize) {
        self.ever_sent = self.ever_sent.max(frames);
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
        let frames = frames.min(self.unsent());
        let mut bytes = 0;
        let fitting = self
            .lengths
            .range(self.sent..self.sent + frames)
            .take_while(|length| {
                let fits = bytes + **length as usize <= max;
                bytes += if fits { **length as usize } else { 0 };
                fits
            })
            .count();
        self.copy(bytes, out);
        self.mark_sent(fitting, bytes);
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
        self.sent_end += bytes as u64;
        self.ever_sent = self.ever_sent.max(self.sent);
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
        Some(self.slice(self.offset(at), length))
    }

    /// As [`Log::frame`], to change it in place.
    pub(super) fn frame_mut(&mut self, at: usize) -> Option<&mut [u8]> {
        let length = *self.lengths.get(at)? as usize;
        let from = self.offset(at);
        let chunk = self.chunks.partition_point(|chunk| chunk.end() <= from);
        let Chunk { start, data } = &mut self.chunks[chunk];
        Some(&mut data[(from - *start) as usize..][..length])
    }

    /// Where the frame with this many before it begins, counted from the nearer end.
    fn offset(&self, at: usize) -> u64 {
        let sum = |lengths: Iter<'_, u32>| lengths.map(|length| u64::from(*length)).sum::<u64>();
        if at <= self.lengths.len() / 2 {
            self.front + sum(self.lengths.range(..at))
        } else {
            self.end - sum(self.lengths.range(at..))
        }
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
        let bytes: u64 = self.lengths.drain(..frames).map(u64::from).sum();
        self.front += bytes;
        self.sent = self.sent.saturating_sub(frames);
        self.sent_end = self.sent_end.max(self.front);
        self.ever_sent = self.ever_sent.saturating_sub(frames);
        while let Some(chunk) = self.chunks.front()
            && chunk.end() <= self.front
        {
            let Some(Chunk { mut data, .. }) = self.chunks.pop_front() else { break };
            if self.spare.is_none() && data.capacity() <= CHUNK {
                data.clear();
                self.spare = Some(data);
            }
        }
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
        self.sent = 0;
        self.sent_end = self.front;
    }

    /// Empties the log and hands out what it held.
    pub(super) fn take(&mut self) -> Log {
        std::mem::take(self)
    }

    /// The frames kept, oldest first.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut chunks = self.chunks.iter();
        let mut rest: &[u8] = match chunks.next() {
            Some(chunk) => &chunk.data[(self.front - chunk.start) as usize..],
            None => &[],
        };
        self.lengths.iter().map(move |length| {
            if rest.is_empty() {
                rest = chunks.next().map_or(&[], |chunk| &chunk.data);
            }
            let (frame, after) = rest.split_at(*length as usize);
            rest = after;
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
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![4 => 1usize..40, 1 => 20_000usize..90_000].prop_map(Step::Append),
            2 => (0usize..200_000, 0usize..9).prop_map(|(max, frames)| Step::Send(max, frames)),
            2 => (0usize..6).prop_map(Step::Release),
            1 => Just(Step::Skip),
            1 => Just(Step::Rewind),
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_list_of_frames_with_a_cursor(steps in prop::collection::vec(step(), 1..60)) {
            let mut log = Log::default();
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let (mut sent, mut stamp) = (0usize, 0u8);
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
                        for frame in model.iter().skip(sent).take(frames) {
                            if want.len() + frame.len() > max {
                                break;
                            }
                            want.extend_from_slice(frame);
                            sent += 1;
                        }
                        log.send(max, frames, &mut out);
                        prop_assert!(out == want);
                    }
                    Step::Release(frames) => {
                        let frames = frames.min(model.len());
                        model.drain(..frames);
                        sent = sent.saturating_sub(frames);
                        log.release(frames);
                    }
                    Step::Skip => {
                        prop_assert_eq!(log.peek(), model.get(sent).map(|frame| &frame[..]));
                        sent += usize::from(sent < model.len());
                        log.skip();
                    }
                    Step::Rewind => {
                        sent = 0;
                        log.rewind();
                    }
                }
                prop_assert_eq!(log.sent(), sent);
                prop_assert_eq!(log.len(), model.len());
                prop_assert_eq!(log.bytes(), model.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(log.sent_bytes(), model.iter().take(sent).map(Vec::len).sum::<usize>());
                prop_assert_eq!(log.frame(3), model.get(3).map(|frame| &frame[..]));
                let changed = log.frame_mut(3).map(|frame| frame.to_vec());
                prop_assert_eq!(changed, model.get(3).cloned());
                prop_assert!(log.frames().eq(model.iter().map(|frame| &frame[..])));
            }
        }
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
