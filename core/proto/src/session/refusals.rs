//! Publishes the server refused.
//!
//! A refusal counts once the server's confirmation has passed its publish: if the session is lost
//! before, the publish is sent again and its fate is open again.

use std::collections::{BTreeMap, VecDeque};

use crate::error::Error;

/// How many are remembered for those who ask late.
const REMEMBERED: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: BTreeMap<u64, Refusal>,
    known: VecDeque<(u64, Error)>,
    total: u64,
}

#[derive(Debug)]
pub(super) struct Refusal {
    /// The message's id.
    pub(super) id: String,
    pub(super) error: Error,
}

impl Refusals {
    pub(super) fn note(&mut self, number: u64, refusal: Refusal) {
        self.waiting.entry(number).or_insert(refusal);
    }

    /// The first one that counts, now that everything up to `number` is confirmed.
    pub(super) fn next(&mut self, number: u64) -> Option<(u64, Refusal)> {
        let first = self.waiting.first_entry().filter(|entry| *entry.key() <= number)?;
        let (number, refusal) = first.remove_entry();
        if self.known.len() == REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back((number, refusal.error.clone()));
        self.total += 1;
        Some((number, refusal))
    }

    /// One that came after the confirmation: what was accepted could not be passed on.
    pub(super) fn count_late(&mut self) {
        self.total += 1;
    }

    /// The session is lost: what does not count yet never will.
    pub(super) fn restart(&mut self) {
        self.waiting.clear();
    }

    /// Why a publish was refused, of the last ones that were.
    pub(super) fn find(&self, number: u64) -> Option<&Error> {
        let at = self.known.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.known[at].1)
    }

    /// How many ever.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}
