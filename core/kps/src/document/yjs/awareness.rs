//! Who is at a document: cursors, names and colours, by the awareness protocol. Nothing of it is stored.

use std::{collections::BTreeMap, sync::Arc};

use super::lib0::{Reader, put_buffer, put_int};

/// One that says nothing for so long is gone: Yjs says the same.
const OUTDATED_MS: u64 = 30_000;
/// Bytes of one state, as JSON.
const MAX_STATE: usize = 64 << 10;
/// Clients of one connection: a proxy may speak for many.
const MAX_OF_ONE: usize = 1000;
/// Bytes of all states of one connection.
const MAX_BYTES: usize = 1 << 20;

/// Those that left, of whom echoes are known.
const MAX_GONE: usize = 10_000;

/// Which connection.
pub(crate) type PeerId = u64;

/// None: the server speaks for clients of the bus.
const SERVER: PeerId = 0;

/// Everybody who is there.
#[derive(Debug, Default)]
pub(crate) struct Awareness {
    clients: BTreeMap<u64, Present>,
    /// Who left lately: echoes of what they were do not bring them back.
    gone: BTreeMap<u64, Gone>,
    /// What the editors among them told, and is not told on the bus yet.
    news: Vec<(u64, Option<Arc<str>>)>,
}

#[derive(Debug)]
struct Present {
    clock: u64,
    state: Arc<str>,
    of: PeerId,
    heard: u64,
}

#[derive(Debug)]
struct Gone {
    clock: u64,
    /// The last connection there was then.
    before: PeerId,
    at: u64,
}

