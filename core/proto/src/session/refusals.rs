//! Publishes the server refused, remembered for those who ask late.

use std::collections::BTreeMap;

use crate::error::Error;

/// How many are remembered, beside those still in the outbox.
const REMEMBERED: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Refusals {
    errors: BTreeMap<u64, Error>,
    total: u64,
}

impl Refusals {
    /// False if it was known.
    pub(super) fn note(&mut self, number: u64, error: Error, accepted: u64) -> bool {
        if self.errors.insert(number, error).is_some() {
            return false;
        }
        self.total += 1;
        while self.errors.len() > REMEMBERED
            && self.errors.first_key_value().is_some_and(|(oldest, _)| *oldest <= accepted)
        {
            self.errors.pop_first();
        }
        true
    }

    pub(super) fn find(&self, number: u64) -> Option<&Error> {
        self.errors.get(&number)
    }

    /// How many above `accepted`.
    pub(super) fn after(&self, accepted: u64) -> u64 {
        self.errors.range(accepted + 1..).count() as u64
    }

    /// How many ever.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}
