//! The connections of a document's Yjs editors: what waits for each of them, and who is there.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    awareness::{Awareness, PeerId},
    protocol,
};

/// Bytes that wait for a connection, beside what it asked for itself; with more it is closed: it comes back
/// and asks for what it misses.
const MAX_WAITING: usize = 8 << 20;

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
    messages: VecDeque<Bytes>,
    bytes: usize,
    leave: Option<Leave>,
}

impl Peer {
    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    /// Something that it asked for.
    pub(crate) fn answer(&self, message: Vec<u8>) {
        let mut waiting = self.waiting.lock();
        // One answer may be larger than all that may wait; a second one waits for the first.
        if waiting.bytes >= MAX_WAITING {
            waiting.leave(too_slow());
        } else {
            waiting.push(message.into());
        }
        drop(waiting);
        self.news.notify_one();
    }

    fn tell(&self, message: &Bytes) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + message.len() > MAX_WAITING && !waiting.messages.is_empty() {
            waiting.leave(too_slow());
        } else {
            waiting.push(message.clone());
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// It is to end.
    pub(crate) fn dismiss(&self, leave: Leave) {
        self.waiting.lock().leave(leave);
        self.news.notify_one();
    }

    /// The next message for it.
    ///
    /// # Errors
    /// It is to end; what came before is said first, unless it is too slow.
    pub(crate) async fn next(&self) -> Result<Bytes, Leave> {
        loop {
            let news = self.news.notified();
            {
                let mut waiting = self.waiting.lock();
                if let Some(message) = waiting.messages.pop_front() {
                    waiting.bytes -= message.len();
                    return Ok(message);
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
    fn push(&mut self, message: Bytes) {
        if self.leave.is_none() {
            self.bytes += message.len();
            self.messages.push_back(message);
        }
    }

    fn leave(&mut self, leave: Leave) {
        if leave.code == SLOW {
            self.messages.clear();
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

/// Who is connected to a document.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    all: Vec<Arc<Peer>>,
    last: PeerId,
    pub(crate) awareness: Awareness,
}

impl Peers {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A new one; it is told what is known here, and who is there.
    pub(crate) fn enter(&mut self, state_vector: &[u8]) -> Arc<Peer> {
        self.last += 1;
        let peer = Peer { id: self.last, waiting: Mutex::default(), news: Notify::new() };
        peer.answer(protocol::step_1(state_vector));
        if let Some(all) = self.awareness.all() {
            peer.answer(protocol::awareness(&all));
        }
        let peer = Arc::new(peer);
        self.all.push(peer.clone());
        peer
    }

    /// One has left.
    pub(crate) fn leave(&mut self, peer: &Peer, now_ms: u64) {
        self.all.retain(|it| it.id != peer.id);
        if let Some(news) = self.awareness.leave(peer.id, self.last, now_ms) {
            self.tell(protocol::awareness(&news), None);
        }
    }

    /// An update that `from` made, or somebody elsewhere.
    pub(crate) fn updated(&self, update: &[u8], from: Option<PeerId>) {
        if self.all.iter().any(|peer| Some(peer.id) != from) {
            self.tell(protocol::update(update), from);
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
        if let Some(news) = self.awareness.take(update, peer.id, now_ms)? {
            self.tell(protocol::awareness(&news), Some(peer.id));
        }
        Ok(())
    }

    /// A client of the bus says what it is, or leaves.
    pub(crate) fn show(&mut self, client: &str, state: Option<Arc<str>>, now_ms: u64) {
        let hash = ring::digest::digest(&ring::digest::SHA256, client.as_bytes());
        // Yjs' own ids have 32 bits.
        let number = hash.as_ref().first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
        if let Some(news) = self.awareness.show(number.into(), state, self.last, now_ms) {
            self.tell(protocol::awareness(&news), None);
        }
    }

    /// Forgets who said nothing for too long.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        if let Some(news) = self.awareness.expire(self.last, now_ms) {
            self.tell(protocol::awareness(&news), None);
        }
    }

    /// All are to end.
    pub(crate) fn dismiss(&self, leave: &Leave) {
        self.all.iter().for_each(|peer| peer.dismiss(leave.clone()));
    }

    fn tell(&self, message: Vec<u8>, except: Option<PeerId>) {
        let message = Bytes::from(message);
        for peer in self.all.iter().filter(|peer| Some(peer.id) != except) {
            peer.tell(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_reads_too_slowly_is_dismissed_and_holds_no_memory() {
        let mut peers = Peers::default();
        let (slow, other) = (peers.enter(&[0]), peers.enter(&[0]));
        for _ in 0..9 {
            peers.updated(&vec![0; 1 << 20], Some(other.id()));
        }
        assert_eq!(slow.next().await.unwrap_err().code, 1013);
        assert_eq!(other.next().await.unwrap(), protocol::step_1(&[0]));
        other.dismiss(Leave::new(1001, "bye"));
        assert_eq!(other.next().await.unwrap_err().reason, "bye");
        assert_eq!(slow.waiting.lock().bytes, 0);
    }

    #[tokio::test]
    async fn everybody_but_the_one_it_is_from_is_told() {
        let mut peers = Peers::default();
        let (one, other) = (peers.enter(&[0]), peers.enter(&[0]));
        for peer in [&one, &other] {
            assert_eq!(peer.next().await.unwrap(), protocol::step_1(&[0]));
        }
        peers.updated(b"new", Some(one.id()));
        assert_eq!(other.next().await.unwrap(), protocol::update(b"new"));
        peers.present(&[1, 7, 1, 2, b'{', b'}'], &other, 0).unwrap();
        assert_eq!(one.next().await.unwrap(), protocol::awareness(&[1, 7, 1, 2, b'{', b'}']));
        let late = peers.enter(&[0]);
        late.next().await.unwrap();
        assert_eq!(late.next().await.unwrap(), protocol::awareness(&[1, 7, 1, 2, b'{', b'}']));
        peers.leave(&other, 0);
        let gone = protocol::awareness(&[1, 7, 1, 4, b'n', b'u', b'l', b'l']);
        assert_eq!(one.next().await.unwrap(), gone);
    }
}