impl Awareness {
    /// What a connection says of whom it speaks for; returns of whom that was new: the others are told.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn take(
        &mut self,
        update: &[u8],
        of: PeerId,
        now_ms: u64,
    ) -> Result<Vec<u64>, &'static str> {
        let mut reader = Reader::new(update);
        let mut changed = Vec::new();
        for _ in 0..reader.count(3).ok_or(CUT)? {
            let client = reader.int().ok_or(CUT)?;
            let clock = reader.int().ok_or(CUT)?;
            let state = reader.text().ok_or(CUT)?;
            check(state)?;
            if self.take_one(client, clock, state, of, now_ms)? {
                changed.push(client);
            }
        }
        Ok(changed)
    }

    fn take_one(
        &mut self,
        client: u64,
        clock: u64,
        state: &str,
        of: PeerId,
        now: u64,
    ) -> Result<bool, &'static str> {
        let found = self.clients.get(&client);
        if found.is_some_and(|it| it.of == SERVER) {
            return Ok(false);
        }
        let is_new = match (found, self.gone.get(&client)) {
            (Some(present), _) if state == NULL => clock >= present.clock,
            (Some(present), _) => clock > present.clock,
            (None, _) if state == NULL => false,
            // One that comes back over a new connection goes on where it was.
            (None, Some(gone)) => clock > gone.clock || (clock == gone.clock && of > gone.before),
            (None, None) => true,
        };
        if !is_new {
            return Ok(false);
        }
        if state == NULL {
            self.remove(client, clock, of, now);
            return Ok(true);
        }
        let (count, bytes) = self.of(of, client);
        if count >= MAX_OF_ONE || bytes + state.len() > MAX_BYTES {
            return Err("a connection speaks for too many");
        }
        // It says again what it said, to be known to be there.
        if found.is_none_or(|it| *it.state != *state) {
            self.news.push((client, Some(state.into())));
        }
        self.gone.remove(&client);
        self.clients.insert(client, Present { clock, state: state.into(), of, heard: now });
        Ok(true)
    }

    /// A client of the bus says what it is, or leaves; returns whether that is new: all are told.
    pub(crate) fn show(
        &mut self,
        client: u64,
        state: Option<Arc<str>>,
        last: PeerId,
        now: u64,
    ) -> bool {
        let before = self.clients.get(&client).filter(|it| it.of == SERVER);
        let clock = now.max(before.map_or(0, |it| it.clock + 1));
        match state {
            Some(state) if before.is_some_and(|it| it.state == state) => return false,
            Some(state) => {
                let there = Present { clock, state, of: SERVER, heard: now };
                self.clients.insert(client, there);
            }
            None if before.is_none() => return false,
            None => {
                self.clients.remove(&client);
                self.gone.insert(client, Gone { clock, before: last, at: now });
            }
        }
        true
    }

    /// Whom else the connection speaks for, and in how many bytes.
    fn of(&self, of: PeerId, but: u64) -> (usize, usize) {
        let others = self.clients.iter().filter(|(client, it)| it.of == of && **client != but);
        others.fold((0, 0), |(count, bytes), (_, it)| (count + 1, bytes + it.state.len()))
    }

    fn remove(&mut self, client: u64, clock: u64, before: PeerId, now: u64) {
        self.clients.remove(&client);
        if self.gone.len() >= MAX_GONE {
            self.gone.pop_first();
        }
        self.gone.insert(client, Gone { clock, before, at: now });
        self.news.push((client, None));
    }

    /// The connection ended; returns who left with it. `last`: the last connection there was.
    pub(crate) fn leave(&mut self, of: PeerId, last: PeerId, now_ms: u64) -> Vec<u64> {
        self.remove_where(|it| it.of == of, last, now_ms)
    }

    /// Who said nothing for too long is gone; returns who that is.
    pub(crate) fn expire(&mut self, last: PeerId, now_ms: u64) -> Vec<u64> {
        self.gone.retain(|_, gone| now_ms.saturating_sub(gone.at) < OUTDATED_MS);
        let is_over =
            |it: &Present| it.of != SERVER && now_ms.saturating_sub(it.heard) >= OUTDATED_MS;
        self.remove_where(is_over, last, now_ms)
    }

    fn remove_where(
        &mut self,
        which: impl Fn(&Present) -> bool,
        last: PeerId,
        now: u64,
    ) -> Vec<u64> {
        let all = self.clients.iter().filter(|(_, it)| which(it));
        let gone: Vec<_> = all.map(|(client, it)| (*client, it.clock)).collect();
        gone.iter().for_each(|(client, clock)| self.remove(*client, *clock, last, now));
        gone.into_iter().map(|(client, _)| client).collect()
    }

    /// Everybody who is there; `None`: nobody is.
    pub(crate) fn all(&self) -> Option<Vec<u8>> {
        (!self.clients.is_empty()).then(|| self.said(self.clients.keys().copied()))
    }

    /// Editors that came, changed or left since it was asked last; `None`: left.
    pub(crate) fn news(&mut self) -> Vec<(u64, Option<Arc<str>>)> {
        std::mem::take(&mut self.news)
    }

    /// The editors that are there, with what they say.
    pub(crate) fn states(&self) -> impl Iterator<Item = (u64, &Arc<str>)> {
        self.clients
            .iter()
            .filter(|(_, it)| it.of != SERVER)
            .map(|(client, it)| (*client, &it.state))
    }

    /// What these say now, or that they left.
    pub(crate) fn said(&self, clients: impl ExactSizeIterator<Item = u64>) -> Vec<u8> {
        let mut out = Vec::new();
        put_int(&mut out, clients.len() as u64);
        for client in clients {
            let (clock, state) = match self.clients.get(&client) {
                Some(present) => (present.clock, &*present.state),
                None => (self.gone.get(&client).map_or(0, |gone| gone.clock), NULL),
            };
            put_int(&mut out, client);
            put_int(&mut out, clock);
            put_buffer(&mut out, state.as_bytes());
        }
        out
    }
}

const CUT: &str = "an awareness update ends too early";
const NULL: &str = "null";

