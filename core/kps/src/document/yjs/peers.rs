//! The connections of a document's Yjs editors: what waits for each of them, and who is there.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    awareness::{Awareness, PeerId},
    protocol,
    untold::{News, Untold},
};
use crate::net::websocket::{self, Opcode};

/// Bytes that wait for a connection, beside what it asked for itself; with more it is closed: it comes back
/// and asks for what it misses.
const MAX_WAITING: usize = 8 << 20;

/// Time between two tellings, for each who is told: what costs so many of them much comes less often then, and
/// with few nobody waits.
const EACH: Duration = Duration::from_micros(100);
/// Shorter pauses are not worth a timer; longer ones would be seen.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of frames that are handed out together.
const TOGETHER: usize = 16 << 10;

/// Why a connection ends, as WebSocket close frames say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leave {
    /// RFC 6455 §7.4.
    pub(crate) code: u16,
    /// For people.
    pub(crate) reason: String,
}

impl Leave {
    pub(crate) fn new(code: u16, reason: impl Into<String>) -> Leave {
        Leave { code, reason: reason.into() }
    }
}

/// An editor's connection.
#[derive(Debug)]
pub(crate) struct Peer {
    id: PeerId,
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
    leave: Option<Leave>,
}

impl Peer {
    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    /// Something that it asked for.
    pub(crate) fn answer(&self, message: &[u8]) {
        let mut waiting = self.waiting.lock();
        // One answer may be larger than all that may wait; a second one waits for the first.
        if waiting.bytes >= MAX_WAITING {
            waiting.leave(too_slow());
        } else {
            waiting.push(frame(message));
        }
        drop(waiting);
        self.news.notify_one();
    }

    fn tell(&self, frame: &Bytes) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + frame.len() > MAX_WAITING && !waiting.frames.is_empty() {
            waiting.leave(too_slow());
        } else {
            waiting.push(frame.clone());
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// It is to end.
    pub(crate) fn dismiss(&self, leave: Leave) {
        self.waiting.lock().leave(leave);
        self.news.notify_one();
    }

    /// The next messages for it, as WebSocket frames.
    ///
    /// # Errors
    /// It is to end; what came before is said first, unless it is too slow.
    pub(crate) async fn next(&self) -> Result<Bytes, Leave> {
        loop {
            let news = self.news.notified();
            {
                let mut waiting = self.waiting.lock();
                if let Some(frames) = waiting.next() {
                    return Ok(frames);
                }
                if let Some(leave) = &waiting.leave {
                    return Err(leave.clone());
                }
            }
            news.await;
        }
    }
}

impl Waiting {
    fn push(&mut self, frame: Bytes) {
        if self.leave.is_none() {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    /// The next frame, and those after it that fit into one write.
    fn next(&mut self) -> Option<Bytes> {
        let mut length = 0;
        let fits = |frame: &&Bytes| {
            length += frame.len();
            length <= TOGETHER
        };
        let count = self.frames.iter().take_while(fits).count();
        let next = match count {
            0 | 1 => self.frames.pop_front()?,
            _ => self.frames.drain(..count).collect::<Vec<_>>().concat().into(),
        };
        self.bytes -= next.len();
        Some(next)
    }

    fn leave(&mut self, leave: Leave) {
        if leave.code == SLOW {
            self.frames.clear();
            self.bytes = 0;
        }
        self.leave.get_or_insert(leave);
    }
}

/// "Try again later" (IANA's registry of close codes).
const SLOW: u16 = 1013;

fn too_slow() -> Leave {
    Leave::new(SLOW, "it reads too slowly: connect again, and sync")
}

/// A message as a WebSocket carries it.
fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(websocket::MAX_HEADER + message.len());
    websocket::put_frame(&mut frame, Opcode::Binary, message, None);
    frame.freeze()
}

/// Who is connected to a document.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    all: Vec<Arc<Peer>>,
    last: PeerId,
    pub(crate) awareness: Awareness,
    untold: Untold,
    /// Somebody was asked to tell what is untold.
    is_asked: bool,
}

impl Peers {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A new one; it is told what is known here, and who is there.
    pub(crate) fn enter(&mut self, state_vector: &[u8]) -> Arc<Peer> {
        self.last += 1;
        let peer = Peer { id: self.last, waiting: Mutex::default(), news: Notify::new() };
        peer.answer(&protocol::step_1(state_vector));
        if let Some(all) = self.awareness.all() {
            peer.answer(&protocol::awareness(&all));
        }
        let peer = Arc::new(peer);
        self.all.push(peer.clone());
        peer
    }

