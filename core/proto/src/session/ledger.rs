//! Counting, so that nothing is lost in silence.

use std::ops::AddAssign;

use super::event::SubId;
use crate::message::{Gap, GapReason};

/// What became of a subscription's messages, as this client saw it:
/// [`accepted`](Counts::accepted) = delivered + dropped + expired + cancelled + pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the handler or iterator.
    pub delivered: u64,
    /// Reported missing, by [`GapReason`] (its number is the index). Only what was counted.
    pub dropped: [u64; 8],
    /// Reported missing because their time to live ran out.
    pub expired: u64,
    /// Received, but the subscription ended before they were handed over.
    pub cancelled: u64,
    /// Received, not handed over yet.
    pub pending: u64,
    /// Gaps whose size nobody can know: the session was lost.
    pub unknown_gaps: u64,
}

impl Counts {
    /// All messages that this client heard of.
    pub fn accepted(&self) -> u64 {
        self.delivered + self.dropped_total() + self.expired + self.cancelled + self.pending
    }

    /// Reported missing, for all reasons but expiry.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(super) fn note(&mut self, gap: &Gap) {
        match (gap.count, gap.reason) {
            (None, _) => self.unknown_gaps += 1,
            (Some(count), GapReason::Expired) => self.expired = self.expired.saturating_add(count),
            (Some(count), reason) => {
                let sum = &mut self.dropped[reason as usize];
                *sum = sum.saturating_add(count);
            }
        }
    }

    pub(super) fn deliver(&mut self, messages: u64) {
        self.pending -= messages;
        self.delivered += messages;
    }

    pub(super) fn cancel_pending(&mut self) {
        self.cancelled += std::mem::take(&mut self.pending);
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.delivered += other.delivered;
        for (sum, count) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += count;
        }
        self.expired += other.expired;
        self.cancelled += other.cancelled;
        self.pending += other.pending;
        self.unknown_gaps += other.unknown_gaps;
    }
}

/// What a session counted since its start.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Over all subscriptions, closed ones included.
    pub totals: Counts,
    /// Each open subscription, the direct messages' first.
    pub subscriptions: Vec<SubscriptionLedger>,
    /// Publishes.
    pub published: PublishCounts,
}

/// One open subscription's counts.
#[derive(Clone, Debug)]
pub struct SubscriptionLedger {
    /// Its number.
    pub sub: SubId,
    /// Its pattern; empty for the direct messages.
    pub pattern: String,
    /// The counts.
    pub counts: Counts,
}

/// What became of the publishes: `total` = accepted + failed + dropped +
/// abandoned + pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishCounts {
    /// Calls of `publish` that succeeded.
    pub total: u64,
    /// Accepted by the server.
    pub accepted: u64,
    /// Refused by the server.
    pub failed: u64,
    /// Dropped as the oldest because the outbox was full.
    pub dropped: u64,
    /// Left in the outbox when the session was closed.
    pub abandoned: u64,
    /// In the outbox.
    pub pending: u64,
}