fn check(state: &str) -> Result<(), &'static str> {
    if state.len() > MAX_STATE {
        return Err("an awareness state is too large");
    }
    let parsed = serde_json::from_str::<serde::de::IgnoredAny>(state);
    parsed.map(drop).map_err(|_| "an awareness state is no JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(client: u64, clock: u64, state: &str) -> Vec<u8> {
        let mut out = vec![1];
        put_int(&mut out, client);
        put_int(&mut out, clock);
        put_buffer(&mut out, state.as_bytes());
        out
    }

    fn take(awareness: &mut Awareness, update: &[u8], of: PeerId, now: u64) -> bool {
        !awareness.take(update, of, now).unwrap().is_empty()
    }

    #[test]
    fn newer_states_replace_older_ones_and_echoes_do_nothing() {
        let mut all = Awareness::default();
        assert!(take(&mut all, &one(7, 1, "{\"a\":1}"), 1, 0));
        assert!(!take(&mut all, &one(7, 1, "{\"a\":1}"), 2, 0), "an echo");
        assert!(take(&mut all, &one(7, 2, "{\"a\":1}"), 1, 0), "it is there still");
        assert!(!take(&mut all, &one(7, 1, "{\"a\":0}"), 1, 0), "an old one");
        assert_eq!(all.all(), Some(one(7, 2, "{\"a\":1}")));
        assert_eq!(all.news(), [(7, Some("{\"a\":1}".into()))]);
        assert!(take(&mut all, &one(7, 2, "null"), 1, 0));
        assert_eq!((all.all(), all.news()), (None, vec![(7, None)]));
        assert!(!take(&mut all, &one(8, 5, "null"), 1, 0), "it never was there");
    }

    #[test]
    fn whom_a_connection_spoke_for_is_gone_with_it_and_comes_back_with_another() {
        let mut all = Awareness::default();
        take(&mut all, &one(7, 3, "{}"), 1, 0);
        take(&mut all, &one(8, 1, "{}"), 2, 0);
        assert_eq!(all.leave(1, 2, 0), [7]);
        assert_eq!(all.said([7].into_iter()), one(7, 3, "null"));
        assert!(all.leave(1, 2, 0).is_empty());
        assert!(!take(&mut all, &one(7, 3, "{}"), 2, 0), "an echo");
        assert!(take(&mut all, &one(7, 3, "{}"), 3, 0), "itself");
    }

    #[test]
    fn who_says_nothing_for_thirty_seconds_is_gone() {
        let mut all = Awareness::default();
        take(&mut all, &one(7, 1, "{}"), 1, 0);
        take(&mut all, &one(8, 1, "{}"), 1, 20_000);
        assert!(all.expire(1, 29_999).is_empty());
        assert_eq!(all.expire(1, 30_000), [7]);
        assert_eq!(all.said([7].into_iter()), one(7, 1, "null"));
        assert_eq!(all.states().count(), 1);
        all.expire(1, 60_000);
        assert_eq!((all.clients.len(), all.gone.len()), (0, 1));
    }

    #[test]
    fn a_client_of_the_bus_is_there_until_it_is_told_to_be_gone() {
        let mut all = Awareness::default();
        assert!(all.show(7, Some("{}".into()), 1, 5));
        assert_eq!(all.all(), Some(one(7, 5, "{}")));
        assert!(!all.show(7, Some("{}".into()), 1, 6), "it says the same");
        assert!(!take(&mut all, &one(7, 9, "{\"forged\":1}"), 1, 6));
        assert!(all.expire(1, 100_000).is_empty());
        assert_eq!(all.states().count(), 0);
        assert!(all.show(7, None, 1, 5));
        assert_eq!(all.said([7].into_iter()), one(7, 6, "null"));
        assert!(!all.show(7, None, 1, 5));
        assert!(all.news().is_empty(), "the bus knows");
    }

    #[test]
    fn nobody_says_too_much() {
        let mut all = Awareness::default();
        assert!(all.take(&one(1, 1, "{"), 1, 0).is_err());
        assert!(all.take(&one(1, 1, &format!("{:?}", "x".repeat(MAX_STATE))), 1, 0).is_err());
        assert!(all.take(&[200], 1, 0).is_err());
        for client in 0..MAX_OF_ONE as u64 {
            assert!(take(&mut all, &one(client, 1, "{}"), 1, 0));
        }
        assert!(all.take(&one(5000, 1, "{}"), 1, 0).is_err());
        assert!(take(&mut all, &one(5000, 1, "{}"), 2, 0));
    }
}