    /// One has left.
    pub(crate) fn leave(&mut self, peer: &Peer, now_ms: u64) {
        self.all.retain(|it| it.id != peer.id);
        let gone = self.awareness.leave(peer.id, self.last, now_ms);
        self.tell_of(gone);
    }

    /// An update that `from` made, or somebody elsewhere. `waits`: for something that is not there.
    pub(crate) fn updated(&mut self, update: &Bytes, from: Option<PeerId>, waits: bool) {
        if self.all.iter().all(|peer| Some(peer.id) == from) {
            return;
        }
        if waits {
            // Merged, it would have a hole.
            self.tell_all();
        }
        self.untold.add_update(update.clone(), from);
        if waits || self.untold.is_much() {
            self.tell_all();
        }
    }

    /// What one says of who is there.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn present(
        &mut self,
        update: &[u8],
        peer: &Peer,
        now_ms: u64,
    ) -> Result<(), &'static str> {
        let clients = self.awareness.take(update, peer.id, now_ms)?;
        self.untold.add_clients(clients, Some(peer.id));
        Ok(())
    }

    /// A client of the bus says what it is, or leaves.
    pub(crate) fn show(&mut self, client: &str, state: Option<Arc<str>>, now_ms: u64) {
        let hash = ring::digest::digest(&ring::digest::SHA256, client.as_bytes());
        // Yjs' own ids have 32 bits.
        let number = hash.as_ref().first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
        if self.awareness.show(number.into(), state, self.last, now_ms) {
            self.tell_of(vec![number.into()]);
        }
    }

    /// Forgets who said nothing for too long.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let gone = self.awareness.expire(self.last, now_ms);
        self.tell_of(gone);
    }

    /// All are to end.
    pub(crate) fn dismiss(&mut self, leave: &Leave) {
        self.tell_all();
        self.all.iter().for_each(|peer| peer.dismiss(leave.clone()));
    }

    /// Whether somebody has to be asked to [tell](Self::tell_asked) what is untold.
    pub(crate) fn asks(&mut self) -> bool {
        !self.untold.is_empty() && !std::mem::replace(&mut self.is_asked, true)
    }

    /// Tells what is untold; returns after which time who was asked to looks again.
    pub(crate) fn tell_asked(&mut self) -> Option<Duration> {
        let is_news = !self.untold.is_empty();
        self.tell_all();
        let pause = EACH * u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.is_asked = is_news && pause >= LEAST_PAUSE;
        self.is_asked.then_some(pause.min(LONGEST_PAUSE))
    }

    /// Tells what is untold.
    pub(crate) fn tell_all(&mut self) {
        for News { what, except } in self.untold.take_updates() {
            self.tell(&protocol::update(&what), except);
        }
        // After what was done: a cursor may be in it.
        if let Some(News { what, except }) = self.untold.take_clients() {
            let said = self.awareness.said(what.into_iter());
            self.tell(&protocol::awareness(&said), except);
        }
    }

    /// Tells of those at once.
    fn tell_of(&mut self, clients: Vec<u64>) {
        if !clients.is_empty() {
            self.untold.add_clients(clients, None);
            self.tell_all();
        }
    }

    fn tell(&self, message: &[u8], except: Option<PeerId>) {
        let mut others = self.all.iter().filter(|peer| Some(peer.id) != except).peekable();
        if others.peek().is_some() {
            let frame = frame(message);
            others.for_each(|peer| peer.tell(&frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_are_told_at_once_and_then_again_after_a_pause() {
        let mut peers = Peers::default();
        let all: Vec<_> = (0..20).map(|_| peers.enter(&[0])).collect();
        let update = |peers: &mut Peers| {
            peers.updated(&Bytes::from_static(yrs::Update::EMPTY_V1), Some(1), false);
            peers.asks()
        };
        all[1].next().await.unwrap();
        assert!(update(&mut peers));
        assert_eq!(peers.tell_asked(), Some(EACH * 20));
        all[1].next().await.unwrap();
        for _ in 0..3 {
            assert!(!update(&mut peers), "who was asked looks again");
        }
        assert_eq!(peers.tell_asked(), Some(EACH * 20));
        let told = frame(&protocol::update(yrs::Update::EMPTY_V1));
        assert_eq!(all[1].next().await.unwrap(), told, "three are one");
        assert_eq!(peers.tell_asked(), None, "nothing came");
        assert!(update(&mut peers));
        (0..1000).for_each(|_| drop(peers.enter(&[0])));
        assert_eq!(peers.tell_asked(), Some(LONGEST_PAUSE));
    }

    #[tokio::test]
    async fn one_that_reads_too_slowly_is_dismissed_and_holds_no_memory() {
        let mut peers = Peers::default();
        let (slow, other) = (peers.enter(&[0]), peers.enter(&[0]));
        for _ in 0..9 {
            peers.updated(&vec![0; 1 << 20].into(), Some(other.id()), false);
        }
        assert_eq!(slow.next().await.unwrap_err().code, 1013);
        assert_eq!(other.next().await.unwrap(), frame(&protocol::step_1(&[0])));
        other.dismiss(Leave::new(1001, "bye"));
        assert_eq!(other.next().await.unwrap_err().reason, "bye");
        assert_eq!(slow.waiting.lock().bytes, 0);
    }

    #[tokio::test]
    async fn everybody_but_the_one_it_is_from_is_told() {
        let mut peers = Peers::default();
        let (one, other) = (peers.enter(&[0]), peers.enter(&[0]));
        for peer in [&one, &other] {
            assert_eq!(peer.next().await.unwrap(), frame(&protocol::step_1(&[0])));
        }
        peers.updated(&Bytes::from_static(b"new"), Some(one.id()), false);
        assert!(peers.asks() && !peers.asks(), "one asks");
        assert_eq!(peers.tell_asked(), None, "they are few");
        assert_eq!(other.next().await.unwrap(), frame(&protocol::update(b"new")));
        peers.present(&[1, 7, 1, 2, b'{', b'}'], &other, 0).unwrap();
        assert!(peers.asks());
        peers.tell_asked();
        let there = frame(&protocol::awareness(&[1, 7, 1, 2, b'{', b'}']));
        assert_eq!(one.next().await.unwrap(), there);
        let late = peers.enter(&[0]);
        assert_eq!(late.next().await.unwrap(), [frame(&protocol::step_1(&[0])), there].concat());
        peers.leave(&other, 0);
        let gone = protocol::awareness(&[1, 7, 1, 4, b'n', b'u', b'l', b'l']);
        assert_eq!(one.next().await.unwrap(), frame(&gone));
    }

    #[tokio::test]
    async fn what_waits_together_is_handed_out_together_up_to_a_bound() {
        let mut peers = Peers::default();
        let peer = peers.enter(&[0]);
        let first = peer.next().await.unwrap();
        for length in [1, TOGETHER, 2, 3] {
            peer.answer(&vec![0; length]);
        }
        for together in [&[1][..], &[TOGETHER], &[2, 3]] {
            let frames: Vec<_> = together.iter().map(|length| frame(&vec![0; *length])).collect();
            assert_eq!(peer.next().await.unwrap(), frames.concat());
        }
        assert_eq!(first, frame(&protocol::step_1(&[0])));
        assert_eq!(peer.waiting.lock().bytes, 0);
    }
}
