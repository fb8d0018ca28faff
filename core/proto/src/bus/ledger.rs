//! Where every accepted message went.

use std::ops::Add;

use crate::message::GapReason;

/// accepted = delivered + dropped + expired + cancelled + pending, at every moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Messages routed to the subscription.
    pub accepted: u64,
    /// Messages the client reported as handed to its handler or iterator.
    pub delivered: u64,
    /// Messages dropped by a full queue or with a client that did not come back.
    pub dropped: u64,
    /// Messages whose time to live ran out.
    pub expired: u64,
    /// Messages still queued when the client unsubscribed.
    pub cancelled: u64,
    /// Messages queued or on their way.
    pub pending: u64,
}

impl Ledger {
    /// One more message that was routed and is not handed out.
    pub(super) fn miss(&mut self, reason: GapReason) {
        self.accepted += 1;
        match reason {
            GapReason::Expired => self.expired += 1,
            _ => self.dropped += 1,
        }
    }

    /// Whether nothing is missing.
    pub fn is_balanced(&self) -> bool {
        self.unaccounted() == 0
    }

    /// Accepted messages that no other column names; always 0.
    pub fn unaccounted(&self) -> i64 {
        let named = self.delivered + self.dropped + self.expired + self.cancelled + self.pending;
        self.accepted.wrapping_sub(named).cast_signed()
    }
}

impl Add for Ledger {
    type Output = Ledger;
    fn add(self, other: Ledger) -> Ledger {
        Ledger {
            accepted: self.accepted + other.accepted,
            delivered: self.delivered + other.delivered,
            dropped: self.dropped + other.dropped,
            expired: self.expired + other.expired,
            cancelled: self.cancelled + other.cancelled,
            pending: self.pending + other.pending,
        }
    }
}
