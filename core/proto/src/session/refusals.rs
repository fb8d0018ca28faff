//! Publishes the server refused.
//!
//! A refusal counts once the server's confirmation has passed its publish: if the session is lost
//! before, the publish is sent again and its fate is open again.

use std::collections::BTreeMap;

use crate::error::Error;

/// How many are remembered for those who ask late.
const REMEMBERED: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: BTreeMap<u64, Refusal>,
    known: BTreeMap<u64, Error>,
    total: u64,
}

#[derive(Debug)]
pub(super) struct Refusal {
    /// The message's id.
    pub(super) id: String,
    /// The message is private: no record quotes its id.
    pub(super) private: bool,
    pub(super) error: Error,
}

impl Refusals {
    pub(super) fn note(&mut self, number: u64, refusal: Refusal) {
        self.waiting.entry(number).or_insert(refusal);
    }

    /// Takes one back that does not count yet.
    pub(super) fn withdraw(&mut self, number: u64) -> Option<Refusal> {
        self.waiting.remove(&number)
    }

    /// The first one that counts, now that everything up to `number` is confirmed.
    pub(super) fn next(&mut self, number: u64) -> Option<(u64, Refusal)> {
        let first = self.waiting.first_entry().filter(|entry| *entry.key() <= number)?;
        let (number, refusal) = first.remove_entry();
        self.remember(number, &refusal.error);
        Some((number, refusal))
    }

    /// Counts one, perhaps one that came after the confirmation: what was accepted could not be
    /// passed on. False if it is known.
    pub(super) fn remember(&mut self, number: u64, error: &Error) -> bool {
        if self.known.contains_key(&number) {
            return false;
        }
        if self.known.len() == REMEMBERED {
            self.known.pop_first();
        }
        self.known.insert(number, error.clone());
        self.total += 1;
        true
    }

    /// The session is lost: what does not count yet never will.
    pub(super) fn restart(&mut self) {
        self.waiting.clear();
    }

    /// Whether it was refused, and that does not count yet.
    pub(super) fn is_waiting(&self, number: u64) -> bool {
        self.waiting.contains_key(&number)
    }

    /// Why a publish was refused, of the last ones that were.
    pub(super) fn find(&self, number: u64) -> Option<&Error> {
        self.known.get(&number)
    }

    /// How many ever.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}
