//! Publishes that ask for more than every server gives: `to`, `private`, and offline policies.

use std::collections::{HashMap, VecDeque};

use crate::{
    error::{Error, ErrorKind},
    message::{Extras, Offline},
};

/// The kept publishes with such options.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// Oldest first.
    kept: VecDeque<Kept>,
    /// The newest one of each topic with the offline policy `latest`.
    newest: HashMap<Box<str>, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    number: u64,
    private: bool,
    in_memory: bool,
}

/// How many topics may be remembered beside those that still wait.
const SPARE: usize = 64;

impl Policies {
    /// Takes note of a publish. Returns the one that waits with the policy `latest` on its topic.
    pub(super) fn note(
        &mut self,
        number: u64,
        topic: Option<&str>,
        extras: &Extras,
    ) -> Option<u64> {
        if extras.is_plain() {
            return None;
        }
        let (private, in_memory) = (extras.private, stays_in_memory(extras));
        self.kept.push_back(Kept { number, private, in_memory });
        let topic = topic.filter(|_| extras.offline == Offline::Latest)?;
        let oldest = self.kept.front().map_or(number, |first| first.number);
        if self.newest.len() > 2 * self.kept.len() + SPARE {
            self.newest.retain(|_, number| *number >= oldest);
        }
        match self.newest.get_mut(topic) {
            Some(newest) => Some(std::mem::replace(newest, number)),
            None => {
                self.newest.insert(topic.into(), number);
                None
            }
        }
    }

    /// Everything up to `number` is no longer kept.
    pub(super) fn release(&mut self, number: u64) {
        while self.kept.front().is_some_and(|first| first.number <= number) {
            self.kept.pop_front();
        }
        if self.kept.is_empty() && !self.newest.is_empty() {
            self.newest = HashMap::default();
        }
    }

    pub(super) fn is_private(&self, number: u64) -> bool {
        self.find(number).is_some_and(|kept| kept.private)
    }

    /// Whether this publish is never on the host's disk.
    pub(super) fn is_in_memory(&self, number: u64) -> bool {
        self.find(number).is_some_and(|kept| kept.in_memory)
    }

    fn find(&self, number: u64) -> Option<&Kept> {
        let found = self.kept.binary_search_by_key(&number, |kept| kept.number);
        found.ok().map(|at| &self.kept[at])
    }
}

/// Whether a message with these options is never written to the host's disk: it is private, or does not
/// wait for a connection.
pub(super) fn stays_in_memory(extras: &Extras) -> bool {
    extras.private || extras.offline == Offline::Drop
}

/// What a publish that only newer servers understand fails with.
pub(super) fn unsupported() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "this server is older than the options `to`, `private` and `offline` and would deliver the \
         message to everybody; update the server, or leave them out",
    )
}

/// Why a publish with the policy `latest` failed.
pub(super) fn replaced() -> Error {
    Error::new(
        ErrorKind::Cancelled,
        "it was replaced by a newer one of its topic while the client was offline (offline=\"latest\")",
    )
}

/// Why a publish with the policy `drop` failed.
pub(super) fn offline() -> Error {
    Error::new(
        ErrorKind::NotConnected,
        "the client is offline and the message does not wait (offline=\"drop\"); publish it again when \
         the client is connected",
    )
}
